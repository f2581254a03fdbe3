"""Draw docs/irregular.png, the picture of the README, from docs/irregular.csv. ``python docs/irregular_picture.py``.

The numbers are those of the table in docs/evidence.md that ``python benchmarks/irregular.py`` prints: mean over five
agents, standard deviation, worst agent.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLORS = {"NCDEPolicy": "tab:blue", "LSTM, 64 units": "tab:orange", "8 stacked frames": "tab:gray"}


class Result(NamedTuple):
    """What the agents of one kind reach where an action is held for so many steps."""

    agent: str
    steps_between: int
    mean: float
    spread: float
    worst: float


def read() -> list[Result]:
    """Return the results of the file."""
    with (HERE / "irregular.csv").open(newline="") as file:
        return [
            Result(row["agent"], int(row["steps_between"]), *(float(row[name]) for name in Result._fields[2:]))
            for row in csv.DictReader(file)
        ]


def _marks_last(axes: Axes) -> tuple[list[Artist], list[str]]:
    """Return the legend's handles and labels, agents first."""
    handles, labels = axes.get_legend_handles_labels()
    return [*handles[1:], handles[0]], [*labels[1:], labels[0]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the mean return of each kind of agent, with its spread over the agents, and the worst agent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE, help="folder (default: docs)")
    options = parser.parse_args(arguments)
    results = read()
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for shift, (agent, color) in enumerate(COLORS.items()):
        rows = [result for result in results if result.agent == agent]
        places = [row.steps_between + 0.05 * (shift - 1) for row in rows]  # side by side: bars would hide each other
        means = [row.mean for row in rows]
        axes.errorbar(places, means, [row.spread for row in rows], color=color, marker="o", capsize=3, label=agent)
        axes.plot(places, [row.worst for row in rows], "x", color=color, markersize=5)
    axes.plot([], [], "x", color="0.4", markersize=5, label="the worst of five agents")
    axes.set(
        xlabel="steps of physics from one observation to the next (training: 1 to 5 at random)",
        ylabel="return (higher is better)",
        xticks=sorted({result.steps_between for result in results}),
    )
    axes.set_title("Pendulum without velocities: mean and standard deviation of five agents", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(*_marks_last(axes), frameon=False, loc="lower left", bbox_to_anchor=(0.32, 0.02))
    figure.savefig(options.output / "irregular.png", dpi=150)


if __name__ == "__main__":
    main()
