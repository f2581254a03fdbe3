"""Wrappers of single observations: columns that are shown, noise, the mask of the allowed actions."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_ncde.envs.randomness import SeededWrapper
from sb3_ncde.envs.sampling import refuse_time_column
from sb3_ncde.envs.spaces import Floats, choices, vector_space


class SelectColumns(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows some columns of an observation, positions without velocities for example.

    :param env: an environment with a Box observation of one dimension
    :param columns: that are shown, in this order
    :raises TypeError: if the observation is no Box of one dimension
    :raises ValueError: for no columns, or such that do not exist
    """

    def __init__(self, env: gym.Env[Any, Any], columns: Sequence[int]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, columns=columns)
        super().__init__(env)
        space = vector_space(env.observation_space)
        if not columns or not set(columns) <= set(range(space.shape[0])):
            raise ValueError(f"columns={columns}: some of the columns 0 to {space.shape[0] - 1} of the observation.")
        self.columns = list(columns)
        self.observation_space = type(space)(space.low[self.columns], space.high[self.columns], dtype=space.dtype.type)

    def observation(self, observation: Any) -> Any:
        """Return the columns that are shown."""
        return observation[self.columns]


class NoisyObservation(SeededWrapper, gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Adds normal noise to an observation.

    :param env: an environment with a Box observation of one dimension
    :param std: standard deviation, one for all columns or one for each
    :raises TypeError: if the observation is no Box of one dimension
    :raises ValueError: for a standard deviation that is negative or not finite, or another number of them
    """

    def __init__(self, env: gym.Env[Any, Any], std: float | Sequence[float]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, std=std)
        super().__init__(env)
        space = vector_space(env.observation_space)
        if np.ndim(std) == 0:
            refuse_time_column(env, "std must be one number for each column, 0 for the time")
        if np.shape(std) not in ((), space.shape) or not np.all((np.asarray(std) >= 0) & np.isfinite(std)):
            raise ValueError(
                f"std={std}: one standard deviation of at least 0, or one for each of the {space.shape[0]} columns."
            )
        self.std = np.broadcast_to(np.asarray(std, np.float32), space.shape)
        self.observation_space = type(space)(-np.inf, np.inf, space.shape, np.float32)

    def observation(self, observation: Any) -> Floats:
        """Return the observation with noise."""
        noise = self.rng.normal(size=self.std.shape) * self.std
        return np.asarray(observation + noise, np.float32)


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
