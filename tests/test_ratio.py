"""On a fresh rollout, evaluate_actions reproduces what was stored: PPO's ratio is 1, and the values are the same."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env

import sb3_ncde  # noqa: F401
from sb3_ncde.acting.tableaus import SOLVERS
from tests.envs import RandomWalk


def float64_buffer(buffer: Any) -> RolloutBuffer:
    """Return a buffer of the same shape that keeps everything in float64."""

    class Float64(type(buffer)):  # type: ignore[misc]
        def reset(self) -> None:
            super().reset()
            for name, value in vars(self).items():
                if isinstance(value, np.ndarray) and value.dtype == np.float32 and name != "observations":
                    setattr(self, name, value.astype(np.float64))

    float64: RolloutBuffer = Float64(
        buffer.buffer_size,
        buffer.observation_space,
        buffer.action_space,
        buffer.hidden_state_shape,
        buffer.device,
        gamma=buffer.gamma,
        gae_lambda=buffer.gae_lambda,
        n_envs=buffer.n_envs,
    )
    return float64


def worst_difference(model: Any, rollouts: int, float64: bool = False) -> float:
    """Collect rollouts, and return the worst difference of log-probability or value over the last one."""
    if float64:
        model.policy.double()
        states = model._last_lstm_states
        model._last_lstm_states = RNNStates(*(tuple(part.double() for part in pair) for pair in states))
        model.rollout_buffer = float64_buffer(model.rollout_buffer)
    _, callback = model._setup_learn(10_000)
    for _ in range(rollouts):  # the second begins in the middle of episodes
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    worst, rows = 0.0, 0
    for batch in model.rollout_buffer.get(model.batch_size):
        mask = batch.mask > 1e-8
        actions = batch.actions.long().flatten() if isinstance(model.action_space, spaces.Discrete) else batch.actions
        values, log_prob, _ = model.policy.evaluate_actions(
            batch.observations, actions, batch.lstm_states, batch.episode_starts
        )
        assert values.isfinite().all()
        assert log_prob.isfinite().all()
        difference = th.stack((log_prob - batch.old_log_prob, values.flatten() - batch.old_values))[:, mask]
        worst, rows = max(worst, difference.abs().max().item()), rows + int(mask.sum())
    assert rows == model.n_steps * model.n_envs
    return worst


def make(
    policy: str, n_envs: int, n_steps: int, batch_size: int, seed: int, env: dict[str, Any], **kwargs: Any
) -> RecurrentPPO:
    vec_env = make_vec_env(RandomWalk, n_envs=n_envs, seed=seed, env_kwargs=env)
    return RecurrentPPO(
        policy, vec_env, n_steps=n_steps, batch_size=batch_size, seed=seed, device="cpu", policy_kwargs=kwargs
    )


SHAPES = [(1, 32, 32), (1, 30, 7), (3, 16, 16), (3, 20, 64), (4, 8, 3), (2, 1, 2)]
"""n_envs, n_steps, batch_size"""


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize("longest", [1, 4, 60])
@pytest.mark.parametrize("hop_length", [1, 3, 6])
@pytest.mark.parametrize(("n_envs", "n_steps", "batch_size"), SHAPES)
def test_ratio_is_one(
    n_envs: int, n_steps: int, batch_size: int, hop_length: int, longest: int, float64: bool, seed: int
) -> None:
    model = make(
        "NCDEPolicy",
        n_envs,
        n_steps,
        batch_size,
        seed,
        {"observation": "column", "longest": longest},
        history_length=6,
        hop_length=hop_length,
        time_key=1,
    )
    assert worst_difference(model, 3, float64) < (1e-10 if float64 else 1e-5)


@pytest.mark.parametrize("float64", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("time_kind", ["elapsed", "timestamp"])
@pytest.mark.parametrize("shared", [True, False])
def test_ratio_is_one_with_time_in_a_dict(shared: bool, time_kind: str, solver: str, float64: bool, seed: int) -> None:
    model = make(
        "MultiInputNCDEPolicy",
        3,
        25,
        20,
        seed,
        {"observation": "dict", "time_kind": time_kind, "longest": 20},
        time_key="time",
        time_kind=time_kind,
        share_encoder=shared,
        solver=solver,
    )
    assert worst_difference(model, 2, float64) < (1e-10 if float64 else 1e-5)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"rates": False},
        {"path_in_field": False},
        {"skip": False, "feature_norm": "tanh"},
        {"feature_norm": "none", "control_size": 1},
        {"history_length": 1},
        {"history_length": 40, "solver_steps": 2},
        {"history_length": 12, "hop_length": 1},
        {"optimizer_kwargs": {"fused": True}},
        {"share_features_extractor": False},
        {"traces": True},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "action_space",
    [spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2), spaces.Box(-1, 1, (2,), np.float32)],
    ids=lambda space: type(space).__name__,
)
def test_ratio_is_one_for_all_actions_and_arguments(
    action_space: spaces.Space[Any], kwargs: dict[str, Any], seed: int
) -> None:
    model = make("NCDEPolicy", 2, 24, 16, seed, {"action_space": action_space, "longest": 30}, **kwargs)
    assert worst_difference(model, 2) < 1e-5


@pytest.mark.parametrize("policy", ["CnnNCDEPolicy", "MultiInputNCDEPolicy"])
@pytest.mark.parametrize("shared", [True, False])
def test_ratio_is_one_with_images(policy: str, shared: bool, seed: int) -> None:
    observation = "image" if policy == "CnnNCDEPolicy" else "dict_image"
    model = make(policy, 2, 12, 8, seed, {"observation": observation}, share_features_extractor=shared)
    assert worst_difference(model, 2) < 1e-5


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_ratio_is_one_for_values_of_any_size(scale: float, seed: int) -> None:
    model = make("NCDEPolicy", 2, 24, 16, seed, {"longest": 30, "scale": scale})
    assert worst_difference(model, 2, float64=True) < 1e-10
