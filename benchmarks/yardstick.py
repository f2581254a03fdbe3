"""What the score of ``python -m sb3_ncde.quickstart`` is to be compared with: PPO without memory.

For each environment that the command offers, SB3's PPO is trained by the same settings, for as many steps, and
evaluated in the same episodes: once it sees what NCDEPolicy sees, and once it sees the velocity as well. What is
NCDEPolicy's own among the settings is left out.

    python benchmarks/yardstick.py                         # the figures of the quickstart
    python benchmarks/yardstick.py --seeds 0 --steps 256   # whether it runs
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium import spaces
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde.hyperparams import settings
from sb3_ncde.quickstart import YARDSTICKS, evaluate, normalize
from sb3_ncde.sensors import IrregularSampling


def irregular_pendulum() -> gym.Env[Any, Any]:
    """Return Pendulum that shows its velocity, observed after 1 to 5 steps of physics."""
    return IrregularSampling(gym.make("Pendulum-v1"), low=1, high=5, dt=0.05)


SEEING: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "sb3_ncde/CartPoleNoVel-v1": partial(gym.make, "CartPole-v1"),
    "sb3_ncde/PendulumNoVel-v1": partial(gym.make, "Pendulum-v1"),
    "sb3_ncde/IrregularPendulumNoVel-v1": irregular_pendulum,
    "CartPole-v1": partial(gym.make, "CartPole-v1"),
}
"""The same tasks with their velocities."""


def reached(env_id: str, make: Callable[[], gym.Env[Any, Any]], seed: int, n_timesteps: int | None) -> float:
    """Return the mean return of 100 deterministic episodes of PPO without memory."""
    tuned = settings(env_id)
    env = normalize(make_vec_env(make, n_envs=tuned.n_envs, seed=seed), tuned)
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    own = tuned.model.get("policy_kwargs", {})
    kwargs = {name: value for name, value in own.items() if name == "log_std_init"}  # the one that is SB3's
    model = PPO(env=env, seed=seed, device="cpu", **tuned.model | {"policy": policy, "policy_kwargs": kwargs})
    model.learn(n_timesteps or tuned.n_timesteps)
    return statistics.fmean(evaluate(model, make))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", choices=list(YARDSTICKS), default=list(YARDSTICKS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--steps", type=int, help="of training (default: as the settings say)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    table = Table("environment", "it sees", "mean over seeds", "of each seed", title="PPO without memory, return")
    for env_id in options.envs:
        for sees, make in (("the same", partial(gym.make, env_id)), ("the velocity too", SEEING[env_id])):
            returns = [reached(env_id, make, seed, options.steps) for seed in track(options.seeds, f"{env_id}, {sees}")]
            each = ", ".join(f"{value:.1f}" for value in returns)
            table.add_row(env_id, sees, f"{statistics.fmean(returns):.1f}", each)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
