"""The arguments that say how a window is encoded: sizes, solver, interpolation, and what the path is made of."""

from dataclasses import dataclass

from sb3_ncde.acting.description import Description
from sb3_ncde.acting.interpolation import INTERPOLATIONS as INTERPOLATIONS_IN_NUMPY
from sb3_ncde.acting.networks import FEATURE_NORMS as NORMS_IN_NUMPY
from sb3_ncde.acting.stepper import Stepper
from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.cde.feature_norms import FEATURE_NORMS
from sb3_ncde.cde.interpolation import INTERPOLATIONS
from sb3_ncde.cde.solvers import ADAPTIVE_SOLVERS, AdaptiveSolver, FixedSolver, Solver
from sb3_ncde.history.layout import Layout
from sb3_ncde.plain_values import check_choice, check_integer, check_positive, check_type


@dataclass(frozen=True, kw_only=True)
class EncoderArguments:
    """How a window is encoded; plain YAML values, checked on construction.

    :param latent_size: Z, size of the latent state z
    :param field_width: units of each hidden layer of the vector field f
    :param field_depth: hidden layers of f
    :param initial_width: units of each hidden layer of the network that makes z of the window's oldest observation
    :param initial_depth: hidden layers of that network
    :param solver: with fixed steps: ``euler``, ``midpoint``, ``heun``, ``rk4``. Adaptive: ``dopri5``, ``dopri8``,
        ``bosh3``, ``fehlberg2``, ``adaptive_heun``
    :param solver_steps: steps of a fixed solver from one observation to the next
    :param rtol: relative tolerance of an adaptive solver
    :param atol: absolute tolerance of an adaptive solver
    :param adjoint: whether an adaptive solver finds gradients by the adjoint equation: less memory, more time
    :param interpolation: the path: ``linear``; ``hermite``, a smooth curve, for ``rk4`` and the adaptive solvers;
        ``rectilinear``, time moves first, then the values
    :param time_channel: whether time is a channel of the path
    :param scale_increments: whether changes and rates are divided by their root mean square in what is learned from
    :param rates: whether the rates of change of the features are channels of the path
    :param path_in_field: whether f sees the path's value and rates beside z
    :param feature_size: size of the features that a linear map makes of z for the heads. null: z itself
    :param feature_norm: what these pass through on their way to the heads: ``layer_norm``; ``unit``, the same
        divided by the root of their number, so that together they have length 1; ``tanh``; ``none``
    :param skip: whether the newest features, their rates and the elapsed time also go to the heads, past the equation;
        with ``traces`` also the newest summary, and what z would be if a window began at the newest observation
    :param control_size: features wider than this (images) are projected to it by a learned linear map, and so is the
        summary of ``traces``. null: never
    :raises TypeError: for a value of another type
    :raises ValueError: for a value out of range, or two that do not go together
    """

    latent_size: int = 16
    field_width: int = 32
    field_depth: int = 1
    initial_width: int = 32
    initial_depth: int = 1
    solver: str = "euler"
    solver_steps: int = 1
    rtol: float = 1e-4
    atol: float = 1e-6
    adjoint: bool = False
    interpolation: str = "linear"
    time_channel: bool = True
    scale_increments: bool = True
    rates: bool = True
    path_in_field: bool = True
    feature_size: int | None = None
    feature_norm: str = "layer_norm"
    skip: bool = True
    control_size: int | None = 32

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("latent_size", "field_width", "initial_width", "solver_steps"):
            check_integer(name, getattr(self, name), minimum=1)
        for name in ("field_depth", "initial_depth"):
            check_integer(name, getattr(self, name), minimum=0)
        for name in ("control_size", "feature_size"):
            check_integer(name, getattr(self, name), minimum=1, optional=True)
        for name in ("rates", "path_in_field", "skip", "adjoint", "time_channel", "scale_increments"):
            check_type(name, getattr(self, name), bool, "true or false")
        check_choice("solver", self.solver, (*SOLVERS, *ADAPTIVE_SOLVERS))
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        check_choice("feature_norm", self.feature_norm, FEATURE_NORMS)
        for name in ("rtol", "atol"):
            check_positive(name, getattr(self, name), "the tolerance of an adaptive solver")
        if self.feature_norm in ("layer_norm", "unit") and (self.feature_size or self.latent_size) < 3:
            name = "latent_size" if self.feature_size is None else "feature_size"
            raise ValueError(
                f"{name}={getattr(self, name)} with feature_norm={self.feature_norm!r}: the norm leaves nothing of "
                "fewer than 3 numbers; use feature_norm='tanh'."
            )
        self._check_solver()

    def _check_solver(self) -> None:
        kind = INTERPOLATIONS[self.interpolation]
        if self.solver in SOLVERS and SOLVERS[self.solver].order < kind.least_order:
            able = [name for name, tableau in SOLVERS.items() if tableau.order >= kind.least_order]
            raise ValueError(
                f"solver={self.solver!r} with interpolation={self.interpolation!r}: on a curved path with one step per "
                "observation, a solver of low order uses the increment before the newest one, alone or beside it; the "
                f"agent would act late. Use solver={' or '.join(map(repr, able))}, an adaptive one "
                f"({', '.join(ADAPTIVE_SOLVERS)}), or interpolation='linear'."
            )
        if kind.needs_time and not self.time_channel:
            raise ValueError(
                f"interpolation={self.interpolation!r} with time_channel=False: on such a path time moves before "
                "values, so time must be one of its channels; without it the path is that of interpolation='linear'."
            )
        if self.adjoint and self.solver in SOLVERS:
            raise ValueError(
                f"adjoint=True with solver={self.solver!r}: fixed solvers are backpropagated through directly; the "
                f"adjoint is for the adaptive ones ({', '.join(ADAPTIVE_SOLVERS)})."
            )
        if self.solver_steps > 1 and self.solver in ADAPTIVE_SOLVERS:
            raise ValueError(
                f"solver_steps={self.solver_steps} with solver={self.solver!r}: an adaptive solver chooses its steps "
                "itself; its accuracy is set by rtol and atol."
            )

    def make_solver(self) -> Solver:
        """Return the solver that the arguments name."""
        if self.solver in SOLVERS:
            return FixedSolver(self.solver, self.solver_steps)
        return AdaptiveSolver(self.solver, self.rtol, self.atol, self.adjoint)

    def make_stepper(self, layout: Layout, control_dim: int, time_scale: float) -> Stepper | None:
        """Return what steps in NumPy, where all that the arguments choose is there.

        :param layout: of the histories
        :param control_dim: K, controls of the path
        :param time_scale: what a nominal step counts in the channel of time
        """
        choices = (
            (self.solver, SOLVERS),
            (self.interpolation, INTERPOLATIONS_IN_NUMPY),
            (self.feature_norm, NORMS_IN_NUMPY),
        )
        if any(choice not in known for choice, known in choices):
            return None
        return Stepper(
            Description(
                layout=layout,
                control_dim=control_dim,
                time_scale=time_scale,
                time_channel=self.time_channel,
                rates=self.rates,
                interpolation=self.interpolation,
                tableau=SOLVERS[self.solver],
                solver_steps=self.solver_steps,
                feature_norm=self.feature_norm,
                skip=self.skip,
            )
        )
