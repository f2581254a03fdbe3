"""The tables of a report, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from comparison import intervals
from comparison.ablations import BASE, CHANGES
from comparison.agents import AGENTS
from comparison.intervals import Estimate
from comparison.results import OURS, Matrix, areas, complete, final, matrices, reached, scales
from comparison.tasks import TASKS

THRESHOLD = 0.8
"""The score whose time is reported."""
NAMES = [OURS, *AGENTS]
"""Agents in the order of the rows."""


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def in_order(found: Iterable[str]) -> list[str]:
    """Return agents in the order of the rows."""
    there = set(found)
    return [name for name in NAMES if name in there]


def returns(evaluations: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Return, of each task, what each agent returns at the end, and what it took."""
    ends, parts = final(evaluations), []
    for task in (name for name in TASKS if name in set(ends["task"])):
        rows = []
        for agent in in_order(ends.loc[ends["task"] == task, "agent"]):
            cell = ends[(ends["task"] == task) & (ends["agent"] == agent)]
            about = runs[(runs["task"] == task) & (runs["agent"] == agent)].iloc[0]
            means = cell["mean"]
            spread = f"{means.mean():.4g} +- {means.std():.2g}" if len(means) > 1 else f"{means.mean():.4g}"
            rows.append(
                [
                    agent,
                    spread,
                    f"{means.min():.4g}",
                    str(len(means)),
                    f"{int(cell['steps'].iloc[0]):,}",
                    f"{cell['cpu_seconds'].median():.0f}",
                    f"{about['parameters']:,}",
                    str(about["settings"]),
                ]
            )
        header = ["agent", "return", "worst seed", "seeds", "steps", "seconds of a core", "parameters", "settings of"]
        parts.append(f"### {task}\n\n{markdown(header, rows)}")
    return "\n\n".join(parts)


def scale(evaluations: pd.DataFrame) -> str:
    """Return which returns count as 0, as :data:`THRESHOLD` and as 1."""
    found = scales(evaluations)
    rows = [
        [
            task,
            f"{low:.4g}",
            f"{low + THRESHOLD * (high - low):.4g}",
            f"{high:.4g}",
            "" if apart else "left out: they are not apart",
        ]
        for task, low, high, apart in found.itertuples()
    ]
    return markdown(["task", "0", str(THRESHOLD), "1", ""], rows)


def aggregates(scores: pd.DataFrame, agents: Sequence[str], least: int, repeats: int) -> tuple[str, dict[str, Any]]:
    """Return the IQM of some agents' scores at the end, by group and over all; and the estimates.

    Of a group, the tasks count on which each of the agents has been run.
    """
    tasks = complete(scores, agents, least)
    groups = {"all": tasks} | {
        group: [task for task in tasks if TASKS[task].group == group]
        for group in dict.fromkeys(task.group for task in TASKS.values())
    }
    found: dict[str, dict[str, Estimate]] = {}
    used: dict[str, str] = {}
    for group, members in groups.items():
        if members:
            values = matrices(scores, agents, members)
            found[group] = intervals.iqm({name: value[..., -1:] for name, value in values.items()}, repeats)
            used[group] = f"{len(members)} tasks, {len(values[agents[0]])} seeds"
    rows = [[agent, *(written(found[group][agent]) for group in found)] for agent in agents]
    return markdown(["agent", *(f"{group} ({used[group]})" for group in found)], rows), found


def written(estimate: Estimate) -> str:
    """Return an estimate of one number with its interval."""
    point, low, high = (float(np.ravel(part)[0]) for part in estimate)
    return f"{point:.2f} ({low:.2f} to {high:.2f})"


def improvements(values: Mapping[str, Matrix], repeats: int) -> str:
    """Return how probable it is that a run of ours is better than one of each peer's."""
    rows = [
        [peer, written(intervals.improvement(values[OURS][..., -1], values[peer][..., -1], repeats))]
        for peer in values
        if peer != OURS
    ]
    return markdown(["in place of", f"probability that {OURS} has the higher score"], rows)


def times(scores: pd.DataFrame) -> str:
    """Return how long agents take to a score of :data:`THRESHOLD`: median over seeds that reach it, and how many do."""
    first = reached(scores, THRESHOLD)
    agents = [name for name in in_order(first["agent"]) if name != OURS]
    rows = []
    for task in (name for name in TASKS if name in set(first["task"])):
        cells = [first[(first["task"] == task) & (first["agent"] == agent)] for agent in agents]
        rows.append([task, *map(_time, cells)])
    return markdown(["task", *agents], rows)


def _time(cell: pd.DataFrame) -> str:
    if cell.empty:
        return "-"
    there = cell.dropna()
    if there.empty:
        return f"0 of {len(cell)}"
    share = "" if len(there) == len(cell) else f", {len(there)} of {len(cell)}"
    return f"{there['cpu_seconds'].median():.0f} s, {there['steps'].median():,.0f} steps{share}"


def transfer(scores: pd.DataFrame) -> str:
    """Return the areas under the scores with other sensors, mean and spread over seeds."""
    found = areas(scores)
    agents = [name for name in in_order(found["agent"]) if name != OURS]
    rows = []
    for task in (name for name in TASKS if name in set(found["task"])):
        cells = [found.loc[(found["task"] == task) & (found["agent"] == agent), "area"] for agent in agents]
        rows.append([task, *(_spread(cell) for cell in cells)])
    return markdown(["task", *agents], rows)


def _spread(values: pd.Series) -> str:
    if values.empty:
        return "-"
    return f"{values.mean():.2f} +- {values.std():.2f}" if len(values) > 1 else f"{values.mean():.2f}"


def ablations(scores: pd.DataFrame) -> str:
    """Return what is left of the base's score with one argument changed, by task: mean, spread, seeds, seconds."""
    ends = final(scores)
    names = {BASE: "as shipped"} | {f"{BASE}, {change}": change for change in CHANGES}
    tasks = [task for task in TASKS if task in set(ends.loc[ends["agent"].isin(set(names) - {BASE}), "task"])]
    rows = []
    for agent, name in names.items():
        cells = [ends[(ends["task"] == task) & (ends["agent"] == agent)] for task in tasks]
        if any(len(cell) for cell in cells):
            rows.append([name, *(_cell(cell) for cell in cells)])
    return markdown(["NCDEPolicy", *tasks], rows)


def _cell(cell: pd.DataFrame) -> str:
    if cell.empty:
        return "-"
    seconds = cell["cpu_seconds"].median()
    return f"{_spread(cell['score'])} ({cell['mean'].mean():.4g}; {len(cell)} seeds, {seconds:.0f} s)"


def conditions(runs: pd.DataFrame) -> str:
    """Return the versions, commits and machines of the runs, and how many there are of each."""
    fixed = ["python", "sb3_ncde", "torch", "numpy", "stable_baselines3", "sb3_contrib", "rl_zoo3", "gymnasium"]
    kept = [*fixed, "mujoco", "popgym", "commit", "machine", "threads"]
    rows = [[name, ", ".join(f"{value} ({n})" for value, n in runs[name].value_counts().items())] for name in kept]
    return markdown(["", "and the number of runs"], rows)
