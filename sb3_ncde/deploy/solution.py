"""What the heads see of a window that is solved as a whole, in operations that no value decides about: for ONNX.

The same as :class:`sb3_ncde.acting.stepper.Stepper` computes, which goes on from the step before.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from sb3_ncde.acting.description import Description, Weights
from sb3_ncde.acting.interpolation import LARGEST_RATIO, Cubic, Piece, Straight
from sb3_ncde.acting.networks import Layer
from sb3_ncde.acting.path import SHORTEST
from sb3_ncde.acting.solver import integrate
from sb3_ncde.deploy.networks import normed
from sb3_ncde.deploy.window import Window
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import CLIP


class Knot(NamedTuple):
    """An observation of each of N windows.

    :param controls: of the path, (N, K)
    :param slot: of the history, (N, slot_size)
    :param elapsed: nominal steps since the knot before, (N, 1)
    """

    controls: Any
    slot: Any
    elapsed: Any


class Stretch(NamedTuple):
    """The path from one knot to the next.

    :param increments: (N, C)
    :param drive: what its values add to the first layer of the field at the first knot, (N, units), or None
    :param drive_after: at the second
    :param elapsed: nominal steps that it takes, (N, 1)
    """

    increments: Any
    drive: Any
    drive_after: Any
    elapsed: Any


def encode(xp: Any, description: Description, weights: Weights, window: Window) -> Any:
    """Return what the heads see, (N, output_size).

    :param window: of :func:`append`
    """
    layout = description.layout
    weights = Weights(*(_constant(xp, part) for part in weights))  # each once in the graph, however often it is used
    length, dim = layout.rule.history_length, layout.features_dim
    controls = window.slots[:, :, :dim]
    if weights.control is not None:
        controls = _linear(xp, controls, weights.control)
    each = (xp.unstack(part, length) for part in (controls, window.slots, window.elapsed))
    knots = [Knot(*parts) for parts in zip(*each, strict=True)]
    values, increments = path(xp, description, weights, knots)
    drive: list[Any] = [None] * length
    if weights.drive is not None:
        stacked = xp.concat([part[:, None, :] for part in values], axis=1)
        drive = xp.unstack(_linear(xp, stacked, weights.drive), length)

    z = _begin(xp, layout, weights, knots[0], _summary(xp, layout, weights, knots[0]))
    before: Stretch | None = None
    field = partial(_field, xp, weights)
    for place in range(1, length):
        stretch = Stretch(increments[place - 1], drive[place - 1], drive[place], knots[place].elapsed)
        pieces = PIECES[description.interpolation](xp, stretch, before)
        z = integrate(z, pieces, description.tableau, description.solver_steps, field)
        before = _latest(xp, stretch, before)

    return _read_out(xp, description, weights, z, knots[-1], values[-1])


def _begin(xp: Any, layout: Layout, weights: Weights, knot: Knot, summary: list[Any]) -> Any:
    """Return z of a window that begins at an observation, (N, Z)."""
    start = [knot.controls]
    if layout.missing_values:
        start.append(xp.minimum(knot.slot[:, layout.features_dim : layout.observed_size], 1.0))
    start.extend(summary)
    return _relu_mlp(xp, xp.concat(start, axis=1), weights.initial)


def _features(xp: Any, description: Description, weights: Weights, z: Any) -> Any:
    """Return the features that are read out of z, (N, Z)."""
    if weights.read_out is not None:
        z = _linear(xp, z, weights.read_out)
    return NORMS[description.feature_norm](xp, z, (weights.read_out or weights.initial[-1]).bias.shape[0])


def _read_out(xp: Any, description: Description, weights: Weights, z: Any, knot: Knot, values: Any) -> Any:
    """Return what the heads see, (N, output_size).

    :param z: at the newest observation, (N, Z)
    :param knot: this observation
    :param values: of the path there, (N, V)
    """
    layout, newest = description.layout, knot.slot
    features = _features(xp, description, weights, z)
    if not description.skip:
        return features
    elapsed = newest[:, layout.slot_size - 1 :] * description.time_scale
    parts = [features, newest[:, : layout.features_dim], elapsed, values[:, description.control_dim :]]
    summary = _summary(xp, layout, weights, knot)
    parts.extend(summary)
    if description.begins_anew:
        parts.append(_features(xp, description, weights, _begin(xp, layout, weights, knot, summary)))
    return xp.concat(parts, axis=1)


def path(xp: Any, description: Description, weights: Weights, knots: Sequence[Knot]) -> tuple[list[Any], list[Any]]:
    """Return the path's values, (N, V), at H knots, and its increments, (N, C), between them.

    The channels are those of :class:`sb3_ncde.cde.path.ControlPath`.
    """
    size, dim, n_ages = description.control_dim, description.layout.features_dim, description.ages_dim
    scale = weights.scale
    rates = 0.0 * knots[0].controls
    ages = 0.0 * knots[0].slot[:, dim : dim + n_ages]
    shown = _joined(xp, [knots[0].controls, rates, ages], description)
    values, increments = [shown], []
    for knot, before in zip(knots[1:], knots, strict=False):
        change, taken = knot.controls - before.controls, knot.elapsed
        moved = [change * scale[:size]]
        if description.time_channel:
            moved.insert(0, knot.elapsed * description.time_scale)
        gained = None
        if n_ages:
            counts, counts_before = (part.slot[:, dim : dim + n_ages] for part in (knot, before))
            gained = counts - counts_before
            since = ages + knot.elapsed
            ages = xp.where(gained > 0, 0.0, since)
            if n_ages == size:
                taken = xp.where((gained > 0) & (counts_before > 0), since, 0.0)
        if description.rates:
            slopes = change * (scale[size:] / xp.maximum(taken, SHORTEST))
            rates_before, rates = rates, xp.where(taken > 0, slopes, rates)
            moved.append(rates - rates_before)
        if gained is not None:
            moved.append(gained)
        increments.append(xp.concat(moved, axis=1))
        values.append(_joined(xp, [knot.controls, rates, ages], description))
    return values, increments


def _joined(xp: Any, parts: list[Any], description: Description) -> Any:
    """Return controls, rates and ages, as far as they are among the path's values."""
    controls, rates, ages = parts
    shown = [controls, *([rates] if description.rates else []), *([ages] if description.ages_dim else [])]
    return xp.concat(shown, axis=1)


