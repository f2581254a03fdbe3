"""Scale of the path's increments: what counts as a usual change of a channel in one step."""

import torch as th
from torch import nn

MAX_SCALE = 100.0
OUTLIER = 10.0
"""A change of more than this many times the usual one counts as so many, so that a glitch does not set the scale."""
LARGEST = 1e12
"""Mean square above which changes do not count as usual, the first ones included."""


class IncrementScale(nn.Module):
    """Scales the changes of the controls, and their rates, by their root mean square in rollouts.

    Observations that VecNormalize brings to a variance of 1 still change by some hundredths from step to step, and so
    would z, as the field is bounded; the velocity of CartPole's cart would be 30 times fainter than its position.
    Scaled, changes and rates are of order 1 in all channels, as an observed velocity is under VecNormalize.

    A rollout and the updates on it must see the same scale, or PPO's ratio would not begin at 1: the scale in use
    changes at the first step of a rollout that follows an update (:meth:`renew`), and never in between.

    :param size: V, the number of scaled channels
    """

    scale: th.Tensor
    mean_square: th.Tensor
    count: th.Tensor
    updated: th.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("scale", th.ones(size))
        self.register_buffer("mean_square", th.zeros(size))
        self.register_buffer("count", th.zeros(()))
        self.register_buffer("updated", th.zeros((), dtype=th.bool))

    def train(self, mode: bool = True) -> "IncrementScale":
        """Note that an update has begun, if it is one."""
        if mode:
            self.updated.fill_(True)
        return super().train(mode)

    def renew(self) -> None:
        """Put the scale of all changes so far to use, if an update has ended since the last time."""
        if self.updated and self.count > 0:
            self.scale.copy_(self.mean_square.rsqrt().clamp(max=MAX_SCALE))
            self.updated.fill_(False)

    def observe(self, changes: th.Tensor) -> None:
        """Take in changes and rates of rollouts, (rows, V).

        :param changes: those that took time, unscaled; NaN where a value was not observed
        """
        if len(changes) == 0:
            return
        squares = changes.square()
        usual = th.where(self.mean_square > 0, self.mean_square, _usual(squares))
        self.count += len(changes)
        bounded = th.minimum(squares, OUTLIER**2 * usual)  # NaN remains NaN
        mean = bounded.mean(dim=0)
        if bool(mean.isnan().any()):
            mean = th.where(bounded.isnan().all(dim=0), self.mean_square, bounded.nanmean(dim=0))
        self.mean_square += (mean - self.mean_square) * (len(changes) / self.count)


def _usual(squares: th.Tensor) -> th.Tensor:
    """Return the mean of squares without zeros and without the largest twentieth, (rows, V) -> (V,)."""
    moved = squares.masked_fill(squares == 0, th.nan)
    kept = moved.masked_fill(moved > moved.nanquantile(0.95, dim=0), th.nan)
    return kept.nanmean(dim=0).nan_to_num().clamp(max=LARGEST)
