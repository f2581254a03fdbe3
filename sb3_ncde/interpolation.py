"""How the control path runs from knot to knot.

A path is a function of u, which is i at knot i: a controlled differential equation asks for the curve, not for the
speed at which it is run through, and time, where it matters, is a channel of the path.
"""

from abc import ABC, abstractmethod
from functools import cached_property

import torch as th
import torchcde

INTERPOLATIONS = ("linear", "hermite", "rectilinear")


class Interpolation(ABC):
    """A path over I = H - 1 intervals, and the *drive*: what the field sees of the path beside z.

    :param increments: of the path over each interval, (I, B, C)
    :param drive: at the knots, (I + 1, B, V), or None
    """

    def __init__(self, increments: th.Tensor, drive: th.Tensor | None) -> None:
        self.increments = increments
        self.drive = drive

    @abstractmethod
    def slope(self, place: float) -> th.Tensor:
        """Return dX/du of each interval at a fraction of it, (I, B, C)."""

    @abstractmethod
    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V)."""

    @cached_property
    @abstractmethod
    def spline(self) -> torchcde.interpolation_base.InterpolationBase:
        """X and, beside it, the drive as one path of torchcde through the knots: B times C + V channels."""

    @cached_property
    def knots(self) -> th.Tensor:
        """X (from 0) and the drive at the knots, as torchcde orders them, (B, I + 1, C + V)."""
        knots = th.cat((self.increments.new_zeros((1, *self.increments.shape[1:])), self.increments.cumsum(0)))
        return (knots if self.drive is None else th.cat((knots, self.drive), dim=-1)).transpose(0, 1)


class Linear(Interpolation):
    """Straight from knot to knot."""

    def slope(self, place: float) -> th.Tensor:
        """Return the increments, wherever the slope is asked for."""
        return self.increments

    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V)."""
        if self.drive is None:
            return None
        return th.lerp(self.drive[:-1], self.drive[1:], place) if place else self.drive[:-1]

    @cached_property
    def spline(self) -> torchcde.interpolation_base.InterpolationBase:
        """X and the drive as one piecewise linear path."""
        return torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(self.knots))


class Hermite(Interpolation):
    """Cubic Hermite with backward differences (Morrill et al. 2021, arXiv:2106.11028, section 3): smooth and causal.

    It leaves a knot with the slope of the interval before, and reaches the next with that of the interval it is on; the
    first interval is straight.
    """

    def slope(self, place: float) -> th.Tensor:
        """Return dX/du of each interval at a fraction of it, (I, B, C)."""
        slope: th.Tensor = self.spline.derivative(self._places(place))  # (B, I, C + V)
        return slope.transpose(0, 1)[..., : self.increments.shape[-1]]

    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V)."""
        if self.drive is None:
            return None
        path: th.Tensor = self.spline.evaluate(self._places(place))
        return path.transpose(0, 1)[..., self.increments.shape[-1] :]

    @cached_property
    def spline(self) -> torchcde.interpolation_base.InterpolationBase:
        """X and the drive as one cubic path."""
        return torchcde.CubicSpline(torchcde.hermite_cubic_coefficients_with_backward_differences(self.knots))

    def _places(self, place: float) -> th.Tensor:
        like = self.increments
        return th.arange(len(like), dtype=like.dtype, device=like.device) + place


def rectilinear(increments: th.Tensor, drive: th.Tensor | None) -> Linear:
    """Return a path on which time moves first, then the values: at every moment only what is known then.

    (Morrill et al. 2021, arXiv:2106.11028, section 3.) It has two intervals for each of the given ones.

    :param increments: of the path, whose first channel is time, (I, B, C)
    :param drive: at the knots, (I + 1, B, V), or None
    """
    time = th.zeros_like(increments)
    time[..., 0] = increments[..., 0]
    increments = th.stack((time, increments - time), dim=1).flatten(0, 1)
    return Linear(increments, None if drive is None else drive.repeat_interleave(2, dim=0)[:-1])
