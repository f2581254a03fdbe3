"""Histories with their observations normalised, or as they were before."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sb3_ncde.history.flattening import Flattening
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.window_rule import Array


def converted(packed: Array, space: HistorySpace, names: frozenset[str] | None, convert: Callable[[Any], Any]) -> Array:
    """Return histories, (P,) or (rows, P), with their observations converted. What is not in use remains 0.

    Summaries are converted as well: first values, means and filters of observations are means of them. Where the
    conversion clips, this is not quite the summary of what has been clipped.

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
        counted = counted & (layout.counts(slots) > 0)
    starts = [0]
    if layout.traces is not None:
        starts += [layout.observed_size + start for start in layout.traces.starts_of_means]
        remainder = layout.observed_size + layout.traces.start_of_remainder
        slots[..., remainder : remainder + size] = 0.0
    for start in starts:
        values = slots[..., start : start + size]  # a view
        new = _features(values.reshape(-1, size), space.flattening, names, convert).reshape(values.shape)
        values[...] = np.where(counted, new, 0.0)
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
