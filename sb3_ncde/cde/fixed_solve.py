"""A whole solve by fixed steps as one operation of PyTorch, computed in NumPy, with its own gradient.

Windows are short and few, so that what a solve costs is the number of operations, and in PyTorch each of them costs
several times what it costs in NumPy, and again in the backward pass. Here the gradient is that of the steps themselves
(first discretise, then differentiate), and those of the weights are one product for all evaluations of the field
together. :class:`sb3_ncde.cde.solvers.FixedSolver` does the same in PyTorch; tests hold the two together. It is what a
gradient is made of that is to be differentiated itself, as TRPO does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_ncde.cde.feature_norms import FEATURE_NORMS, NORMS
from sb3_ncde.cde.interpolation import Interpolation
from sb3_ncde.cde.reverse_mode import Evaluations, Initial, Plan
from sb3_ncde.cde.solvers import FixedSolver
from sb3_ncde.cde.vector_field import VectorField
from sb3_ncde.history.window_rule import Integers

MOST_NUMBERS = 2**17
"""Numbers of the field's largest layer in one evaluation up to which NumPy is quicker than PyTorch on one core."""


def suits(start: th.Tensor, field: VectorField, path: Interpolation) -> bool:
    """Return whether windows are for :func:`solve`: on the host, and not too large.

    :param start: what z is made of at the first knot, (B, inputs)
    :param path: over I intervals
    """
    on_host = start.device.type == "cpu" and start.dtype in (th.float32, th.float64)
    return on_host and len(path.increments) > 0 and len(start) * field.widest <= MOST_NUMBERS


def solve(
    initial: nn.Sequential,
    field: VectorField,
    solver: FixedSolver,
    start: th.Tensor,
    path: Interpolation,
    knot: Integers,
    window: Integers,
    norm: str = "none",
    beside: th.Tensor | None = None,
    note: Callable[[th.Tensor], None] | None = None,
) -> th.Tensor:
    """Return z at some knots of a path through B windows, normed, and with other numbers beside it, (rows, Z + n).

    :param initial: the network that makes z at the first knot; linear layers with ReLU between them
    :param field: f
    :param start: what it makes it of, (B, inputs)
    :param path: over I intervals, with the path's values, (I + 1, B, V), as its drive, or None
    :param knot: of each row, (rows,)
    :param window: of each row; no two rows have the same of both, (rows,)
    :param norm: that z passes through, a name in :data:`sb3_ncde.cde.feature_norms.NORMS`
    :param beside: what stands beside it, (rows, n), or None
    :param note: is told the gradient of what is returned, as a hook on it would be
    """
    steps, places = solver.steps, solver.places
    slopes = _stacked([path.slope(place) for place in places])  # (P, I, B, C)
    at_places = [values for values in map(path.drive_at, places) if values is not None]
    values = _stacked(at_places) if at_places else None  # (P, I, B, V)
    layers = [layer for layer in initial if isinstance(layer, nn.Linear)]
    layers += field.layers
    weights = [layer.weight for layer in layers]
    biases = [layer.bias for layer in layers]
    drive = None if field.drive_layer is None else field.drive_layer.weight

    def again(start: th.Tensor, slopes: th.Tensor, values: th.Tensor | None) -> th.Tensor:
        """Return the same by operations of PyTorch, but for what stands beside it."""
        drives = None if values is None else field.drive(values)
        given = _Given(slopes, drives, {place: number for number, place in enumerate(places)})
        z = solver.integrate(field.product(), initial(start), given)[knot, window]
        return FEATURE_NORMS[norm](z)

    plan = Plan(solver.tableau, steps, places, len(layers) - len(field.layers), (knot, window), norm, note, again)
    seen: th.Tensor = _Solve.apply(  # type: ignore[no-untyped-call]
        plan, start, slopes, values, beside, drive, *weights, *biases
    )
    return seen


