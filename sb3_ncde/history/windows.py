"""How a history is cut into windows: the hops, and which solve serves which step.

The history of an environment holds the latest n <= H observations of its episode. When it is full, the S oldest
are dropped before the new one is appended (H is ``history_length``, S is ``hop_length``), so that up to S steps in a
row share their oldest observation, and with it one solve: the solution at each knot serves the step of that knot.

Which observation stands where is a matter of integers. It is settled on the host, in NumPy, where an operation on a
few integers costs a tenth of what it costs as a tensor.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th

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


@dataclass(frozen=True)
class WindowRule:
    """Which observations of an episode the window of each step holds.

    :param history_length: H, observations in a full window
    :param hop_length: S, observations that a full window drops at once
    """

    history_length: int
    hop_length: int

    @property
    def n_open(self) -> int:
        """L = ceil(H/S), the windows that are open at a time: those that this step or a later one will use."""
        return -(-self.history_length // self.hop_length)

    def points(self, seen: Integers) -> Integers:
        """Return n, the observations that the window holds once ``seen`` observations of the episode are in."""
        full, hop = self.history_length, self.hop_length
        return np.where(seen <= full, seen, full - hop + 1 + (seen - full - 1) % hop)

    def wrap(self, seen: Integers) -> Integers:
        """Return a count with the same :meth:`points` and slots of windows, small enough for float32."""
        cycle = self.hop_length * self.n_open
        period = cycle * (_COUNTED // cycle + 1)
        return np.where(seen > self.history_length + period, seen - period, seen)

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
        return Windows(features, elapsed, index_tensor(points - 1, line), index_tensor(window, line))

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
        observations = line.view(-1, line.shape[-1])[index_tensor(np.minimum(place, newest), line)]
        return observations[..., :-1], observations[..., -1] * like(place <= newest, line)


def like(values: npt.NDArray[np.generic], tensor: th.Tensor) -> th.Tensor:
    """Return values with the dtype and on the device of a tensor."""
    return th.from_numpy(values).to(device=tensor.device, dtype=tensor.dtype)


def index_tensor(values: Integers, tensor: th.Tensor) -> th.Tensor:
    """Return integers on the device of a tensor."""
    return th.from_numpy(values).to(tensor.device)
