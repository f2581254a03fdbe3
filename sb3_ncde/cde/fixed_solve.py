"""A whole solve by fixed steps as one operation of PyTorch, computed in NumPy, with its own gradient.

Windows are short and few, so that what a solve costs is the number of operations, and in PyTorch each of them costs
several times what it costs in NumPy, and again in the backward pass. Here the gradient is that of the steps themselves
(first discretise, then differentiate), and those of the weights are one product for all evaluations of the field
together. :class:`sb3_ncde.cde.solvers.FixedSolver` does the same in PyTorch; tests hold the two together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from torch import nn
from torch.autograd.function import once_differentiable

from sb3_ncde.acting.networks import Layer, linear, relu, softplus, softplus_derivative
from sb3_ncde.acting.solver import combine
from sb3_ncde.acting.tableaus import Tableau
from sb3_ncde.cde.interpolation import Interpolation
from sb3_ncde.cde.solvers import FixedSolver
from sb3_ncde.cde.vector_field import VectorField
from sb3_ncde.history.window_rule import Array, Integers

MOST_NUMBERS = 2**17
"""Numbers of the field's largest layer in one evaluation up to which NumPy is quicker than PyTorch on one core."""


def suits(start: th.Tensor, field: VectorField, path: Interpolation) -> bool:
    """Return whether windows are for :func:`solve`: on the host, and not too large.

    :param start: what z is made of at the first knot, (B, inputs)
    :param path: over I intervals
    """
    widest = max(layer.out_features for layer in field.layers)
    on_host = start.device.type == "cpu" and start.dtype in (th.float32, th.float64)
    return on_host and len(path.increments) > 0 and len(start) * widest <= MOST_NUMBERS


def solve(
    initial: nn.Sequential,
    field: VectorField,
    solver: FixedSolver,
    start: th.Tensor,
    path: Interpolation,
    knot: Integers,
    window: Integers,
) -> th.Tensor:
    """Return z at some knots of a path through B windows, (rows, Z).

    :param initial: the network that makes z at the first knot; linear layers with ReLU between them
    :param field: f
    :param start: what it makes it of, (B, inputs)
    :param path: over I intervals, with the path's values, (I + 1, B, V), as its drive, or None
    :param knot: of each row, (rows,)
    :param window: of each row; no two rows have the same of both, (rows,)
    """
    steps, nodes = solver.steps, solver.tableau.nodes
    places = sorted({(step + node) / steps for step in range(steps) for node in nodes})
    slopes = th.stack([path.slope(place) for place in places])  # (P, I, B, C)
    at_places = [values for values in map(path.drive_at, places) if values is not None]
    values = th.stack(at_places) if at_places else None  # (P, I, B, V)
    layers = [layer for layer in initial if isinstance(layer, nn.Linear)]
    layers += field.layers
    weights = [layer.weight for layer in layers]
    biases = [layer.bias for layer in layers]
    drive = None if field.drive_layer is None else field.drive_layer.weight
    plan = Plan(solver.tableau, steps, places, len(layers) - len(field.layers), (knot, window))
    z: th.Tensor = _Solve.apply(plan, start, slopes, values, drive, *weights, *biases)  # type: ignore[no-untyped-call]
    return z


class Plan(NamedTuple):
    """What is not a tensor of a solve.

    :param tableau: of the solver
    :param steps: of it per interval
    :param places: fractions of an interval at which the field is evaluated, ascending
    :param n_initial: layers of the initial network; those of the field stand behind them
    :param rows: knots and windows at which z is asked for, (rows,) each
    """

    tableau: Tableau
    steps: int
    places: Sequence[float]
    n_initial: int
    rows: tuple[Integers, Integers]


