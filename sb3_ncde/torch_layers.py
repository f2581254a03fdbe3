"""The features extractor of the policies: the user's own, with the time of an observation passing by it."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.envs.spaces import without_key
from sb3_ncde.history.time_source import TimeSource


def check_extractor(policy: str, space: spaces.Space[Any], extractor_class: type[BaseFeaturesExtractor]) -> None:
    """Raise ValueError if the observations are for another of the policies, by the policy's features extractor."""
    is_dict = isinstance(space, spaces.Dict)
    if is_dict and extractor_class is FlattenExtractor:
        raise ValueError(f"{policy} takes vectors, but got a {space}: use MultiInputNCDEPolicy.")
    if not is_dict and extractor_class is CombinedExtractor:
        raise ValueError(f"{policy} takes a Dict, but got a {space}: use NCDEPolicy or CnnNCDEPolicy.")


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
