"""The cache of a step: solutions that are carried from one step of a rollout to the next."""

from typing import NamedTuple

import torch as th

from sb3_ncde.history.observation_history import State


class StepCache(NamedTuple):
    """The solutions of the open windows after a step, and what they were computed for.

    :param state: the histories after that step
    :param weights: copies of the parameters and of the scale of increments
    :param z: of each open window, (N * L, Z)
    :param values: of its path, (N * L, V)
    """

    state: State
    weights: tuple[th.Tensor, ...]
    z: th.Tensor
    values: th.Tensor

    def belongs_to(self, state: State, weights: tuple[th.Tensor, ...]) -> bool:
        """Return whether these are the histories and weights that the solutions were computed for."""
        z, other = self.z, state[0]
        if (z.dtype, z.device) != (other.dtype, other.device):  # equal() is true of 1.0 in float32 and in float64
            return False
        return all(map(th.equal, self.state, state)) and all(map(th.equal, self.weights, weights))
