"""Histories with their observations normalised, or as they were before."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.history.flattening import Flattening
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.validation import NORMALIZED_TIME
from sb3_ncde.history.window_rule import Array


def converted(packed: Array, space: HistorySpace, names: frozenset[str] | None, convert: Callable[[Any], Any]) -> Array:
    """Return histories, (P,) or (rows, P), with their observations converted. What is not in use remains 0.

    Summaries are converted as well: first values, means and filters of observations are means of them. Where the
    conversion clips, this is not quite the summary of what has been clipped. What is converted is float64, as of large
    values with small differences float32 leaves nothing.

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

    def convert_rows(rows: Array) -> Array:
        """Return features, (rows, D), converted."""
        return _features(rows, space.flattening, names, convert)

    def where_counted(values: Array, new: Array) -> None:
        """Put what was converted in place of values, (rows, H, D)."""
        values[...] = np.where(counted, new.reshape(values.shape), 0.0)

    where_counted(slots[..., :size], convert_rows(slots[..., :size].reshape(-1, size)))
    if layout.traces is not None:
        summary = slots[..., layout.observed_size : -1]
        new = layout.traces.converted(summary.reshape(-1, layout.traces.size), convert_rows)
        new = new.reshape(summary.shape)
        for start in range(0, layout.traces.n_groups * size, size):
            where_counted(summary[..., start : start + size], new[..., start : start + size])
    histories: Array = result.reshape(packed.shape)
    return histories


def _features(
    features: Array, flattening: Flattening, names: frozenset[str] | None, convert: Callable[[Any], Any]
) -> Array:
    """Return features, (rows, D), converted."""
    values = convert(flattening.join(features, names))
    if names is None:
        rows: Array = values.reshape(len(features), -1)
        return rows if flattening.time_key is None else np.delete(rows, int(flattening.time_key), axis=1)
    new: Array = features.copy()
    for part in flattening.parts:
        if part.key in names:
            new[:, part.columns] = values[part.key].reshape(len(new), -1)
    return new


def refuse_normalized_time(normalize: VecNormalize, space: HistorySpace) -> None:
    """Raise ValueError if the time of observations is normalised."""
    key = space.flattening.time_key
    if key is None or not normalize.norm_obs:
        return
    if isinstance(key, str):
        normalized = key in (normalize.norm_obs_keys or ())
    else:
        columns = len(space.observed.low)  # type: ignore[attr-defined]
        normalized = key not in [column % columns for column in getattr(normalize, "skip_columns", ())]
    if normalized:
        raise ValueError(f"The time, {space.arguments.time_key!r}, is normalised. {NORMALIZED_TIME}")
