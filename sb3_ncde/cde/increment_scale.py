"""What counts as a usual size: of the changes of a channel of the path in one step, and of the numbers of a summary."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_ncde.history.window_rule import Array

AT_REST = 1e-4
"""Root mean square up to which a channel is at rest: VecNormalize's statistics make as much of a constant."""
AT_REST_IN_SUMMARIES = 1e-6
"""The same of the numbers of a summary: a pulse that is seen through a long filter is as small as 0.001."""
MEMORY = 1e7
"""Rows over which the mean is taken at the most, so that a channel that begins to move late finds its scale.

Each epoch over a rollout counts. With a tenth of this the scale never came to rest, and irregular Pendulum (seeds 0 and
1) reached -165 instead of -150.
"""
LARGEST = 1e36
"""Mean square above which float32 would overflow soon."""


class IncrementScale(nn.Module):
    """Scales numbers by their root mean square in what is learned from: changes, rates and summaries.

    Observations that VecNormalize brings to a variance of 1 still change by some hundredths from step to step, and so
    would z, as the field is bounded; the velocity of CartPole's cart would be 30 times fainter than its position.
    Scaled, changes and rates are of order 1 in all channels, as an observed velocity is under VecNormalize.

    The scale is ``1 / rms``. Where a channel hardly moves, this would blow up rounding errors, and the channel's first
    real change with them: below an rms of the root of ``at_rest`` the scale falls again, as ``rms / at_rest``, to 1: of
    increments from 100, at an rms of 0.01; of summaries from 1,000, at 0.001.

    What is observed and what is in use are apart, as PPO's ratio begins at 1 only if a rollout and the updates on it
    have the same scale: :meth:`observe` gathers, :meth:`renew` puts to use. Who may call which, and when, is told by
    :mod:`sb3_ncde.cde.learning`.

    :param size: numbers that are scaled, each by itself
    :param at_rest: root mean square up to which a channel is at rest
    """

    scale: th.Tensor
    mean_square: th.Tensor
    count: th.Tensor

    def __init__(self, size: int, at_rest: float = AT_REST) -> None:
        super().__init__()
        self.at_rest = at_rest
        self.register_buffer("scale", th.ones(size))
        self.register_buffer("mean_square", th.zeros(size))
        self.register_buffer("count", th.zeros(size))

    def renew(self) -> None:
        """Put the scale of all that has been observed to use; of a channel that never was, it remains 1."""
        with th.inference_mode(False):  # who acts under inference mode may go on learning
            rms = self.mean_square.clamp(min=0.0).sqrt()  # who evolves a policy adds noise to all of its numbers
            # A new tensor, not a new value: gradients of an update that goes on may still need the old one.
            self.scale = th.minimum(rms.reciprocal(), (rms / self.at_rest).clamp(min=1.0))

    def observe(self, changes: Array) -> None:
        """Take in changes and rates that took time, unscaled, (rows, V); NaN where a value was not observed."""
        missing = np.isnan(changes)
        rows = len(changes) - missing.sum(axis=0)
        squares = np.square(changes, dtype=np.float64)
        squares[missing] = 0.0
        mean = np.minimum(squares.sum(axis=0) / np.maximum(rows, 1), LARGEST)
        count = np.minimum(self.count.numpy(force=True) + rows, MEMORY)
        before = self.mean_square.numpy(force=True)
        after = before + (mean - before) * (rows / np.maximum(count, 1.0))
        with th.inference_mode(False):
            self.count, self.mean_square = self._like_scale(count), self._like_scale(after)

    def _like_scale(self, values: Array) -> th.Tensor:
        return th.from_numpy(values).to(self.scale)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Take the buffers of version 0.1.0 as well: one count for all channels, and whether an update had ended."""
        assert isinstance(state_dict, dict)
        state_dict.pop(f"{prefix}updated", None)
        count = state_dict.get(f"{prefix}count")
        if count is not None and count.dim() == 0:
            state_dict[f"{prefix}count"] = count.expand_as(self.count)
        super()._load_from_state_dict(state_dict, prefix, *args)
