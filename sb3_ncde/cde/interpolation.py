"""How the control path runs from knot to knot.

A path is a function of u, which is i at knot i: a controlled differential equation asks for the curve, not for the
speed at which it is run through, and time, where it matters, is a channel of the path.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch as th
import torchcde

from sb3_ncde.acting.interpolation import LARGEST_RATIO
from sb3_ncde.cde.path import ControlPath, held


class Interpolation(ABC):
    """A path over I = H - 1 intervals, and the *drive*: what the field sees of the path beside z.

    :param increments: of the path over each interval, (I, B, C)
    :param drive: at the knots, (I + 1, B, V), or None
    """

    least_order: ClassVar[int] = 1
    """Order below which a fixed solver, one step an interval, would follow the path late."""
    pieces: ClassVar[int] = 1
    """Intervals that it makes of one between two observations."""
    needs_time: ClassVar[bool] = False
    """Whether it is made of a path whose first channel is time."""

    def __init__(self, increments: th.Tensor, drive: th.Tensor | None) -> None:
        self.increments = increments
        self.drive = drive

    @classmethod
    @abstractmethod
    def through(cls, path: ControlPath, drive: th.Tensor | None) -> "Interpolation":
        """Return the curve through the knots of a path.

        :param path: over the intervals between observations
        :param drive: at the observations, or None
        """

    @abstractmethod
    def slope(self, place: float) -> th.Tensor:
        """Return dX/du of each interval at a fraction of it, (I, B, C)."""

    @abstractmethod
    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V)."""

    @abstractmethod
    def coefficients(self) -> th.Tensor:
        """Return torchcde's coefficients of each interval by itself, over [0, 1]; the leading dimensions are I and B.

        The channels are those of X, which begins at 0 in each interval, and then those of the drive.
        """

    @staticmethod
    @abstractmethod
    def piece(coefficients: th.Tensor) -> torchcde.interpolation_base.InterpolationBase:
        """Return torchcde's path over one interval, from its coefficients."""

    def _beside(self, of_path: th.Tensor, of_drive: th.Tensor | None) -> th.Tensor:
        """Return the channels of X and of the drive, (I, B, C + V), with the time dimension of torchcde."""
        return (of_path if of_drive is None else th.cat((of_path, of_drive), dim=-1)).unsqueeze(2)


class Linear(Interpolation):
    """Straight from knot to knot."""

    @classmethod
    def through(cls, path: ControlPath, drive: th.Tensor | None) -> "Linear":
        """Return the curve through the knots of a path."""
        return cls(path.increments, drive)

    def slope(self, place: float) -> th.Tensor:
        """Return the increments, wherever the slope is asked for."""
        return self.increments

    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V)."""
        if self.drive is None:
            return None
        return th.lerp(self.drive[:-1], self.drive[1:], place) if place else self.drive[:-1]

    def coefficients(self) -> th.Tensor:
        """Return the values at both ends of each interval, (I, B, 2, C + V)."""
        start, end = (None, None) if self.drive is None else (self.drive[:-1], self.drive[1:])
        return th.cat((self._beside(th.zeros_like(self.increments), start), self._beside(self.increments, end)), dim=2)

    @staticmethod
    def piece(coefficients: th.Tensor) -> torchcde.interpolation_base.InterpolationBase:
        """Return torchcde's path over one interval, from its coefficients."""
        return torchcde.LinearInterpolation(coefficients)


class Hermite(Interpolation):
    """Cubic Hermite with backward differences (Morrill et al. 2021, arXiv:2106.11028, section 3): smooth and causal.

    It leaves a knot with the slope in time of the interval before, and reaches the next with that of the interval it is
    on; the first interval is straight. An interval that takes no time has no slope: after it the one before it holds.

    :param increments: of the path over each interval, (I, B, C)
    :param drive: at the knots, (I + 1, B, V), or None
    :param steps: nominal steps that each interval takes, (I, B, 1)
    """

    least_order = 4

    @classmethod
    def through(cls, path: ControlPath, drive: th.Tensor | None) -> "Hermite":
        """Return the curve through the knots of a path."""
        return cls(path.increments, drive, path.steps)

    def __init__(self, increments: th.Tensor, drive: th.Tensor | None, steps: th.Tensor) -> None:
        super().__init__(increments, drive)
        self._leaving = _leaving(increments, steps)
        if drive is not None:
            self._drive_increments = drive.diff(dim=0)
            self._drive_leaving = _leaving(self._drive_increments, steps)

    def slope(self, place: float) -> th.Tensor:
        """Return dX/du of each interval at a fraction of it, (I, B, C)."""
        return th.lerp(self._leaving, self.increments, 4 * place - 3 * place**2)

    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V)."""
        if self.drive is None:
            return None
        late = (2 * place**2 - place**3) * (self._drive_increments - self._drive_leaving)
        return self.drive[:-1] + place * self._drive_leaving + late

    def coefficients(self) -> th.Tensor:
        """Return a, b, 2c and 3d of the cubic a + b u + c u^2 + d u^3 of each interval, (I, B, 1, 4 (C + V))."""
        if self.drive is None:
            start, increments, leaving = th.zeros_like(self.increments), self.increments, self._leaving
        else:
            start = th.cat((th.zeros_like(self.increments), self.drive[:-1]), dim=-1)
            increments = th.cat((self.increments, self._drive_increments), dim=-1)
            leaving = th.cat((self._leaving, self._drive_leaving), dim=-1)
        bend = increments - leaving
        return th.cat((start, leaving, 4 * bend, -3 * bend), dim=-1).unsqueeze(2)

    @staticmethod
    def piece(coefficients: th.Tensor) -> torchcde.interpolation_base.InterpolationBase:
        """Return torchcde's path over one interval, from its coefficients."""
        return torchcde.CubicSpline(coefficients)


def _leaving(increments: th.Tensor, steps: th.Tensor) -> th.Tensor:
    """Return the slope at the beginning of each interval: the increment if it went on as before, (I, B, ...)."""
    before, took = (held(th.zeros_like(values[:1]), values, steps)[:-1] for values in (increments, steps))
    # Bounded, so that what changed in almost no time does not throw the path far away.
    ratio = (steps / took.clamp(min=th.finfo(took.dtype).tiny)).clamp(max=LARGEST_RATIO)
    return th.where(took > 0, before * ratio, increments)  # straight where no time has passed before


class Rectilinear(Linear):
    """Time moves first, then the values: at every moment only what is known then.

    (Morrill et al. 2021, arXiv:2106.11028, section 3.) It has two intervals for each of the given ones.
    """

    pieces = 2
    needs_time = True

    @classmethod
    def through(cls, path: ControlPath, drive: th.Tensor | None) -> "Rectilinear":
        """Return the curve through the knots of a path, whose first channel is time."""
        time = th.zeros_like(path.increments)
        time[..., 0] = path.increments[..., 0]
        increments = th.stack((time, path.increments - time), dim=1).flatten(0, 1)
        return cls(increments, None if drive is None else drive.repeat_interleave(2, dim=0)[:-1])


INTERPOLATIONS: dict[str, type[Interpolation]] = {"linear": Linear, "hermite": Hermite, "rectilinear": Rectilinear}
"""By name. A class and a line here are all that one takes; with its pieces in :mod:`sb3_ncde.acting.interpolation` it
acts in NumPy as well."""
