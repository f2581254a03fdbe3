"""The pictures of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comparison import intervals
from comparison.agents import AGENTS
from comparison.intervals import Estimate
from comparison.results import OURS, Matrix, matrices, stacked, trained
from comparison.tasks import TASKS

COLORS = {OURS: "black"} | {name: mpl.colormaps["tab10"](number % 10) for number, name in enumerate(AGENTS)}
WIDTH = 3.6
"""Inches of one panel of several."""


def curves(evaluations: pd.DataFrame, agents: Sequence[str], against: str, path: Path) -> None:
    """Draw the returns of each task: mean over seeds, with the range of the seeds.

    :param against: steps or cpu_seconds
    """
    rows = trained(evaluations)
    tasks = [name for name in TASKS if name in set(rows["task"])]
    figure, panels = _panels(len(tasks))
    for task, axes in zip(tasks, panels, strict=True):
        for agent in agents:
            of = rows[(rows["task"] == task) & (rows["agent"] == agent)]
            if len(of):
                point = of.groupby("seed").cumcount()
                at, mean, low, high = (
                    of[column].groupby(point).agg(how).to_numpy()
                    for column, how in ((against, "mean"), ("mean", "mean"), ("mean", "min"), ("mean", "max"))
                )
                _line(axes, at, mean, low, high, agent)
        axes.set(title=task, xlabel={"steps": "steps", "cpu_seconds": "seconds of a core"}[against], ylabel="return")
        if against == "cpu_seconds":
            axes.set_xscale("log")
    _finish(figure, panels, path)


def efficiency(scores: pd.DataFrame, agents: Sequence[str], tasks: Sequence[str], repeats: int, path: Path) -> None:
    """Draw the IQM of scores against the share of a training's steps, and against its time.

    Time is in multiples of what NCDEPolicy's whole training takes on the task; an agent that has ended stays as it is.
    """
    values = matrices(scores, agents, tasks)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    steps = np.unique(scores.loc[(scores["task"] == tasks[0]) & (scores["agent"] == OURS), "steps"])
    share = steps / steps[-1]
    for agent, estimate in intervals.iqm(values, repeats).items():
        _line(left, share, *estimate, agent)
    times = np.geomspace(0.02, 10, 25)
    for agent, estimate in intervals.iqm(at_times(scores, agents, tasks, times), repeats).items():
        _line(right, times, *estimate, agent)
    left.set(xlabel="share of the steps of training", ylabel="score, IQM", title=f"{len(tasks)} tasks")
    right.set(xlabel="core seconds, in multiples of NCDEPolicy's for the whole training", xscale="log")
    _finish(figure, [left, right], path)


def at_times(scores: pd.DataFrame, agents: Sequence[str], tasks: Sequence[str], times: Matrix) -> dict[str, Matrix]:
    """Return the scores of each agent at times, (runs, tasks, times): those of its last evaluation until then, or 0.

    :param times: in multiples of what :data:`OURS` takes for the whole training, the median over its runs
    """
    rows = trained(scores)
    of: dict[tuple[str, str], list[Matrix]] = {}
    for task in tasks:
        ours = rows[(rows["task"] == task) & (rows["agent"] == OURS)]
        unit = ours.groupby("seed")["cpu_seconds"].max().median()
        for (agent, _), run in rows[rows["task"] == task].groupby(["agent", "seed"]):
            before = np.searchsorted(run["cpu_seconds"].to_numpy(), times * unit, side="right")
            of.setdefault((task, str(agent)), []).append(np.append(0.0, run["score"].to_numpy())[before])
    return stacked(of, agents, tasks)


def profiles(values: Mapping[str, Matrix], repeats: int, path: Path) -> None:
    """Draw the share of runs above each score.

    :param values: scores of each agent, (runs, tasks, points)
    """
    levels = np.linspace(-0.2, 1.2, 57)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for agent, estimate in intervals.profile({name: v[..., -1] for name, v in values.items()}, levels, repeats).items():
        _line(axes, levels, *estimate, agent)
    axes.set(xlabel="score", ylabel="share of runs with a higher one")
    _finish(figure, [axes], path)


def aggregates(found: Mapping[str, Mapping[str, Estimate]], path: Path) -> None:
    """Draw the IQM of each agent, by group."""
    figure = Figure(figsize=(2.6 * len(found) + 3.2, 0.34 * len(found["all"]) + 1.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for (group, estimates), axes in zip(found.items(), panels, strict=True):
        agents = list(reversed(list(estimates)))
        for row, agent in enumerate(agents):
            estimate = estimates[agent]
            point, low, high = (float(np.ravel(part)[0]) for part in estimate)
            axes.barh(row, high - low, left=low, height=0.6, color=COLORS[agent], alpha=0.5)
            axes.plot([point, point], [row - 0.3, row + 0.3], color="black")
        axes.set(title=group, xlabel="score, IQM", yticks=range(len(agents)), yticklabels=agents)
        axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=150)


def transfer(scores: pd.DataFrame, agents: Sequence[str], path: Path) -> None:
    """Draw the scores with other sensors than those of the training: mean and range over seeds."""
    rows = scores[scores["other"].notna()]
    tasks = [name for name in TASKS if name in set(rows["task"])]
    figure, panels = _panels(len(tasks))
    for task, axes in zip(tasks, panels, strict=True):
        for agent in agents:
            of = rows[(rows["task"] == task) & (rows["agent"] == agent)].groupby("other")["score"]
            if len(of):
                _line(axes, np.array(list(of.groups)), of.mean(), of.min(), of.max(), agent)
        axes.set(title=task, xlabel=TASKS[task].axis, ylabel="score")
    _finish(figure, panels, path)


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    columns = min(4, n)
    lines = -(-n // columns)
    figure = Figure(figsize=(WIDTH * columns + 2.4, 2.8 * lines + 1), layout="constrained")
    panels: list[Axes] = list(np.ravel(figure.subplots(lines, columns, squeeze=False)))
    for axes in panels[n:]:
        axes.remove()
    return figure, panels[:n]


def _line(axes: Axes, at: Any, middle: Any, low: Any, high: Any, agent: str) -> None:
    axes.plot(at, middle, color=COLORS[agent], label=agent, linewidth=2 if agent == OURS else 1.2)
    axes.fill_between(at, low, high, color=COLORS[agent], alpha=0.15, linewidth=0)


def _finish(figure: Figure, panels: Sequence[Axes], path: Path) -> None:
    named: dict[str, Any] = {}
    for axes in panels:
        axes.grid(alpha=0.3)
        handles, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(list(named.values()), list(named), loc="outside right upper", fontsize="small", frameon=False)
    figure.savefig(path, dpi=150)