def _stacked(tensors: list[th.Tensor]) -> th.Tensor:
    """Return tensors as one, with a dimension more."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else th.stack(tensors)


class _Given:
    """A path of which is known what a solver asks for.

    :param slopes: at each place in every interval, (P, I, B, C)
    :param drives: what the field's first layer is given there, (P, I, B, units), or None
    :param number: of each place
    """

    def __init__(self, slopes: th.Tensor, drives: th.Tensor | None, number: dict[float, int]) -> None:
        self.increments, self.slopes, self.drives, self.number = slopes[0], slopes, drives, number

    def slope(self, place: float) -> th.Tensor:
        """Return dX/du at a place, (I, B, C)."""
        return self.slopes[self.number[place]]

    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive at a place, (I, B, units), or None."""
        return None if self.drives is None else self.drives[self.number[place]]


_BESIDE = 3
"""Place of what stands beside z, among what :class:`_Solve` saves."""


class _Solve(th.autograd.Function):
    """The solve with its gradient."""

    @staticmethod
    @np.errstate(all="ignore")  # numbers that overflow become infinite, as in PyTorch
    def forward(
        ctx: Any,
        plan: Plan,
        start: th.Tensor,
        slopes: th.Tensor,
        values: th.Tensor | None,
        beside: th.Tensor | None,
        drive: th.Tensor | None,
        *parameters: th.Tensor,
    ) -> th.Tensor:
        """Return z and what stands beside it, (rows, Z + n)."""
        ctx.save_for_backward(start, slopes, values, beside, drive, *parameters)
        ctx.again = plan.again
        arrays = [parameter.numpy() for parameter in parameters]
        weights, biases = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        first = plan.n_initial
        ctx.rows, ctx.note = plan.rows, plan.note
        ctx.drive = None if drive is None else drive.numpy()
        ctx.initial = Initial(start.numpy(), weights[:first], biases[:first])
        ctx.evaluations = Evaluations(
            plan,
            ctx.initial.output,
            slopes.numpy(),
            None if values is None else values.numpy(),
            ctx.drive,
            weights[first:],
            biases[first:],
        )
        z, ctx.pullback = NORMS[plan.norm](ctx.evaluations.forward()[plan.rows])
        # Never the array that the gradient is made of: whoever gets it may change it in place.
        return th.from_numpy(z.copy() if beside is None else np.concatenate((z, beside.numpy()), axis=1))

    @staticmethod
    @np.errstate(all="ignore")
    def backward(ctx: Any, of_seen: th.Tensor) -> Any:
        """Return the gradients of all that is learned."""
        if ctx.note is not None:
            ctx.note(of_seen.detach())
        saved = ctx.saved_tensors  # raises RuntimeError if one of them has been changed in place since
        evaluations: Evaluations = ctx.evaluations
        initial: Initial = ctx.initial
        of_knots = np.zeros_like(evaluations.knots)
        size = of_knots.shape[-1]
        if th.is_grad_enabled():  # the gradient is to be differentiated, ``create_graph=True``
            # What stands beside z may be made by weights of the solve too: its gradient goes no way but its own.
            solved = [need and place != _BESIDE for place, need in enumerate(ctx.needs_input_grad[1:])]
            wanted = [tensor for tensor, need in zip(saved, solved, strict=True) if need]
            found = iter(th.autograd.grad(ctx.again(*saved[:_BESIDE]), wanted, of_seen[:, :size], create_graph=True))
            gradients = [next(found) if need else None for need in solved]
            if ctx.needs_input_grad[1 + _BESIDE]:
                gradients[_BESIDE] = of_seen[:, size:]
            return (None, *gradients)
        of_knots[ctx.rows] = ctx.pullback(of_seen.numpy()[:, :size])
        evaluations.backward(of_knots)
        initial.backward(evaluations.of_initial)
        _, of_start, of_slopes, of_values, of_beside, of_drive, *needed = ctx.needs_input_grad
        learned = [*map(initial.of_weight, range(len(initial.weights)))]
        learned += map(evaluations.of_weight, range(len(evaluations.weights)))
        learned += map(initial.of_bias, range(len(initial.weights)))
        learned += map(evaluations.of_bias, range(len(evaluations.weights)))
        return (
            None,
            th.from_numpy(initial.of_start()) if of_start else None,
            th.from_numpy(evaluations.of_slopes()) if of_slopes else None,
            th.from_numpy(evaluations.of_values(ctx.drive)) if of_values else None,
            of_seen[:, size:] if of_beside else None,
            evaluations.of_drive() if of_drive else None,
            *(gradient if need else None for gradient, need in zip(learned, needed, strict=True)),
        )