class _Initial:
    """The initial network and its gradient.

    :param start: its inputs, (B, inputs)
    :param weights: of its layers, (n_out, n_in) each
    :param biases: of them
    """

    def __init__(self, start: Array, weights: Sequence[Array], biases: Sequence[Array]) -> None:
        self.weights = weights
        self.entering = [start]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            self.entering.append(relu(linear(self.entering[-1], Layer(weight.T, bias))))
        self.output = linear(self.entering[-1], Layer(weights[-1].T, biases[-1]))

    def backward(self, of_output: Array) -> None:
        """Find the gradients of what leaves each layer before its activation."""
        self.of_leaving = [of_output]
        for weight, entering in zip(self.weights[:0:-1], self.entering[:0:-1], strict=True):
            self.of_leaving.insert(0, (self.of_leaving[0] @ weight) * (entering > 0))

    def of_weight(self, layer: int) -> th.Tensor:
        """Return the gradient of the weight of a layer, (n_out, n_in)."""
        return _flat(self.of_leaving[layer]).t() @ _flat(self.entering[layer])

    def of_bias(self, layer: int) -> th.Tensor:
        """Return the gradient of the bias of a layer, (n_out,)."""
        return _flat(self.of_leaving[layer]).sum(dim=0)

    def of_start(self) -> Array:
        """Return the gradient of the inputs, (B, inputs)."""
        found: Array = self.of_leaving[0] @ self.weights[0]
        return found


