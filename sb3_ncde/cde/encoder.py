"""NeuralCDE: observation history in, z and features for actor and critic out.

z is solved for by :mod:`sb3_ncde.cde.fixed_solve` or :mod:`sb3_ncde.cde.solvers` in an update, and in a step of a
rollout by :mod:`sb3_ncde.acting.stepper`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

from sb3_ncde.acting.description import Description, Weights, begins_anew
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.feature_norms import FEATURE_NORMS, NORMS
from sb3_ncde.cde.fixed_solve import solve, suits
from sb3_ncde.cde.host_weights import EncoderOnHost, on_host
from sb3_ncde.cde.increment_scale import IncrementScale
from sb3_ncde.cde.interpolation import INTERPOLATIONS, Interpolation
from sb3_ncde.cde.learning import Learning
from sb3_ncde.cde.path import ControlPath, Prepared, control_path
from sb3_ncde.cde.read_out import seen_beside
from sb3_ncde.cde.solvers import FixedSolver
from sb3_ncde.cde.summary import Summary
from sb3_ncde.cde.vector_field import VectorField
from sb3_ncde.history.learned_range import LearnedRange
from sb3_ncde.history.observation_history import ObservationHistory, State
from sb3_ncde.history.validation import refuse_to_be_traced
from sb3_ncde.history.window_rule import Array
from sb3_ncde.history.windows import Sequences


class NeuralCDE(nn.Module):
    """Neural controlled differential equation over the window of recent observations.

    z(t0) = initial(x0), dz = f(z, X) dX (Kidger et al. 2020, arXiv:2005.08926; online: Morrill et al. 2021,
    arXiv:2106.11028), where X runs through the observations of the window, with time as a channel.

    It stands where RecurrentPPO expects an LSTM, and so has the attributes that RecurrentPPO reads:
    ``num_layers`` = 1 and ``hidden_size``, the width of the *packed history*, not of z. ``input_size`` = D + 1 is that
    of an observation and its time, ``output_size`` that of what the heads see.

    What its statistics take in and when, :class:`sb3_ncde.cde.learning.Learning` tells.

    The letters of all shapes in this package: N sequences (environments at rollout, sequences in a minibatch),
    T steps of a sequence, H points in a window (of a batch: in its longest), S the hop, L = ceil(H/S) open windows,
    B windows in one solve, D features of one observation, M numbers of a summary, K controls (the features or their
    projection), V values and C channels of the path (see :class:`sb3_ncde.cde.path.ControlPath`), Z latent size. What a
    history holds of an observation, slot_size numbers, :class:`sb3_ncde.history.layout.Layout` tells.

    :param history: layout of the state
    :param arguments: sizes, solver, interpolation, and what the path is made of
    :param time_scale: what a nominal step counts in the channel of time
    """

    num_layers = 1

    def __init__(self, history: ObservationHistory, arguments: EncoderArguments, time_scale: float = 1.0) -> None:
        super().__init__()
        features_dim, latent_size = history.features_dim, arguments.latent_size
        self.history = history
        self.time_scale = time_scale
        self.input_size = features_dim + 1
        self.hidden_size = history.size
        self._choose(arguments)

        control_size = arguments.control_size
        self.control_dim = features_dim if control_size is None else min(control_size, features_dim)
        self.control = None if self.control_dim == features_dim else nn.Linear(features_dim, self.control_dim)
        scaled_dim = 2 * self.control_dim if arguments.rates else self.control_dim
        self.increment_scale = IncrementScale(scaled_dim)
        counts_dim = features_dim if history.missing_values else 0
        values_dim = scaled_dim + counts_dim
        self.summary = None
        if history.layout.traces is not None:
            # Of observations that are too wide for the path, the summary is wider still.
            width = None if self.control is None else self.control_dim
            self.summary = Summary(history.layout, history.layout.traces, width)
        summary_dim = 0 if self.summary is None else self.summary.size
        initial_layers = [arguments.initial_width] * arguments.initial_depth
        self.initial = nn.Sequential(
            *create_mlp(self.control_dim + counts_dim + summary_dim, latent_size, initial_layers)
        )
        self.field = VectorField(
            latent_size,
            int(arguments.time_channel) + values_dim,
            arguments.field_width,
            arguments.field_depth,
            values_dim if arguments.path_in_field else 0,
        )
        feature_size = latent_size if arguments.feature_size is None else arguments.feature_size
        self.read_out = None if feature_size == latent_size else nn.Linear(latent_size, feature_size)
        self.output_size = feature_size
        self.begins_anew = begins_anew(history.layout, arguments.skip)
        if self.begins_anew:
            self.output_size += feature_size
        if arguments.skip:
            self.output_size += features_dim + values_dim - self.control_dim + 1 + summary_dim
        self.learned_range = LearnedRange(features_dim)
        scale = self.increment_scale if arguments.scale_increments else None
        projection = None if self.summary is None else self.summary.projection
        self._host = EncoderOnHost(self.control, self.initial, self.field, self.read_out, projection)
        self._stepper = arguments.make_stepper(history.layout, self.control_dim, time_scale)
        self.learning = Learning(
            self._weights,
            scale,
            self._summary_scale,
            self.learned_range,
            history.layout,
            self.control_dim,
            arguments.rates,
        )

    def apply(self, fn: Callable[[nn.Module], None]) -> "NeuralCDE":
        """Apply a function to all modules, but for SB3's orthogonal initialization, which is for heads.

        With it PPO on irregular CartPole had 379, with the weights that PyTorch begins with 434 (seeds 0 to 2), and 421
        on seeds 0 to 4 (benchmarks/NOTES.md). What a policy of a user's own has in place of it does reach the encoder.

        :param fn: called with each module, the encoder last; with none, if it is SB3's
        """
        if isinstance(fn, partial) and fn.func is BasePolicy.init_weights:
            return self
        return super().apply(fn)

    def _weights(self) -> Iterator[nn.Parameter]:
        """Yield all parameters; first, as most often one is enough, those that are found without a look for modules."""
        first: dict[str, nn.Parameter | None] = self._modules["initial"]._modules["0"]._parameters  # type: ignore[union-attr]
        yield from (weight for weight in first.values() if weight is not None)
        yield from self.parameters()

    def _choose(self, arguments: EncoderArguments) -> None:
        self.arguments = arguments
        self.solver = arguments.make_solver()
        self.interpolation = INTERPOLATIONS[arguments.interpolation]
        self.feature_norm = FEATURE_NORMS[arguments.feature_norm]

    def adopt(self, arguments: EncoderArguments) -> None:
        """Have other arguments of the same sizes: another solver, interpolation or norm, scaled increments or not."""
        self._choose(arguments)
        self._stepper = arguments.make_stepper(self.history.layout, self.control_dim, self.time_scale)
        self.learning.scale = self.increment_scale if arguments.scale_increments else None

    @property
    def _summary_scale(self) -> IncrementScale | None:
        return None if self.summary is None else self.summary.scale

    @property
    def has_learned(self) -> bool:
        """Whether its scales have taken anything in."""
        scales = (self.increment_scale, self._summary_scale)
        return any(bool(scale.count.any()) for scale in scales if scale is not None)

    def share_scale(self, other: "NeuralCDE") -> None:
        """Have the scales of another encoder of the same features, whatever either learns from."""
        self.increment_scale = other.increment_scale
        if self.summary is not None and other.summary is not None:
            self.summary.scale = other.summary.scale
        self.learning.share(other.learning)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.learning.take_in_all()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.learning.take_in_all()  # what has been learned is not of the weights that are loaded
        super()._load_from_state_dict(*args, **kwargs)

    def forward(self, observations: th.Tensor, state: State, episode_starts: th.Tensor) -> tuple[th.Tensor, State]:
        """Encode the history of every step.

        :param observations: features and time of N sequences of T steps, (N * T, D + 1)
        :param state: the histories before them, two tensors (1, N, hidden_size)
        :param episode_starts: 1 where an observation is the first of its episode, (N * T,)
        :return: features for the heads, (N * T, output_size), and the histories after the last step
        """
        refuse_to_be_traced("NCDEPolicy")
        acting = not th.is_grad_enabled() and len(observations) == state[0].shape[1]
        return (self.step if acting else self.unroll)(observations, state, episode_starts)

    def unroll(self, observations: th.Tensor, state: State, episode_starts: th.Tensor) -> tuple[th.Tensor, State]:
        """Encode N sequences of T steps as :meth:`forward` does, all their windows in one solve."""
        appended, after = self.append(observations, state, episode_starts)
        return self.encode(self.prepare(appended)), after

    def step(self, observations: th.Tensor, state: State, episode_starts: th.Tensor) -> tuple[th.Tensor, State]:
        """Encode one step of N environments as :meth:`unroll` does, without gradients.

        It is done in NumPy, by :class:`sb3_ncde.acting.stepper.Stepper`, which goes on from the solutions of the step
        before. An adaptive solver needs PyTorch.

        :param observations: features and time of N environments, (N, D + 1)
        :param state: the histories before them, two tensors (1, N, hidden_size)
        :param episode_starts: 1 where an observation is the first of its episode, (N,)
        :return: features for the heads, (N, output_size), and the histories after this step
        """
        first, second = state
        if self._stepper is None or first.dtype not in (th.float32, th.float64):
            with th.no_grad():
                return self.unroll(observations, state, episode_starts)
        weights, key = self._host.weights(self.increment_scale, self._summary_scale)
        rows = on_host(observations.to(first.dtype))
        histories, starts = (on_host(first), on_host(second)), on_host(episode_starts) > 0
        seen, (first_after, second_after) = self._stepper.step(
            rows[:, :-1], rows[:, -1], histories, starts, weights, key
        )
        device = first.device
        after = (th.from_numpy(first_after).to(device), th.from_numpy(second_after).to(device))
        return th.from_numpy(seen).to(device), after

    def follow(self, packed: Array) -> Array | None:
        """Encode histories, (N, P), that go on from those of the call before, without gradients.

        :return: features for the heads, (N, output_size), or None; see
            :meth:`sb3_ncde.acting.stepper.Stepper.follow`
        """
        if self._stepper is None:
            return None
        return self._stepper.follow(packed, *self._host.weights(self.increment_scale, self._summary_scale))

    def in_numpy(self) -> tuple[Description, Weights] | None:
        """Return its description and its weights, for a step in NumPy; None: its solver needs PyTorch."""
        if self._stepper is None:
            return None
        weights, _ = self._host.weights(self.increment_scale, self._summary_scale)
        return self._stepper.description, weights

    def prepare(self, appended: Sequences) -> Prepared:
        """Return the windows of sequences, and the path through them: all that precedes the solve."""
        windows = appended.windows()
        return Prepared(appended.newest(), windows, self.path(windows.features, windows.elapsed))

    def encode(self, prepared: Prepared) -> th.Tensor:
        """Solve the windows of sequences, and return what the heads see at every step, (N * T, output_size)."""
        newest, windows, path = prepared
        step = (windows.knot, windows.window)  # (H, B, ...) -> (N * T, ...)
        beside = None
        if self.arguments.skip:
            summary = None if self.summary is None else self.summary(newest[:, :-1])
            sizes = (self.history.features_dim, self.control_dim)
            beside = seen_beside(newest, path.values, *step, *sizes, self.time_scale, summary)
            if self.begins_anew:
                anew = self.initial(self.start(newest[:, :-1], summary))
                beside = th.cat((beside, self._features(anew)), dim=1)
        note = partial(self.learning.note, path, windows.features, *step)
        return self._solve(self.start(windows.features[0]), path, beside, *step, note)

    def append(self, observations: th.Tensor, state: State, episode_starts: th.Tensor) -> tuple[Sequences, State]:
        """Append observations, as :meth:`forward` takes them, to the histories."""
        n_seq = state[0].shape[1]
        # The state decides the precision, as the observations are float32 whatever the policy is.
        sequences = observations.to(state[0].dtype).view(n_seq, -1, self.input_size)  # (N, T, D + 1)
        return self.history.append(sequences[..., :-1], sequences[..., -1], state, episode_starts.view(n_seq, -1))

    def start(self, features: th.Tensor, summary: th.Tensor | None = None) -> th.Tensor:
        """Return what z is made of at the first observation of a window, (B, slot_size - 1) -> (B, inputs).

        :param features: of the observation, all of its slot but the elapsed time
        :param summary: what is made of it, where that is known already
        """
        start, counts = self._control(self._held(features)), self.history.layout.counts(features)
        # A value that is held and 0 is not one that has never been observed.
        parts = [start] if counts is None else [start, counts.clamp(max=1.0)]
        if self.summary is not None:
            parts.append(self.summary(features) if summary is None else summary)
        return th.cat(parts, dim=-1) if len(parts) > 1 else start

    def _held(self, features: th.Tensor) -> th.Tensor:
        """Return the features, (..., D), of slots without their elapsed times, (..., slot_size - 1)."""
        size = self.history.features_dim
        return features[..., :size] if features.shape[-1] > size else features

    def path(self, features: th.Tensor, elapsed: th.Tensor) -> ControlPath:
        """Return the path through the observations of windows.

        :param features: of the observations, all of their slots but the elapsed time, (H, B, slot_size - 1)
        :param elapsed: nominal steps since the observation before, (H, B)
        """
        scale = self.increment_scale.scale
        time_scale = self.time_scale if self.arguments.time_channel else None
        control, counts = self._control(self._held(features)), self.history.layout.counts(features)
        return control_path(control, elapsed, scale, self.arguments.rates, time_scale, counts)

    def _solve(
        self,
        start: th.Tensor,
        path: ControlPath,
        beside: th.Tensor | None,
        knot: th.Tensor,
        window: th.Tensor,
        note: Callable[[th.Tensor], None],
    ) -> th.Tensor:
        """Return what the heads see at some observations of windows, (rows, output_size).

        :param start: what z is made of at the first observation, (B, inputs)
        :param path: through the observations of B windows
        :param beside: what they see beside z, (rows, numbers), or None
        :param knot: of each row, (rows,)
        :param window: of each row, (rows,)
        :param note: is told the gradient of what is returned
        """
        pieces = self.interpolation.pieces
        if isinstance(self.solver, FixedSolver):
            curve = self.interpolation.through(path, path.values if self.arguments.path_in_field else None)
            if suits(start, self.field, curve):
                rows = (pieces * knot.numpy(), window.numpy())
                solved = partial(solve, self.initial, self.field, self.solver, start, curve, *rows)
                if self.read_out is None and self.arguments.feature_norm in NORMS:
                    return solved(self.arguments.feature_norm, beside, note)
                return self._read_out(solved(), beside, note)
        curve = self.curve(path)
        field, parameters = self.field.product(), self.field.product_parameters()
        z = self.solver.integrate(field, self.initial(start), curve, parameters)[pieces * knot, window]
        return self._read_out(z, beside, note)

    def curve(self, path: ControlPath) -> Interpolation:
        """Return the curve through the observations of a path, and what the field sees of it."""
        return self.interpolation.through(path, self.field.drive(path.values))

    def _control(self, features: th.Tensor) -> th.Tensor:
        """Return what the path runs through: the features, or their projection."""
        return features if self.control is None else self.control(features)

    def _features(self, z: th.Tensor) -> th.Tensor:
        """Return the features that are read out of z, (rows, Z)."""
        return self.feature_norm(z if self.read_out is None else self.read_out(z))

    def _read_out(self, z: th.Tensor, beside: th.Tensor | None, note: Callable[[th.Tensor], None]) -> th.Tensor:
        """Return what the heads see, (rows, output_size), of z, (rows, Z), and of what they see beside it."""
        seen = self._features(z)
        if beside is not None:
            seen = th.cat((seen, beside), dim=1)
        if seen.requires_grad:
            seen.register_hook(note)  # type: ignore[no-untyped-call]
        return seen
