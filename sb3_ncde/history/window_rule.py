"""Which observations of an episode the window of each step holds.

The history of an environment holds the latest n <= H observations of its episode. When it is full, the S oldest
are dropped before the new one is appended (H is ``history_length``, S is ``hop_length``), so that up to S steps in a
row share their oldest observation, and with it one solve: the solution at each knot serves the step of that knot.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

_COUNTED = 2**20
"""About the count of observations at which it starts over, since float32 counts no further than 2**24."""

_LOOKED_UP = 2**12
"""Observations of an episode up to which a table says what the window holds."""


class Phases(NamedTuple):
    """What a step does, by its *phase*: the observations of the episode, from some number on counted in a circle.

    :param following: the phase of the next step
    :param points: observations in the window
    :param serving: the open window, of L, that serves the step
    :param begins: whether a window begins with the step's observation
    :param beginning: the open window that does, where one does
    :param unused: which of the H slots of a history are not in use after the step, (phases, H, 1)
    """

    following: Integers
    points: Integers
    serving: Integers
    begins: npt.NDArray[np.bool_]
    beginning: Integers
    unused: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WindowRule:
    """Which observations of an episode the window of each step holds.

    :param history_length: H, observations in a full window
    :param hop_length: S, observations that a full window drops at once
    """

    history_length: int
    hop_length: int

    @cached_property
    def n_open(self) -> int:
        """L = ceil(H/S), the windows that are open at a time: those that this step or a later one will use."""
        return -(-self.history_length // self.hop_length)

    @cached_property
    def _cycle(self) -> int:
        """Steps after which the open windows are used by turns as before."""
        return self.hop_length * self.n_open

    def points(self, seen: Integers) -> Integers:
        """Return n, the observations that the window holds once ``seen`` observations of the episode are in."""
        full, hop = self.history_length, self.hop_length
        return _first_points(full, hop)[seen] if seen.max(initial=0) < _LOOKED_UP else _points(full, hop, seen)

    @cached_property
    def _period(self) -> int:
        return self._cycle * (_COUNTED // self._cycle + 1)

    @cached_property
    def most(self) -> int:
        """The count from which on :meth:`wrap` is due."""
        return self.history_length + self._period

    def wrap(self, seen: Integers) -> Integers:
        """Return a count of the same :meth:`phase`, small enough for float32."""
        return np.where(seen > self.most, seen - self._period, seen)

    def phase(self, seen: Integers) -> Integers:
        """Return the phase of a step, from the observations of its episode, for :attr:`phases`."""
        first = self.history_length + 1
        return np.where(seen < first, seen, first + (seen - first) % self._cycle)

    @cached_property
    def phases(self) -> Phases:
        """Tables of what a step does, by its phase.

        The window that begins with observation j * S of an episode is that of j mod L: L * S >= H steps later no step
        uses it any more.
        """
        phase = np.arange(self.history_length + 1 + self._cycle)
        points = self.points(phase)
        serving = (phase - points) // self.hop_length % self.n_open
        begins = ((phase - 1) % self.hop_length == 0) & (phase > 0)
        beginning = (phase - 1) // self.hop_length % self.n_open
        unused = np.arange(self.history_length) < self.history_length - points[:, None]
        return Phases(self.phase(phase + 1), points, serving, begins, beginning, unused[..., None])


def _points(full: int, hop: int, seen: Integers) -> Integers:
    return np.where(seen <= full, seen, full - hop + 1 + (seen - full - 1) % hop)


@cache
def _first_points(full: int, hop: int) -> Integers:
    """Return those of the first steps, which are looked up in a fraction of the time."""
    return _points(full, hop, np.arange(_LOOKED_UP))
