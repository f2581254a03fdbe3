"""A solve by fixed steps in NumPy, and its gradient: reverse mode through the steps of an explicit Runge-Kutta method.

The solve is discretised first and then differentiated, so that the gradient is that of the numbers that it gives.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_ncde.acting.networks import Layer, linear, relu, softplus, softplus_derivative
from sb3_ncde.acting.solver import combine
from sb3_ncde.acting.tableaus import Tableau
from sb3_ncde.history.window_rule import Array, Integers

FEW_CHANNELS = 10
"""Up to which a product with a table takes less time than a loop over so few numbers."""


class Plan(NamedTuple):
    """What is not a tensor of a solve.

    :param tableau: of the solver
    :param steps: of it per interval
    :param places: fractions of an interval at which the field is evaluated, ascending
    :param n_initial: layers of the initial network; those of the field stand behind them
    :param rows: knots and windows at which z is asked for, (rows,) each
    :param norm: what z passes through there, a name in :data:`NORMS`
    :param note: is told the gradient of what is made of that, or None
    :param again: does the same by operations of PyTorch
    """

    tableau: Tableau
    steps: int
    places: Sequence[float]
    n_initial: int
    rows: tuple[Integers, Integers]
    norm: str
    note: Callable[[th.Tensor], None] | None
    again: Callable[..., th.Tensor]


class Initial:
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
        return th.from_numpy(self.of_leaving[layer].T @ self.entering[layer])

    def of_bias(self, layer: int) -> th.Tensor:
        """Return the gradient of the bias of a layer, (n_out,)."""
        return th.from_numpy(np.add.reduce(self.of_leaving[layer], axis=0))

    def of_start(self) -> Array:
        """Return the gradient of the inputs, (B, inputs)."""
        found: Array = self.of_leaving[0] @ self.weights[0]
        return found


class Evaluations:
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
        # What leaves each layer after its activation, and exp() of what leaves it before (not of the last one).
        self.after = [np.empty((n_evaluations, self.rows, len(weight)), dtype) for weight in weights]
        self.exponentials = [np.empty_like(after) for after in self.after[:-1]]
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
        hidden, shift = z, self.biases[0] if self.drives is None else self.drives[place, interval]
        for layer, exponentials in enumerate(self.exponentials):
            before = hidden @ self.transposed[layer]
            before += shift
            hidden = softplus(before, self.after[layer][evaluation], exponentials[evaluation])
            shift = self.biases[layer + 1]
        hidden = np.matmul(hidden, self.transposed[-1], out=self.after[-1][evaluation])
        hidden += shift
        np.tanh(hidden, out=hidden)
        matrix = hidden.reshape(self.rows, -1, self.channels)
        product: Array = np.matmul(matrix, self.slopes[place, interval][..., None])[..., 0]
        return product

    def backward(self, of_knots: Array) -> None:
        """Find the gradients before all activations, of all products, and of z at the first knot.

        :param of_knots: the gradient of z at the knots, (I + 1, B, Z)
        """
        # The derivatives of all activations at once; each is multiplied with what comes back to it.
        self.of_before = [*map(softplus_derivative, self.exponentials)]
        self.of_before.append(1.0 - np.square(self.after[-1]))
        places = [place for stages in self.place for place in stages]
        # Each slope beside each number of z, (I, places, B, Z, C): where channels are few, a product is quicker.
        slopes = self.slopes[0] if len(self.slopes) == 1 == len(places) else self.slopes[places].swapaxes(0, 1)
        slopes, latent_size = slopes.reshape(-1, self.channels), self.z.shape[-1]
        if self.channels <= FEW_CHANNELS:
            of_matrices = slopes @ _repeated(latent_size, self.channels, self.z.dtype)
            self.of_before[-1] *= of_matrices.reshape(self.of_before[-1].shape)
        else:
            by_channel = self.of_before[-1].reshape(-1, latent_size, self.channels)  # a view
            by_channel *= slopes[:, None]
        spread = _spread(self.z.shape[-1], self.channels, self.z.dtype)  # (Z, Z * C)
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


@cache
def _spread(latent_size: int, channels: int, dtype: np.dtype[Any]) -> Array:
    """Return what puts each number of z beside itself, once a channel, (Z, Z * C)."""
    spread: Array = np.repeat(np.eye(latent_size, dtype=dtype), channels, axis=1)
    return spread


@cache
def _repeated(latent_size: int, channels: int, dtype: np.dtype[Any]) -> Array:
    """Return what puts all channels beside themselves, once for each number of z, (C, Z * C)."""
    repeated: Array = np.tile(np.eye(channels, dtype=dtype), latent_size)
    return repeated


def _flat(rows: Array) -> th.Tensor:
    """Return rows, (..., n), in one dimension, (rows, n)."""
    return th.from_numpy(rows.reshape(-1, rows.shape[-1]))
