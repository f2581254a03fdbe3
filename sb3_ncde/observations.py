"""One observation -> its features and its time."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.action_mask import without_key


def check_extractor(policy: str, space: spaces.Space[Any], extractor_class: type[BaseFeaturesExtractor]) -> None:
    """Raise ValueError if the observations are for another of the policies, by the policy's features extractor."""
    is_dict = isinstance(space, spaces.Dict)
    if is_dict and extractor_class is FlattenExtractor:
        raise ValueError(f"{policy} takes vectors, but got a {space}: use MultiInputNCDEPolicy.")
    if not is_dict and extractor_class is CombinedExtractor:
        raise ValueError(f"{policy} takes a Dict, but got a {space}: use NCDEPolicy or CnnNCDEPolicy.")


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


class ObservationReader(BaseFeaturesExtractor):
    """A features extractor that lets the time of the observation pass by, and the action mask out.

    Its output is (rows, D + 1): the D features that the user's extractor makes of the observation without its
    time, then the time as it stands in the observation, or 1 (a step) where no time is observed.

    :param observation_space: of the environment
    :param time_key: see :class:`TimeSource`
    :param mask_key: key of the action mask, or None
    :param extractor_class: the user's features extractor
    :param kwargs: its arguments
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        time_key: str | int | None,
        mask_key: str | None,
        extractor_class: type[BaseFeaturesExtractor],
        **kwargs: Any,
    ) -> None:
        source = TimeSource(without_key(observation_space, mask_key), time_key)
        extractor = extractor_class(source.features_space, **kwargs)
        super().__init__(observation_space, int(extractor.features_dim) + 1)  # NumPy's integers are none to an LSTM
        self.source = source
        self.mask_key = mask_key
        self.extractor = extractor

    def forward(self, observation: PyTorchObs) -> th.Tensor:
        """Return features and time of preprocessed observations, (rows, D + 1)."""
        if isinstance(observation, dict):
            observation = {name: _as_rows(value) for name, value in observation.items() if name != self.mask_key}
        else:
            observation = _as_rows(observation)
        values, time = self.source.split(observation)
        features: th.Tensor = self.extractor(values)
        if time is None:
            time = features.new_ones(features.shape[0])
        return th.cat((features, time.to(features.dtype).unsqueeze(1)), dim=1)


def _as_rows(values: th.Tensor) -> th.Tensor:
    """Return values with a dimension behind that of the rows, which those of a space of shape () lack at rollout."""
    return values.unsqueeze(1) if values.dim() == 1 else values
