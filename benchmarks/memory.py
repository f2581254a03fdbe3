"""Tasks whose answer is older than a short window: traces beside a control, an LSTM and stacked frames.

The control is the same policy with a window of one observation: traces, initial network and heads, but no equation. All
agents have the same settings of PPO, which are tuned for none of them.

    python benchmarks/memory.py                                           # one after the other: many hours
    python benchmarks/memory.py --tasks "T-maze 64" --seeds 0 1 2         # goes on with what the folder has
    python benchmarks/memory.py --report docs/memory.csv                  # a table of results that are there
    python benchmarks/memory.py --tasks "T-maze 64" --steps 4096 --seeds 0 --episodes 2 --output runs/tiny

Tasks of POPGym need ``pip install popgym``.
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
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

import sb3_ncde  # noqa: F401  (registers policies and environments)
from sb3_ncde.wrappers import PreviousAction


class Task(NamedTuple):
    """A task.

    :param make: makes it
    :param steps: of training
    :param bandit: whether the agent needs its previous action and reward
    """

    make: Callable[[], gym.Env[Any, Any]]
    steps: int
    bandit: bool = False


def popgym(name: str) -> gym.Env[Any, Any]:
    """Return an environment of POPGym (Morad et al. 2023, arXiv:2303.01859)."""
    import popgym.envs

    env: gym.Env[Any, Any] = getattr(popgym.envs, name)()
    return env


TASKS = {
    "T-maze 16": Task(partial(gym.make, "sb3_ncde/TMaze-v1", length=16), 1_000_000),
    "T-maze 64": Task(partial(gym.make, "sb3_ncde/TMaze-v1", length=64), 1_000_000),
    "T-maze 1000": Task(partial(gym.make, "sb3_ncde/TMaze-v1", length=1000), 1_000_000),
    "cue within 64": Task(partial(gym.make, "sb3_ncde/CueAmongDistractors-v1", length=64, within=64), 1_000_000),
    "RepeatFirstMedium": Task(partial(popgym, "RepeatFirstMedium"), 500_000),
    "RepeatFirstHard": Task(partial(popgym, "RepeatFirstHard"), 500_000),
    "CountRecallEasy": Task(partial(popgym, "CountRecallEasy"), 3_000_000),
    "CountRecallMedium": Task(partial(popgym, "CountRecallMedium"), 3_000_000),
    "MultiarmedBanditEasy": Task(partial(popgym, "MultiarmedBanditEasy"), 3_000_000, bandit=True),
    "NoisyPositionOnlyCartPoleMedium": Task(partial(popgym, "NoisyPositionOnlyCartPoleMedium"), 3_000_000),
}
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 512,
    "n_epochs": 5,
    "learning_rate": 3e-4,
    "ent_coef": 0.01,
    "device": "cpu",
}
N_ENVS = 16


def _recurrent(policy: str, env: VecEnv, seed: int, **policy_kwargs: Any) -> BaseAlgorithm:
    return RecurrentPPO(policy, env, policy_kwargs=policy_kwargs, seed=seed, **PPO_SETTINGS)


AGENTS: dict[str, Callable[[VecEnv, int], BaseAlgorithm]] = {
    "NCDEPolicy, traces": lambda env, seed: _recurrent("NCDEPolicy", env, seed, traces=True),
    "traces alone": lambda env, seed: _recurrent("NCDEPolicy", env, seed, traces=True, history_length=1),
    "MlpLstmPolicy 64": lambda env, seed: _recurrent("MlpLstmPolicy", env, seed, lstm_hidden_size=64),
    "8 stacked frames": lambda env, seed: PPO("MlpPolicy", env, seed=seed, **PPO_SETTINGS),
}


def make_env(task: Task, agent: str, seed: int) -> VecEnv:
    """Return a task's environments for an agent; observations are vectors for all."""

    def make() -> gym.Env[Any, Any]:
        env = task.make()
        if not isinstance(env.observation_space, gym.spaces.Box):
            env = gym.wrappers.FlattenObservation(env)
        return PreviousAction(env, reward=True, product=True) if task.bandit else env

    env = make_vec_env(make, N_ENVS, seed=seed)
    return VecFrameStack(env, 8) if agent == "8 stacked frames" else env


def run(name: str, agent: str, seed: int, steps: int | None, episodes: int, folder: Path) -> None:
    """Train an agent and evaluate it at each tenth of its steps; what the folder has already is kept."""
    done = folder / f"{name}-{agent}-seed-{seed}.csv".replace(" ", "_")
    if done.exists():
        return
    task = TASKS[name]
    model = AGENTS[agent](make_env(task, agent, seed), seed)
    evaluated = make_env(task, agent, 1000 + seed)
    total, rows, seconds = steps or task.steps, [], 0.0
    for part in range(1, 11):
        begin = time.perf_counter()
        model.learn(total * part // 10 - model.num_timesteps, reset_num_timesteps=part == 1)
        seconds += time.perf_counter() - begin
        returns, _ = evaluate_policy(model, evaluated, n_eval_episodes=episodes, return_episode_rewards=True)
        mean = {"mean": pd.Series(returns).mean(), "std": pd.Series(returns).std(), "episodes": episodes}
        place = {"task": name, "agent": agent, "seed": seed, "steps": model.num_timesteps, "seconds": seconds}
        rows.append({**place, **mean})
    pd.DataFrame(rows).to_csv(done, index=False)


def report(results: pd.DataFrame) -> Table:
    """Return a table of the final returns, mean +- spread over seeds (worst), and seeds."""
    table = Table("task", *AGENTS, title="return at the end of the training")
    last = results.loc[results.groupby(["task", "agent", "seed"])["steps"].idxmax()]
    for name, rows in last.groupby("task", sort=False):
        cells = []
        for agent in AGENTS:
            means = rows.loc[rows["agent"] == agent, "mean"]
            spread = means.std() if len(means) > 1 else 0.0
            cells.append(f"{means.mean():.2f} +- {spread:.2f} ({means.min():.2f}), {len(means)}" if len(means) else "-")
        table.add_row(str(name), *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate what is asked for, and report all that the folder has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of training (default: of the task)")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/memory"), help="folder (default: %(default)s)")
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
    gym.logger.min_level = gym.logger.ERROR
    main()
