"""A whole solve by fixed steps as one operation of PyTorch, computed in NumPy, with its own gradient.

Windows are short and few, so that what a solve costs is the number of operations, and in PyTorch each of them costs
several times what it costs in NumPy, and again in the backward pass. Here the gradient is that of the steps themselves
(first discretise, then differentiate), and those of the weights are one product for all evaluations of the field
together. :class:`sb3_ncde.cde.solvers.FixedSolver` does the same in PyTorch; tests hold the two together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from torch.autograd.function import once_differentiable

from sb3_ncde.acting.networks import softplus, softplus_derivative
from sb3_ncde.acting.solver import combine
from sb3_ncde.acting.tableaus import Tableau
from sb3_ncde.cde.interpolation import Interpolation
from sb3_ncde.cde.vector_field import VectorField
from sb3_ncde.history.window_rule import Array

MOST_NUMBERS = 2**17
"""Numbers of the field's largest layer in one evaluation up to which NumPy is quicker than PyTorch on one core."""


def solve(
    field: VectorField, tableau: Tableau, steps: int, initial: th.Tensor, path: Interpolation
) -> th.Tensor | None:
    """Return z at every knot of a path, (I + 1, B, Z), or None where the solve is one for PyTorch.

    :param field: f
    :param tableau: of the solver
    :param steps: of it per interval
    :param initial: z at the first knot, (B, Z)
    :param path: over I intervals
    """
    widest = max(layer.out_features for layer in field.layers)
    on_host = initial.device.type == "cpu" and initial.dtype in (th.float32, th.float64)
    if not on_host or not len(path.increments) or len(initial) * widest > MOST_NUMBERS:
        return None
    places = sorted({(step + node) / steps for step in range(steps) for node in tableau.nodes})
    slopes = th.stack([path.slope(place) for place in places])  # (P, I, B, C)
    drives = None
    if field.drive_layer is not None:
        drives = th.stack([drive for drive in map(path.drive_at, places) if drive is not None])  # (P, I, B, units)
    weights = [layer.weight for layer in field.layers]
    biases: list[th.Tensor | None] = [layer.bias for layer in field.layers]
    if drives is not None:  # they have the first layer's bias in them
        biases[0] = None
    knots: th.Tensor = _Solve.apply(tableau, steps, places, initial, slopes, drives, *weights, *biases)  # type: ignore[no-untyped-call]
    return knots


