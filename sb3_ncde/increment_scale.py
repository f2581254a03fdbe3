"""Scale of the path's increments: what counts as a usual change of a channel in one step."""

import torch as th
from torch import nn

MAX_SCALE = 100.0
OUTLIER = 10.0
"""A change of more than this many times the usual one counts as so many, so that a glitch does not set the scale."""


class IncrementScale(nn.Module):
    """Scales the changes of the controls, and their rates, by their root mean square in rollouts.

    Observations that VecNormalize brings to a variance of 1 still change by some hundredths from step to step, and so
    would z, as the field is bounded; the velocity of CartPole's cart would be 30 times fainter than its position.
    Scaled, changes and rates are of order 1 in all channels, as an observed velocity is under VecNormalize.

    A rollout and the updates on it must see the same scale, or PPO's ratio would not begin at 1: the scale in use
    changes at the first step of a rollout that follows an update, and never in between.

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

    def observe(self, changes: th.Tensor) -> None:
        """Take in changes and rates of a step of a rollout, (rows, V); at the first after an update, renew the scale.

        :param changes: of those environments that have observed anything before, unscaled
        """
        if self.updated and self.count > 0:
            self.scale.copy_(self.mean_square.rsqrt().clamp(max=MAX_SCALE))
            self.updated.fill_(False)
        if len(changes):
            known = self.mean_square > 0
            limit = th.where(known, OUTLIER**2 * self.mean_square, 1e12)
            self.count += len(changes)
            mean = th.minimum(changes.square(), limit).mean(dim=0)
            self.mean_square += (mean - self.mean_square) * (len(changes) / self.count)
