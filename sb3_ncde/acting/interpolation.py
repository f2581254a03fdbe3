"""How the path runs over its newest interval: in straight pieces or on a cubic.

The same curves as in :mod:`sb3_ncde.cde.interpolation`, of which it explains the choice, over one interval of R rows.
What an interpolation has to know of the interval before is in its :class:`Bend`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sb3_ncde.history.window_rule import Array

LARGEST_RATIO = 10.0
"""Of an interval to the one before it: a longer interval has its slope at the start as if it were this long."""


class Bend(NamedTuple):
    """The newest interval that took time, for the curve over the next one.

    :param increments: of the path, (R, C)
    :param drive: its increments, (R, units), or None
    :param taken: nominal steps, 0 where there is none, (R, 1)
    """

    increments: Array
    drive: Array | None
    taken: Array


class Interval(NamedTuple):
    """The path from the observation before to the newest one, in R rows.

    :param increments: of the path, (R, C)
    :param drive: at the observation before, (R, units), or None
    :param drive_after: at the newest one
    :param elapsed: nominal steps that the interval takes in each environment, (N, 1)
    :param bend: of the interval before, where the curve depends on it
    """

    increments: Array
    drive: Array | None
    drive_after: Array | None
    elapsed: Array
    bend: Bend | None

    @property
    def taken(self) -> Array:
        """Nominal steps that the interval takes, (R, 1)."""
        return np.repeat(self.elapsed, len(self.increments) // len(self.elapsed), axis=0)

    def next_bend(self) -> Bend | None:
        """Return what the curve over the next interval has to know, where it depends on it."""
        if self.bend is None:
            return None
        taken = self.taken
        timed, drive = taken > 0, None
        if self.bend.drive is not None and self.drive is not None and self.drive_after is not None:
            drive = np.where(timed, self.drive_after - self.drive, self.bend.drive)
        increments = np.where(timed, self.increments, self.bend.increments)
        return Bend(increments, drive, np.where(timed, taken, self.bend.taken))


class Piece(ABC):
    """A piece of the path between two observations, and of the drive: what the field sees of the path beside z."""

    @abstractmethod
    def slope(self, place: float) -> Array:
        """Return dX/du at a fraction of the piece, (R, C)."""

    @abstractmethod
    def drive_at(self, place: float) -> Array | None:
        """Return the drive at a fraction of the piece, (R, units)."""


class Straight(Piece):
    """A straight piece.

    :param increments: of the path, (R, C)
    :param drive: at its beginning, (R, units), or None
    :param drive_after: at its end
    """

    def __init__(self, increments: Array, drive: Array | None, drive_after: Array | None) -> None:
        self.increments = increments
        self.drive = drive
        self.drive_after = drive_after

    def slope(self, place: float) -> Array:
        """Return the increments, wherever the slope is asked for."""
        return self.increments

    def drive_at(self, place: float) -> Array | None:
        """Return the drive at a fraction of the piece."""
        if self.drive is None or self.drive_after is None or not place:
            return self.drive
        return self.drive + place * (self.drive_after - self.drive)


class Cubic(Piece):
    """A cubic piece.

    :param increments: of the path, with whose slope it arrives, (R, C)
    :param leaving: with whose slope it leaves, (R, C)
    :param drive: at its beginning, (R, units), or None
    :param drive_increments: of the drive
    :param drive_leaving: likewise
    """

    def __init__(
        self,
        increments: Array,
        leaving: Array,
        drive: Array | None,
        drive_increments: Array | None,
        drive_leaving: Array | None,
    ) -> None:
        self.increments, self._leaving = increments, leaving
        self.drive, self._drive_increments, self._drive_leaving = drive, drive_increments, drive_leaving

    def slope(self, place: float) -> Array:
        """Return dX/du at a fraction of the piece."""
        return self._leaving + (4 * place - 3 * place**2) * (self.increments - self._leaving)

    def drive_at(self, place: float) -> Array | None:
        """Return the drive at a fraction of the piece."""
        if self.drive is None or self._drive_increments is None or self._drive_leaving is None:
            return None
        late = (2 * place**2 - place**3) * (self._drive_increments - self._drive_leaving)
        return self.drive + place * self._drive_leaving + late


def linear(interval: Interval) -> tuple[Piece, ...]:
    """Return one straight piece."""
    return (Straight(interval.increments, interval.drive, interval.drive_after),)


def hermite(interval: Interval) -> tuple[Piece, ...]:
    """Return one cubic piece, which leaves with the slope of the interval before and arrives with that of its own."""
    increments, bend, drive = interval.increments, interval.bend, interval.drive
    assert bend is not None
    # Bounded, so that what changed in almost no time does not throw the path far away.
    ratio = np.minimum(interval.taken / np.maximum(bend.taken, np.finfo(bend.taken.dtype).tiny), LARGEST_RATIO)
    bent = bend.taken > 0  # straight where no time has passed before
    leaving = np.where(bent, bend.increments * ratio, increments)
    moved, drive_leaving = None, None
    if drive is not None and interval.drive_after is not None and bend.drive is not None:
        moved = interval.drive_after - drive
        drive_leaving = np.where(bent, bend.drive * ratio, moved)
    return (Cubic(increments, leaving, drive, moved, drive_leaving),)


def rectilinear(interval: Interval) -> tuple[Piece, ...]:
    """Return two straight pieces: on the first time moves, which is channel 0, on the second all the others."""
    time = np.zeros_like(interval.increments)
    time[:, 0] = interval.increments[:, 0]
    waiting = Straight(time, interval.drive, interval.drive)
    return waiting, Straight(interval.increments - time, interval.drive, interval.drive_after)


INTERPOLATIONS: dict[str, Callable[[Interval], tuple[Piece, ...]]] = {
    "linear": linear,
    "hermite": hermite,
    "rectilinear": rectilinear,
}
"""By the names of :data:`sb3_ncde.cde.interpolation.INTERPOLATIONS`."""

CURVED = ("hermite",)
"""Those that depend on the interval before."""
