"""How a batch of histories is cut into windows: steps in a row that share their oldest observation share a solve.

Which observation stands where is a matter of integers (:mod:`sb3_ncde.history.window_rule`). It is settled on the host,
in NumPy, where an operation on a few integers costs a tenth of what it costs as a tensor.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_ncde.history.window_rule import Integers


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

    def windows(self) -> Windows:
        """Cut the sequences into windows, one for all steps in a row that share their oldest observation."""
        n_seq, length, width = self.line.shape
        n_steps = self.points.shape[1]
        # Where the newest observation of each step stands in the lines, one line behind the other, (N * T,).
        newest = (length - n_steps + np.arange(n_steps) + length * np.arange(n_seq)[:, None]).ravel()
        points = self.points.ravel()
        oldest = newest - points + 1
        opens = np.diff(oldest, prepend=-1) != 0  # the first step of each window, (N * T,)
        first = np.flatnonzero(opens)  # (B,)
        begin, end = oldest[first], newest[np.append(first[1:], oldest.size) - 1]
        place = begin + np.arange((end - begin).max() + 1)[:, None]  # (H, B)
        observations = self.line.view(-1, width)[index_tensor(np.minimum(place, end), self.line)]
        elapsed = observations[..., -1] * like(place <= end, self.line)
        window = np.cumsum(opens) - 1
        knot = index_tensor(points - 1, self.line)
        return Windows(observations[..., :-1], elapsed, knot, index_tensor(window, self.line))


def like(values: npt.NDArray[np.generic], tensor: th.Tensor) -> th.Tensor:
    """Return values with the dtype and on the device of a tensor."""
    return th.from_numpy(values).to(device=tensor.device, dtype=tensor.dtype)


def index_tensor(values: Integers, tensor: th.Tensor) -> th.Tensor:
    """Return integers on the device of a tensor."""
    return th.from_numpy(values).to(tensor.device)
