"""Euler's method beside the midpoint rule: what agents reach whose windows are solved by the one or the other.

Each task is trained with its settings of ``configs/ppo_ncde.yml``, which were tuned with the midpoint rule, and
evaluated in 100 deterministic episodes; an irregular one with each of some fixed periods as well.

    python benchmarks/solvers.py                                                         # about two hours
    python benchmarks/solvers.py --seeds 0 --steps 256 --episodes 2 --output runs/tiny   # whether it runs
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import torch as th
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde.evaluation import evaluate_grid
from sb3_ncde.hyperparams import settings
from sb3_ncde.quickstart import normalize

MIXED = 0
"""Stands for the sampling of training among the periods."""
IRREGULAR = "sb3_ncde/IrregularPendulumNoVel-v1"
NORM = {"feature_norm": "layer_norm"}
"""That of the entry when these were measured."""
TASKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "CartPoleNoVel": ("sb3_ncde/CartPoleNoVel-v1", {}, (MIXED,)),
    "PendulumNoVel": ("sb3_ncde/PendulumNoVel-v1", {}, (MIXED,)),
    "MountainCarContinuousNoVel": ("sb3_ncde/MountainCarContinuousNoVel-v1", {}, (MIXED,)),
    "IrregularPendulumNoVel, H = 3": (IRREGULAR, NORM, (MIXED, 1, 2, 3, 5)),
    "IrregularPendulumNoVel, H = 8": (IRREGULAR, NORM | {"history_length": 8, "hop_length": 4}, (MIXED, 1, 2, 3, 5)),
    "IrregularPendulumNoVel, H = 16": (IRREGULAR, NORM | {"history_length": 16, "hop_length": 8}, (MIXED, 1, 2, 3, 5)),
}
"""Environment, arguments beside those of its settings, and steps of physics per observation that are evaluated."""
SETTINGS = {"sb3_ncde/MountainCarContinuousNoVel-v1": "MountainCarContinuousNoVel-v0"}
"""Whose settings an environment has that has none of its own: those of the RL Zoo's environment of the same task."""
SOLVERS = ("midpoint", "euler")


def run(task: str, solver: str, seed: int, steps: int | None, episodes: int) -> pd.DataFrame:
    """Train an agent, and return its mean return at each period."""
    env_id, own, periods = TASKS[task]
    tuned = settings(SETTINGS.get(env_id, env_id))
    model_kwargs = tuned.model | {"policy_kwargs": tuned.model.get("policy_kwargs", {}) | own | {"solver": solver}}
    env = normalize(make_vec_env(env_id, n_envs=tuned.n_envs, seed=seed), tuned)
    begin = time.perf_counter()
    model = RecurrentPPO(env=env, seed=seed, device="cpu", **model_kwargs)
    model.learn(steps or tuned.n_timesteps)
    seconds = time.perf_counter() - begin

    def make_env(period: int, drop_rate: float) -> gym.Env[Any, Any]:
        kwargs: dict[str, Any] = {} if period == MIXED else {"sampling": {"low": period, "high": period}}
        return gym.make(env_id, **kwargs)

    table = evaluate_grid(model, make_env, periods, n_episodes=episodes)
    return table.assign(task=task, solver=solver, seed=seed, steps=model.num_timesteps, seconds=round(seconds, 1))


def report(results: pd.DataFrame) -> Table:
    """Return a table: mean over seeds, spread, and the worst seed."""
    table = Table("task", "steps of physics", *SOLVERS, title="return, mean over seeds +- spread (worst seed)")
    for (task, period), rows in results.groupby(["task", "period"], sort=False):
        cells = []
        for solver in SOLVERS:
            values = rows.loc[rows["solver"] == solver, "mean"].tolist()
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.1f} +- {spread:.1f} ({min(values):.1f})" if values else "")
        table.add_row(str(task), "as in training" if period == MIXED else str(period), *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate what is asked for, and report all that the folder has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), help="default: all")
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=SOLVERS, help="default: both")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of training (default: as the settings say)")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/solvers"), help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    runs = [(task, solver, seed) for seed in options.seeds for task in options.tasks for solver in options.solvers]
    for task, solver, seed in track(runs, "training"):
        done = options.output / f"{task.replace(', ', '-').replace(' = ', '')}-{solver}-seed-{seed}.csv"
        if not done.exists():
            run(task, solver, seed, options.steps, options.episodes).to_csv(done, index=False)
    results = pd.concat([pd.read_csv(path) for path in sorted(options.output.glob("*.csv"))])
    Console(width=140).print(report(results))


if __name__ == "__main__":
    main()
