"""Scale of the path's increments: what counts as a usual change of a channel in one step."""

import torch as th
from torch import nn

MAX_SCALE = 100.0


class IncrementScale(nn.Module):
    """Scales the change of each channel by the root mean square of its rate, found during rollouts.

    Observations that VecNormalize brings to a variance of 1 still change by some hundredths from step to step, and so
    would z, as the field is bounded; the velocity of CartPole's cart would be 30 times fainter than its position.
    Scaled, the rates are of order 1 in all channels, as an observed velocity is under VecNormalize.

    A rollout and the updates on it must see the same scale, or PPO's ratio would not begin at 1: the scale in use
    changes at the first step of a rollout that follows an update, and never in between.

    :param size: number of channels
    """

    scale: th.Tensor
    mean_square: th.Tensor
    count: th.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("scale", th.ones(size))
        self.register_buffer("mean_square", th.zeros(size))
        self.register_buffer("count", th.zeros(()))
        self._updated = False

    def train(self, mode: bool = True) -> "IncrementScale":
        """Note that an update has begun, if it is one."""
        self._updated = self._updated or mode
        return super().train(mode)

    def observe(self, rates: th.Tensor) -> None:
        """Take in the rates of a step of a rollout, (rows, size); at the first after an update, renew the scale."""
        if self._updated and self.count > 0:
            self.scale.copy_(self.mean_square.rsqrt().clamp(max=MAX_SCALE))
            self._updated = False
        if len(rates):
            self.count += len(rates)
            self.mean_square += (rates.square().mean(dim=0) - self.mean_square) * (len(rates) / self.count)
