"""Histories with their observations normalised, or as they were before."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sb3_ncde.history.flattening import Flattening
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.window_rule import Array


def converted(packed: Array, space: HistorySpace, names: frozenset[str] | None, convert: Callable[[Any], Any]) -> Array:
    """Return histories, (P,) or (rows, P), with their observations converted. What is not in use remains 0.

    Summaries are converted as well: first values, means and filters of observations are means of them, and what is
    converted is scaled and moved.

    :param packed: histories
    :param space: of them
    :param names: keys of a Dict that are converted; None: observations are a Box, and converted whole
    :param convert: a function of observations as environments give them, such as VecNormalize's ``normalize_obs``
    """
    layout = space.layout
    result = packed.reshape(-1, layout.packed_size).astype(np.float32)  # a copy
    length, size = layout.rule.history_length, layout.features_dim
    slots = result[:, 2:].reshape(len(result), length, layout.slot_size)  # a view
    points = layout.rule.points(result[:, 0].astype(np.int64))
    counted = (np.arange(length) >= length - points[:, None])[..., None]
    if layout.missing_values:
        counted = counted & (slots[..., size : 2 * size] > 0)
    starts, filters = [0], layout.slot_size
    if layout.traces is not None:
        starts += range(layout.observed_size, layout.slot_size - 1 - layout.traces.n_extra, size)
        filters = layout.observed_size + 2 * size
    for start in starts:
        values = slots[..., start : start + size]  # a view
        shares: Any = 1.0
        if layout.traces is not None and layout.missing_values and start >= filters:
            place = start + len(layout.traces.time_constants) * size
            shares = slots[..., place : place + size]
        means = values / np.where(shares > 0, shares, 1.0)
        new = _features(means.reshape(-1, size), space.flattening, names, convert).reshape(values.shape)
        values[...] = np.where(counted, new * shares, 0.0)
    histories: Array = result.reshape(packed.shape)
    return histories


def _features(
    features: Array, flattening: Flattening, names: frozenset[str] | None, convert: Callable[[Any], Any]
) -> Array:
    """Return features, (rows, D), converted."""
    values = convert(flattening.join(features, names))
    if names is None:
        return flattening.flatten(values)[0]
    new: Array = features.copy()
    for part in flattening.parts:
        if part.key in names:
            new[:, part.columns] = values[part.key].reshape(len(new), -1)
    return new
