"""The window of an exported agent's step, in operations that no value decides about: for ONNX.

The same as :mod:`sb3_ncde.acting.observation_history` and :mod:`sb3_ncde.history.traces` do. A window that is not full
is filled up in front with copies of its oldest observation, between which no time passes: along them z stays as it is.
"""

from typing import Any, NamedTuple

from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import Traces


class Window(NamedTuple):
    """The windows of N environments after an observation has been appended.

    :param packed: the histories, (N, P)
    :param slots: of the observations, oldest first, the oldest repeated in front, (N, H, slot_size)
    :param elapsed: nominal steps since the observation before, 0 for the oldest and its copies, (N, H, 1)
    """

    packed: Any
    slots: Any
    elapsed: Any


def append(xp: Any, layout: Layout, history: Any, features: Any, time: Any, starts: Any) -> Window:
    """Append an observation to each history, as :func:`sb3_ncde.acting.observation_history.append` does.

    :param history: (N, P)
    :param features: NaN where not observed, (N, D)
    :param time: of the observations, as observed, (N,)
    :param starts: whether each is the first of its episode, (N,)
    """
    rule, width, size = layout.rule, layout.slot_size, layout.features_dim
    length, hop = rule.history_length, rule.hop_length
    count = xp.where(starts, 1.0, history[:, 0] + 1.0)
    count = xp.where(count > rule.most, count - (rule.most - length), count)
    begins = (count == 1)[:, None]
    before = xp.reshape(history[:, 2 : layout.packed_size], (-1, length, width))
    last = before[:, length - 1, :]

    passed = time - history[:, 1] if layout.timestamps else time
    elapsed = xp.where(begins, 0.0, xp.maximum(passed / layout.unit, 0.0)[:, None])
    held, parts, observed = features, [], None
    if layout.missing_values:
        observed = ~xp.isnan(features)
        held = xp.where(observed, features, xp.where(begins, 0.0, last[:, :size]))
        counts = xp.where(begins, 0.0, last[:, size : 2 * size]) + observed.astype(xp.float32)
        parts.append(counts)
    elif layout.traces is not None:
        counts = xp.where(begins, 1.0, last[:, width - 2 : width - 1] + 1.0)
    if layout.traces is not None:
        past = last[:, layout.observed_size : width - 1]
        parts.append(summarised(xp, layout.traces, past, last[:, :size], held, counts, observed, elapsed, begins))
    newest = xp.concat([held, *parts, elapsed], axis=1)

    seen = count.astype(xp.int64)
    points = xp.where(seen <= length, seen, length - hop + 1 + (seen - length - 1) % hop)
    place, first = xp.arange(length)[None, :], (length - points)[:, None]
    used, oldest = (place >= first)[:, :, None], (place == first)[:, :, None]
    slots = xp.where(used, xp.concat([before[:, 1:, :], newest[:, None, :]], axis=1), 0.0)
    clock = time if layout.timestamps else 0.0 * count
    packed = xp.concat([count[:, None], clock[:, None], xp.reshape(slots, (-1, length * width))], axis=1)
    filled = xp.where(used, slots, xp.sum(xp.where(oldest, slots, 0.0), axis=1)[:, None, :])
    return Window(packed, filled, xp.where((place > first)[:, :, None], slots[:, :, width - 1 :], 0.0))


def summarised(
    xp: Any,
    traces: Traces,
    before: Any,
    old: Any,
    new: Any,
    counts: Any,
    observed: Any | None,
    elapsed: Any,
    starts: Any,
) -> Any:
    """Return the summaries after an observation, as :meth:`sb3_ncde.history.traces.Traces.unroll` does, (N, M).

    :param before: the summaries before it, (N, M)
    :param old: values of the features before, held where missing, (N, D)
    :param new: likewise after, (N, D)
    :param counts: of the observations of the episode, (N, 1), or of each feature, (N, D)
    :param observed: which features are, (N, D), or None
    :param elapsed: nominal steps since the observation before, (N, 1)
    :param starts: whether it is the first of its episode, (N, 1)
    """
    size, number = traces.features_dim, xp.float64
    before, old, new, counts, elapsed = (part.astype(number) for part in (before, old, new, counts, elapsed))
    first, mean, remainder, *filters = (
        before[:, place * size : (place + 1) * size] for place in range(traces.n_groups)
    )
    since = elapsed
    if observed is not None:
        since = xp.where(starts, 0.0, before[:, traces.n_groups * size :] + elapsed)
    begins = starts if observed is None else observed & (counts == 1)
    times = xp.maximum(counts, 1.0)
    first = xp.where(begins, new, xp.where(starts, 0.0, first))
    moved = xp.where(starts, 0.0, (mean + remainder) * ((counts - 1.0) / times)) + new / times
    if observed is not None:
        moved = xp.where(observed, moved, xp.where(starts, 0.0, mean + remainder))
    columns = [first, moved, moved - moved.astype(xp.float32).astype(number)]
    for constant, before_it in zip(traces.time_constants, filters, strict=True):
        gained, steps = -xp.expm1(-elapsed / constant), since / constant
        lag = xp.where(steps > 0, -xp.expm1(-steps) / xp.where(steps > 0, steps, 1.0), 1.0)
        going_on = (1.0 - gained) * before_it + (old - first) * gained + (new - old) * (1.0 - lag)
        columns.append(xp.where(begins | starts, 0.0, going_on))
    columns.append(counts if observed is None else xp.where(observed, 0.0, since))
    return xp.concat(columns, axis=1).astype(xp.float32)
