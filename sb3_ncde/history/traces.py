"""Traces: a summary of the whole episode at constant cost, made of data alone, so that it never goes stale.

Of each feature: its first value in the episode, the mean of all, and for each time constant tau of a list the exact
solution of tau s' = x - s along the path x, linear from one observation to the next, that begins at the first
value (exponential filters: "memory traces", Eberhard et al. 2025, arXiv:2503.15200; in continuous time the Laplace
transform of the past, Shankar & Howard 2012). With them goes the count of observations, by which the mean is a sum too.

All are linear recurrences v <- a v + b, whose a and b are data. A step of them serves acting; sequences are unrolled by
an associative scan, in as many operations as the logarithm of their length (Blelloch 1990).

A value that is missing is held, as on the path that the equation runs along: mean and count are of what is observed,
filters begin with a feature's first value, and all are 0 before it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sb3_ncde.history.window_rule import Array

DEFAULT_TIME_CONSTANTS = (4.0, 16.0, 64.0, 256.0)
"""Nominal steps: each four times the one before."""
CLIP = 10.0
"""Bound of the scaled numbers of a summary, as VecNormalize has for observations: a mean that was next to 0 in what has
been learned from may grow a hundred times when its feature begins to move."""
_FIRST, _MEAN, _REMAINDER, _FILTERS = range(4)
"""Groups of columns; of filters, the first."""
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Traces:
    """The columns of a summary, (..., M), in a slot of the history.

    They are, in groups of D: first values, means, what float32 leaves of the means, K filters; without missing values
    at last one column with the count.

    :param time_constants: K of them, tau, in nominal steps
    :param features_dim: D
    :param missing_values: whether features may be missing
    """

    time_constants: tuple[float, ...]
    features_dim: int
    missing_values: bool

    @cached_property
    def n_groups(self) -> int:
        """Groups of D columns."""
        return 3 + len(self.time_constants)

    @cached_property
    def size(self) -> int:
        """M, columns of a summary in the history."""
        return self.n_groups * self.features_dim + (0 if self.missing_values else 1)

    @cached_property
    def starts_of_means(self) -> list[int]:
        """Columns at which the groups begin that are means of observations: first values, means, filters."""
        return [self.features_dim * group for group in range(self.n_groups) if group != _REMAINDER]

    @cached_property
    def start_of_remainder(self) -> int:
        """Column at which begins what float32 leaves of the means."""
        return self.features_dim * _REMAINDER

    @cached_property
    def values_size(self) -> int:
        """Numbers of a summary as networks are given it."""
        return self.n_groups * self.features_dim + (self.features_dim if self.missing_values else 1)

    def unroll(
        self,
        before: Array,
        line: Array,
        counts: Array,
        observed: Booleans | None,
        elapsed: Array,
        starts: Booleans,
    ) -> Array:
        """Return the summaries of N sequences of T observations, (N, T, M).

        :param before: the summaries before them, (N, M)
        :param line: the values of features, that of before the sequence first, held where missing, (N, 1 + T, D)
        :param counts: observations of the episode up to each, (N, T, 1); with missing values of each feature, (N, T, D)
        :param observed: which features are, (N, T, D), where they may be missing
        :param elapsed: nominal steps since the observation before, (N, T, 1)
        :param starts: whether an observation is the first of its episode, (N, T, 1)
        """
        dtype, own = line.dtype, self.n_groups * self.features_dim
        # In float32, (n - 1) / n and 1 / n do not add up to 1, and of 100,000 steps the mean would be 1e-4 off.
        before, line, counts, elapsed = (values.astype(np.float64) for values in (before, line, counts, elapsed))
        keep, add = self._coefficients(line[:, :-1], line[:, 1:], counts, observed, elapsed, starts)
        groups = before[:, :own].reshape(len(before), self.n_groups, -1)
        groups[:, _MEAN] += groups[:, _REMAINDER]
        add[:, 0] += keep[:, 0] * groups
        shift = 1
        while shift < add.shape[1]:
            add[:, shift:] += keep[:, shift:] * add[:, :-shift]
            keep[:, shift:] = keep[:, shift:] * keep[:, :-shift]
            shift *= 2
        # A mean of many moves by less than float32 can tell from one observation to the next.
        add[:, :, _REMAINDER] = add[:, :, _MEAN] - add[:, :, _MEAN].astype(dtype)
        columns = add.reshape(*add.shape[:2], -1)
        if not self.missing_values:
            columns = np.concatenate((columns, counts), axis=2)
        return columns.astype(dtype)

    def _coefficients(
        self, old: Array, new: Array, counts: Array, observed: Booleans | None, elapsed: Array, starts: Booleans
    ) -> tuple[Array, Array]:
        """Return a, (N, T, groups, 1 or D), and b, (N, T, groups, D), of each group's v <- a v + b.

        :param old: values before each observation, (N, T, D)
        :param new: values at it, (N, T, D)
        """
        shape = (*new.shape[:2], self.n_groups)
        goes_on = ~starts
        keep = np.zeros((*shape, 1 if observed is None else new.shape[2]), new.dtype)
        add = np.zeros((*shape, new.shape[2]), new.dtype)
        times_observed = np.maximum(counts, 1)
        if observed is None:
            begins, counted = starts, np.ones_like(starts)
        else:
            begins, counted = observed & (counts == 1), observed
        keep[:, :, _FIRST] = goes_on & ~begins
        add[:, :, _FIRST] = np.where(begins, new, 0.0)
        keep[:, :, _MEAN] = goes_on * np.where(counted, (counts - 1) / times_observed, 1.0)
        add[:, :, _MEAN] = np.where(counted, new / times_observed, 0.0)
        change = new - old
        for number, constant in enumerate(self.time_constants):
            steps = elapsed / constant
            gained = -np.expm1(-steps)  # 1 - exp(-t / tau)
            lag = np.where(steps > 0, gained / np.where(steps > 0, steps, 1.0), 1.0)
            keep[:, :, _FILTERS + number] = (1.0 - gained) * (goes_on & ~begins)
            going_on = np.where(goes_on, old * gained + change * (1.0 - lag), 0.0)
            add[:, :, _FILTERS + number] = np.where(begins, new, going_on)
        return keep, add

    def values(self, summary: Array, counts: Array | None) -> Array:
        """Return summaries as networks are given them: first, mean, filters, sums, logarithm of counts.

        A sum is what tells how often something was seen, and how often more than something else.

        :param summary: columns, (..., M)
        :param counts: of the observations of each feature, (..., D), where they may be missing
        :return: (..., values_size)
        """
        size = self.features_dim
        own = self.n_groups * size
        counts = summary[..., own:] if counts is None else counts
        sums = summary[..., _MEAN * size : _REMAINDER * size] * counts
        numbers = np.log(np.maximum(counts, 1.0))
        parts = (summary[..., : _REMAINDER * size], summary[..., _FILTERS * size : own], sums, numbers)
        return np.concatenate(parts, axis=-1, dtype=summary.dtype)
