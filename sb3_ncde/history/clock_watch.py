"""What a clock shows only over many observations: a time in another unit, or a timestamp that is taken for elapsed."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_ncde.history.window_rule import Array

LEAST_STEPS = 100
"""Observations of each environment before anything is judged: several decisions may be made at one instant."""
LEAST_ROWS = 256
"""Observations of all environments together before anything is judged."""
FAR_FROM_DT = 10.0
"""Ratio of ``dt`` and the mean elapsed time from which on one of them is a mistake: rates are bounded at dt / 10."""
LONGEST_RISE = 20
"""Observations in a row, in every environment, after which an elapsed time that always rises looks like a timestamp."""


class Suspicion(NamedTuple):
    """What is wrong with a clock, as it seems.

    :param mean: nominal steps from one observation to the next on average, which should be about 1; None: the elapsed
        time rises from each observation to the next
    :param steps: observations that this is the mean of
    """

    mean: float | None
    steps: int


class ClockWatch:
    """Compares the nominal step with the time that passes from one observation to the next.

    A ``dt`` left at its default shows so, and a time that has been normalised, which is about 0 on average. So does a
    timestamp that is taken for an elapsed time: it rises at every observation of an episode.

    :param timestamps: whether times are timestamps
    """

    def __init__(self, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._last: Array | float = 0.0
        self._rising: Array | float = 0.0
        self._lowest: Array | float = 0.0
        self._calls, self._steps, self._elapsed = 0, 0, 0.0
        self._judged = False

    def check(self, elapsed: Array, starts: npt.NDArray[np.bool_]) -> Suspicion | None:
        """Take in a step of N environments, and say once, if at all, what is wrong.

        :param elapsed: nominal steps since the observation before, (N,)
        :param starts: whether an observation is the first of its episode, (N,)
        """
        if self._judged:
            return None
        self._calls += 1
        self._steps += int(np.count_nonzero(~starts))
        self._elapsed += float(elapsed.sum())
        if not self._timestamps and self._counts_up(elapsed, starts):
            self._judged = True
            return Suspicion(None, self._steps)
        if self._calls < LEAST_STEPS or self._calls * len(elapsed) < LEAST_ROWS or not self._steps:
            return None
        self._judged = True
        mean = self._elapsed / self._steps
        return None if 1 / FAR_FROM_DT <= mean <= FAR_FROM_DT else Suspicion(mean, self._steps)

    def _counts_up(self, elapsed: Array, starts: npt.NDArray[np.bool_]) -> bool:
        """Return whether the time has risen at each of so many observations in a row, in every environment.

        A loop that becomes slower little by little does so as well, but does not rise to twice its time by that.
        """
        if np.ndim(self._last) and np.shape(self._last) != elapsed.shape:  # other environments
            self._rising, self._lowest, self._last = 0.0, 0.0, 0.0
        rises = (elapsed > self._last) & ~starts
        self._rising = np.where(rises, self._rising + 1, 0.0)
        self._lowest = np.where(self._rising > 1, self._lowest, elapsed)  # an episode's first one is 0
        self._last = elapsed
        return bool(((self._rising >= LONGEST_RISE) & (elapsed >= 2 * self._lowest)).all())
