"""The recurrent state is the observation history: how observations are packed into it and appended to it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import Traces
from sb3_ncde.history.window_rule import Array, Integers, WindowRule
from sb3_ncde.history.windows import Sequences

State = tuple[th.Tensor, ...]
"""The recurrent state as sb3-contrib carries it: a pair of tensors (1, N, size)."""

_NEVER, _CARRIED = -1, -2
"""Where a value that is held is of no step at hand: never observed in the episode, or before these steps."""


class ObservationHistory:
    """Layout of the recurrent state and the windows it implies.

    sb3-contrib carries the state as a pair of tensors (1, N, size) and resets it to zeros. Both together hold, for each
    environment: the number of observations since the episode began (0: empty), the time of the newest, and H
    slots of (features, elapsed nominal steps), the newest observation in the last slot, unused slots zero.

    With missing values, a feature that is NaN has not been observed: the history holds its last value of the episode (0
    before the first), and counts, for each feature, how often it has been observed (Kidger et al. 2020, section 3.3).

    :param history_length: H, observations in a full window
    :param hop_length: S, observations that a full window drops at once
    :param features_dim: D, size of one observation
    :param unit: length of a nominal step, in the unit of the time that is passed in
    :param timestamps: whether times are timestamps; otherwise they are times since the observation before
    :param missing_values: whether features may be NaN
    :param least_size: what :attr:`size` is at least; what is not needed remains zero
    :param time_constants: of traces, in nominal steps, see :mod:`sb3_ncde.history.traces`; None: there are none
    """

    def __init__(
        self,
        history_length: int,
        hop_length: int,
        features_dim: int,
        unit: float = 1.0,
        timestamps: bool = False,
        missing_values: bool = False,
        least_size: int = 0,
        time_constants: tuple[float, ...] | None = None,
    ) -> None:
        self.rule = WindowRule(history_length, hop_length)
        traces = None if time_constants is None else Traces(time_constants, features_dim, missing_values)
        self.layout = Layout(self.rule, features_dim, unit, timestamps, missing_values, traces)
        self.features_dim = features_dim
        self.unit = unit
        self.timestamps = timestamps
        self.missing_values = missing_values
        self.least_size = least_size

    @property
    def size(self) -> int:
        """Size of each tensor of the pair that is the state, per environment."""
        return max((self.layout.packed_size + 1) // 2, self.least_size)

    def unpack(self, state: State) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Return the count (N,), the time of the newest observation (N,) and the slots (N, H, slot_size) of a state."""
        packed = th.cat(state, dim=-1)[0]  # 2 x (1, N, size) -> (N, 2 * size)
        slots = packed[:, 2 : self.layout.packed_size].view(-1, self.rule.history_length, self.layout.slot_size)
        return packed[:, 0], packed[:, 1], slots

    def append(
        self, features: th.Tensor, time: th.Tensor, state: State, episode_starts: th.Tensor
    ) -> tuple[Sequences, State]:
        """Append T observations to each of N histories.

        :param features: new observations, (N, T, D)
        :param time: their times, in the caller's unit, (N, T)
        :param state: the histories before them, two tensors (1, N, size)
        :param episode_starts: 1 where an observation is the first of its episode, 0 elsewhere, (N, T)
        :return: the sequences, for :meth:`Sequences.windows`, and the histories after the last step
        """
        length = self.rule.history_length
        before = np.concatenate([part.numpy(force=True)[0] for part in state], axis=1)  # (N, 2 * size)
        slots = before[:, 2 : self.layout.packed_size].reshape(-1, length, self.layout.slot_size)
        seen, points = self._count(before[:, 0], episode_starts.numpy(force=True))
        n_seq, n_steps = seen.shape

        times = time.numpy(force=True)
        packed = np.zeros(before.shape, before.dtype)
        packed[:, 0] = self.rule.wrap(seen[:, -1])
        if self.timestamps:
            packed[:, 1] = times[:, -1]
            times = np.diff(times, axis=1, prepend=before[:, 1:2])
        line = np.empty((n_seq, length + n_steps, self.layout.slot_size), before.dtype)
        line[:, :length] = slots
        # The first observation of an episode has none before it; nor has a padded row, where time may run backwards.
        line[:, length:, -1] = np.maximum(times * (seen > 1) / self.unit, 0.0)
        new, source, observed = features.numpy(force=True), None, self.layout.observed_size
        if self.missing_values:
            line[:, length:, :observed], source = self._hold(new, slots[:, -1, :observed], seen)
        else:
            line[:, length:, :observed] = new
        if self.layout.traces is not None:
            line[:, length:, observed:-1] = self._summaries(self.layout.traces, line, seen, new)

        kept = packed[:, 2 : self.layout.packed_size].reshape(slots.shape)  # a view
        used = np.arange(length) >= length - points[:, -1:]
        np.copyto(kept, line[:, n_steps:], where=used[..., None])
        device = state[0].device
        halves = (packed[None, :, : self.size].copy(), packed[None, :, self.size :].copy())
        after: State = tuple(th.from_numpy(half).to(device) for half in halves)
        learned = None
        if th.is_grad_enabled() and any(tensor.requires_grad for tensor in (features, time, *state)):
            learned = self._with_gradient(features, time, state, line, seen, source)
            after = self._packed_with_gradient(learned[:, n_steps:], time[:, -1:], packed, used)
        return Sequences(line, seen, points, learned, device), after

    def _with_gradient(
        self,
        features: th.Tensor,
        time: th.Tensor,
        state: State,
        line: Array,
        seen: Integers,
        source: Integers | None,
    ) -> th.Tensor:
        """Return a line once more as a tensor, with the gradients of what it is made of, (N, H + T, slot_size).

        No gradient goes through summaries.
        """
        _, last_time, slots = self.unpack(state)
        constant = th.from_numpy(line[:, self.rule.history_length :]).to(slots.device)
        if source is not None:
            place, size = th.from_numpy(source).to(slots.device), self.features_dim
            value = th.where(place >= 0, features.gather(1, place.clamp(min=0)), constant[..., :size])
            features = th.where(place == _CARRIED, slots[:, -1:, :size], value)
        features = th.cat((features, constant[..., self.features_dim : -1]), dim=-1)
        if self.timestamps:
            time = time.diff(dim=1, prepend=last_time.unsqueeze(1))
        elapsed = (time * th.from_numpy(seen > 1).to(time) / self.unit).clamp(min=0.0)
        return th.cat((slots, th.cat((features, elapsed.unsqueeze(-1)), dim=-1)), dim=1)

    def _packed_with_gradient(self, slots: th.Tensor, time: th.Tensor, packed: Array, used: Array) -> State:
        """Return histories once more with the gradients of slots, (N, H, slot_size), and of their time, (N, 1)."""
        constant = th.from_numpy(packed).to(slots.device)
        kept = (slots * th.from_numpy(used).to(slots.device).unsqueeze(-1)).flatten(1)
        newest = time if self.timestamps else constant[:, 1:2]
        whole = th.cat((constant[:, :1], newest, kept, constant[:, self.layout.packed_size :]), dim=1).unsqueeze(0)
        first, second = whole.chunk(2, dim=-1)
        return first.contiguous(), second.contiguous()

    def _summaries(self, traces: Traces, line: Array, seen: Integers, new: Array) -> Array:
        """Return the summaries of the episodes up to each of the new observations, (N, T, M).

        :param line: of :class:`Sequences`, but for these
        :param seen: observations of the episode up to each step, (N, T)
        :param new: the observations, NaN where missing, (N, T, D)
        """
        size, length = self.features_dim, self.rule.history_length
        before = line[:, length - 1, self.layout.observed_size : -1]
        if self.missing_values:
            flags, counts = ~np.isnan(new), self.layout.counts(line[:, length:])
        else:  # its own count, which goes on where that of the history starts over
            steps = np.arange(1, seen.shape[1] + 1)
            flags, counts = None, np.where(seen <= steps, seen, before[:, -1:] + steps)[..., None]
        values = line[:, length - 1 :, :size]
        return traces.unroll(before, values, counts, flags, line[:, length:, -1:], seen[..., None] == 1)

    def _hold(self, features: Array, before: Array, seen: Integers) -> tuple[Array, Integers]:
        """Return, of each feature at each step, the last value of the episode and how often it has been observed.

        :param features: NaN where not observed, (N, T, D)
        :param before: the same of the newest observation before, (N, 2 D)
        :param seen: observations of the episode up to each step, (N, T)
        :return: both, (N, T, 2 D), and the step that each value is of, (N, T, D), or :data:`_CARRIED` or :data:`_NEVER`
        """
        steps = np.arange(features.shape[1])
        began = (steps - seen + 1)[..., None]  # step at which the episode of each step began; below 0: before these
        observed = ~np.isnan(features)
        source = np.maximum.accumulate(np.where(observed, steps[:, None], -1), axis=1)
        source = np.where(source >= np.maximum(began, 0), source, _NEVER)
        held, count = np.split(before[:, None], 2, axis=2)  # (N, 1, D) each
        carried = began < 0
        value = np.take_along_axis(features, np.maximum(source, 0), axis=1)
        value = np.where(source >= 0, value, np.where(carried, held, 0.0))
        source = np.where((source < 0) & carried, _CARRIED, source)
        total = np.cumsum(observed, axis=1)
        earlier = np.broadcast_to(np.maximum(began - 1, 0), total.shape)
        of_earlier = np.take_along_axis(total, earlier, axis=1) * (began > 0)
        return np.concatenate((value, total - of_earlier + np.where(carried, count, 0.0)), axis=2), source

    def _count(self, count: npt.NDArray[Any], episode_starts: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """Return the observations of the episode up to each step, and those in the window, (N, T) each."""
        before = count.astype(np.int64)[:, None]  # (N, 1)
        step = np.arange(episode_starts.shape[1])  # (T,)
        # A history that has dropped observations goes on like one that never had them.
        seen, held = step + before + 1, step + self.rule.points(before) + 1
        begins = episode_starts > 0
        if begins.any():
            # The step at which the episode of each step began; -1: before the sequence.
            start = np.maximum.accumulate(np.where(begins, step, -1), axis=1)
            since = step - start + 1
            seen, held = np.where(start >= 0, since, seen), np.where(start >= 0, since, held)
        return seen, self.rule.points(held)
