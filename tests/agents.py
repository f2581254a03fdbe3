"""Agents of every kind for the tests of exported ones, untrained and small, whose actions vary."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib import QRDQN, TQC, CrossQ, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_ncde import with_memory
from sb3_ncde.deploy import export_numpy
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.wrappers import ActionMaskObservation
from tests.envs import MaskedWalk, RandomWalk

BOX = spaces.Box(np.array([-2, -1], np.float32), np.array([1, 3], np.float32))


DISCRETE, MULTI, BINARY = spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)


N = 3


class Lossy(gym.ObservationWrapper[Any, Any, Any]):
    """Takes a third of the values of a walk away."""

    def observation(self, observation: Any) -> Any:
        walk = observation["walk"] if isinstance(observation, dict) else observation
        lost = np.where(self.np_random.random(walk.shape) < 0.3, np.float32(np.nan), walk)
        return observation | {"walk": lost} if isinstance(observation, dict) else lost


class ChannelsLast(gym.ObservationWrapper[Any, Any, Any]):
    """Shows images as cameras give them."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def observation(self, observation: Any) -> Any:
        return np.moveaxis(observation, 0, -1)


def walks(*wrappers: Any, of: type[RandomWalk] = RandomWalk, **kwargs: Any) -> DummyVecEnv:
    """Return N walks, which show the same with the same seed, whatever is done in them."""

    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = of(longest=13, **kwargs)
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return DummyVecEnv([make] * N)


def recurrent(policy: str, env: Any, **kwargs: Any) -> RecurrentPPO:
    arguments: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "device": "cpu", "seed": 0}
    ppo = {name: kwargs.pop(name) for name in ("use_sde",) if name in kwargs}
    return RecurrentPPO(policy, env, policy_kwargs={"history_length": 3, **kwargs}, **arguments, **ppo)