class _Evaluations:
    """The evaluations of the field in a solve, one behind the other: E = I * steps * stages.

    :param plan: of the solve
    :param initial: z at the first knot, (B, Z)
    :param slopes: dX/du of each interval at P places, (P, I, B, C)
    :param values: of the path there, (P, I, B, V), or None
    :param drive: from these to the field's first layer, (units, V), or None
    :param weights: of the field's layers, (n_out, n_in) each
    :param biases: of them, (n_out,) each
    """

    def __init__(
        self,
        plan: Plan,
        initial: Array,
        slopes: Array,
        values: Array | None,
        drive: Array | None,
        weights: Sequence[Array],
        biases: Sequence[Array],
    ) -> None:
        self.tableau, self.steps = plan.tableau, plan.steps
        # Of each stage of each step, its place.
        self.place = [
            [plan.places.index((step + node) / plan.steps) for node in plan.tableau.nodes] for step in range(plan.steps)
        ]
        self.slopes = slopes / plan.steps if plan.steps > 1 else slopes
        self.weights = weights
        self.transposed = [np.ascontiguousarray(weight.T) for weight in weights]  # quicker to multiply with
        self.biases = biases
        self.values = values
        self.drives = None  # what is added to the first layer, for all places in one product
        if values is not None and drive is not None:
            self.drives = values @ drive.T
            self.drives += biases[0]
        _, self.n_intervals, self.rows, self.channels = slopes.shape
        n_evaluations = self.n_intervals * plan.steps * len(plan.tableau.nodes)
        dtype = initial.dtype
        self.z = np.empty((n_evaluations, *initial.shape), dtype)
        # What leaves each layer, before its activation (not kept of the last one) and after it.
        self.after = [np.empty((n_evaluations, self.rows, len(weight)), dtype) for weight in weights]
        self.before = [np.empty_like(after) for after in self.after[:-1]]
        self.knots = np.empty((self.n_intervals + 1, *initial.shape), dtype)
        self.knots[0] = initial

    def forward(self) -> Array:
        """Return z at every knot, (I + 1, B, Z)."""
        evaluation = 0
        for interval in range(self.n_intervals):
            z = self.knots[interval]
            for places in self.place:
                slopes: list[Array] = []
                for place, row in zip(places, self.tableau.matrix, strict=True):
                    slopes.append(self._field(evaluation, place, interval, combine(z, row, slopes)))
                    evaluation += 1
                z = combine(z, self.tableau.weights, slopes)
            self.knots[interval + 1] = z
        return self.knots

    def _field(self, evaluation: int, place: int, interval: int, z: Array) -> Array:
        """Return f(z, X) dX, (B, Z), and keep what the gradient needs."""
        self.z[evaluation] = z
        hidden, last = z, len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.transposed, self.biases, strict=True)):
            after = self.after[layer][evaluation]
            before = after if layer == last else self.before[layer][evaluation]
            np.matmul(hidden, weight, out=before)
            before += bias if layer or self.drives is None else self.drives[place, interval]
            if layer == last:
                np.tanh(before, out=after)
            else:
                softplus(before, out=after)
            hidden = after
        matrix = hidden.reshape(self.rows, -1, self.channels)
        product: Array = np.matmul(matrix, self.slopes[place, interval][..., None])[..., 0]
        return product

    def backward(self, of_knots: Array) -> None:
        """Find the gradients before all activations, of all products, and of z at the first knot.

        :param of_knots: the gradient of z at the knots, (I + 1, B, Z)
        """
        # The derivatives of all activations at once; each is multiplied with what comes back to it.
        self.of_before = [softplus_derivative(before) for before in self.before]
        self.of_before.append(1.0 - np.square(self.after[-1]))
        places = [place for stages in self.place for place in stages]
        # Each slope beside each number of z, (I, places, B, Z * C): a product of whole rows is quicker.
        of_matrices = np.tile(self.slopes[places].swapaxes(0, 1), self.z.shape[-1])
        self.of_before[-1] *= of_matrices.reshape(self.of_before[-1].shape)
        spread = np.repeat(np.eye(self.z.shape[-1], dtype=self.z.dtype), self.channels, axis=1)  # (Z, Z * C)
        of_z = of_knots[-1]
        of_products: list[Array] = []  # of f(z, X) dX, from the last evaluation to the first
        evaluation = len(self.z)
        for interval in reversed(range(self.n_intervals)):
            for _ in range(self.steps):
                of_slopes = [of_z if weight == 1.0 else weight * of_z for weight in self.tableau.weights]
                for stage in reversed(range(len(of_slopes))):
                    evaluation -= 1
                    of_products.append(of_slopes[stage])
                    of_input = self._of_field(evaluation, of_slopes[stage] @ spread)
                    of_z = of_z + of_input
                    for earlier, weight in enumerate(self.tableau.matrix[stage]):
                        if weight:
                            of_slopes[earlier] = of_slopes[earlier] + weight * of_input
            of_z = of_z + of_knots[interval]
        self.of_initial, self._of_products = of_z, of_products

    def _of_field(self, evaluation: int, of_hidden: Array) -> Array:
        """Return the gradient of the field's z, (B, Z), from that of its last layer without activation and slope."""
        for weight, of_before in zip(reversed(self.weights), reversed(self.of_before), strict=True):
            here = of_before[evaluation]
            here *= of_hidden
            of_hidden = here @ weight
        return of_hidden

    def of_weight(self, layer: int) -> th.Tensor:
        """Return the gradient of the weight of a layer, of all evaluations together, (n_out, n_in)."""
        entering = self.after[layer - 1] if layer else self.z
        # By PyTorch: NumPy would spread so large a product over all cores, which may be busy.
        return _flat(self.of_before[layer]).t() @ _flat(entering)

    def of_bias(self, layer: int) -> th.Tensor:
        """Return the gradient of the bias of a layer, (n_out,)."""
        return _flat(self.of_before[layer]).sum(dim=0)

    def of_slopes(self) -> Array:
        """Return the gradient of the slopes, (P, I, B, C)."""
        of_products = np.stack(self._of_products[::-1])  # (E, B, Z)
        matrices = self.after[-1].reshape(*of_products.shape, self.channels)  # (E, B, Z, C)
        of_each = np.matmul(of_products[..., None, :], matrices)[..., 0, :]
        return self._by_place(of_each) / self.steps

    def of_drive(self) -> th.Tensor:
        """Return the gradient of the weights of the drive, (units, V)."""
        assert self.values is not None
        return _flat(self._by_place(self.of_before[0])).t() @ _flat(self.values)

    def of_values(self, drive: Array) -> Array:
        """Return the gradient of the path's values, (P, I, B, V)."""
        found: Array = self._by_place(self.of_before[0]) @ drive
        return found

    def _by_place(self, of_evaluations: Array) -> Array:
        """Sum what belongs to evaluations, (E, ...), by the place in an interval, (P, I, ...)."""
        by_interval = of_evaluations.reshape(self.n_intervals, -1, *of_evaluations.shape[1:])
        places = [place for stages in self.place for place in stages]
        if len(places) == 1:
            ordered: Array = by_interval.swapaxes(0, 1)
            return ordered
        if len(places) == len(self.slopes):  # one evaluation at each place
            ordered = by_interval.swapaxes(0, 1)[np.argsort(places)]
            return ordered
        summed = np.zeros((len(self.slopes), *by_interval[:, 0].shape), by_interval.dtype)
        for index, place in enumerate(places):
            summed[place] += by_interval[:, index]
        return summed


