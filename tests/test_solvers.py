"""Solvers against closed-form solutions: exactness, order of convergence, where the field is called."""

import math
from collections.abc import Callable

import pytest
import torch as th

from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.cde.interpolation import Linear
from sb3_ncde.cde.solvers import Field, FixedSolver


def random_increments(knots: int = 5, batch: int = 3, channels: int = 2) -> th.Tensor:
    return 0.5 * th.randn(knots - 1, batch, channels, dtype=th.float64)


def values_of(increments: th.Tensor) -> th.Tensor:
    """The path itself: X at the knots, beginning at 0."""
    return th.cat((th.zeros_like(increments[:1]), increments.cumsum(0)))


def linear_field(z: th.Tensor, increment: th.Tensor, drive: th.Tensor | None) -> th.Tensor:
    """dz = z (dX_1 + dX_2), so z = z0 exp(X_1 + X_2)."""
    return z * increment.sum(-1, keepdim=True)


def driven_field(z: th.Tensor, increment: th.Tensor, drive: th.Tensor | None) -> th.Tensor:
    """dz = z X dX, with X the sum of the channels, so z = z0 exp(X^2 / 2)."""
    assert drive is not None
    return z * drive.sum(-1, keepdim=True) * increment.sum(-1, keepdim=True)


def rotating_field(z: th.Tensor, increment: th.Tensor, drive: th.Tensor | None) -> th.Tensor:
    """dz = J z dX, a rotation by the angle X."""
    return th.stack((-z[:, 1], z[:, 0]), dim=1) * increment.sum(-1, keepdim=True)


def rotation(z0: th.Tensor, angle: th.Tensor) -> th.Tensor:
    cos, sin = angle.cos(), angle.sin()
    return th.stack((cos * z0[:, 0] - sin * z0[:, 1], sin * z0[:, 0] + cos * z0[:, 1]), dim=-1)


PROBLEMS: dict[str, tuple[Field, Callable[[th.Tensor, th.Tensor], th.Tensor]]] = {
    "linear": (linear_field, lambda z0, x: z0 * x.exp()[..., None]),
    "driven": (driven_field, lambda z0, x: z0 * (x**2 / 2).exp()[..., None]),
    "rotating": (rotating_field, rotation),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_order_of_convergence(solver: str, problem: str) -> None:
    th.manual_seed(0)  # an order is a limit: other numbers may be further from it
    field, solution = PROBLEMS[problem]
    increments = random_increments()
    values = values_of(increments)
    z0 = th.randn(3, 2, dtype=th.float64)
    exact = solution(z0, values.sum(-1))

    def error(steps: int) -> float:
        z = FixedSolver(solver, steps).integrate(field, z0, Linear(increments, values))
        return float((z - exact).abs().max())

    order = SOLVERS[solver].order
    steps = 8 if order > 2 else 128
    coarse, fine = error(steps), error(4 * steps)
    assert fine > 1e-13  # else the ratio below is one of rounding errors
    assert math.log(coarse / fine, 4) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("solver", SOLVERS)
def test_constant_field_integrates_the_path_exactly(solver: str) -> None:
    increments = random_increments()
    matrix = th.randn(4, 2, dtype=th.float64)
    z0 = th.randn(3, 4, dtype=th.float64)
    z = FixedSolver(solver).integrate(lambda z, dx, _: dx @ matrix.T, z0, Linear(increments, None))
    th.testing.assert_close(z, z0 + values_of(increments) @ matrix.T)


@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_increments_change_no_bit(solver: str) -> None:
    increments = random_increments()
    increments[2] = 0.0
    z0 = th.randn(3, 2, dtype=th.float64)
    z = FixedSolver(solver, 3).integrate(linear_field, z0, Linear(increments, None))
    assert th.equal(z[3], z[2])


@pytest.mark.parametrize("solver", SOLVERS)
def test_field_is_called_at_the_nodes_of_the_tableau(solver: str) -> None:
    """With X = t on [0, 2] and two steps per interval, the drive shows where each stage stands."""
    seen: list[float] = []

    def spy(z: th.Tensor, increment: th.Tensor, drive: th.Tensor | None) -> th.Tensor:
        assert drive is not None
        seen.append(drive.item())
        return th.zeros_like(z)

    values = th.arange(3, dtype=th.float64).view(3, 1, 1)
    FixedSolver(solver, 2).integrate(spy, th.zeros(1, 1, dtype=th.float64), Linear(values.diff(dim=0), values))
    assert seen == [(step + node) / 2 for step in range(4) for node in SOLVERS[solver].nodes]


def test_one_knot_is_the_initial_value() -> None:
    z0 = th.randn(3, 2)
    assert th.equal(FixedSolver("rk4").integrate(linear_field, z0, Linear(th.zeros(0, 3, 2), None)), z0[None])


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_are_those_of_finite_differences(solver: str) -> None:
    increments = random_increments().requires_grad_()
    z0 = th.randn(3, 2, dtype=th.float64, requires_grad=True)
    assert th.autograd.gradcheck(
        lambda z, dx: FixedSolver(solver, 2).integrate(driven_field, z, Linear(dx, values_of(dx))), (z0, increments)
    )
