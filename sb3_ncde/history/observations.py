"""Which part of an observation is encoded, and which is its time."""

from collections.abc import Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.envs.spaces import without_keys
from sb3_ncde.history.time_source import TimeSource


def check_extractor(policy: str, space: spaces.Space[Any], extractor_class: type[BaseFeaturesExtractor]) -> None:
    """Raise ValueError if the observations are for another of the policies, by the policy's features extractor."""
    is_dict = isinstance(space, spaces.Dict)
    if is_dict and extractor_class is FlattenExtractor:
        raise ValueError(f"{policy} takes vectors, but got a {space}: use MultiInputNCDEPolicy.")
    if not is_dict and extractor_class is CombinedExtractor:
        raise ValueError(f"{policy} takes a Dict, but got a {space}: use NCDEPolicy or CnnNCDEPolicy.")


def check_critic_keys(space: spaces.Space[Any], keys: Sequence[str]) -> None:
    """Raise ValueError unless the keys that only the critic sees are some of a Dict observation's."""
    if keys and not (isinstance(space, spaces.Dict) and set(keys) < set(space.spaces)):
        raise ValueError(
            f"critic_keys={list(keys)} are to be some keys of a Dict observation, and not all of them, but the "
            f"observation space is {space}."
        )


class ObservationReader:
    """Reads what is encoded of an observation, and its time.

    :param observation_space: of the environment
    :param time_key: see :class:`sb3_ncde.history.time_source.TimeSource`
    :param left_out: keys of a Dict that are not encoded, such as the action mask
    """

    def __init__(
        self, observation_space: spaces.Space[Any], time_key: str | int | None, left_out: Sequence[str] = ()
    ) -> None:
        self.left_out = left_out
        self.source = TimeSource(without_keys(observation_space, left_out), time_key)

    @property
    def features_space(self) -> spaces.Space[Any]:
        """The space of what is encoded."""
        return self.source.features_space

    def read(self, observation: PyTorchObs) -> tuple[PyTorchObs, th.Tensor | None]:
        """Return what is encoded of preprocessed observations, and their time, (rows,), or None."""
        if isinstance(observation, dict):
            kept = {key: _as_rows(value) for key, value in observation.items() if key not in self.left_out}
            return self.source.split(kept)
        return self.source.split(_as_rows(observation))


def _as_rows(values: th.Tensor) -> th.Tensor:
    """Return values with a dimension behind that of the rows, which those of a space of shape () lack at rollout."""
    return values.unsqueeze(1) if values.dim() == 1 else values
