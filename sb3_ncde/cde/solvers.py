"""Solvers of a controlled differential equation dz = f(z, X) dX: fixed steps here, adaptive ones by torchcde.

A solver of fixed steps is a line in :data:`sb3_ncde.acting.tableaus.SOLVERS`, an adaptive one a name in
:data:`ADAPTIVE_SOLVERS` here.

On each interval of a piecewise linear path dX is constant, so a fixed step needs only the increment of the control
over it, never a pointwise derivative at a knot, where the derivative jumps. Every fixed-step solver therefore
integrates a linear control exactly, and an increment of zero (padding) leaves z as it is, bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch as th
import torchcde

from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.cde.interpolation import Interpolation

Field = Callable[[th.Tensor, th.Tensor, th.Tensor | None], th.Tensor]
"""f, called with z (B, Z), an increment of the path (B, C) and the drive (B, V) or None; returns f(z, X) dX, (B, Z)."""

MAX_EVALUATIONS = 5_000
"""Evaluations of the field on one interval after which an adaptive solve, or its adjoint, has failed."""
SMALLEST_STEP = 1e-8
"""Of an adaptive solver, in intervals: none is smaller, so that it meets MAX_EVALUATIONS before an underflow."""


ADAPTIVE_SOLVERS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""The adaptive solvers of torchdiffeq, which torchcde calls."""


class Curve(Protocol):
    """What a solver of fixed steps asks of a path; an Interpolation has it."""

    @property
    def increments(self) -> th.Tensor:
        """Of the path over each interval, (I, B, C)."""

    def slope(self, place: float) -> th.Tensor:
        """Return dX/du of each interval at a fraction of it, (I, B, C)."""

    def drive_at(self, place: float) -> th.Tensor | None:
        """Return the drive of each interval at a fraction of it, (I, B, V), or None."""


class Solver(ABC):
    """Solves dz = f(z, X) dX along a path, from knot to knot."""

    @abstractmethod
    def integrate(
        self, field: Field, initial: th.Tensor, path: Interpolation, parameters: tuple[th.Tensor, ...] = ()
    ) -> th.Tensor:
        """Return z at every knot of the path, (I + 1, B, Z).

        :param initial: z at the first knot, (B, Z)
        :param path: over I intervals
        :param parameters: that the field uses itself, not by the drive: an adjoint finds their gradients
        """

    @abstractmethod
    def within(self, field: Field, knots: th.Tensor, path: Interpolation, places: Sequence[float]) -> th.Tensor:
        """Return z at fractions of each interval, (places, I, B, Z), from z at its first knot.

        :param knots: z at the knots, from :meth:`integrate`, (I + 1, B, Z)
        :param path: over I intervals
        :param places: fractions of the interval, ascending, above 0
        """


class FixedSolver(Solver):
    """Solves by fixed steps, so that a row depends on itself alone; gradients go through the steps.

    :param name: in :data:`SOLVERS`
    :param steps: per interval
    """

    def __init__(self, name: str, steps: int = 1) -> None:
        self.tableau = SOLVERS[name]
        self.steps = steps
        # Fractions of an interval at which it evaluates the field, ascending.
        self.places = sorted({(step + node) / steps for step in range(steps) for node in self.tableau.nodes})

    def integrate(
        self, field: Field, initial: th.Tensor, path: Curve, parameters: tuple[th.Tensor, ...] = ()
    ) -> th.Tensor:
        """Return z at every knot of the path, (I + 1, B, Z)."""
        tableau, steps = self.tableau, self.steps
        # By the place in an interval of each stage (in steps): what the path is there, one per interval.
        places = {step + node for step in range(steps) for node in tableau.nodes} if len(path.increments) else set()
        increments, drives = {}, {}
        for place in places:
            slope, drive = path.slope(place / steps), path.drive_at(place / steps)
            increments[place] = (slope / steps if steps > 1 else slope).unbind(0)
            drives[place] = None if drive is None else drive.unbind(0)
        z = initial
        knots = [z]
        for interval in range(len(path.increments)):
            for step in range(steps):
                slopes: list[th.Tensor] = []
                for node, row in zip(tableau.nodes, tableau.matrix, strict=True):
                    at_stage = drives[step + node]
                    stage_drive = None if at_stage is None else at_stage[interval]
                    slopes.append(field(_combine(z, row, slopes), increments[step + node][interval], stage_drive))
                z = _combine(z, tableau.weights, slopes)
            knots.append(z)
        return th.stack(knots)

    def within(self, field: Field, knots: th.Tensor, path: Interpolation, places: Sequence[float]) -> th.Tensor:
        """Return z at fractions of each interval by the same steps, shortened: at 1 that of the next knot."""
        return th.stack([self._shortened(field, knots, path, place) for place in places])

    def _shortened(self, field: Field, knots: th.Tensor, path: Interpolation, place: float) -> th.Tensor:
        """Return z at a fraction of each interval, (I, B, Z)."""
        z = knots[:-1].flatten(0, 1)  # (I * B, Z): the intervals side by side
        for step in range(self.steps):
            slopes: list[th.Tensor] = []
            for node, row in zip(self.tableau.nodes, self.tableau.matrix, strict=True):
                at_stage = place * (step + node) / self.steps
                increment, drive = path.slope(at_stage) * (place / self.steps), path.drive_at(at_stage)
                drive = None if drive is None else drive.flatten(0, 1)
                slopes.append(field(_combine(z, row, slopes), increment.flatten(0, 1), drive))
            z = _combine(z, self.tableau.weights, slopes)
        return z.view_as(knots[:-1])


