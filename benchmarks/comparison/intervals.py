"""Statistics over tasks and seeds by rliable (Agarwal et al. 2021, arXiv:2108.13264), repeatable."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from rliable import library
from scipy.stats import trim_mean

from comparison.results import Matrix

REPEATS = 2000
"""Draws of a bootstrap."""


class Estimate(NamedTuple):
    """A statistic and its 95 % interval, each of the statistic's shape."""

    point: Matrix
    low: Matrix
    high: Matrix


def iqm(scores: Mapping[str, Matrix], repeats: int = REPEATS) -> dict[str, Estimate]:
    """Return the interquartile mean over runs and tasks at each point.

    :param scores: of each agent, (runs, tasks, points)
    """
    return _estimates(scores, interquartile_mean, repeats)


def profile(scores: Mapping[str, Matrix], levels: Matrix, repeats: int = REPEATS) -> dict[str, Estimate]:
    """Return the share of runs above each level.

    :param scores: of each agent, (runs, tasks)
    """
    np.random.seed(0)  # noqa: NPY002  rliable draws from NumPy's own generator
    return _named(*library.create_performance_profile(scores, levels, reps=repeats))


def improvement(ours: Matrix, theirs: Matrix, repeats: int = REPEATS) -> Estimate:
    """Return the probability that a run of ours has a higher score than one of theirs, in the mean over tasks.

    :param ours: (runs, tasks)
    :param theirs: (runs, tasks)
    """
    pair: Any = {"": [ours, theirs]}
    return _estimates(pair, lambda x, y: np.array([probability_of_improvement(x, y)]), repeats)[""]


def interquartile_mean(values: Matrix) -> Matrix:
    """Return rliable's ``aggregate_iqm`` of (runs, tasks) at each point, (points,), of all points in one operation."""
    means: Matrix = trim_mean(values.reshape(-1, values.shape[-1]), 0.25, axis=0)
    return means


def probability_of_improvement(ours: Matrix, theirs: Matrix) -> float:
    """Return rliable's ``probability_of_improvement``, a hundred times as fast."""
    differences = ours[:, None] - theirs[None]  # (runs, runs, tasks)
    return float((np.sign(differences) / 2 + 0.5).mean())


def _estimates(scores: Mapping[str, Any], statistic: Callable[..., Matrix], repeats: int) -> dict[str, Estimate]:
    np.random.seed(0)  # noqa: NPY002  rliable draws from NumPy's own generator
    return _named(*library.get_interval_estimates(scores, statistic, reps=repeats))


def _named(points: Mapping[str, Matrix], intervals: Mapping[str, Matrix]) -> dict[str, Estimate]:
    return {name: Estimate(point, *intervals[name]) for name, point in points.items()}
