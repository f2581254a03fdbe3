"""Draw docs/windows.png: how a history with hops serves the steps of an episode. ``python docs/window_picture.py``."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch as th

from sb3_ncde.history.observation_history import ObservationHistory

mpl.use("Agg")
from matplotlib import pyplot as plt

HISTORY_LENGTH, HOP_LENGTH, STEPS = 8, 4, 20


def main() -> None:
    """Ask the package itself for the windows, and draw them over the observations."""
    history = ObservationHistory(HISTORY_LENGTH, HOP_LENGTH, features_dim=1)
    rng = np.random.default_rng(4)
    elapsed = th.from_numpy(rng.uniform(0.4, 1.9, (1, STEPS)))
    time = np.append(0.0, elapsed[0, 1:].cumsum(0))
    values = np.sin(0.55 * time)
    empty = th.zeros(1, 1, history.size, dtype=th.float64)
    sequences, _ = history.append(
        th.from_numpy(values).view(1, STEPS, 1), elapsed, (empty, empty), th.zeros(1, STEPS, dtype=th.float64)
    )
    windows = sequences.windows()
    knot, window = windows.knot.numpy(), windows.window.numpy()

    figure, (path, bars) = plt.subplots(
        2, figsize=(10, 5), sharex=True, layout="constrained", gridspec_kw={"height_ratios": [2, 1.6]}
    )
    path.plot(time, values, color="0.7", linewidth=1.5, label="control path X (linear between observations)")
    path.plot(time, values, "o", color="black", markersize=5, label="observations, each at its own time")
    path.set_ylabel("observation")
    path.legend(loc="upper center", ncols=2, frameon=False)
    path.set_ylim(-1.3, 1.7)
    colors = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for index in range(window.max() + 1):
        steps = np.flatnonzero(window == index)
        oldest = steps[0] - knot[steps[0]]
        span, serves = time[oldest : steps[-1] + 1], time[steps]
        bars.plot(span, np.full_like(span, index), color=colors[index], linewidth=2, alpha=0.4)
        bars.plot(span[0], index, "s", color=colors[index], markersize=8)
        bars.plot(serves, np.full_like(serves, index), "o", color=colors[index], markersize=7)
    bars.plot([], [], "s", color="0.3", label="z = initial(x): the window's oldest observation")
    bars.plot([], [], "-", color="0.3", alpha=0.4, linewidth=2, label="dz = f(z, X) dX, solved once")
    bars.plot([], [], "o", color="0.3", label="a step that acts on z there")
    bars.legend(loc="upper right", frameon=False)
    bars.set(xlabel="time", ylabel="window", yticks=range(window.max() + 1))
    bars.invert_yaxis()
    bars.margins(y=0.2)
    path.set_title(
        f"history_length = {HISTORY_LENGTH}, hop_length = {HOP_LENGTH}: {window.max() + 1} solves serve {STEPS} steps"
    )
    for axes in (path, bars):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("windows.png"), dpi=150)


if __name__ == "__main__":
    main()
