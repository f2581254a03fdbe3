"""The fixed-step solvers, by their Butcher tableaus."""

from typing import NamedTuple


class Tableau(NamedTuple):
    """Butcher tableau of an explicit Runge-Kutta method.

    :param nodes: where in the step each stage is evaluated, as fractions of the step
    :param matrix: for each stage, the weights of the slopes before it
    :param weights: the weights of the slopes in the step
    :param order: p, where the error of a solution falls with the p-th power of the step
    """

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int


SOLVERS: dict[str, Tableau] = {
    "euler": Tableau((0.0,), ((),), (1.0,), order=1),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), order=2),
    "heun": Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), order=2),
    "rk4": Tableau(
        (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), order=4
    ),
}
"""The fixed-step solvers by name (Hairer, Norsett, Wanner 1993, chapter II.1). A line here is all that one takes."""