class _Evaluations:
    """The evaluations of the field in a solve, one behind the other: E = I * steps * stages.

    :param initial: z at the first knot, (B, Z)
    :param slopes: dX/du of each interval at P places, (P, I, B, C)
    :param drives: there, (P, I, B, units), or None
    :param weights: of the field's layers, (n_out, n_in) each
    :param biases: of them, (n_out,) each or None
    """

    def __init__(
        self,
        tableau: Tableau,
        steps: int,
        places: Sequence[float],
        initial: Array,
        slopes: Array,
        drives: Array | None,
        weights: Sequence[Array],
        biases: Sequence[Array | None],
    ) -> None:
        self.tableau = tableau
        self.steps = steps
        self.place = [
            [places.index((step + node) / steps) for node in tableau.nodes] for step in range(steps)
        ]  # of each stage
        self.slopes = slopes / steps if steps > 1 else slopes
        self.drives = drives
        self.weights = weights
        self.transposed = [np.ascontiguousarray(weight.T) for weight in weights]  # quicker to multiply with
        self.biases = biases
        _, self.n_intervals, self.rows, self.channels = slopes.shape
        n_evaluations = self.n_intervals * steps * len(tableau.nodes)
        dtype = initial.dtype
        self.z = np.empty((n_evaluations, *initial.shape), dtype)
        # What goes into each layer but the first, before its activation and after it, and what the last one gives.
        self.before = [np.empty((n_evaluations, self.rows, len(weight)), dtype) for weight in weights]
        self.after = [np.empty_like(before) for before in self.before]
        self.knots = np.empty((self.n_intervals + 1, *initial.shape), dtype)
        self.knots[0] = initial
        self.of_product = np.empty_like(self.z)

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
        hidden = z
        for layer, (weight, bias) in enumerate(zip(self.transposed, self.biases, strict=True)):
            before, after = self.before[layer][evaluation], self.after[layer][evaluation]
            np.matmul(hidden, weight, out=before)
            if bias is not None:
                before += bias
            elif self.drives is not None:
                before += self.drives[place, interval]
            if layer == len(self.weights) - 1:
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
        self.of_before = [softplus_derivative(before) for before in self.before[:-1]]
        self.of_before.append(1.0 - np.square(self.after[-1]))
        places = [place for stages in self.place for place in stages]
        # Each slope beside each number of z, (I, places, B, Z * C): a product of whole rows is quicker.
        of_matrices = np.tile(self.slopes[places].swapaxes(0, 1), self.z.shape[-1])
        self.of_before[-1] *= of_matrices.reshape(self.of_before[-1].shape)
        spread = np.repeat(np.eye(self.z.shape[-1], dtype=self.z.dtype), self.channels, axis=1)  # (Z, Z * C)
        of_z = of_knots[-1]
        evaluation = len(self.z)
        for interval in reversed(range(self.n_intervals)):
            for _ in range(self.steps):
                of_slopes = [of_z if weight == 1.0 else weight * of_z for weight in self.tableau.weights]
                for stage in reversed(range(len(of_slopes))):
                    evaluation -= 1
                    self.of_product[evaluation] = of_slopes[stage]
                    of_input = self._of_field(evaluation, of_slopes[stage] @ spread)
                    of_z = of_z + of_input
                    for earlier, weight in enumerate(self.tableau.matrix[stage]):
                        if weight:
                            of_slopes[earlier] = of_slopes[earlier] + weight * of_input
            of_z = of_z + of_knots[interval]
        self.of_initial = of_z

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
        matrices = self.after[-1].reshape(*self.of_product.shape, self.channels)  # (E, B, Z, C)
        of_each = np.matmul(self.of_product[..., None, :], matrices)[..., 0, :]
        return self._by_place(of_each) / self.steps

    def of_drives(self) -> Array:
        """Return the gradient of the drives, (P, I, B, units)."""
        return self._by_place(self.of_before[0])

    def _by_place(self, of_evaluations: Array) -> Array:
        """Sum what belongs to evaluations, (E, ...), by the place in an interval, (P, I, ...)."""
        by_interval = of_evaluations.reshape(self.n_intervals, -1, *of_evaluations.shape[1:])
        places = [place for stages in self.place for place in stages]
        if len(places) == len(self.slopes):  # one evaluation at each place
            return np.moveaxis(by_interval, 1, 0)[np.argsort(places)]
        summed = np.zeros((len(self.slopes), *by_interval[:, 0].shape), by_interval.dtype)
        for index, place in enumerate(places):
            summed[place] += by_interval[:, index]
        return summed


class _Solve(th.autograd.Function):
    """The solve with its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        tableau: Tableau,
        steps: int,
        places: Sequence[float],
        initial: th.Tensor,
        slopes: th.Tensor,
        drives: th.Tensor | None,
        *parameters: th.Tensor | None,
    ) -> th.Tensor:
        """Return z at every knot, (I + 1, B, Z)."""
        arrays = [None if parameter is None else parameter.numpy() for parameter in parameters]
        weights, biases = arrays[: len(arrays) // 2], arrays[len(arrays) // 2 :]
        ctx.evaluations = _Evaluations(
            tableau,
            steps,
            places,
            initial.numpy(),
            slopes.numpy(),
            None if drives is None else drives.numpy(),
            weights,  # type: ignore[arg-type]
            biases,
        )
        return th.from_numpy(ctx.evaluations.forward())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_knots: th.Tensor) -> Any:
        """Return the gradients of all that is learned."""
        evaluations: _Evaluations = ctx.evaluations
        evaluations.backward(of_knots.numpy())
        _, _, _, _, of_slopes, of_drives, *of_parameters = ctx.needs_input_grad
        n_layers = len(of_parameters) // 2
        return (
            None,
            None,
            None,
            th.from_numpy(evaluations.of_initial),
            th.from_numpy(evaluations.of_slopes()) if of_slopes else None,
            th.from_numpy(evaluations.of_drives()) if of_drives else None,
            *(evaluations.of_weight(layer) if of_parameters[layer] else None for layer in range(n_layers)),
            *(evaluations.of_bias(layer) if of_parameters[n_layers + layer] else None for layer in range(n_layers)),
        )


def _flat(evaluations: Array) -> th.Tensor:
    """Return rows, (E * B, ...), of what belongs to evaluations, (E, B, ...)."""
    return th.from_numpy(evaluations.reshape(-1, evaluations.shape[-1]))
