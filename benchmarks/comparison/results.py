"""What the files of runs say: evaluations, and scores that can be compared from task to task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.integrate import trapezoid

from comparison.agents import CEILING, FLOOR
from comparison.runs import read_about
from comparison.tasks import TASKS

OURS = "NCDEPolicy, with traces where the task is long"
"""One agent of two: which of them it is on a task was decided by the task's group, not by the result."""
LONG = {True: "NCDEPolicy with traces", False: "NCDEPolicy"}
Matrix = npt.NDArray[np.float64]


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what runs there are, and their evaluations.

    :param folder: of the files
    :return: a row for each run: task, group, agent, seed, and all else that its file says of it; and a row for each
        evaluation: task, group, agent, seed, steps, seconds, cpu_seconds, other, mean, std, episodes. ``other`` is NaN
        where the sensors are those of the training
    :raises FileNotFoundError: if there are no files
    """
    runs, tables = [], []
    for path in sorted(folder.glob("*.csv")):
        about, table = read_about(path), pd.read_csv(path, comment="#")
        runs.append(about)
        tables.append(table.assign(**{name: about[name] for name in ("task", "group", "agent", "seed")}))
    if not runs:
        raise FileNotFoundError(f"{folder} has no files of runs: train some first, benchmarks/learning.py --jobs 2.")
    return pd.DataFrame(runs), pd.concat(tables, ignore_index=True)


def final(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluations at the end of each training, with its sensors."""
    return trained(evaluations).groupby(["task", "agent", "seed"], sort=False).tail(1)


def trained(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluations with the sensors of the training."""
    return evaluations[evaluations["other"].isna()]


def scales(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return what of a task's returns is a score of 0 and of 1, by task: low, high, apart.

    A score of 0 is what PPO without memory reaches at the end, in the mean over seeds; 1 is what PPO that sees
    everything reaches, or the greatest return that there is, where that is known. A task is of use for scores only if
    these are apart: by more than both spread over seeds. Otherwise it needs no memory, or nothing has been learned.
    """
    rows = {}
    for task, ends in final(evaluations).groupby("task", sort=False):
        known = TASKS[str(task)].best
        floor, ceiling = (ends.loc[ends["agent"] == agent, "mean"] for agent in (FLOOR, CEILING))
        if floor.empty or (ceiling.empty and known is None):
            continue
        low, high = floor.mean(), ceiling.mean() if known is None else known
        spread = sum(means.std() if len(means) > 1 else 0.0 for means in (floor, ceiling))
        rows[task] = {"low": low, "high": high, "apart": bool(high - low > spread)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high", "apart"])


def scored(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Return evaluations of the tasks that have a scale, with a column ``score``, and :data:`OURS` as an agent."""
    scale = scales(evaluations)
    usable = scale[scale["apart"].astype(bool)]
    rows = evaluations[evaluations["task"].isin(usable.index)]
    low, high = (rows["task"].map(usable[name]).astype(float) for name in ("low", "high"))
    rows = rows.assign(score=(rows["mean"] - low) / (high - low))
    ours = rows[rows["agent"] == (rows["group"] == "long").map(LONG)]
    return pd.concat([rows, ours.assign(agent=OURS)], ignore_index=True)


def complete(scores: pd.DataFrame, agents: Sequence[str], least: int) -> list[str]:
    """Return the tasks on which each of some agents has been run with at least so many seeds; controls are none."""
    ends = final(scores)
    seeds = ends.pivot_table(index="task", columns="agent", values="seed", aggfunc="nunique", sort=False)
    seeds = seeds.reindex(columns=list(agents)).fillna(0)
    tasks = map(str, seeds.index[(seeds >= least).all(axis=1)])
    return [task for task in tasks if TASKS[task].group != "control"]


def matrices(scores: pd.DataFrame, agents: Sequence[str], tasks: Sequence[str]) -> dict[str, Matrix]:
    """Return scores of each agent at each of its evaluations, (runs, tasks, points), as rliable takes them."""
    of: dict[tuple[str, str], list[Matrix]] = {}
    for (task, agent, _), rows in trained(scores).groupby(["task", "agent", "seed"]):
        of.setdefault((str(task), str(agent)), []).append(rows["score"].to_numpy())
    return stacked(of, agents, tasks)


def stacked(
    of: Mapping[tuple[str, str], Sequence[Matrix]], agents: Sequence[str], tasks: Sequence[str]
) -> dict[str, Matrix]:
    """Return the runs of each agent, (runs, tasks, points): of each task as many, the fewest that there are."""
    n_runs = min(len(of[task, agent]) for task in tasks for agent in agents)
    return {agent: np.stack([np.stack(of[task, agent][:n_runs]) for task in tasks], axis=1) for agent in agents}


def areas(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the area under each run's scores with other sensors, divided by its width: task, agent, seed, area."""
    rows: list[dict[str, Any]] = []
    others = scores[scores["other"].notna()]
    for (task, agent, seed), group in others.groupby(["task", "agent", "seed"], sort=False):
        line = group.sort_values("other")
        at, score = line["other"].to_numpy(), line["score"].to_numpy()
        area = trapezoid(score, at) / (at[-1] - at[0])
        rows.append({"task": task, "agent": agent, "seed": seed, "area": area})
    return pd.DataFrame(rows, columns=["task", "agent", "seed", "area"])


def reached(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return when each run first had a score: task, agent, seed, steps, cpu_seconds; NaN if never."""
    rows = []
    for (task, agent, seed), group in trained(scores).groupby(["task", "agent", "seed"], sort=False):
        there = group[group["score"] >= threshold]
        first = there.iloc[0] if len(there) else None
        times = {name: np.nan if first is None else first[name] for name in ("steps", "cpu_seconds")}
        rows.append({"task": task, "agent": agent, "seed": seed, **times})
    return pd.DataFrame(rows, columns=["task", "agent", "seed", "steps", "cpu_seconds"])