class _Solve(th.autograd.Function):
    """The solve with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        start: th.Tensor,
        slopes: th.Tensor,
        values: th.Tensor | None,
        drive: th.Tensor | None,
        *parameters: th.Tensor,
    ) -> th.Tensor:
        """Return z, (rows, Z)."""
        with np.errstate(all="ignore"):  # numbers that overflow become infinite, as in PyTorch
            return _Solve._forward(ctx, plan, start, slopes, values, drive, *parameters)

    @staticmethod
    def _forward(
        ctx: Any,
        plan: Plan,
        start: th.Tensor,
        slopes: th.Tensor,
        values: th.Tensor | None,
        drive: th.Tensor | None,
        *parameters: th.Tensor,
    ) -> th.Tensor:
        ctx.save_for_backward(start, slopes, values, drive, *parameters)
        arrays = [parameter.numpy() for parameter in parameters]
        weights, biases = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        first = plan.n_initial
        ctx.rows = plan.rows
        ctx.drive = None if drive is None else drive.numpy()
        ctx.initial = _Initial(start.numpy(), weights[:first], biases[:first])
        ctx.evaluations = _Evaluations(
            plan,
            ctx.initial.output,
            slopes.numpy(),
            None if values is None else values.numpy(),
            ctx.drive,
            weights[first:],
            biases[first:],
        )
        return th.from_numpy(ctx.evaluations.forward()[plan.rows])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_rows: th.Tensor) -> Any:
        """Return the gradients of all that is learned."""
        with np.errstate(all="ignore"):
            return _Solve._backward(ctx, of_rows)

    @staticmethod
    def _backward(ctx: Any, of_rows: th.Tensor) -> Any:
        ctx.saved_tensors  # noqa: B018  (raises RuntimeError if one of them has been changed in place since)
        evaluations: _Evaluations = ctx.evaluations
        initial: _Initial = ctx.initial
        of_knots = np.zeros_like(evaluations.knots)
        of_knots[ctx.rows] = of_rows.numpy()
        evaluations.backward(of_knots)
        initial.backward(evaluations.of_initial)
        _, of_start, of_slopes, of_values, of_drive, *needed = ctx.needs_input_grad
        gradients = [*map(initial.of_weight, range(len(initial.weights)))]
        gradients += map(evaluations.of_weight, range(len(evaluations.weights)))
        gradients += map(initial.of_bias, range(len(initial.weights)))
        gradients += map(evaluations.of_bias, range(len(evaluations.weights)))
        return (
            None,
            th.from_numpy(initial.of_start()) if of_start else None,
            th.from_numpy(evaluations.of_slopes()) if of_slopes else None,
            th.from_numpy(evaluations.of_values(ctx.drive)) if of_values else None,
            evaluations.of_drive() if of_drive else None,
            *(gradient if need else None for gradient, need in zip(gradients, needed, strict=True)),
        )


def _flat(rows: Array) -> th.Tensor:
    """Return rows, (..., n), in one dimension, (rows, n)."""
    return th.from_numpy(rows.reshape(-1, rows.shape[-1]))
