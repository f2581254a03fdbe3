"""What a masked action does: the mask, under a key of a Dict observation, takes options out of the distribution.

It is read and checked against the spaces here, applied in ``NCDEPolicy._distribution`` (:mod:`sb3_ncde.policies`), and
refused where it allows nothing by :func:`sb3_ncde.history.validation.check_mask`.
"""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableDistribution, make_masked_proba_distribution
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.envs.spaces import choices


class ActionMask:
    """Where the mask stands, and which of its entries belong to which choice.

    The mask has an entry for each option of each choice, as sb3-contrib's ``action_masks()`` returns it: n for
    Discrete(n), the sum of ``nvec`` for MultiDiscrete, 2 n (off, on, off, on, ...) for MultiBinary(n). An option whose
    entry is 0 has probability 0.

    :param observation_space: of the environment
    :param action_space: of the environment
    :param key: of the mask in the observation
    :raises TypeError: if the observation is no Dict, or the actions are not discrete
    :raises ValueError: if there is no such key, or its size is not that of a mask
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], key: str) -> None:
        if not isinstance(observation_space, spaces.Dict):
            raise TypeError(
                f"action_mask_key={key!r} names a key of a Dict observation, but the observation space is "
                f"{observation_space}. sb3_ncde.wrappers.ActionMaskObservation makes such a Dict of action_masks()."
            )
        if key not in observation_space.spaces:
            raise ValueError(
                f"action_mask_key={key!r} is not among the keys of the observation, {sorted(observation_space.spaces)}."
            )
        if len(observation_space.spaces) == 1:
            raise ValueError(f"The observation has nothing but the action mask {key!r}: there is nothing to encode.")
        self.key = key
        self.choices: list[int] = choices(action_space)
        self.distribution: MaskableDistribution = make_masked_proba_distribution(action_space)
        size = int(np.prod(observation_space[key].shape or ()))
        if size != sum(self.choices) or isinstance(observation_space[key], spaces.Discrete | spaces.MultiDiscrete):
            raise ValueError(
                f"action_mask_key={key!r} is a {observation_space[key]}, but a mask for {action_space} has "
                f"{sum(self.choices)} entries, 1 where the option is allowed: use a MultiBinary({sum(self.choices)})."
            )

    def read(self, observation: PyTorchObs) -> th.Tensor:
        """Return the mask of each row, (rows, sum of choices)."""
        assert isinstance(observation, dict)
        mask = observation[self.key]
        return mask.reshape(len(mask), -1)
