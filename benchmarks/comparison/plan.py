"""What is to be run, in which order, and how long it takes."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from comparison.ablations import AGENTS_OF_ABLATIONS
from comparison.ablations import SEEDS as ABLATION_SEEDS
from comparison.ablations import TASKS as ABLATION_TASKS
from comparison.agents import AGENTS
from comparison.runs import Run, read_about
from comparison.tasks import TASKS

SEEDS, HEADLINE_SEEDS = range(5), range(10)
NAMES = list(TASKS)


def comparison() -> list[Run]:
    """Return the runs of the comparison: what is finished at any time is worth a report.

    Agents with a low rank first; of these the headline's tasks, then those of the groups, task by task, and at last the
    further seeds of the headline.
    """
    runs = [
        Run(name, agent_name, seed)
        for (name, task), (agent_name, agent) in product(TASKS.items(), AGENTS.items())
        if agent.does(name, task)
        for seed in (HEADLINE_SEEDS if task.headline else SEEDS)
        if seed < agent.most_seeds
    ]
    return sorted(runs, key=_place)


def _place(run: Run) -> tuple[Any, ...]:
    _, agent = run.parts
    return agent.rank, run.seed not in SEEDS, NAMES.index(run.task), run.seed, list(AGENTS).index(run.agent)


def ablations() -> list[Run]:
    """Return the runs of the ablations."""
    return [Run(*parts) for parts in product(ABLATION_TASKS, AGENTS_OF_ABLATIONS, ABLATION_SEEDS)]


def chosen(
    runs: Iterable[Run], tasks: Sequence[str] | None, agents: Sequence[str] | None, seeds: Sequence[int] | None
) -> list[Run]:
    """Return the runs of some tasks, agents and seeds; None: of all that they have."""
    return [
        run
        for run in runs
        if (tasks is None or run.task in tasks)
        and (agents is None or run.agent in agents)
        and (seeds is None or run.seed in seeds)
    ]


def seconds(runs: Sequence[Run], folder: Path) -> list[float]:
    """Return how long each run takes: as its task's and agent's finished runs did, or else a guess.

    A guess is corrected by what the guesses for finished runs of its agent, or else of all, were off.
    """
    measured: dict[tuple[str, str], list[float]] = {}
    for path in folder.glob("*.csv"):
        about = read_about(path)
        measured.setdefault((about["task"], about["agent"]), []).append(about["wall_seconds"])
    means = {key: fmean(values) for key, values in measured.items()}
    off: dict[str | None, list[float]] = {}
    for (task, agent), mean in means.items():
        ratio = mean / _guess(Run(task, agent, 0))
        off.setdefault(agent, []).append(ratio)
        off.setdefault(None, []).append(ratio)
    return [
        means.get((run.task, run.agent)) or _guess(run) * fmean(off.get(run.agent) or off.get(None) or [1.0])
        for run in runs
    ]


def _guess(run: Run) -> float:
    _, agent = run.parts
    return 20.0 + run.steps / agent.steps_per_second
