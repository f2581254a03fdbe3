"""Exported agents act as the models that they were made of, in NumPy and in ONNX Runtime, and refuse what they cannot."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import ndonnx as ndx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import QRDQN, TQC, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

import sb3_ncde.deploy
from sb3_ncde import VecHistory, with_memory
from sb3_ncde.deploy import Agent, export_numpy, export_onnx, numpy_arrays, onnx_arrays
from sb3_ncde.deploy.contents import OtherFormatError
from sb3_ncde.deploy.layers import CannotExportError, layers_of
from sb3_ncde.deploy.networks import run
from sb3_ncde.deploy.parity import ParityError
from sb3_ncde.deploy.solution import encode
from sb3_ncde.deploy.window import append
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.wrappers import ActionMaskObservation
from tests.envs import MaskedWalk, RandomWalk
from tests.test_acting import encoders, observed

BOX = spaces.Box(np.float32([-2, -1]), np.float32([1, 3]))
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
    arguments = {"n_steps": 8, "batch_size": 8, "device": "cpu", "seed": 0}
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
        lambda env: recurrent("MultiInputNCDEPolicy", env, time_key="time", critic_keys=["flag"]),
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
IN_NUMPY_ALONE = ("QRDQN", "TQC", "SAC with gSDE", "discrete observations")
"""Cases in which ONNX has nothing to add to another's."""


def assert_same(expected: Any, found: Any) -> None:
    if np.asarray(expected).dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CASES)
def test_exported_agents_act_as_their_model(name: str, tmp_path: Path) -> None:
    """On raw observations, over episodes that begin at different times in three environments."""
    make_env, make_model = CASES[name]
    model = shaken(make_model(make_env()))
    formats = [export_numpy] if name in IN_NUMPY_ALONE else [export_numpy, export_onnx]
    told = [export(model, tmp_path / f"agent.{export.__name__[7:]}") for export in formats]
    assert all(difference <= 1e-5 for each in told for difference in each["parity"]["largest_difference"].values())
    agent = Agent.load(tmp_path / "agent.numpy")
    session = None
    if export_onnx in formats:
        onnx.checker.check_model(onnx.load(tmp_path / "agent.onnx"), full_check=True)
        session = ort.InferenceSession(tmp_path / "agent.onnx")
        history = np.zeros((N, session.get_inputs()[-1].shape[1]), np.float32)

    env, raw = model.get_env(), make_env()
    env.seed(7)
    raw.seed(7)
    observation, shown = env.reset(), raw.reset()
    state, starts = None, np.ones(N, bool)
    for _ in range(30):
        action, state = model.predict(observation, state, starts, deterministic=True)
        agent.reset(starts)
        assert_same(action, agent.act(shown))
        if session is not None:
            outputs = in_session(session, agent.metadata, shown, starts, history)
            assert_same(action, outputs["action"])
            history = outputs["next_history"]
            np.testing.assert_allclose(history, agent.state, rtol=1e-5, atol=1e-5)
        observation, _, starts, _ = env.step(action)
        shown, _, _, _ = raw.step(action)


def in_session(session: ort.InferenceSession, told: Any, shown: Any, starts: Any, history: Any) -> dict[str, Any]:
    """Return the outputs of a graph, given as docs/deployment.md says."""
    given = dict(shown) if isinstance(shown, dict) else {"observation": shown}
    clock = told["clock"]
    if isinstance(clock["key"], str):
        given[clock["kind"]] = given.pop(clock["key"]).reshape(-1)
    elif clock["key"] is None:
        given["elapsed"] = np.full(N, clock["unit"], np.float32)
    given |= {"episode_start": starts, "history": history}
    names = [output.name for output in session.get_outputs()]
    needed = {part.name for part in session.get_inputs()}
    return dict(zip(names, session.run(names, {name: given[name] for name in needed}), strict=True))
