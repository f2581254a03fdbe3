"""The recurrent state is the observation history: packing it, and cutting sequences into windows.

The history of an environment holds the latest n <= H observations of its episode. When it is full, the S oldest
are dropped before the new one is appended (H is ``history_length``, S is ``hop_length``), so that up to S steps in a
row share their oldest observation, and with it one solve: the solution at each knot serves the step of that knot.
"""

from typing import NamedTuple

import torch as th

State = tuple[th.Tensor, th.Tensor]

_COUNTED = 2**20
"""Hops after which the count of observations starts over, since float32 counts no further than 2**24."""


class Windows(NamedTuple):
    """The windows of a batch of sequences: what B solves need to serve all its N * T steps.

    :param features: of the observations, oldest first, (H, B, D); a shorter window repeats its newest one
    :param elapsed: time since the observation before in nominal steps, (H, B); 0 for a repeated one
    :param window: the window that serves each step, (N * T,)
    :param knot: the knot of that window at which its solution serves the step, (N * T,)
    """

    features: th.Tensor
    elapsed: th.Tensor
    window: th.Tensor
    knot: th.Tensor


class ObservationHistory:
    """Layout of the recurrent state and the windows it implies.

    sb3-contrib carries the state as a pair of tensors (1, N, size) and resets it to zeros. Both together hold, for each
    environment: the number of observations since the episode began (0: empty), the time of the newest, and H
    slots of (features, elapsed time), the newest observation in the last slot, unused slots zero.

    :param history_length: H, observations in a full window
    :param hop_length: S, observations that a full window drops at once
    :param features_dim: D, size of one observation
    :param unit: length of a nominal step in the unit of the time that is passed in
    :param timestamps: whether times are timestamps; otherwise they are times since the observation before
    """

    def __init__(
        self, history_length: int, hop_length: int, features_dim: int, unit: float = 1.0, timestamps: bool = False
    ) -> None:
        self.history_length = history_length
        self.hop_length = hop_length
        self.features_dim = features_dim
        self.unit = unit
        self.timestamps = timestamps
        self._packed_size = 2 + history_length * (features_dim + 1)

    @property
    def size(self) -> int:
        """Size of each tensor of the pair that is the state, per environment."""
        return (self._packed_size + 1) // 2

    def unpack(self, state: State) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Return the count (N,), the time of the newest observation (N,) and the slots (N, H, D + 1) of a state."""
        packed = th.cat(state, dim=-1).squeeze(0)  # 2 x (1, N, size) -> (N, 2 * size)
        slots = packed[:, 2 : self._packed_size].unflatten(1, (self.history_length, self.features_dim + 1))
        return packed[:, 0], packed[:, 1], slots

    def _pack(self, count: th.Tensor, time: th.Tensor, slots: th.Tensor) -> State:
        spare = slots.new_zeros((slots.shape[0], 2 * self.size - self._packed_size))
        packed = th.cat((count.unsqueeze(1), time.unsqueeze(1), slots.flatten(1), spare), dim=1)
        first, second = packed.unsqueeze(0).chunk(2, dim=-1)
        return first.contiguous(), second.contiguous()

    def points(self, count: th.Tensor) -> th.Tensor:
        """Return n, the observations that the window holds after ``count`` observations of an episode."""
        full, hop = self.history_length, self.hop_length
        return th.where(count <= full, count, full - hop + 1 + (count - full - 1) % hop)

    def append(
        self, features: th.Tensor, time: th.Tensor, state: State, episode_starts: th.Tensor
    ) -> tuple[Windows, State]:
        """Append T observations to each of N histories.

        :param features: new observations, (N, T, D)
        :param time: their times, in the caller's unit, (N, T)
        :param state: the histories before them, two tensors (1, N, size)
        :param episode_starts: 1 where an observation is the first of its episode, 0 elsewhere, (N, T)
        :return: the windows that serve the N * T steps, and the histories after the last step
        """
        n_seq, n_steps = time.shape
        count, last_time, slots = self.unpack(state)
        count = count.long().unsqueeze(1)  # (N, 1)
        step = th.arange(n_steps, device=time.device)  # (T,)

        # Where the episode of each step began, as a step of this sequence; -1: before it. (N, T)
        start = th.where(episode_starts > 0, step, -1).cummax(dim=1).values
        seen = th.where(start >= 0, step - start, step + count) + 1  # observations of the episode so far
        held = th.where(start >= 0, step - start, step + self.points(count)) + 1  # the same, but for dropped ones
        n_points = self.points(held)
        elapsed = self._elapsed(time, last_time, seen)

        # Slots and new observations in one line per sequence; step t stands at H + t. (N, H + T, D + 1)
        line = th.cat((slots, th.cat((features, elapsed.unsqueeze(-1)), dim=-1)), dim=1)
        after = self._pack(
            self._wrap(seen[:, -1]).to(line.dtype), time[:, -1], line[:, n_steps:] * self._used(n_points[:, -1:])
        )
        return self._windows(line, n_points, step), after

    def _elapsed(self, time: th.Tensor, last_time: th.Tensor, seen: th.Tensor) -> th.Tensor:
        """Return the time since the observation before in nominal steps, (N, T); 0 at the first of an episode."""
        if self.timestamps:
            time = time - th.cat((last_time.unsqueeze(1), time[:, :-1]), dim=1)
        # Padded rows of a minibatch have no time, so there it may run backwards.
        return th.where(seen > 1, time / self.unit, 0.0).clamp(min=0.0)

    def _wrap(self, count: th.Tensor) -> th.Tensor:
        """Return a count with the same :meth:`points`, small enough for float32, (N,)."""
        period = self.hop_length * _COUNTED
        return th.where(count > self.history_length + period, count - period, count)

    def _used(self, n_points: th.Tensor) -> th.Tensor:
        """Return 1 for the slots that n points use and 0 for the others: (N, 1) -> (N, H, 1)."""
        slot = th.arange(self.history_length, device=n_points.device)
        return (slot >= self.history_length - n_points).unsqueeze(-1)

    def _windows(self, line: th.Tensor, n_points: th.Tensor, step: th.Tensor) -> Windows:
        """Cut the lines into windows, one for all steps in a row with the same oldest observation.

        :param line: slots and new observations, (N, H + T, D + 1)
        :param n_points: points of the window of each step, (N, T)
        :param step: 0 to T-1, (T,)
        """
        n_seq, length, width = line.shape
        newest = self.history_length + step + length * th.arange(n_seq, device=line.device).unsqueeze(1)  # (N, T)
        newest, n_points = newest.flatten(), n_points.flatten()  # (N * T,)
        oldest = newest - n_points + 1
        opens = oldest.diff(prepend=oldest.new_full((1,), -1)) != 0  # the first step of each window
        first = opens.nonzero().squeeze(1)  # (B,)
        last = th.cat((first[1:], first.new_full((1,), oldest.shape[0]))) - 1  # (B,)

        knots = th.arange(int(n_points.max()), device=line.device).unsqueeze(1)
        place = oldest[first] + knots  # (H, B)
        end = newest[last]
        points = line.flatten(0, 1)[th.minimum(place, end)]  # (H, B, D + 1)
        features, elapsed = points.split((width - 1, 1), dim=-1)
        return Windows(features, elapsed.squeeze(-1) * (place <= end), opens.cumsum(0) - 1, n_points - 1)
