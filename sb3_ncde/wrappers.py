"""Wrappers of Gymnasium environments."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_ncde.action_mask import choices


class ActionMaskObservation(gym.ObservationWrapper[dict[str, Any], Any, Any], gym.utils.RecordConstructorArgs):
    """Puts what sb3-contrib's ``action_masks()`` returns into the observation, where a recurrent policy finds it.

    The observation becomes a Dict of what it was, under ``observation_key`` (the keys of a Dict stay as they are), and
    of the mask, under ``mask_key``: pass ``action_mask_key=mask_key`` to MultiInputNCDEPolicy.

    :param env: an environment with a method ``action_masks()``, behind any number of wrappers
    :param mask_key: key of the mask
    :param observation_key: key of an observation that is no Dict
    :raises ValueError: if the environment has no ``action_masks()``, or has the key already
    :raises TypeError: if the actions are not discrete
    """

    def __init__(
        self, env: gym.Env[Any, Any], mask_key: str = "action_mask", observation_key: str = "observation"
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, mask_key=mask_key, observation_key=observation_key)
        super().__init__(env)
        self.mask_key = mask_key
        self.observation_key = observation_key
        if not env.has_wrapper_attr("action_masks"):
            raise ValueError(f"{env} has no method action_masks(), which says which actions are allowed.")
        space = env.observation_space
        subspaces = dict(space.spaces) if isinstance(space, spaces.Dict) else {observation_key: space}
        if mask_key in subspaces:
            raise ValueError(f"The observation has a key {mask_key!r} already: choose another mask_key.")
        mask = spaces.MultiBinary(sum(choices(env.action_space)))
        self.observation_space = spaces.Dict({**subspaces, mask_key: mask})

    def observation(self, observation: Any) -> dict[str, Any]:
        """Return the observation and the mask of the present step."""
        values = observation if isinstance(observation, dict) else {self.observation_key: observation}
        mask = np.ravel(self.env.get_wrapper_attr("action_masks")())
        size = self.observation_space[self.mask_key].shape[0]  # type: ignore[index]
        if mask.size != size:
            raise ValueError(f"action_masks() returned {mask.size} values, but {self.action_space} has {size} options.")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(f"action_masks() returned {mask.tolist()}, but its values must be 0 or 1.")
        return {**values, self.mask_key: mask.astype(np.int8)}  # a copy: the environment may write to its own
