"""Draw docs/irregular.png, the picture of the README, from docs/learning/runs. ``python docs/irregular_picture.py``.

The runs are those of ``python benchmarks/learning.py --tasks "irregular Pendulum, actions hidden"``: each agent is
trained with 1 to 5 steps of physics from one observation to the next, and then evaluated where all are as long.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLORS = {
    "NCDEPolicy": "tab:blue",
    "MlpLstmPolicy 64, NCDEPolicy's settings": "tab:orange",
    "PPO, 3 stacked frames, NCDEPolicy's settings": "tab:gray",
    "PPO, rates, NCDEPolicy's settings": "tab:green",
}
"""All with the same settings: with the RL Zoo's, the LSTM is far behind."""


def read() -> pd.DataFrame:
    """Return the returns of each trained agent with other sensors: agent, seed, steps of physics (other), mean."""
    tables = []
    for file in sorted((HERE / "learning" / "runs").glob("irregular_Pendulum_actions_hidden--*.csv")):
        with file.open() as lines:
            about = json.loads(lines.readline().removeprefix("# "))
        table = pd.read_csv(file, comment="#").dropna(subset="other")
        tables.append(table.assign(agent=about["agent"], seed=about["seed"]))
    return pd.concat(tables)


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
        means = results[results["agent"] == agent].groupby("other")["mean"]
        places = means.mean().index + 0.05 * (shift - 1)  # side by side: bars would hide each other
        axes.errorbar(places, means.mean(), means.std(), color=color, marker="o", capsize=3, label=agent)
        axes.plot(places, means.min(), "x", color=color, markersize=5)
    axes.plot([], [], "x", color="0.4", markersize=5, label="the worst agent")
    axes.set(
        xlabel="steps of physics from one observation to the next (training: 1 to 5 at random)",
        ylabel="return (higher is better)",
        xticks=sorted(results["other"].unique()),
    )
    counts = results[results["agent"].isin(list(COLORS))].groupby("agent")["seed"].nunique()
    seeds = f"{counts.min()}" if counts.nunique() == 1 else f"{counts.min()} to {counts.max()}"
    axes.set_title(f"Pendulum without velocities: mean and standard deviation of {seeds} agents each", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(*_marks_last(axes), frameon=False, loc="lower left")
    figure.savefig(options.output / "irregular.png", dpi=150)


if __name__ == "__main__":
    main()
