"""Tasks x agents x seeds, a file of results each: what is finished is kept, and what was killed begins again.

Any number of processes and machines may share the folder (:mod:`claims`).
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th
from claims import claim
from rich.console import Console
from rich.progress import track
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

Make = Callable[[str, str, int], tuple[BaseAlgorithm, VecEnv]]
"""Returns an agent, and the environments that it is evaluated on, by task, agent and seed."""


class Evaluation(BaseCallback):
    """Evaluates an agent on the way, and when it is trained; one training, as schedules are of all its steps.

    Its rows have the steps, the seconds of training by the clock and of this process's cores, without evaluations, and
    mean and standard deviation of the returns.

    :param env: to evaluate on; a VecNormalize in it gets the statistics of the training's
    :param steps: after which it is evaluated, the last of them at the end of the training
    :param episodes: of each evaluation
    :param last_episodes: of the last one; None: as many
    :param seed: of each evaluation's environments; None: each goes on where the one before ended
    """

    def __init__(
        self,
        env: VecEnv,
        steps: Sequence[int],
        episodes: int,
        last_episodes: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.env, self.steps, self.seed = env, list(steps), seed
        self.episodes, self.last_episodes = episodes, episodes if last_episodes is None else last_episodes
        self.rows: list[dict[str, Any]] = []
        self.spent = self.cpu_spent = 0.0

    def _on_training_start(self) -> None:
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()

    def _on_step(self) -> bool:
        if len(self.steps) > 1 and self.num_timesteps >= self.steps[0]:
            self._evaluate(self.episodes)
        return True

    def _on_training_end(self) -> None:
        self._evaluate(self.last_episodes)

    def _evaluate(self, episodes: int) -> None:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        sync_envs_normalization(self.training_env, self.env)
        if self.seed is not None:
            self.env.seed(self.seed)
        returns, _ = evaluate_policy(self.model, self.env, episodes, return_episode_rewards=True)
        self.rows.append(
            {
                "steps": self.steps.pop(0),
                "seconds": begin - self.begin - self.spent,
                "cpu_seconds": cpu_begin - self.cpu_begin - self.cpu_spent,
                "mean": pd.Series(returns).mean(),
                "std": pd.Series(returns).std(),
                "episodes": episodes,
            }
        )
        self.spent += time.perf_counter() - begin
        self.cpu_spent += time.process_time() - cpu_begin


def write(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def report(results: pd.DataFrame, agents: Sequence[str]) -> Table:
    """Return a table of the means over seeds: spread and worst of several, and how many there are."""
    table = Table("task", "steps", *agents, title="return over seeds: mean +- spread (worst), seeds")
    for (name, steps), rows in results.groupby(["task", "steps"], sort=False):
        cells = []
        for agent in agents:
            means = rows.loc[rows["agent"] == agent, "mean"]
            spread = f" +- {means.std():.2f} ({means.min():.2f})" if len(means) > 1 else ""
            cells.append(f"{means.mean():.2f}{spread}, {len(means)}" if len(means) else "-")
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
        with claim(done) as mine:
            if not mine:
                continue
            steps = tasks[name] if options.steps is None else [options.steps]
            model, env = make(name, agent, seed)
            evaluation = Evaluation(env, steps, options.episodes)
            model.learn(steps[-1], evaluation)
            table = pd.DataFrame(evaluation.rows).assign(task=name, agent=agent, seed=seed)
            columns = ["task", "agent", "seed", "steps", "seconds", "mean", "std", "episodes"]
            write(done, table[columns].to_csv(index=False))
    results = pd.concat([pd.read_csv(path) for path in sorted(options.output.glob("*.csv"))], ignore_index=True)
    results.to_csv(options.output.with_suffix(".csv"), index=False)
    console.print(report(results, agents))
