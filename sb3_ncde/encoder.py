"""NeuralCDE: observation history in, features for actor and critic out."""

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn
from torch.nn import functional as F

from sb3_ncde.carried import Carried
from sb3_ncde.history import ObservationHistory, Sequences, State
from sb3_ncde.increment_scale import IncrementScale
from sb3_ncde.interpolation import Interpolation, interpolate
from sb3_ncde.path import ControlPath, backward_slope, between_observations, control_path, since_observed
from sb3_ncde.solvers import SOLVERS, integrate, integrate_adaptively
from sb3_ncde.vector_field import VectorField

FEATURE_NORMS = ("tanh", "layer_norm", "none")
MAX_CARRIED = 8
"""Open windows of an environment up to which their solutions are carried from step to step."""
MAX_OBSERVED = 256
"""Steps of a rollout whose changes are gathered before the scale of increments takes them in."""


class NeuralCDE(nn.Module):
    """Neural controlled differential equation over the window of recent observations.

    z(t0) = initial(x0), dz = f(z, X) dX (Kidger et al. 2020, arXiv:2005.08926; online: Morrill et al. 2021,
    arXiv:2106.11028), where X runs through the observations of the window, with time as a channel.

    It stands where RecurrentPPO expects an LSTM, and so has the attributes that RecurrentPPO reads:
    ``num_layers`` = 1 and ``hidden_size``, the width of the *packed history*, not of z. ``input_size`` = D + 1 is that
    of an observation and its time, ``output_size`` that of what the heads see.

    The letters of all shapes in this package: N sequences (environments at rollout, sequences in a minibatch),
    T steps of a sequence, H points in a window (of a batch: in its longest), S the hop, L = ceil(H/S) open windows,
    B windows in one solve, D features of one observation (in a history with missing values twice as many: what is held,
    and how often it has been observed), K controls (the features or their projection), V values and C channels of the
    path (see :class:`sb3_ncde.path.ControlPath`), Z latent size.

    :param history: layout of the state
    :param latent_size: Z
    :param field_width: units of each hidden layer of the vector field
    :param field_depth: hidden layers of the vector field
    :param initial_width: units of each hidden layer of the initial network
    :param initial_depth: hidden layers of the initial network
    :param solver: a name in :data:`sb3_ncde.solvers.SOLVERS` or :data:`sb3_ncde.solvers.ADAPTIVE_SOLVERS`
    :param solver_steps: steps per interval of a fixed-step solver
    :param rtol: relative tolerance of an adaptive solver
    :param atol: absolute tolerance of an adaptive solver
    :param adjoint: whether an adaptive solver finds gradients by the adjoint equation
    :param interpolation: a name in :data:`sb3_ncde.interpolation.INTERPOLATIONS`
    :param time_channel: whether time is a channel of the path
    :param scale_increments: whether changes and rates are scaled by their root mean square in rollouts
    :param rates: whether the rates of the features are channels of the path
    :param path_in_field: whether the field sees the path's value (and rates) beside z
    :param feature_size: size of the features that a linear map makes of z for the heads; None or Z: z itself
    :param feature_norm: what they pass through on their way to the heads: tanh, layer_norm or none
    :param skip: whether the newest features, rates and elapsed time go to the heads beside z
    :param control_size: features wider than this are projected to it by a learned linear map; None: never
    :param time_scale: what a nominal step counts in the channel of time
    """

    num_layers = 1

    def __init__(
        self,
        history: ObservationHistory,
        latent_size: int,
        field_width: int,
        field_depth: int,
        initial_width: int,
        initial_depth: int,
        solver: str,
        solver_steps: int,
        rtol: float,
        atol: float,
        adjoint: bool,
        interpolation: str,
        time_channel: bool,
        scale_increments: bool,
        rates: bool,
        path_in_field: bool,
        feature_size: int | None,
        feature_norm: str,
        skip: bool,
        control_size: int | None,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        features_dim = history.features_dim
        self.history = history
        self.input_size = features_dim + 1
        self.hidden_size = history.size
        self.latent_size = latent_size
        self.solver = solver
        self.solver_steps = solver_steps
        self.rtol = rtol
        self.atol = atol
        self.adjoint = adjoint
        self.interpolation = interpolation
        self.time_channel = time_channel
        self.scale_increments = scale_increments
        self.rates = rates
        self.feature_norm = feature_norm
        self.skip = skip
        self.time_scale = time_scale

        self.control_dim = features_dim if control_size is None else min(control_size, features_dim)
        self.control = None if self.control_dim == features_dim else nn.Linear(features_dim, self.control_dim)
        scaled_dim = 2 * self.control_dim if rates else self.control_dim
        self.increment_scale = IncrementScale(scaled_dim)
        counts_dim = features_dim if history.missing_values else 0
        values_dim = scaled_dim + counts_dim
        self.initial = nn.Sequential(
            *create_mlp(self.control_dim + counts_dim, latent_size, [initial_width] * initial_depth)
        )
        self.field = VectorField(
            latent_size, int(time_channel) + values_dim, field_width, field_depth, values_dim if path_in_field else 0
        )
        self.read_out = None if feature_size in (None, latent_size) else nn.Linear(latent_size, feature_size)
        self.output_size = latent_size if feature_size is None else feature_size
        if skip:
            self.output_size += features_dim + values_dim - self.control_dim + 1
        self._carried: Carried | None = None
        self._observed: list[tuple[th.Tensor, th.Tensor]] = []

    @property
    def _carries(self) -> bool:
        """Whether :meth:`step` goes on from the solutions of the step before."""
        by_intervals = self.solver in SOLVERS and self.interpolation != "hermite" and not self.history.missing_values
        return by_intervals and self.history.n_open <= MAX_CARRIED

    def forward(self, observations: th.Tensor, state: State, episode_starts: th.Tensor) -> tuple[th.Tensor, State]:
        """Encode the history of every step, all windows in one solve.

        :param observations: features and time of N sequences of T steps, (N * T, D + 1)
        :param state: the histories before them, two tensors (1, N, hidden_size)
        :param episode_starts: 1 where an observation is the first of its episode, (N * T,)
        :return: features for the heads, (N * T, output_size), and the histories after the last step
        """
        appended, after = self._append(observations, state, episode_starts)
        return self._encode(appended), after

    def step(
        self, observations: th.Tensor, state: State, episode_starts: th.Tensor, rollout: bool = False
    ) -> tuple[th.Tensor, State]:
        """Encode one step of N environments as :meth:`forward` does, without gradients.

        The solutions of the L open windows are carried along from the last call, so that a step is one interval of
        each. They are used only for exactly the histories and the weights that they were computed for, and are solved
        anew from the history otherwise: the history remains the state, and nothing goes stale. Where windows are many
        (a small hop) carrying them saves nothing, and where an interval is not solved by itself (a cubic path, an
        adaptive solver) it cannot be done: then the step is solved as by :meth:`forward`.

        :param observations: features and time of N environments, (N, D + 1)
        :param state: the histories before them, two tensors (1, N, hidden_size)
        :param episode_starts: 1 where an observation is the first of its episode, (N,)
        :param rollout: whether the step is part of a rollout to learn from, and so of the scale of increments
        :return: features for the heads, (N, output_size), and the histories after this step
        """
        with th.no_grad():
            appended, after = self._append(observations, state, episode_starts)
            if rollout and self.scale_increments:
                self._observe(appended.line)
            if not self._carries:
                return self._encode(appended), after
            weights = (*self.parameters(), self.increment_scale.scale)
            carried = self._carried
            if carried is not None and carried.belongs_to(state, weights):
                weights = carried.weights
                z, values = self._continue(carried, appended)
            else:
                weights = tuple(weight.clone() for weight in weights)
                features, elapsed = self.history.open_windows(appended)
                path = self._path(features, elapsed)
                z, values = self._solve(self._begin(features[0]), path)[-1], path.values[-1]
            # A copy of the histories: predict() hands out views of them, which the caller may write to.
            self._carried = Carried(tuple(part.clone() for part in after), weights, z, values)
            serving = th.from_numpy(self.history.serving(appended)).to(z.device)
            return self._read_out(appended.line[:, -1], z[serving], values[serving]), after

    def _continue(self, carried: Carried, appended: Sequences) -> tuple[th.Tensor, th.Tensor]:
        """Carry z (N * L, Z) and values (N * L, V) over the newest interval, and begin the windows that begin."""
        # The observation before and the newest, once for each open window: (N, 2, D + 1) -> (2, N * L, D + 1)
        interval = appended.line[:, -2:].transpose(0, 1).repeat_interleave(self.history.n_open, dim=1)
        path = self._path(interval[..., :-1], interval[..., -1], carried.values)
        z, values = self._solve(carried.z, path)[-1], path.values[-1]
        env, window = self.history.beginning(appended)
        if env.size:
            rows = th.from_numpy(window).to(z.device)
            first = appended.line[th.from_numpy(env).to(z.device), -1:, :].transpose(0, 1)  # (1, ..., D + 1)
            z[rows] = self._begin(first[0, :, :-1])
            values[rows] = self._path(first[..., :-1], first[..., -1]).values[0]
        return z, values

    def _encode(self, appended: Sequences) -> th.Tensor:
        """Solve the windows of sequences, and return what the heads see at every step, (N * T, output_size)."""
        windows = self.history.windows(appended)
        path = self._path(windows.features, windows.elapsed)
        z = self._solve(self._begin(windows.features[0]), path)
        step = (windows.knot, windows.window)  # (H, B, ...) -> (N * T, ...)
        newest = appended.line[:, self.history.history_length :].flatten(0, 1)  # (N * T, D + 1)
        return self._read_out(newest, z[step], path.values[step])

    def _append(self, observations: th.Tensor, state: State, episode_starts: th.Tensor) -> tuple[Sequences, State]:
        n_seq = state[0].shape[1]
        # The state decides the precision, as the observations are float32 whatever the policy is.
        sequences = observations.to(state[0].dtype).view(n_seq, -1, self.input_size)  # (N, T, D + 1)
        return self.history.append(sequences[..., :-1], sequences[..., -1], state, episode_starts.view(n_seq, -1))

    def _begin(self, features: th.Tensor) -> th.Tensor:
        """Return z at the first observation of a window, (B, D) -> (B, Z)."""
        held, counts = self._held_and_counts(features)
        start = self._control(held)
        # A value that is held and 0 is not one that has never been observed.
        z: th.Tensor = self.initial(start if counts is None else th.cat((start, counts.clamp(max=1.0)), dim=-1))
        return z

    def _held_and_counts(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor | None]:
        """Return the features, (..., D), and where values may be missing the counts of their observations."""
        if not self.history.missing_values:
            return features, None
        held, counts = features.chunk(2, dim=-1)
        return held, counts

    def _path(self, features: th.Tensor, elapsed: th.Tensor, before: th.Tensor | None = None) -> ControlPath:
        first_rate = None if before is None else before[:, self.control_dim :]
        scale = self.increment_scale.scale
        time_scale = self.time_scale if self.time_channel else None
        held, counts = self._held_and_counts(features)
        return control_path(self._control(held), elapsed, scale, self.rates, time_scale, first_rate, counts)

    def train(self, mode: bool = True) -> "NeuralCDE":
        """Choose between learning and acting; before an update, take in the changes of the rollout."""
        if mode:
            self._take_in_changes()
        return super().train(mode)

    def _observe(self, line: th.Tensor) -> None:
        """Note the newest change in the histories of a step of a rollout, (N, H + 1, D + 1), and how long it took."""
        self.increment_scale.renew()
        taken = line[:, -1:, -1]
        # As for the path: the rates of a projection are those of what is held.
        if self.history.missing_values and self.control is None:
            points = line.transpose(0, 1)  # (H + 1, N, D + 1)
            step, counts = points[1:, :, -1:], self._held_and_counts(points[..., :-1])[1]
            assert counts is not None
            taken = between_observations(counts, step, since_observed(counts, step))[-1]
        self._observed.append((line[:, -2:, :-1].clone(), taken.clone()))  # (N, 2, D) and (N, 1), or of each feature
        if len(self._observed) == MAX_OBSERVED:
            self._take_in_changes()

    def _take_in_changes(self) -> None:
        """Hand the noted changes, and with rates their rates, to the scale of increments."""
        if not self._observed:
            return
        features, taken = map(th.cat, zip(*self._observed, strict=True))
        self._observed.clear()
        timed = (taken > 0).any(dim=1)  # not so at the first observation of an episode
        taken = taken[timed]
        with th.no_grad():
            change = self._control(self._held_and_counts(features[timed])[0]).diff(dim=1).squeeze(1)
            change = change.masked_fill(taken == 0, th.nan)  # not observed, so no change
            slope = backward_slope(change, taken)
            self.increment_scale.observe(th.cat((change, slope), dim=1) if self.rates else change)

    def _solve(self, z: th.Tensor, path: ControlPath) -> th.Tensor:
        """Return z at the knots of a path, (H, B, Z), from z at the first, (B, Z)."""
        knots = self._integrate(z, self._curve(path))
        # Time and values move one after the other on a rectilinear path: every other knot is an observation.
        return knots[::2] if self.interpolation == "rectilinear" else knots

    def _curve(self, path: ControlPath) -> Interpolation:
        return interpolate(path, self.field.drive(path.values), self.interpolation)

    def _integrate(self, z: th.Tensor, curve: Interpolation) -> th.Tensor:
        """Return z at the knots of a curve, (I + 1, B, Z), from z at the first, (B, Z)."""
        field = self.field.product()
        if self.solver in SOLVERS:
            return integrate(field, z, curve, self.solver, self.solver_steps)
        weights = self.field.product_parameters()
        return integrate_adaptively(field, weights, z, curve, self.solver, self.rtol, self.atol, self.adjoint)

    def _control(self, features: th.Tensor) -> th.Tensor:
        """Return what the path runs through: the features, or their projection."""
        return features if self.control is None else self.control(features)

    def _read_out(self, newest: th.Tensor, z: th.Tensor, values: th.Tensor) -> th.Tensor:
        """Return what the heads see, (rows, output_size).

        :param newest: features and elapsed time of each row's newest observation, (rows, D + 1)
        :param z: there, (rows, Z)
        :param values: of the path there, (rows, V)
        """
        if self.read_out is not None:
            z = self.read_out(z)
        if self.feature_norm == "tanh":
            z = th.tanh(z)
        elif self.feature_norm == "layer_norm":
            z = F.layer_norm(z, z.shape[-1:])
        if not self.skip:
            return z
        elapsed = newest[:, -1:] * self.time_scale
        held, _ = self._held_and_counts(newest[:, :-1])
        return th.cat((z, held, elapsed, values[:, self.control_dim :]), dim=1)
