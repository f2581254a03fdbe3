"""Make the files of ``tests/data/golden``: agents as an earlier version saved them, and what they did.

Run once at the commit before the package was divided into rooms (924da93), with PyTorch 2.13.0::

    python tests/data/make_golden.py

``tests/test_golden.py`` loads them with the present code. They are not to be made anew when that test fails.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

import sb3_ncde
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.sensors import SensorDropout

GOLDEN = Path(__file__).with_name("golden")
HEADS = {"net_arch": [16], "field_width": 16, "initial_width": 16}


def positions() -> VecEnv:
    """CartPole without velocities, normalised by SB3's wrapper."""
    return VecNormalize(make_vec_env("sb3_ncde/CartPoleNoVel-v1", n_envs=2, seed=0))


def irregular() -> VecEnv:
    """Pendulum at irregular times, a Dict, with missing values."""
    env = make_vec_env(
        "sb3_ncde/IrregularPendulumNoVel-v1", n_envs=2, seed=0, env_kwargs={"dropout": {"probability": 0.3}}
    )
    return VecNormalizeObserved(env, skip=["time"])


def dropped() -> VecEnv:
    """CartPole whose sensors fail, the statistics by this package's wrapper."""
    return VecNormalizeObserved(
        make_vec_env(
            "sb3_ncde/CartPoleNoVel-v1", n_envs=2, seed=0, wrapper_class=SensorDropout, wrapper_kwargs={"burst": 3.0}
        )
    )


AGENTS: dict[str, tuple[str, Callable[[], VecEnv], dict[str, Any]]] = {
    "default": ("NCDEPolicy", positions, HEADS),
    "irregular": ("MultiInputNCDEPolicy", irregular, HEADS | {"time_key": "time", "dt": 0.15, "missing_values": True}),
    "separate": ("NCDEPolicy", dropped, HEADS | {"missing_values": True, "share_encoder": False, "solver": "rk4"}),
}


def main() -> None:
    """Train each agent shortly, and save it with its statistics and what it does in 40 steps."""
    th.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name, (policy_name, make_env, policy_kwargs) in AGENTS.items():
        env = make_env()
        model = RecurrentPPO(
            policy_name, env, n_steps=64, batch_size=64, n_epochs=2, seed=0, device="cpu", policy_kwargs=policy_kwargs
        )
        model.learn(512)
        policy = model.policy
        assert isinstance(env, VecNormalize)
        assert isinstance(policy, sb3_ncde.NCDEPolicy)
        env.training = False
        observation: Any = env.reset()
        state, start = None, np.ones(2, bool)
        log: dict[str, list[Any]] = {"start": [], "action": [], "state": [], "value": []}
        for _ in range(40):
            for key, values in observation.items() if isinstance(observation, dict) else [("observation", observation)]:
                log.setdefault(key, []).append(values.copy())
            tensor, _ = policy.obs_to_tensor(observation)
            before = [np.zeros((1, 2, policy.lstm_actor.hidden_size), np.float32)] * 2 if state is None else state
            with th.no_grad():
                value = policy.predict_values(tensor, tuple(map(th.tensor, before)), th.tensor(start).float())
            action, state = model.predict(observation, state, start, deterministic=True)
            log["start"].append(start)
            log["value"].append(value.numpy())
            log["action"].append(action)
            assert state is not None
            log["state"].append(np.concatenate(state, axis=-1)[0])
            observation, _, start, _ = env.step(action)
        model.save(GOLDEN / f"{name}.zip")
        env.save(str(GOLDEN / f"{name}.pkl"))
        arrays: dict[str, Any] = {key: np.array(values) for key, values in log.items()}
        np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
