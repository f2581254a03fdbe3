"""Off-policy algorithms of SB3 with memory, beside stacked frames of the same window and beside the full state.

All agents of a task have the same algorithm and settings, those of the RL Zoo for the task with all that is observed,
and the same information: where time is irregular, stacked frames are given the elapsed time and the rates of change.

    python benchmarks/off_policy.py                                 # one after the other: many hours
    python benchmarks/off_policy.py --tasks Pendulum --seeds 0 1    # goes on with what the folder has
    python benchmarks/off_policy.py --report docs/off_policy.csv    # tables of results that are there
    python benchmarks/off_policy.py --tasks Pendulum --steps 128 --episodes 1 --seeds 0 --output runs/tiny
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pandas as pd
import torch as th
from gymnasium.wrappers import FlattenObservation
from irregular import MIXED, make_features
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_ncde import VecHistory, with_memory
from sb3_ncde.envs import TASKS
from sb3_ncde.sensors import IrregularSampling, SelectColumns

HIDDEN = "without velocities"
POSITIONS = {"Hopper-v5": list(range(5)), "HalfCheetah-v5": list(range(8))}
"""Columns of MuJoCo's observations that are no velocities."""


def make_irregular_full() -> gym.Env[Any, Any]:
    """Return Pendulum with its velocity after 1 to 5 steps of physics, and the elapsed time as a column."""
    env = IrregularSampling(gym.make("Pendulum-v1"), low=1, high=5, dt=TASKS["Pendulum"].dt)
    return FlattenObservation(env)


def make_positions(env_id: str) -> gym.Env[Any, Any]:
    """Return a task of MuJoCo without velocities."""
    return SelectColumns(gym.make(env_id), POSITIONS[env_id])


Maker = Callable[[], gym.Env[Any, Any]]


class Task(NamedTuple):
    """A task and what it is solved with.

    :param algorithm: of all agents
    :param settings: of it
    :param history: arguments of VecHistory; its length is the number of stacked frames as well
    :param memory: makes the environment for the agent with memory
    :param frames: for the one with stacked frames
    :param full: for the one that sees everything
    :param evaluated: steps of training after which an agent is evaluated
    """

    algorithm: type[BaseAlgorithm]
    settings: dict[str, Any]
    history: dict[str, Any]
    memory: Maker
    frames: Maker
    full: Maker
    evaluated: tuple[int, ...]


def _mujoco(env_id: str) -> Task:
    positions = partial(make_positions, env_id)
    settings = {"learning_starts": 10_000}
    history = {"history_length": 4}
    return Task(
        SAC, settings, history, positions, positions, partial(gym.make, env_id), (25_000, 50_000, 75_000, 100_000)
    )


def _hidden(task: str) -> Maker:
    return partial(gym.make, f"sb3_ncde/{task}NoVel-v1")


RUNS = {
    "Pendulum": Task(
        SAC,
        {"learning_rate": 1e-3},
        {"history_length": 4},
        _hidden("Pendulum"),
        _hidden("Pendulum"),
        partial(gym.make, "Pendulum-v1"),
        (5_000, 10_000, 15_000, 20_000),
    ),
    "IrregularPendulum": Task(
        SAC,
        {"learning_rate": 1e-3},
        {"history_length": 4, "time_key": "time", "dt": 0.15},
        _hidden("IrregularPendulum"),
        partial(make_features, MIXED, 0.0),
        make_irregular_full,
        (10_000, 20_000, 30_000, 40_000),
    ),
    "CartPole": Task(
        DQN,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1_000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        {"history_length": 4},
        _hidden("CartPole"),
        _hidden("CartPole"),
        partial(gym.make, "CartPole-v1"),
        (12_500, 25_000, 37_500, 50_000),
    ),
    "MountainCarContinuous": Task(
        SAC,
        {
            "buffer_size": 50_000,
            "batch_size": 512,
            "ent_coef": 0.1,
            "train_freq": 32,
            "gradient_steps": 32,
            "gamma": 0.9999,
            "tau": 0.01,
            "learning_starts": 0,
            "use_sde": True,
            "policy_kwargs": {"log_std_init": -3.67, "net_arch": [64, 64], "use_expln": True},
        },
        {"history_length": 4},
        _hidden("MountainCarContinuous"),
        _hidden("MountainCarContinuous"),
        partial(gym.make, "MountainCarContinuous-v0"),
        (12_500, 25_000, 37_500, 50_000),
    ),
    "Hopper": _mujoco("Hopper-v5"),
    "HalfCheetah": _mujoco("HalfCheetah-v5"),
}
"""By name. The settings are those of the RL Zoo for the task as Gymnasium has it."""


