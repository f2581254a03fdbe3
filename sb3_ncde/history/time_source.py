"""Where the time of an observation is read."""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs

TIME_KINDS = ("elapsed", "timestamp")
"""What an observed time may be: since the observation before, or within the episode."""
NAMES_OF_TIME = ("time", "elapsed", "timestamp")
"""Keys of an observation that are most likely its time."""


class TimeSource:
    """Where the time of an observation stands, and the observation without it.

    :param observation_space: of the environment
    :param time_key: key of a Dict space, column of a one-dimensional Box, or None: no time is observed
    :raises ValueError: if the space has no such entry, or nothing else
    :raises TypeError: if the kind of key does not fit the space
    """

    def __init__(self, observation_space: spaces.Space[Any], time_key: str | int | None) -> None:
        self.key = time_key
        self.features_space = observation_space
        if isinstance(time_key, str):
            self.features_space = self._without_key(observation_space, time_key)
        elif time_key is not None:
            self.features_space = self._without_column(observation_space, time_key)
            self.key = time_key % (len(self.features_space.low) + 1)  # a negative column counts from the end

    @staticmethod
    def _without_key(space: spaces.Space[Any], key: str) -> spaces.Dict:
        if not isinstance(space, spaces.Dict):
            raise TypeError(
                f"time_key={key!r} names a key of a Dict observation, but the observation space is {space}. "
                "For a column of a Box observation, time_key is its index, an integer."
            )
        if key not in space.spaces:
            raise ValueError(f"time_key={key!r} is not a key of the observation, which has {sorted(space.spaces)}.")
        time_space = space.spaces[key]
        if not isinstance(time_space, spaces.Box) or int(np.prod(time_space.shape)) != 1:
            raise ValueError(f"time_key={key!r} must name a single time, a Box of shape (1,), but it is {time_space}.")
        rest = {name: subspace for name, subspace in space.spaces.items() if name != key}
        if not rest:
            raise ValueError(f"The observation has nothing but the time {key!r}: there is nothing to encode.")
        return spaces.Dict(rest)

    @staticmethod
    def _without_column(space: spaces.Space[Any], column: int) -> spaces.Box:
        if not isinstance(space, spaces.Box):
            raise TypeError(
                f"time_key={column} names a column of a Box observation, but the observation space is {space}. "
                "For a Dict observation, time_key is the name of a key."
            )
        if len(space.shape) != 1:
            raise ValueError(
                f"time_key={column} names a column of an observation of one dimension, but its shape is {space.shape}."
            )
        if not -space.shape[0] <= column < space.shape[0]:
            raise ValueError(f"time_key={column} is out of range for an observation of {space.shape[0]} columns.")
        if space.shape[0] == 1:
            raise ValueError("The observation has nothing but the time column: there is nothing to encode.")
        return spaces.Box(np.delete(space.low, column), np.delete(space.high, column), dtype=space.dtype.type)

    def split(self, observation: PyTorchObs) -> tuple[PyTorchObs, th.Tensor | None]:
        """Return the observation without its time, and the time, (rows,), or None."""
        if self.key is None:
            return observation, None
        if isinstance(observation, dict):
            rest = {name: value for name, value in observation.items() if name != self.key}
            return rest, observation[str(self.key)].flatten()
        column = int(self.key)
        return th.cat((observation[:, :column], observation[:, column + 1 :]), dim=1), observation[:, column]


def warn_of_time_among_features(space: spaces.Space[Any]) -> None:
    """Warn of a key that is named like a time, where no time is observed.

    :param space: of what is remembered
    """
    for name in NAMES_OF_TIME:
        part = space.spaces.get(name) if isinstance(space, spaces.Dict) else None
        if isinstance(part, spaces.Box) and int(np.prod(part.shape)) == 1:
            warnings.warn(
                f"The observation has a key {name!r}, but there is no time_key: it is a feature like the others, and "
                f"all observations count as one step apart. If it is the time, pass time_key={name!r}; if it is none, "
                "another name tells so, or a filter of warnings.",
                stacklevel=3,
            )
