"""How a batch of histories is cut into windows: steps in a row that share their oldest observation share a solve.

What is data is cut in NumPy, where an operation on a few numbers costs a fraction of what it costs as a tensor. Only
observations that carry a gradient, such as the features of a learned extractor, are tensors here.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_ncde.history.window_rule import Array, Integers


class Windows(NamedTuple):
    """The windows of a batch of sequences: what B solves need to serve all its N * T steps.

    :param features: slots of the observations but for elapsed times, oldest first, (H, B, slot_size - 1); a shorter
        window repeats its newest one
    :param elapsed: nominal steps since the observation before, (H, B); 0 for a repeated one
    :param knot: the knot at which each step is served, (N * T,)
    :param window: by which window, (N * T,)
    """

    features: th.Tensor
    elapsed: th.Tensor
    knot: th.Tensor
    window: th.Tensor


class Sequences(NamedTuple):
    """N histories, each followed by T new observations.

    :param line: H slots, then those of T new observations, see :class:`sb3_ncde.history.layout.Layout`,
        (N, H + T, slot_size)
    :param seen: observations of the episode up to each step, (N, T)
    :param points: observations in the window of each step, (N, T)
    :param learned: the line once more where it carries gradients, (N, H + T, slot_size), or None
    :param device: of the tensors that are made of this
    """

    line: Array
    seen: Integers
    points: Integers
    learned: th.Tensor | None
    device: th.device

    def newest(self) -> th.Tensor:
        """Return the slots of the new observations, (N * T, slot_size)."""
        n_steps = self.points.shape[1]
        if self.learned is None:
            return self._tensor(self.line[:, -n_steps:].reshape(-1, self.line.shape[2]))
        return self.learned[:, -n_steps:].flatten(0, 1)

    def windows(self) -> Windows:
        """Cut the sequences into windows, one for all steps in a row that share their oldest observation."""
        n_seq, length, width = self.line.shape
        n_steps = self.points.shape[1]
        # Where the newest observation of each step stands in the lines, one line behind the other, (N * T,).
        newest = (length - n_steps + np.arange(n_steps) + length * np.arange(n_seq)[:, None]).ravel()
        points = self.points.ravel()
        oldest = newest - points + 1
        opens = np.empty(oldest.shape, bool)  # whether a step is the first of its window
        opens[0] = True
        np.not_equal(oldest[1:], oldest[:-1], out=opens[1:])
        first = opens.nonzero()[0]  # (B,)
        last = np.empty_like(first)
        last[:-1], last[-1] = first[1:] - 1, oldest.size - 1
        begin, end = oldest[first], newest[last]
        place = begin + np.arange((end - begin).max() + 1)[:, None]  # (H, B)
        inside, repeated = np.minimum(place, end), place > end
        if self.learned is None:
            observations = self.line.reshape(-1, width)[inside]
            observations[repeated, -1] = 0.0
            features, elapsed = self._tensor(observations[..., :-1]), self._tensor(observations[..., -1])
        else:
            slots = self.learned.flatten(0, 1)[self._tensor(inside)]
            features, elapsed = slots[..., :-1], slots[..., -1].masked_fill(self._tensor(repeated), 0.0)
        window = opens.cumsum()
        window -= 1
        return Windows(features, elapsed, self._tensor(points - 1), self._tensor(window))

    def _tensor(self, values: npt.NDArray[np.generic]) -> th.Tensor:
        return th.from_numpy(values).to(self.device)
