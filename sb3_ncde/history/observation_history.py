"""The recurrent state is the observation history: how observations are packed into it and appended to it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_ncde.history.window_rule import Integers, WindowRule
from sb3_ncde.history.windows import Sequences, index_tensor, like

State = tuple[th.Tensor, ...]
"""The recurrent state as sb3-contrib carries it: a pair of tensors (1, N, size)."""


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
    ) -> None:
        self.rule = WindowRule(history_length, hop_length)
        self.features_dim = features_dim
        self.unit = unit
        self.timestamps = timestamps
        self.missing_values = missing_values
        self._slot_size = features_dim * (2 if missing_values else 1) + 1
        self.least_size = least_size
        self._packed_size = 2 + history_length * self._slot_size

    @property
    def size(self) -> int:
        """Size of each tensor of the pair that is the state, per environment."""
        return max((self._packed_size + 1) // 2, self.least_size)

    def unpack(self, state: State) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Return the count (N,), the time of the newest observation (N,) and the slots (N, H, D + 1) of a state."""
        packed = th.cat(state, dim=-1)[0]  # 2 x (1, N, size) -> (N, 2 * size)
        slots = packed[:, 2 : self._packed_size].view(-1, self.rule.history_length, self._slot_size)
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
        count, last_time, slots = self.unpack(state)
        seen, points = self._count(count.detach().cpu().numpy(), episode_starts.detach().cpu().numpy())
        if self.timestamps:
            time, timestamp = time.diff(dim=1, prepend=last_time.unsqueeze(1)), time[:, -1]
        else:
            timestamp = th.zeros_like(last_time)
        # The first observation of an episode has none before it; nor has a padded row, where time may run backwards.
        elapsed = (time * like(seen > 1, time) / self.unit).clamp_(min=0.0)
        if self.missing_values:
            features = self._hold(features, slots[:, -1, :-1], seen)
        line = th.cat((slots, th.cat((features, elapsed.unsqueeze(-1)), dim=-1)), dim=1)

        n_seq, n_steps = time.shape
        packed = line.new_zeros((n_seq, 2 * self.size))
        packed[:, 0] = like(self.rule.wrap(seen[:, -1]), line)
        packed[:, 1] = timestamp
        unused = np.arange(self.rule.history_length) < self.rule.history_length - points[:, -1:]
        kept = line[:, n_steps:] * like(~unused, line).unsqueeze(-1)
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
        since = index_tensor(began, features).unsqueeze(-1)  # (N, T, 1)
        observed = ~th.isnan(features)
        latest = th.where(observed, index_tensor(steps, features).view(-1, 1), -1).cummax(dim=1).values
        held, count = before.unsqueeze(1).chunk(2, dim=-1)  # (N, 1, D) each
        carried = since < 0
        value = features.nan_to_num(nan=0.0).gather(1, latest.clamp(min=0))
        value = th.where(latest >= since.clamp(min=0), value, th.where(carried, held, 0.0))
        total = observed.to(features.dtype).cumsum(dim=1)
        of_earlier = total.gather(1, (since - 1).clamp(min=0).expand_as(total)) * (since > 0)
        return th.cat((value, total - of_earlier + th.where(carried, count, 0.0)), dim=-1)

    def _count(self, count: npt.NDArray[Any], episode_starts: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """Return the observations of the episode up to each step, and those in the window, (N, T) each."""
        before = count.astype(np.int64)[:, None]  # (N, 1)
        step = np.arange(episode_starts.shape[1])  # (T,)
        # The step at which the episode of each step began; -1: before the sequence.
        start = np.maximum.accumulate(np.where(episode_starts > 0, step, -1), axis=1)
        seen = np.where(start >= 0, step - start, step + before) + 1
        # A history that has dropped observations goes on like one that never had them.
        return seen, self.rule.points(np.where(start >= 0, seen, step + self.rule.points(before) + 1))
