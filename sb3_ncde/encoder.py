"""NeuralCDE: observation history in, features for actor and critic out."""

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_ncde.history import ObservationHistory, State
from sb3_ncde.path import ControlPath, control_path
from sb3_ncde.solvers import integrate
from sb3_ncde.vector_field import VectorField

FEATURE_NORMS = ("tanh", "layer_norm", "none")


class NeuralCDE(nn.Module):
    """Neural controlled differential equation over the window of recent observations.

    z(t0) = initial(x0), dz = f(z) dX (Kidger et al. 2020, arXiv:2005.08926; online: Morrill et al. 2021,
    arXiv:2106.11028), where X runs linearly through the observations of the window, with time as a channel.

    It stands where RecurrentPPO expects an LSTM, and so has the attributes that RecurrentPPO reads:
    ``num_layers`` = 1 and ``hidden_size``, the width of the *packed history*, not of z.

    The letters of all shapes in this package: N sequences (environments at rollout, sequences in a minibatch),
    T steps of a sequence, H points in a window, B windows in one solve, D features of one observation, C channels
    of the path, Z latent size.

    :param input_size: D + 1, the features of an observation and its time
    :param history: layout of the state
    :param latent_size: Z
    :param field_width: units of each hidden layer of the vector field
    :param field_depth: hidden layers of the vector field
    :param initial_width: units of each hidden layer of the initial network
    :param initial_depth: hidden layers of the initial network
    :param solver: a name in :data:`sb3_ncde.solvers.SOLVERS`
    :param solver_steps: solver steps per interval
    :param rates: whether the rates of the features are channels of the path
    :param path_in_field: whether the field sees the path's value (and rates) beside z
    :param feature_norm: what z passes through on its way to the heads: tanh, layer_norm or none
    :param skip: whether the newest features, rates and elapsed time go to the heads beside z
    :param control_size: features wider than this are projected to it by a learned linear map; None: never
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
        rates: bool,
        path_in_field: bool,
        feature_norm: str,
        skip: bool,
        control_size: int | None,
    ) -> None:
        super().__init__()
        features_dim = history.features_dim
        self.history = history
        self.input_size = features_dim + 1
        self.hidden_size = history.size
        self.latent_size = latent_size
        self.solver = solver
        self.solver_steps = solver_steps
        self.rates = rates
        self.feature_norm = feature_norm
        self.skip = skip

        projected = control_size is not None and features_dim > control_size
        self.control = nn.Linear(features_dim, control_size) if projected and control_size else None
        control_dim = self.control.out_features if self.control is not None else features_dim
        values_dim = 2 * control_dim if rates else control_dim
        sizes = [control_dim, *[initial_width] * initial_depth]
        hidden: list[nn.Module] = []
        for n_in, n_out in zip(sizes, sizes[1:], strict=False):
            hidden += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.initial = nn.Sequential(*hidden, nn.Linear(sizes[-1], latent_size))
        self.field = VectorField(
            latent_size, 1 + values_dim, field_width, field_depth, values_dim if path_in_field else 0
        )
        self.output_size = latent_size
        if skip:
            self.output_size += features_dim + (control_dim if rates else 0) + 1

    def forward(
        self, observations: th.Tensor, state: State, episode_starts: th.Tensor
    ) -> tuple[th.Tensor, State]:
        """Encode the history of every step.

        :param observations: features and time of N sequences of T steps, (N * T, D + 1)
        :param state: the histories before them, two tensors (1, N, hidden_size)
        :param episode_starts: 1 where an observation is the first of its episode, (N * T,)
        :return: features for the heads, (N * T, output_size), and the histories after the last step
        """
        n_seq = state[0].shape[1]
        sequences = observations.view(n_seq, -1, self.input_size)  # (N, T, D + 1)
        appended, state = self.history.append(
            sequences[..., :-1], sequences[..., -1], state, episode_starts.view(n_seq, -1)
        )
        windows = self.history.windows(appended)
        features = self._control(windows.features)
        path = control_path(features, windows.elapsed, self.rates)
        knots = self.solve(self.initial(features[0]), path)
        step = (windows.knot, windows.window)
        z = self._normalize(knots[step])  # (H, B, Z) -> (N * T, Z)
        if not self.skip:
            return z, state
        newest = [z, observations[:, :-1], windows.elapsed[step].unsqueeze(-1)]
        if self.rates:
            newest.append(path.values[step][:, features.shape[-1] :])
        return th.cat(newest, dim=-1), state

    def solve(self, initial: th.Tensor, path: ControlPath) -> th.Tensor:
        """Return z at the knots of a path, (H, B, Z), from z at the first, (B, Z)."""
        drive = self.field.drive(path.values)
        return integrate(self.field.product(), initial, path.increments, drive, self.solver, self.solver_steps)

    def _control(self, features: th.Tensor) -> th.Tensor:
        """Return what the path runs through: the features, or their projection."""
        return features if self.control is None else self.control(features)

    def _normalize(self, z: th.Tensor) -> th.Tensor:
        if self.feature_norm == "tanh":
            return th.tanh(z)
        if self.feature_norm == "layer_norm":
            return F.layer_norm(z, (self.latent_size,))
        return z
