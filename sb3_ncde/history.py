"""The recurrent state is the observation history: packing it, and cutting sequences into windows.

The history of an environment holds the latest n <= H observations of its episode. When it is full, the S oldest
are dropped before the new one is appended (H is ``history_length``, S is ``hop_length``), so that up to S steps in a
row share their oldest observation, and with it one solve: the solution at each knot serves the step of that knot.

Which observation stands where is a matter of integers. It is settled on the host, in NumPy, where an operation on a
few integers costs a tenth of what it costs as a tensor.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th

State = tuple[th.Tensor, ...]
"""The recurrent state as sb3-contrib carries it: a pair of tensors (1, N, size)."""
Integers = npt.NDArray[np.int64]

_COUNTED = 2**20
"""About the count of observations at which it starts over, since float32 counts no further than 2**24."""


class Sequences(NamedTuple):
    """N histories, each followed by T new observations.

    :param line: H slots, then T new observations, each (features, elapsed nominal steps), (N, H + T, D + 1), where D is
        twice as much with missing values: what is held, then how often it has been observed
    :param seen: observations of the episode up to each step, (N, T)
    :param points: observations in the window of each step, (N, T)
    """

    line: th.Tensor
    seen: Integers
    points: Integers


class Windows(NamedTuple):
    """The windows of a batch of sequences: what B solves need to serve all its N * T steps.

    :param features: of the observations, oldest first, (H, B, D); a shorter window repeats its newest one
    :param elapsed: nominal steps since the observation before, (H, B); 0 for a repeated one
    :param knot: the knot at which each step is served, (N * T,)
    :param window: by which window, (N * T,)
    """

    features: th.Tensor
    elapsed: th.Tensor
    knot: th.Tensor
    window: th.Tensor


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
    """

    def __init__(
        self,
        history_length: int,
        hop_length: int,
        features_dim: int,
        unit: float = 1.0,
        timestamps: bool = False,
        missing_values: bool = False,
    ) -> None:
        self.history_length = history_length
        self.hop_length = hop_length
        self.features_dim = features_dim
        self.unit = unit
        self.timestamps = timestamps
        self.missing_values = missing_values
        self._slot_size = features_dim * (2 if missing_values else 1) + 1
        self._packed_size = 2 + history_length * self._slot_size

    @property
    def n_open(self) -> int:
        """L = ceil(H/S), the windows that are open at a time: those that this step or a later one will use."""
        return -(-self.history_length // self.hop_length)

    @property
    def size(self) -> int:
        """Size of each tensor of the pair that is the state, per environment."""
        return (self._packed_size + 1) // 2

    def unpack(self, state: State) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Return the count (N,), the time of the newest observation (N,) and the slots (N, H, D + 1) of a state."""
        packed = th.cat(state, dim=-1)[0]  # 2 x (1, N, size) -> (N, 2 * size)
        slots = packed[:, 2 : self._packed_size].view(-1, self.history_length, self._slot_size)
        return packed[:, 0], packed[:, 1], slots

    def points(self, seen: Integers) -> Integers:
        """Return n, the observations that the window holds once ``seen`` observations of the episode are in."""
        full, hop = self.history_length, self.hop_length
        return np.where(seen <= full, seen, full - hop + 1 + (seen - full - 1) % hop)

    def append(
        self, features: th.Tensor, time: th.Tensor, state: State, episode_starts: th.Tensor
    ) -> tuple[Sequences, State]:
        """Append T observations to each of N histories.

        :param features: new observations, (N, T, D)
        :param time: their times, in the caller's unit, (N, T)
        :param state: the histories before them, two tensors (1, N, size)
        :param episode_starts: 1 where an observation is the first of its episode, 0 elsewhere, (N, T)
        :return: the sequences, for :meth:`windows`, and the histories after the last step
        """
        count, last_time, slots = self.unpack(state)
        seen, points = self._count(count.cpu().numpy(), episode_starts.cpu().numpy())
        if self.timestamps:
            time, timestamp = time.diff(dim=1, prepend=last_time.unsqueeze(1)), time[:, -1]
        else:
            timestamp = th.zeros_like(last_time)
        # The first observation of an episode has none before it; nor has a padded row, where time may run backwards.
        elapsed = (time * self._like(seen > 1, time) / self.unit).clamp_(min=0.0)
        if self.missing_values:
            features = self._hold(features, slots[:, -1, :-1], seen)
        line = th.cat((slots, th.cat((features, elapsed.unsqueeze(-1)), dim=-1)), dim=1)

        n_seq, n_steps = time.shape
        packed = line.new_zeros((n_seq, 2 * self.size))
        packed[:, 0] = self._like(self._wrap(seen[:, -1]), line)
        packed[:, 1] = timestamp
        unused = np.arange(self.history_length) < self.history_length - points[:, -1:]
        kept = line[:, n_steps:] * self._like(~unused, line).unsqueeze(-1)
        packed[:, 2 : self._packed_size] = kept.view(n_seq, -1)
        first, second = packed.unsqueeze(0).chunk(2, dim=-1)
        return Sequences(line, seen, points), (first.contiguous(), second.contiguous())

    def _hold(self, features: th.Tensor, before: th.Tensor, seen: Integers) -> th.Tensor:
        """Return, of each feature at each step, the last value of the episode and how often it has been observed.

        :param features: NaN where not observed, (N, T, D)
        :param before: the same of the newest observation before, (N, 2 D)
        :param seen: observations of the episode up to each step, (N, T)
        """
        steps = np.arange(features.shape[1])
        began = steps - seen + 1  # step at which the episode of each step began; below 0: before these
        since = self._index(began, features).unsqueeze(-1)  # (N, T, 1)
        observed = ~th.isnan(features)
        latest = th.where(observed, self._index(steps, features).view(-1, 1), -1).cummax(dim=1).values
        held, count = before.unsqueeze(1).chunk(2, dim=-1)  # (N, 1, D) each
        carried = since < 0
        value = features.nan_to_num(nan=0.0).gather(1, latest.clamp(min=0))
        value = th.where(latest >= since.clamp(min=0), value, th.where(carried, held, 0.0))
        total = observed.to(features.dtype).cumsum(dim=1)
        of_earlier = total.gather(1, (since - 1).clamp(min=0).expand_as(total)) * (since > 0)
        return th.cat((value, total - of_earlier + th.where(carried, count, 0.0)), dim=-1)

    def windows(self, sequences: Sequences) -> Windows:
        """Cut sequences into windows, one for all steps in a row that share their oldest observation."""
        newest = self._places(sequences)
        points = sequences.points.ravel()
        oldest = newest - points + 1
        opens = np.diff(oldest, prepend=-1) != 0  # the first step of each window, (N * T,)
        first = np.flatnonzero(opens)  # (B,)
        last = np.append(first[1:], oldest.size) - 1
        features, elapsed = self._cut(sequences.line, oldest[first], newest[last])
        line, window = sequences.line, np.cumsum(opens) - 1
        return Windows(features, elapsed, self._index(points - 1, line), self._index(window, line))

    def open_windows(self, sequences: Sequences) -> tuple[th.Tensor, th.Tensor]:
        """Cut sequences of one step into their open windows, those that have not begun included (one point).

        The window that begins with observation j * S of the episode is row j mod L of its environment: L * S >= H
        steps later no step uses it any more.

        :return: features (H, N * L, D) and elapsed times (H, N * L), as in :class:`Windows`
        """
        row, current = np.arange(self.n_open), self._current(sequences)[:, None]
        begin = current + (row - current) % self.n_open  # j of the window in each row, (N, L)
        points = np.maximum(sequences.seen - begin * self.hop_length, 1)
        newest = np.broadcast_to(self._places(sequences)[:, None], points.shape)
        return self._cut(sequences.line, (newest - points + 1).ravel(), newest.ravel())

    def serving(self, sequences: Sequences) -> Integers:
        """Return the open window that serves the only step of each sequence, among N * L, (N,)."""
        return self.n_open * np.arange(len(sequences.seen)) + self._current(sequences) % self.n_open

    def beginning(self, sequences: Sequences) -> tuple[Integers, Integers]:
        """Return the sequences at whose only step a window begins, and that window among N * L."""
        before = sequences.seen[:, 0] - 1
        sequence = np.flatnonzero(before % self.hop_length == 0)
        return sequence, self.n_open * sequence + before[sequence] // self.hop_length % self.n_open

    def _current(self, sequences: Sequences) -> Integers:
        """Return j of the window that serves the only step of each sequence, (N,)."""
        return (sequences.seen[:, 0] - sequences.points[:, 0]) // self.hop_length

    def _places(self, sequences: Sequences) -> Integers:
        """Return where the newest observation of each step stands in the lines, one line behind the other, (N * T,)."""
        n_seq, length = sequences.line.shape[:2]
        n_steps = sequences.points.shape[1]
        return (self.history_length + np.arange(n_steps) + length * np.arange(n_seq)[:, None]).ravel()

    def _cut(self, line: th.Tensor, oldest: Integers, newest: Integers) -> tuple[th.Tensor, th.Tensor]:
        """Return features (H, B, D) and elapsed times (H, B) of windows from the places of their ends, (B,)."""
        place = oldest + np.arange((newest - oldest).max() + 1)[:, None]  # (H, B)
        observations = line.view(-1, line.shape[-1])[self._index(np.minimum(place, newest), line)]
        return observations[..., :-1], observations[..., -1] * self._like(place <= newest, line)

    def _count(self, count: npt.NDArray[Any], episode_starts: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """Return the observations of the episode up to each step, and those in the window, (N, T) each."""
        before = count.astype(np.int64)[:, None]  # (N, 1)
        step = np.arange(episode_starts.shape[1])  # (T,)
        # The step at which the episode of each step began; -1: before the sequence.
        start = np.maximum.accumulate(np.where(episode_starts > 0, step, -1), axis=1)
        seen = np.where(start >= 0, step - start, step + before) + 1
        # A history that has dropped observations goes on like one that never had them.
        return seen, self.points(np.where(start >= 0, seen, step + self.points(before) + 1))

    def _wrap(self, seen: Integers) -> Integers:
        """Return a count with the same :meth:`points` and slots of windows, small enough for float32."""
        cycle = self.hop_length * self.n_open
        period = cycle * (_COUNTED // cycle + 1)
        return np.where(seen > self.history_length + period, seen - period, seen)

    @staticmethod
    def _like(values: npt.NDArray[Any], tensor: th.Tensor) -> th.Tensor:
        return th.from_numpy(values).to(device=tensor.device, dtype=tensor.dtype)

    @staticmethod
    def _index(values: Integers, tensor: th.Tensor) -> th.Tensor:
        return th.from_numpy(values).to(tensor.device)
