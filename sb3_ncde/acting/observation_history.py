"""One observation is appended to each of N histories.

The same as :class:`sb3_ncde.history.observation_history.ObservationHistory` does for sequences, in the same layout.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import Traces
from sb3_ncde.history.window_rule import Array, Integers, WindowRule


class Histories(NamedTuple):
    """The histories of N environments.

    :param packed: count, time of the newest observation, H slots, and zeros up to twice the state's size, (N, 2 * size)
    :param phase: of the newest step, 0 where the history is empty, (N,); see
        :class:`sb3_ncde.history.window_rule.Phases`
    :param empty: whether some are, perhaps
    :param most: of the counts, or more
    """

    packed: Array
    phase: Integers
    empty: bool
    most: int

    def state(self) -> tuple[Array, Array]:
        """Return the state, two arrays (1, N, size)."""
        size = self.packed.shape[1] // 2
        return self.packed[None, :, :size].copy(), self.packed[None, :, size:].copy()


def unpack(state: tuple[Array, Array], rule: WindowRule) -> Histories:
    """Return the histories that are in a state, two arrays (1, N, size)."""
    packed = np.concatenate(state, axis=2)[0]
    seen = packed[:, 0].astype(np.int64)
    return Histories(packed, rule.phase(seen), empty=True, most=int(seen.max()))


def follows(before: Array, after: Array, layout: Layout) -> npt.NDArray[np.bool_]:
    """Return whether each history, (N, P), is the one before with one more observation, (N,)."""
    slot, used, rule = layout.slot_size, layout.packed_size, layout.rule
    seen = after[:, 0].astype(np.int64)
    unused = rule.phases.unused[rule.phase(seen)][:, :-1]
    earlier = before[:, 2 + slot : used].reshape(len(before), -1, slot)
    same = np.where(unused, 0.0, earlier).reshape(len(before), -1) == after[:, 2 : used - slot]
    counted: npt.NDArray[np.bool_] = seen == rule.wrap(before[:, 0].astype(np.int64) + 1)
    counted &= same.all(axis=1)
    return counted


def continued(before: Array, after: Array, layout: Layout) -> Array:
    """Return histories, (N, P), whose newest held values and summary are made anew of the histories before.

    :param before: histories, (N, P)
    :param after: the same with one more observation, (N, P)
    """
    result: Array = after.copy()
    past, newest, size = before[:, layout.newest], result[:, layout.newest], layout.features_dim
    observed = None
    if layout.missing_values:
        observed = layout.counts(newest) > layout.counts(past)
        np.copyto(newest[:, :size], past[:, :size], where=~observed)
    if layout.traces is not None:
        starts = np.zeros(len(after), bool)
        newest[:, layout.observed_size : -1] = _summaries(layout, layout.traces, past, newest, observed, starts)
    return result


def _summaries(
    layout: Layout, traces: Traces, past: Array, newest: Array, observed: Array | None, starts: Array
) -> Array:
    """Return the summaries up to observations, (N, M).

    :param past: slots of the observations before, (N, slot_size)
    :param newest: slots of the observations, but for their summaries, (N, slot_size)
    :param observed: which of their features are, (N, D), where they may be missing
    :param starts: whether each is the first of its episode, (N,)
    """
    size = layout.features_dim
    counts = np.where(starts, 1.0, past[:, -2] + 1.0)[:, None] if observed is None else layout.counts(newest)
    unrolled: Array = traces.unroll(
        past[:, layout.observed_size : -1],
        np.stack((past[:, :size], newest[:, :size]), axis=1),
        counts[:, None],
        None if observed is None else observed[:, None],
        newest[:, None, -1:],
        starts[:, None, None],
    )[:, 0]
    return unrolled


def append(histories: Histories, features: Array, time: Array, starts: Array, layout: Layout) -> Histories:
    """Append an observation to each history.

    :param features: NaN where not observed, (N, D)
    :param time: of the observations, as observed, (N,)
    :param starts: whether each is the first of its episode, (N,)
    """
    before, phase, first, most = histories
    rule, phases = layout.rule, layout.rule.phases
    used, slot, size = layout.packed_size, layout.slot_size, layout.features_dim
    packed = np.zeros(before.shape, before.dtype)
    newest = packed[:, used - slot : used]
    count, elapsed = packed[:, 0], newest[:, -1]
    np.add(before[:, 0], 1.0, out=count)
    phase, most = phases.following[phase], most + 1
    if starts.any():
        first = True
        phase[starts] = 1
        count[starts] = 1.0
    if most > rule.most:
        count[:] = rule.wrap(count.astype(np.int64))
        most = int(count.max())
    if layout.timestamps:
        packed[:, 1] = time
        np.subtract(time, before[:, 1], out=elapsed)
        elapsed /= layout.unit
    else:
        np.divide(time, layout.unit, out=elapsed)
    np.maximum(elapsed, 0.0, out=elapsed)
    packed[:, 2 : used - slot] = before[:, 2 + slot : used]
    observed = None
    if layout.missing_values:
        held, counts = newest[:, :size], newest[:, size : 2 * size]
        observed = features == features
        held[:] = np.where(observed, features, before[:, used - slot : used - slot + size])
        np.add(before[:, used - slot + size : used - slot + 2 * size], observed, out=counts)
    else:
        newest[:, :size] = features
    if first:  # the first observation of an episode has none before it
        begins = phase == 1
        elapsed[begins] = 0.0
        if observed is not None:
            held[begins[:, None] & ~observed] = 0.0
            counts[begins] = observed[begins]
    if layout.traces is not None:
        past = before[:, used - slot : used]
        newest[:, layout.observed_size : -1] = _summaries(layout, layout.traces, past, newest, observed, phase == 1)
    slots = packed[:, 2:used].reshape(len(packed), -1, slot)  # a view
    np.copyto(slots, 0.0, where=phases.unused[phase])
    return Histories(packed, phase, False, most)