def shaken(model: Any) -> Any:
    """Return a model whose actions depend on all that it observes."""
    generator = th.Generator().manual_seed(0)
    for name, tensor in model.policy.named_parameters():
        if "log_std" not in name:
            inputs = max(1, tensor.numel() // len(tensor))
            tensor.data += 0.5 / inputs**0.5 * th.randn(tensor.shape, generator=generator)
    for name, tensor in model.policy.named_buffers():
        if name.endswith(("scale.scale", "scale.mean_square")):
            tensor.data.uniform_(0.5, 2.0, generator=generator)
    return model


def normalized(env: Any, **kwargs: Any) -> VecNormalize:
    """Return environments normalised by statistics of some steps."""
    wrapped = VecNormalizeObserved(env, **kwargs)
    wrapped.reset()
    for _ in range(20):
        wrapped.step(np.stack([env.action_space.sample() for _ in range(N)]))
    wrapped.training = False
    return wrapped


MIXED = dict(time_key="time", dt=0.7, missing_values=True, traces=[2.0, 8.0])


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "box": (partial(walks, action_space=BOX), lambda env: recurrent("NCDEPolicy", env, hop_length=1)),
    "normalized, missing values, elapsed, traces": (
        partial(walks, Lossy, observation="dict", action_space=DISCRETE),
        lambda env: recurrent("MultiInputNCDEPolicy", normalized(env, skip=["time"]), **MIXED),
    ),
    "timestamps in a column, hermite, rk4, projection": (
        partial(walks, observation="column", time_kind="timestamp", action_space=MULTI),
        lambda env: recurrent(
            "NCDEPolicy",
            normalized(env, skip=[1]),
            time_key=1,
            time_kind="timestamp",
            interpolation="hermite",
            solver="rk4",
            control_size=2,
            traces=True,
            history_length=5,
            hop_length=2,
        ),
    ),
    "timestamps under a key, rectilinear, two encoders": (
        partial(walks, observation="dict_scalar", time_kind="timestamp", action_space=BINARY),
        lambda env: recurrent(
            "MultiInputNCDEPolicy",
            env,
            time_key="time",
            time_kind="timestamp",
            interpolation="rectilinear",
            solver_steps=2,
            share_encoder=False,
            feature_norm="tanh",
            skip=False,
        ),
    ),
    "image, channels last": (
        partial(walks, ChannelsLast, observation="image", action_space=DISCRETE),
        lambda env: recurrent("CnnNCDEPolicy", env, feature_size=5, feature_norm="none"),
    ),
    "dict with an image": (
        partial(walks, observation="dict_image", action_space=BOX),
        lambda env: recurrent(
            "MultiInputNCDEPolicy", normalized(env), share_features_extractor=False, squash_output=True, use_sde=True
        ),
    ),
    "mask": (
        partial(walks, ActionMaskObservation, of=MaskedWalk, observation="dict", action_space=MULTI),
        lambda env: recurrent("MultiInputNCDEPolicy", env, action_mask_key="action_mask", history_length=1),
    ),
    "mask of bits": (
        partial(walks, ActionMaskObservation, of=MaskedWalk, action_space=BINARY),
        lambda env: recurrent("MultiInputNCDEPolicy", env, action_mask_key="action_mask"),
    ),
    "discrete observations": (
        partial(walks, observation="discrete", action_space=BOX),
        lambda env: recurrent("NCDEPolicy", env, field_depth=0, path_in_field=False, time_channel=False, rates=False),
    ),
    "critic that sees more": (
        partial(walks, observation="dict", action_space=DISCRETE),
        lambda env: recurrent("MultiInputNCDEPolicy", env, time_key="time", critic_keys=["flag"], feature_norm="unit"),
    ),
    "PPO, several discrete observations": (
        partial(walks, observation="multi_discrete", action_space=DISCRETE),
        lambda env: with_memory(PPO, env, history_length=4, n_steps=8, batch_size=8, device="cpu"),
    ),
    "PPO, two encoders": (
        partial(walks, Lossy, action_space=BOX),
        lambda env: with_memory(
            PPO,
            normalized(env),
            history_length=4,
            missing_values=True,
            n_steps=8,
            batch_size=8,
            policy_kwargs={"share_features_extractor": False},
            device="cpu",
        ),
    ),
    "PPO, image": (
        partial(walks, observation="image", action_space=DISCRETE),
        lambda env: with_memory(PPO, env, policy="CnnPolicy", history_length=3, n_steps=8, batch_size=8, device="cpu"),
    ),
    "SAC": (
        partial(walks, observation="dict", action_space=BOX),
        lambda env: with_memory(
            SAC, normalized(env, skip=["time"]), history_length=4, time_key="time", buffer_size=99, device="cpu"
        ),
    ),
    "SAC with gSDE": (
        partial(walks, action_space=BOX),
        lambda env: with_memory(SAC, env, history_length=2, use_sde=True, buffer_size=99, device="cpu"),
    ),
    "TD3": (
        partial(walks, observation="matrix", action_space=BOX),
        lambda env: with_memory(TD3, env, history_length=4, buffer_size=99, device="cpu"),
    ),
    "DQN": (
        partial(walks, observation="multi_binary", action_space=DISCRETE),
        lambda env: with_memory(DQN, env, history_length=4, traces=True, buffer_size=99, device="cpu"),
    ),
    "QRDQN": (
        partial(walks, action_space=DISCRETE),
        lambda env: with_memory(QRDQN, env, history_length=2, buffer_size=99, device="cpu"),
    ),
    "TQC": (
        partial(walks, action_space=BOX),
        lambda env: with_memory(TQC, env, history_length=2, buffer_size=99, device="cpu"),
    ),
    "CrossQ": (
        partial(walks, action_space=BOX),
        lambda env: with_memory(CrossQ, env, history_length=2, buffer_size=99, device="cpu"),
    ),
}
"""By name: environments, and what makes an agent for them."""


def exported(name: str, folder: Path) -> Path:
    make_env, make_model = CASES[name]
    export_numpy(shaken(make_model(make_env())), folder / "agent.npz")
    return folder / "agent.npz"
