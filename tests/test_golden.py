"""Agents that an earlier version saved load with the present code, and do what they did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecNormalize

from tests.data.make_golden import AGENTS, GOLDEN


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_of_before_loads_and_does_what_it_did(name: str, tmp_path: Path) -> None:
    _, make_env, _ = AGENTS[name]
    env: Any = VecNormalize.load(str(GOLDEN / f"{name}.pkl"), make_env().venv)  # type: ignore[attr-defined]
    model: Any = RecurrentPPO.load(GOLDEN / f"{name}.zip", env=env, device="cpu")
    log = dict(np.load(GOLDEN / f"{name}.npz"))
    inputs = [key for key in log if key not in ("start", "action", "state", "value")]
    state = None
    for step, start in enumerate(log["start"]):
        rows = {key: log[key][step] for key in inputs}
        observation: Any = rows if len(rows) > 1 else rows["observation"]
        tensor, _ = model.policy.obs_to_tensor(observation)
        zeros = np.zeros((1, 2, model.policy.lstm_actor.hidden_size), np.float32)
        before = [th.tensor(part) for part in state or (zeros, zeros)]
        with th.no_grad():
            value = model.policy.predict_values(tensor, tuple(before), th.tensor(start).float())
        action, state = model.predict(observation, state, start, deterministic=True)
        np.testing.assert_allclose(value.numpy(), log["value"][step], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(action, log["action"][step], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(np.concatenate(state, axis=-1)[0], log["state"][step])
    # The statistics are those that were saved, and training goes on.
    assert env.norm_obs
    model.learn(128, reset_num_timesteps=False)
    model.save(tmp_path / "again.zip")
    RecurrentPPO.load(tmp_path / "again.zip", device="cpu")
