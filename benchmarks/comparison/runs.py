"""A run: one agent of one task and seed, trained and evaluated; and the file that says all of it."""

import json
import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th
from resumable import Evaluation, write
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import sync_envs_normalization

from comparison.ablations import ABLATIONS
from comparison.agents import AGENTS, N_EVALUATED, Agent, environments, first_evaluated, make
from comparison.settings import Chosen
from comparison.tasks import TASKS, Task

ALL_AGENTS = AGENTS | ABLATIONS
POINTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
"""Shares of the steps of training after which an agent is evaluated: often where most is learned."""
EPISODES = (20, 100)
"""Of each evaluation, and of the last one."""
PACKAGES = (
    "sb3_ncde",
    "torch",
    "stable_baselines3",
    "sb3_contrib",
    "gymnasium",
    "mujoco",
    "popgym",
    "numpy",
    "rl_zoo3",
)


@dataclass(frozen=True)
class Run:
    """An agent, a task and a seed, by their names."""

    task: str
    agent: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its file."""
        return "--".join(re.sub(r"\W+", "_", part) for part in (self.task, self.agent)) + f"--{self.seed}.csv"

    @property
    def parts(self) -> tuple[Task, Agent]:
        """The task and the agent."""
        return TASKS[self.task], ALL_AGENTS[self.agent]

    @property
    def steps(self) -> int:
        """Of its training."""
        task, agent = self.parts
        return agent.steps(task)


def train(run: Run, done: Path, steps: int | None = None, episodes: tuple[int, int] = EPISODES) -> None:
    """Train and evaluate an agent, and write its file.

    :param done: the file
    :param steps: of training; None: those of the task
    :param episodes: of each evaluation, and of the last one and of those with other sensors
    """
    begin = time.perf_counter()
    task, agent = run.parts
    steps = run.steps if steps is None else steps
    model, evaluated, chosen = make(task, agent, run.seed)
    points = [round(steps * share) for share in POINTS]
    first = first_evaluated(run.seed)
    evaluation = Evaluation(evaluated, points, *episodes, seed=first)
    model.learn(steps, evaluation)
    rows = evaluation.rows + [
        {"steps": steps, "other": number, **_with_other_sensors(model, task, agent, chosen, number, episodes[1], first)}
        for number in task.others
    ]
    about = {
        "task": run.task,
        "group": task.group,
        "agent": run.agent,
        "seed": run.seed,
        "settings": chosen.source,
        "parameters": sum(parameter.numel() for parameter in model.policy.parameters()),
        "n_envs": chosen.n_envs,
        "arguments": {name: _plain(value) for name, value in chosen.model.items() if name != "policy_kwargs"},
        "policy_kwargs": {name: _plain(value) for name, value in model.policy_kwargs.items()},
        "wall_seconds": round(time.perf_counter() - begin, 1),
        **provenance(),
    }
    columns = ["steps", "seconds", "cpu_seconds", "other", "mean", "std", "episodes"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    write(done, f"# {json.dumps(about)}\n{table.to_csv(index=False, float_format='%.6g')}")


def read_about(path: Path) -> dict[str, Any]:
    """Return what a file says of its run, beside the evaluations."""
    with path.open() as file:
        about: dict[str, Any] = json.loads(file.readline().removeprefix("# "))
    return about


def _with_other_sensors(
    model: BaseAlgorithm, task: Task, agent: Agent, chosen: Chosen, number: float, episodes: int, seed: int
) -> dict[str, Any]:
    """Evaluate a trained agent with other sensors, which it has not been trained with."""
    env = environments(task, agent, chosen, task.others[number], N_EVALUATED, seed)
    training = model.get_env()
    assert training is not None
    sync_envs_normalization(training, env)
    returns, _ = evaluate_policy(model, env, episodes, return_episode_rewards=True, warn=False)
    env.close()
    return {"mean": pd.Series(returns).mean(), "std": pd.Series(returns).std(), "episodes": episodes}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a class or a schedule as its text."""
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return value.__name__ if isinstance(value, type) else str(value)


def provenance() -> dict[str, str]:
    """Return what else a result depends on: versions, commit, machine."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "-"
    return versions | {
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "threads": str(th.get_num_threads()),
    }


def _commit() -> str:
    """Return the commit that runs, with a plus where files have been changed since."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not from a clone"


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named.group(1) if named else platform.processor() or platform.machine()
