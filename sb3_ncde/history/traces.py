"""Traces: a summary of the whole episode at constant cost, made of data alone, so that it never goes stale.

Of each feature: its first value in the episode, the mean of all, and for each time constant tau of a list the exact
solution of tau s' = x - s along straight lines from one value to the next, that begins at the first value (exponential
filters: "memory traces", Eberhard et al. 2025, arXiv:2503.15200; in continuous time the Laplace transform of the past,
Shankar & Howard 2012). With them goes the count of observations, by which the mean is a sum too.

All are linear recurrences v <- a v + b, whose a and b are data. A step of them serves acting; sequences are unrolled by
an associative scan, in as many operations as the logarithm of their length (Blelloch 1990).

What is kept in float32 after each step has to lose nothing over a long episode. A filter is kept as what it differs
from the first value by, which is small where a sensor has an offset; a mean with what float32 leaves of it.

Where values may be missing, mean and count are of what is observed. A filter begins with a feature's first value, all
is 0 before it, and the straight lines run from one observed value of a feature to its next. Until the next has come,
the last is taken to hold. So rows in which a feature is not observed change nothing about its filters.
"""

from collections.abc import Callable
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

    They are, in groups of D: first values, means, what float32 leaves of the means, K filters less the first values. At
    last stands one column with the count; where values may be missing, D columns with the nominal steps since each has
    been observed.

    :param time_constants: K of them, tau, in nominal steps
    :param features_dim: D
    :param missing_values: whether features may be missing
    """

    time_constants: tuple[float, ...]
    features_dim: int
    missing_values: bool

    @cached_property
    def n_groups(self) -> int:
        """Groups of D columns: of those in the history, and of the numbers that networks are given."""
        return 3 + len(self.time_constants)

    @cached_property
    def size(self) -> int:
        """M, columns of a summary in the history."""
        return self.n_groups * self.features_dim + (self.features_dim if self.missing_values else 1)

    @cached_property
    def values_size(self) -> int:
        """Numbers of a summary as networks are given it."""
        return self.size

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
        groups = before[:, :own].reshape(len(before), self.n_groups, -1)
        begins = starts if observed is None else observed & (counts == 1)
        goes_on = ~starts & ~begins
        first = _scan(goes_on, np.where(begins, line[:, 1:], 0.0), groups[:, _FIRST])
        since, ages = elapsed, None
        if observed is not None:
            since, ages = _since_observed(before[:, own:], observed, elapsed, starts)
        keep, add = self._coefficients(line, first, counts, observed, elapsed, since, starts, begins)
        groups[:, _MEAN] += groups[:, _REMAINDER]
        moving = _scan(keep, add, np.concatenate((groups[:, _MEAN : _MEAN + 1], groups[:, _FILTERS:]), axis=1))
        mean = moving[:, :, 0]
        # A mean of many moves by less than float32 can tell from one observation to the next.
        remainder = mean - mean.astype(dtype)
        filters = moving[:, :, 1:].reshape(*mean.shape[:2], -1)
        last = counts if ages is None else ages
        return np.concatenate((first, mean, remainder, filters, last), axis=2, dtype=dtype, casting="same_kind")

    def _coefficients(
        self,
        line: Array,
        first: Array,
        counts: Array,
        observed: Booleans | None,
        elapsed: Array,
        since: Array,
        starts: Booleans,
        begins: Booleans,
    ) -> tuple[Array, Array]:
        """Return a, (N, T, 1 + K, 1 or D), and b, (N, T, 1 + K, D), of v <- a v + b for the mean and K filters.

        :param first: values of the episode, (N, T, D)
        :param since: nominal steps since a feature was observed before, (N, T, 1 or D)
        :param begins: where a feature is observed for the first time, (N, T, 1 or D)
        """
        old, new = line[:, :-1], line[:, 1:]
        shape = (*new.shape[:2], 1 + len(self.time_constants))
        keep = np.zeros((*shape, begins.shape[2]), new.dtype)
        add = np.zeros((*shape, new.shape[2]), new.dtype)
        counted = np.ones_like(starts) if observed is None else observed
        times_observed = np.maximum(counts, 1)
        keep[:, :, 0] = ~starts * np.where(counted, (counts - 1) / times_observed, 1.0)
        add[:, :, 0] = np.where(counted, new / times_observed, 0.0)
        goes_on = ~starts & ~begins
        for number, constant in enumerate(self.time_constants, start=1):
            gained = -np.expm1(-elapsed / constant)  # 1 - exp(-t / tau)
            steps = since / constant
            lag = np.where(steps > 0, -np.expm1(-steps) / np.where(steps > 0, steps, 1.0), 1.0)
            keep[:, :, number] = (1.0 - gained) * goes_on
            add[:, :, number] = np.where(goes_on, (old - first) * gained + (new - old) * (1.0 - lag), 0.0)
        return keep, add

    def values(self, summary: Array, counts: Array | None) -> Array:
        """Return summaries as networks are given them: first, mean, filters, sums, logarithm of counts.

        A sum is what tells how often something was seen, and how often more than something else.

        :param summary: columns, (..., M)
        :param counts: of the observations of each feature, (..., D), where they may be missing
        :return: (..., values_size)
        """
        size, own = self.features_dim, self.n_groups * self.features_dim
        counts = summary[..., own:] if counts is None else counts
        first, mean, remainder = (summary[..., group * size : (group + 1) * size] for group in range(_FILTERS))
        filters = [first + summary[..., place : place + size] for place in range(_FILTERS * size, own, size)]
        sums = (mean.astype(np.float64) + remainder) * counts
        numbers = np.log(np.maximum(counts, 1.0))
        return np.concatenate((first, mean, *filters, sums, numbers), axis=-1, dtype=summary.dtype, casting="same_kind")

    def converted(self, summary: Array, convert: Callable[[Array], Array]) -> Array:
        """Return summaries of observations that have been converted.

        :param summary: columns, (rows, M)
        :param convert: of rows of features, (rows, D); it multiplies each feature by a number, and adds another
        """
        size, own = self.features_dim, self.n_groups * self.features_dim
        groups = summary[:, :own].reshape(len(summary), self.n_groups, size).astype(np.float64)
        first, mean = groups[:, _FIRST], groups[:, _MEAN] + groups[:, _REMAINDER]
        new = np.empty_like(groups)
        new[:, _FIRST] = convert(first)
        converted_mean = convert(mean)
        new[:, _MEAN] = converted_mean.astype(summary.dtype)
        new[:, _REMAINDER] = converted_mean - new[:, _MEAN]
        for place in range(_FILTERS, self.n_groups):
            new[:, place] = convert(first + groups[:, place]) - new[:, _FIRST]
        result: Array = summary.copy()
        result[:, :own] = new.reshape(len(summary), own)
        return result


def _scan(keep: Array, add: Array, before: Array) -> Array:
    """Return v of v <- keep v + add at each step, (N, T, ...), where it was before them, (N, ...)."""
    keep, add = keep.astype(np.float64), add.astype(np.float64)
    add[:, 0] += keep[:, 0] * before
    shift = 1
    while shift < add.shape[1]:
        add[:, shift:] += keep[:, shift:] * add[:, :-shift]
        keep[:, shift:] = keep[:, shift:] * keep[:, :-shift]
        shift *= 2
    return add


def _since_observed(before: Array, observed: Booleans, elapsed: Array, starts: Booleans) -> tuple[Array, Array]:
    """Return nominal steps since a feature was observed before each step, and since it was observed last, (N, T, D).

    :param before: the latter before the sequence, (N, D)
    """
    now = np.broadcast_to(np.cumsum(elapsed, axis=1), observed.shape)
    steps = np.arange(observed.shape[1])[:, None]
    place = np.maximum.accumulate(np.where(observed | starts, steps, -1), axis=1)
    last = np.where(place >= 0, np.take_along_axis(now, np.maximum(place, 0), axis=1), -before[:, None])
    previous = np.concatenate((-before[:, None], last[:, :-1]), axis=1)
    return np.where(starts, 0.0, now - previous), now - last