def _combine(z: th.Tensor, weights: tuple[float, ...], slopes: list[th.Tensor]) -> th.Tensor:
    """Return z + sum of weight * slope, without the terms whose weight is zero."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            z = th.add(z, slope, alpha=weight)
    return z


class AdaptiveSolver(Solver):
    """Solves by torchcde's ``cdeint``, interval by interval.

    The step is chosen for the batch as a whole, so that a row depends, within the tolerance, on its neighbours.

    :param name: in :data:`ADAPTIVE_SOLVERS`
    :param rtol: relative tolerance of a step
    :param atol: absolute tolerance of a step
    :param adjoint: whether gradients come from the adjoint equation, solved backwards, rather than through the steps
    """

    def __init__(self, name: str, rtol: float, atol: float, adjoint: bool = False) -> None:
        self.name = name
        self.rtol = rtol
        self.atol = atol
        self.adjoint = adjoint

    def integrate(
        self, field: Field, initial: th.Tensor, path: Interpolation, parameters: tuple[th.Tensor, ...] = ()
    ) -> th.Tensor:
        """Return z at every knot of the path, (I + 1, B, Z).

        :raises ValueError: if z does not remain finite, or the solver takes too many steps; also in the backward pass
        """
        if not bool(th.isfinite(initial).all()):
            raise ValueError(
                "z is not finite at the first observation of a window, before anything is solved: weights have "
                "diverged (use a lower learning_rate or max_grad_norm), or observations are too large (normalise them)."
            )
        z = initial
        knots = [z]
        # Each interval by itself: the path has kinks at the knots, and torchdiffeq does not see a jump (``jump_t``) at
        # which a step happens to end.
        for interval, coefficients in enumerate(path.coefficients().unbind(0)):
            product = self._product(field, path, coefficients, interval)
            # Through the coefficients flow the gradients of all that the path and the drive are made of.
            learned = (coefficients,) if coefficients.requires_grad else ()
            gradients = {"adjoint_params": (*parameters, *learned)} if self.adjoint else {}
            z = self._solve(product, z, (1.0,), adjoint=self.adjoint, **gradients)[0]
            knots.append(z)
        return th.stack(knots)

    def within(self, field: Field, knots: th.Tensor, path: Interpolation, places: Sequence[float]) -> th.Tensor:
        """Return z at fractions of each interval, all intervals in one solve."""
        product = self._product(field, path, path.coefficients().flatten(0, 1), 0)
        z = self._solve(product, knots[:-1].flatten(0, 1), places, adjoint=False)
        return z.view(len(places), *knots[:-1].shape)

    def _product(self, field: Field, path: Interpolation, coefficients: th.Tensor, interval: int) -> "_Product":
        return _Product(field, path.piece(coefficients), path.increments.shape[-1], self.name, interval)

    def _solve(self, product: "_Product", z: th.Tensor, places: Sequence[float], **kwargs: Any) -> th.Tensor:
        """Return z at places of one interval, (places, B, Z), from z at its beginning, (B, Z)."""
        solution: th.Tensor = torchcde.cdeint(
            _Slope(product.spline, product.channels),
            product,
            z,
            z.new_tensor([0.0, *places]),
            method=self.name,
            rtol=self.rtol,
            atol=self.atol,
            options={"step_t": z.new_ones(1), "min_step": SMALLEST_STEP},
            **kwargs,
        )
        return solution.transpose(0, 1)[1:]  # (B, 1 + places, Z) -> (places, B, Z)


class _Slope(th.nn.Module):
    """The first channels of a path of torchcde, those of X."""

    def __init__(self, spline: torchcde.interpolation_base.InterpolationBase, channels: int) -> None:
        super().__init__()
        self.spline = spline
        self.channels = channels

    def derivative(self, u: th.Tensor) -> th.Tensor:
        """Return dX/du, (B, C)."""
        slope: th.Tensor = self.spline.derivative(u)
        return slope[..., : self.channels]


class _Product(th.nn.Module):
    """f(z, X) dX/du in the form that torchcde asks for; the drive is in the other channels of the path."""

    def __init__(
        self,
        field: Field,
        spline: torchcde.interpolation_base.InterpolationBase,
        channels: int,
        solver: str,
        interval: int,
    ) -> None:
        super().__init__()
        self.field = field
        self.spline = spline
        self.channels = channels
        self.solver = solver
        self.interval = interval
        self.evaluations = 0

    def prod(self, u: th.Tensor, z: th.Tensor, slope: th.Tensor) -> th.Tensor:
        """Return f(z, X) dX/du, (B, Z)."""
        self.evaluations += 1
        finite = bool(th.isfinite(z).all())
        if not finite or self.evaluations > MAX_EVALUATIONS:
            failure = f"evaluated the field {MAX_EVALUATIONS} times" if finite else "reached values that are not finite"
            knot = self.interval + u.item()
            raise ValueError(
                f"solver={self.solver!r} {failure} at knot {knot:.3g} of a batch of windows: the equation "
                f"is too stiff for its tolerances. Use a fixed solver ({', '.join(SOLVERS)}), larger rtol and "
                "atol, or smaller observations (normalise them)."
            )
        drive = self.spline.evaluate(u)[..., self.channels :]
        return self.field(z, slope, drive if drive.shape[-1] else None)