def _summary(xp: Any, layout: Layout, weights: Weights, knot: Knot) -> list[Any]:
    """Return what networks are given of the episode up to an observation, (N, numbers); without traces, nothing."""
    traces, size, begin, slot = layout.traces, layout.features_dim, layout.observed_size, knot.slot
    if traces is None:
        return []
    groups = [slot[:, begin + place * size : begin + (place + 1) * size] for place in range(traces.n_groups)]
    counts = slot[:, size : 2 * size] if layout.missing_values else slot[:, layout.slot_size - 2 : layout.slot_size - 1]
    first, mean, remainder, *filters = groups
    sums = (mean.astype(xp.float64) + remainder.astype(xp.float64)) * counts.astype(xp.float64)
    levels = [first + departure for departure in filters]
    parts = [first, mean, *levels, sums.astype(xp.float32), xp.log(xp.maximum(counts, 1.0))]
    values = xp.clip(xp.concat(parts, axis=1) * weights.summary_scale, -CLIP, CLIP)
    return [values if weights.summary is None else _linear(xp, values, weights.summary)]


def _constant(xp: Any, node: Any) -> Any:
    """Return a part of the weights as arrays of the graph."""
    if isinstance(node, tuple):
        parts = [_constant(xp, part) for part in node]
        return Layer(*parts) if isinstance(node, Layer) else tuple(parts)
    return None if node is None else xp.asarray(node)


def _linear(xp: Any, rows: Any, layer: Layer) -> Any:
    return xp.matmul(rows, layer.weight) + layer.bias


def _relu_mlp(xp: Any, rows: Any, layers: Sequence[Layer]) -> Any:
    for layer in layers[:-1]:
        rows = xp.maximum(_linear(xp, rows, layer), 0.0)
    return _linear(xp, rows, layers[-1])


def _field(xp: Any, weights: Weights, z: Any, increment: Any, drive: Any | None) -> Any:
    """Return f(z, X) dX, (N, Z), as :func:`sb3_ncde.acting.solver.field` does."""
    first, *others = weights.field
    hidden = xp.matmul(z, first.weight) + (first.bias if drive is None else drive)
    for layer in others:
        hidden = _linear(xp, xp.softplus(hidden), layer)
    size = weights.initial[-1].bias.shape[0]
    matrix = xp.reshape(xp.tanh(hidden), (-1, size, weights.field[-1].bias.shape[0] // size))
    return xp.matmul(matrix, increment[:, :, None])[:, :, 0]


def _linearly(xp: Any, stretch: Stretch, before: Stretch | None) -> tuple[Piece, ...]:
    return (Straight(stretch.increments, stretch.drive, stretch.drive_after),)


def _rectilinearly(xp: Any, stretch: Stretch, before: Stretch | None) -> tuple[Piece, ...]:
    time = xp.concat([stretch.increments[:, :1], 0.0 * stretch.increments[:, 1:]], axis=1)
    waiting = Straight(time, stretch.drive, stretch.drive)
    return waiting, Straight(stretch.increments - time, stretch.drive, stretch.drive_after)


def _smoothly(xp: Any, stretch: Stretch, before: Stretch | None) -> tuple[Piece, ...]:
    """Return a cubic that leaves with the slope of the stretch before, and arrives with that of its own."""
    increments, drive = stretch.increments, stretch.drive
    moved = None if drive is None else stretch.drive_after - drive
    if before is None:
        return (Cubic(increments, increments, drive, moved, moved),)
    bent = before.elapsed > 0
    ratio = xp.minimum(stretch.elapsed / xp.where(bent, before.elapsed, 1.0), LARGEST_RATIO)
    leaving = xp.where(bent, before.increments * ratio, increments)
    drive_leaving = None if drive is None else xp.where(bent, (before.drive_after - before.drive) * ratio, moved)
    return (Cubic(increments, leaving, drive, moved, drive_leaving),)


NORMS: dict[str, Callable[[Any, Any, int], Any]] = {
    "tanh": lambda xp, z, size: xp.tanh(z),
    "layer_norm": normed,
    "unit": lambda xp, z, size: normed(xp, z, size) / size**0.5,
    "none": lambda xp, z, size: z,
}
"""By the names of :data:`sb3_ncde.acting.networks.FEATURE_NORMS`: of features, (N, size), and their size."""
PIECES = {"linear": _linearly, "hermite": _smoothly, "rectilinear": _rectilinearly}
"""By the names of :data:`sb3_ncde.acting.interpolation.INTERPOLATIONS`."""


def _latest(xp: Any, stretch: Stretch, before: Stretch | None) -> Stretch:
    """Return the latest stretch that took time."""
    if before is None:
        return stretch
    pairs = zip(stretch, before, strict=True)
    return Stretch(*(None if new is None else xp.where(stretch.elapsed > 0, new, old) for new, old in pairs))
