"""Tasks x agents x seeds, a file of results each: what is finished is kept, and what was killed begins again."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

Make = Callable[[str, str, int], tuple[BaseAlgorithm, VecEnv]]
"""Returns an agent, and the environments that it is evaluated on, by task, agent and seed."""


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


def report(results: pd.DataFrame, agents: Sequence[str]) -> Table:
    """Return a table of the means over seeds: with their spread, the worst of them, and how many there are."""
    table = Table("task", "steps", *agents, title="return over seeds: mean +- spread (worst), seeds")
    for (name, steps), rows in results.groupby(["task", "steps"], sort=False):
        cells = []
        for agent in agents:
            means = rows.loc[rows["agent"] == agent, "mean"]
            spread = means.std() if len(means) > 1 else 0.0
            cells.append(f"{means.mean():.2f} +- {spread:.2f} ({means.min():.2f}), {len(means)}" if len(means) else "-")
        table.add_row(str(name), f"{steps:,}", *cells)
    return table


def main(
    description: str,
    tasks: Mapping[str, Sequence[int]],
    agents: Sequence[str],
    make: Make,
    output: Path,
    arguments: Sequence[str] | None = None,
) -> None:
    """Train and evaluate what the command line asks for, and report all that the folder has.

    :param description: of the command
    :param tasks: by name, the steps of training after which an agent is evaluated
    :param agents: by name
    :param make: makes them
    :param output: folder of the results, unless the command line names another
    :param arguments: of the command line; None: its own
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tasks", nargs="+", choices=list(tasks), default=list(tasks))
    parser.add_argument("--agents", nargs="+", choices=list(agents), default=list(agents))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of training (default: of the task)")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=output, help="folder (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="a table of results to report; nothing is trained")
    options = parser.parse_args(arguments)
    console = Console(width=140)
    if options.report is not None:
        console.print(report(pd.read_csv(options.report), agents))
        return
    th.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for seed, name, agent in track(list(product(options.seeds, options.tasks, options.agents)), "training"):
        done = options.output / f"{name}-{agent}-seed-{seed}.csv".replace(" ", "_")
        if done.exists():
            continue
        steps = tasks[name] if options.steps is None else [options.steps]
        model, env = make(name, agent, seed)
        evaluation = Evaluation(env, steps, options.episodes)
        model.learn(steps[-1], evaluation)
        table = pd.DataFrame(evaluation.rows).assign(task=name, agent=agent, seed=seed)
        table[["task", "agent", "seed", "steps", "seconds", "mean", "std", "episodes"]].to_csv(done, index=False)
    results = pd.concat([pd.read_csv(path) for path in sorted(options.output.glob("*.csv"))], ignore_index=True)
    results.to_csv(options.output.with_suffix(".csv"), index=False)
    console.print(report(results, agents))
