"""A slow, obviously right reference of the encoder: lists, loops, and torchcde's cdeint on every single window."""

from dataclasses import dataclass, field

import torch as th
import torchcde

from sb3_ncde.acting.path import SHORTEST
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.cde.vector_field import VectorField

SUB_STEPS = 4


@dataclass
class ReferenceHistory:
    """The history of one environment: a list of (features, elapsed time)."""

    history_length: int
    hop_length: int
    window: list[tuple[th.Tensor, float]] = field(default_factory=list)
    seen: int = 0

    def step(self, features: th.Tensor, elapsed: float, first: bool) -> list[tuple[th.Tensor, float]]:
        """Append one observation as design says, and return the window."""
        if first:
            self.window, self.seen = [], 0
        if len(self.window) == self.history_length:
            del self.window[: self.hop_length]
        self.window = [*self.window, (features, elapsed if self.seen else 0.0)]
        self.seen += 1
        return self.window


def reference_path(window: list[tuple[th.Tensor, float]], scale: th.Tensor, rates: bool) -> th.Tensor:
    """Return the knots of the control path, (points, C): time, scaled features, scaled rates."""
    time, rate, size = 0.0, th.zeros_like(window[0][0]), len(window[0][0])
    knots = []
    for i, (features, elapsed) in enumerate(window):
        if i:
            time += elapsed
            if rates and elapsed > 0:
                rate = scale[size:] * (features - window[i - 1][0]) / max(elapsed, SHORTEST)
        channels = [features.new_tensor([time]), scale[:size] * features]
        knots.append(th.cat([*channels, rate] if rates else channels))
    return th.stack(knots)


def reference_field(field: VectorField, z: th.Tensor, value: th.Tensor) -> th.Tensor:
    """Return f(z, X) as a matrix, (Z, C), from the layers of the field."""
    hidden = field.layers[0](z)
    if field.drive_layer is not None:
        hidden = hidden + field.drive_layer(value)
    for layer in field.layers[1:]:
        hidden = layer(th.log1p(hidden.exp()))  # softplus
    return th.tanh(hidden).reshape(field.latent_size, field.channels)


def reference_z(encoder: NeuralCDE, window: list[tuple[th.Tensor, float]]) -> th.Tensor:
    """Return z at the end of one window by torchcde's cdeint, with the same midpoint steps, (Z,)."""
    scale = encoder.increment_scale.scale
    knots = reference_path(window, scale, encoder.arguments.rates)
    z0 = encoder.initial(window[0][0])
    assert isinstance(z0, th.Tensor)
    if len(window) == 1:
        return z0
    path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(knots))
    # The field sees the features as they are, and the rates as they are in the path.
    unscale = th.ones_like(scale)
    unscale[: encoder.control_dim] = 1 / scale[: encoder.control_dim]

    def matrix(t: th.Tensor, z: th.Tensor) -> th.Tensor:
        return reference_field(encoder.field, z, path.evaluate(t)[1:] * unscale)

    # perturb: at a knot the derivative jumps; evaluate it on the side the step is on.
    z = torchcde.cdeint(
        path,
        matrix,
        z0,
        path.interval,
        adjoint=False,
        method="midpoint",
        options={"step_size": 1.0 / SUB_STEPS, "perturb": True},
    )
    assert isinstance(z, th.Tensor)
    return z[-1]
