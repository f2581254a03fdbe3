"""The fixed-step solvers along the pieces of an interval, and the field they solve with.

The same as :mod:`sb3_ncde.cde.solvers` and :mod:`sb3_ncde.cde.vector_field`, for one interval of R rows.
"""

from collections.abc import Callable, Iterable

import numpy as np

from sb3_ncde.acting.description import Weights
from sb3_ncde.acting.interpolation import Piece
from sb3_ncde.acting.networks import linear, softplus
from sb3_ncde.acting.tableaus import Tableau
from sb3_ncde.history.window_rule import Array

Field = Callable[[Array, Array, Array | None], Array]


def field(z: Array, increment: Array, drive: Array | None, weights: Weights) -> Array:
    """Return f(z, X) dX, (R, Z).

    :param z: (R, Z)
    :param increment: dX, (R, C)
    :param drive: what the path's values add to the first layer, (R, units), or None
    """
    first, *others = weights.field
    hidden = z @ first.weight
    hidden += first.bias if drive is None else drive
    for layer in others:
        hidden = linear(softplus(hidden), layer)
    np.tanh(hidden, out=hidden)
    rows, channels = increment.shape
    product: Array = np.matmul(hidden.reshape(rows, -1, channels), increment[..., None])[..., 0]
    return product


def integrate(z: Array, pieces: Iterable[Piece], tableau: Tableau, steps: int, product: Field) -> Array:
    """Return z at the end of the pieces of a path, (R, Z), from z at their beginning.

    :param steps: of the solver, on each piece
    :param product: f(z, X) dX, a function of z, dX and the drive, as :func:`field` is with its weights
    """
    for piece in pieces:
        for step in range(steps):
            slopes: list[Array] = []
            for node, row in zip(tableau.nodes, tableau.matrix, strict=True):
                place = (step + node) / steps
                increment = piece.slope(place)
                if steps > 1:
                    increment = increment / steps
                slopes.append(product(combine(z, row, slopes), increment, piece.drive_at(place)))
            z = combine(z, tableau.weights, slopes)
    return z


def combine(z: Array, weights: tuple[float, ...], slopes: list[Array]) -> Array:
    """Return z + sum of weight * slope, without the terms whose weight is zero."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            z = z + (slope if weight == 1.0 else weight * slope)
    return z