def make_memory(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent with memory, and the environment that it is evaluated on."""
    env, evaluated = (VecHistory(make_vec_env(task.memory, 1, seed=s), **task.history) for s in (seed, 1000 + seed))
    return with_memory(task.algorithm, env, seed=seed, device="cpu", **task.settings), evaluated


def make_stacked(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent that sees as many stacked frames as the history is long."""
    n_stack = task.history["history_length"]
    env, evaluated = (VecFrameStack(make_vec_env(task.frames, 1, seed=s), n_stack) for s in (seed, 1000 + seed))
    return task.algorithm("MlpPolicy", env, seed=seed, device="cpu", **task.settings), evaluated


def make_full(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent that sees everything."""
    env, evaluated = (make_vec_env(task.full, 1, seed=s) for s in (seed, 1000 + seed))
    return task.algorithm("MlpPolicy", env, seed=seed, device="cpu", **task.settings), evaluated


AGENTS = {"memory": make_memory, "stacked frames": make_stacked, "full state": make_full}


class Evaluation(BaseCallback):
    """Evaluates an agent on the way; one training, as schedules are of all its steps.

    :param env: to evaluate on
    :param steps: after which it is
    :param episodes: of each evaluation
    """

    def __init__(self, env: VecEnv, steps: Sequence[int], episodes: int) -> None:
        super().__init__()
        self.env, self.steps, self.episodes = env, list(steps), episodes
        self.rows: list[dict[str, Any]] = []
        self.spent = 0.0

    def _on_training_start(self) -> None:
        self.begin = time.perf_counter()

    def _on_step(self) -> bool:
        if self.steps and self.num_timesteps >= self.steps[0]:
            begin = time.perf_counter()
            returns, _ = evaluate_policy(self.model, self.env, self.episodes, return_episode_rewards=True)
            self.rows.append(
                {
                    "steps": self.steps.pop(0),
                    "seconds": begin - self.begin - self.spent,
                    "mean": pd.Series(returns).mean(),
                    "std": pd.Series(returns).std(),
                    "episodes": self.episodes,
                }
            )
            self.spent += time.perf_counter() - begin
        return True


def run(name: str, agent: str, seed: int, steps: int | None, episodes: int, folder: Path) -> None:
    """Train an agent and evaluate it on the way; what the folder has already is kept."""
    done = folder / f"{name}-{agent.replace(' ', '_')}-seed-{seed}.csv"
    if done.exists():
        return
    task = RUNS[name]
    model, env = AGENTS[agent](task, seed)
    evaluated = task.evaluated if steps is None else (steps,)
    evaluation = Evaluation(env, evaluated, episodes)
    model.learn(evaluated[-1], evaluation)
    table = pd.DataFrame(evaluation.rows).assign(task=name, agent=agent, seed=seed)
    table[["task", "agent", "seed", "steps", "seconds", "mean", "std", "episodes"]].to_csv(done, index=False)


def report(results: pd.DataFrame) -> Table:
    """Return a table of the means over seeds, with their spread and the worst seed."""
    table = Table("task", "steps", *AGENTS, title="return over seeds: mean +- spread (worst), seeds")
    for (name, steps), rows in results.groupby(["task", "steps"], sort=False):
        cells = []
        for agent in AGENTS:
            means = rows.loc[rows["agent"] == agent, "mean"]
            spread = means.std() if len(means) > 1 else 0.0
            cells.append(f"{means.mean():.1f} +- {spread:.1f} ({means.min():.1f}), {len(means)}" if len(means) else "-")
        table.add_row(str(name), f"{steps:,}", *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate what is asked for, and report all that the folder has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of training (default: of the task)")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/off_policy"), help="folder (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="a table of results to report; nothing is trained")
    options = parser.parse_args(arguments)
    if options.report is not None:
        Console(width=140).print(report(pd.read_csv(options.report)))
        return
    th.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for seed, name, agent in track(list(product(options.seeds, options.tasks, options.agents)), "training"):
        run(name, agent, seed, options.steps, options.episodes, options.output)
    results = pd.concat([pd.read_csv(path) for path in sorted(options.output.glob("*.csv"))], ignore_index=True)
    results.to_csv(options.output.with_suffix(".csv"), index=False)
    Console(width=140).print(report(results))


if __name__ == "__main__":
    main()
