"""Traces: a summary of the whole episode at constant cost, made of data alone, so that it never goes stale.

Of each feature: its first value in the episode, the mean of all, and for each time constant tau of a list the exact
solution of tau ds = (x - s) dt along the path x, linear from one observation to the next, that begins at the first
value (exponential filters: "memory traces", Eberhard et al. 2025, arXiv:2503.15200; in continuous time the Laplace
transform of the past, Shankar & Howard 2012). With them goes the logarithm of the count of observations, by which mean
and count together are a sum.

All are linear recurrences v <- a v + b, whose a and b are data. A step of them serves acting; sequences are unrolled by
an associative scan, in as many operations as the logarithm of their length (Blelloch 1990).

Where values may be missing, an interval counts for the features that are observed at its end: their filter is the
filter of the values that count over the filter of what counts. It is 0 until a feature has been observed.
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
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Traces:
    """The columns of a summary, (..., M), in a slot of the history.

    They are, in groups of D: first values, means, K filters, and with missing values K filters of what counts; without
    missing values at last one column with the count.

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
        return 2 + len(self.time_constants) * (2 if self.missing_values else 1)

    @cached_property
    def size(self) -> int:
        """M, columns of a summary in the history."""
        return self.n_groups * self.features_dim + (0 if self.missing_values else 1)

    @cached_property
    def n_extra(self) -> int:
        """Columns at the end that are no means of observations: shares of filters, or the count."""
        return len(self.time_constants) * self.features_dim if self.missing_values else 1

    @cached_property
    def values_size(self) -> int:
        """Numbers of a summary as networks are given it."""
        return (2 + len(self.time_constants)) * self.features_dim + (self.features_dim if self.missing_values else 1)

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
        dtype = line.dtype
        # In float32, (n - 1) / n and 1 / n do not add up to 1, and of 100,000 steps the mean would be 1e-4 off.
        line, counts, elapsed = (values.astype(np.float64) for values in (line, counts, elapsed))
        keep, add = self._coefficients(line[:, :-1], line[:, 1:], counts, observed, elapsed, starts)
        groups = before[:, : self.n_groups * self.features_dim].reshape(len(before), self.n_groups, -1)
        add[:, 0] += keep[:, 0] * groups
        shift = 1
        while shift < add.shape[1]:
            add[:, shift:] += keep[:, shift:] * add[:, :-shift]
            keep[:, shift:] = keep[:, shift:] * keep[:, :-shift]
            shift *= 2
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
        n_filters, goes_on = len(self.time_constants), ~starts
        keep = np.empty((*shape, 1 if observed is None else new.shape[2]), new.dtype)
        add = np.empty((*shape, new.shape[2]), new.dtype)
        times_observed = np.maximum(counts, 1)
        if observed is None:
            begins, counted = starts, np.ones_like(starts)
            known = goes_on
        else:
            begins, counted = observed & (counts == 1), observed
            known = goes_on & (counts > observed)  # observed before, in this episode
        keep[:, :, 0] = goes_on & ~begins
        add[:, :, 0] = np.where(begins, new, 0.0)
        keep[:, :, 1] = goes_on * np.where(counted, (counts - 1) / times_observed, 1.0)
        add[:, :, 1] = np.where(counted, new / times_observed, 0.0)
        old = np.where(known, old, new)
        for number, constant in enumerate(self.time_constants):
            place = 2 + number
            steps = elapsed / constant
            decay = np.exp(-steps)
            mean_decay = np.where(steps > 0, -np.expm1(-steps) / np.where(steps > 0, steps, 1.0), 1.0)
            keep[:, :, place] = decay * goes_on
            filtered = np.where(starts, new, new - decay * old - (new - old) * mean_decay)
            add[:, :, place] = np.where(counted, filtered, 0.0)
            if observed is not None:
                keep[:, :, place + n_filters] = keep[:, :, place]
                add[:, :, place + n_filters] = np.where(counted, np.where(starts, 1.0, 1.0 - decay), 0.0)
        return keep, add

    def values(self, summary: Array, counts: Array | None) -> Array:
        """Return summaries as networks are given them: first, mean, filters, logarithm of counts, (..., values_size).

        :param summary: columns, (..., M)
        :param counts: of the observations of each feature, (..., D), where they may be missing
        """
        if counts is None:
            values: Array = summary.copy()
            values[..., -1] = np.log(np.maximum(summary[..., -1], 1.0))
            return values
        own = (2 + len(self.time_constants)) * self.features_dim
        shares = summary[..., own:]
        filters = summary[..., 2 * self.features_dim : own]
        filters = np.where(shares > 0, filters / np.where(shares > 0, shares, 1.0), 0.0)
        return np.concatenate(
            (summary[..., : 2 * self.features_dim], filters, np.log(np.maximum(counts, 1.0))),
            axis=-1,
            dtype=summary.dtype,
        )
