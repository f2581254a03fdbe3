"""Fixed-step solvers of a controlled differential equation dz = f(z, X) dX on a linear path.

On each interval of a piecewise linear path dX is constant, so a step needs only the increment of the control
over it, never a pointwise derivative at a knot, where the derivative jumps. Every solver here therefore
integrates the control exactly, and an increment of zero (padding) leaves z as it is, bit for bit.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

Field = Callable[[th.Tensor, th.Tensor, th.Tensor | None], th.Tensor]


class Tableau(NamedTuple):
    """Butcher tableau of an explicit Runge-Kutta method.

    :param nodes: where in the step each stage is evaluated, as fractions of the step
    :param matrix: for each stage, the weights of the slopes before it
    :param weights: the weights of the slopes in the step
    """

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


SOLVERS: dict[str, Tableau] = {
    "euler": Tableau((0.0,), ((),), (1.0,)),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
"""The solvers by name; their orders are 1, 2, 2 and 4 (Hairer, Norsett, Wanner 1993, chapter II.1)."""


def integrate(
    field: Field,
    initial: th.Tensor,
    increments: th.Tensor,
    drive: th.Tensor | None = None,
    solver: str = "midpoint",
    steps: int = 1,
) -> th.Tensor:
    """Solve dz = f(z, X) dX and return z at every knot of the path.

    :param field: f, called as ``field(z, increment, drive)`` with z (B, Z), increment (B, C), drive (B, ...) or
        None; returns the product f(z, X) dX, (B, Z)
    :param initial: z at the first knot, (B, Z)
    :param increments: of the path over each interval, (H-1, B, C)
    :param drive: what the field sees of the path beside z, at the knots, (H, B, ...); between two knots it is
        interpolated linearly, as the path itself is
    :param solver: a name in :data:`SOLVERS`
    :param steps: solver steps per interval
    :return: z at the knots, (H, B, Z)
    """
    tableau = SOLVERS[solver]
    increments = increments / steps if steps > 1 else increments
    drives = _stage_drives(drive, tableau, steps)
    z = initial
    knots = [z]
    for interval, increment in enumerate(increments.unbind(0)):
        for step in range(steps):
            slopes: list[th.Tensor] = []
            for node, row in zip(tableau.nodes, tableau.matrix, strict=True):
                stage_drive = None if drives is None else drives[step + node][interval]
                slopes.append(field(_combine(z, row, slopes), increment, stage_drive))
            z = _combine(z, tableau.weights, slopes)
        knots.append(z)
    return th.stack(knots)


def _stage_drives(drive: th.Tensor | None, tableau: Tableau, steps: int) -> dict[float, tuple[th.Tensor, ...]] | None:
    """Return the drive at every stage: by its place in the interval (in steps), one (B, ...) per interval."""
    if drive is None:
        return None
    left, right = drive[:-1], drive[1:]
    places = {step + node for step in range(steps) for node in tableau.nodes}
    return {place: th.lerp(left, right, place / steps).unbind(0) if place else left.unbind(0) for place in places}


def _combine(z: th.Tensor, weights: tuple[float, ...], slopes: list[th.Tensor]) -> th.Tensor:
    """Return z + sum of weight * slope, without the terms whose weight is zero."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            z = th.add(z, slope, alpha=weight)
    return z
