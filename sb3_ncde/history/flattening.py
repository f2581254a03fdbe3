"""Observations of any space as rows of numbers, and back: what a history holds of each, apart from its time."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space

from sb3_ncde.history.time_source import TimeSource
from sb3_ncde.history.window_rule import Array, Integers

Observations = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""Of several environments, as SB3's VecEnv gives them."""


class Part(NamedTuple):
    """A part of a flat observation.

    :param key: of a Dict; None: the observation is no Dict
    :param space: of the part
    :param columns: that it takes
    """

    key: str | None
    space: spaces.Space[Any]
    columns: slice

    @property
    def dtype(self) -> type[np.generic]:
        """In which its numbers can be kept without loss: uint8 for pixels, choices and bits."""
        small = not isinstance(self.space, spaces.Box) or self.space.dtype == np.uint8
        return np.uint8 if small else np.float32

    @property
    def shown(self) -> spaces.Box:
        """Its space as networks see it: choices are one-hot."""
        if isinstance(self.space, spaces.Box):
            return self.space
        return spaces.Box(0.0, 1.0, (self.columns.stop - self.columns.start,), np.float32)

    def flatten(self, values: npt.NDArray[Any]) -> Array:
        """Return values of N environments as rows, (N, columns).

        :raises ValueError: for a choice that the space does not have
        """
        if isinstance(self.space, spaces.Discrete):
            return _one_hot(values, np.array([self.space.n]), np.array([self.space.start]), self.space)
        if isinstance(self.space, spaces.MultiDiscrete):
            return _one_hot(values, self.space.nvec, self.space.start, self.space)
        return values.reshape(len(values), -1)


class Flattening:
    """Observations of a space as rows of D features and a time.

    A Dict is taken key by key, in the order of its space; Discrete and MultiDiscrete become one-hot, as SB3 has them.

    :param space: of the observations
    :param time_key: where their time is, see :class:`sb3_ncde.history.time_source.TimeSource`
    :raises ValueError: see there
    :raises TypeError: see there; or for a space that SB3 does not know
    """

    def __init__(self, space: spaces.Space[Any], time_key: str | int | None) -> None:
        self._source = TimeSource(space, time_key)
        features = self._source.features_space
        self.parts: list[Part] = []
        start = 0
        for key, part in features.spaces.items() if isinstance(features, spaces.Dict) else [(None, features)]:
            size = _size(part)
            self.parts.append(Part(key, part, slice(start, start + size)))
            start += size
        self.features_dim = start

    @property
    def time_key(self) -> str | int | None:
        """Where the time is: a key, or a column from 0."""
        return self._source.key

    @property
    def images(self) -> bool:
        """Whether there are images among the parts."""
        return any(is_image_space(part.shown) for part in self.parts)

    @property
    def shown_space(self) -> spaces.Space[Any]:
        """The space of what a features extractor sees: Boxes, choices being one-hot."""
        shown = {part.key: part.shown for part in self.parts}
        return shown[None] if None in shown else spaces.Dict({str(key): space for key, space in shown.items()})

    def flatten(self, observations: Observations) -> tuple[Array, Array | None]:
        """Return features, (N, D), and time, (N,), of observations of N environments; None: there is no time."""
        key = self._source.key
        if isinstance(observations, Mapping):
            rows = [part.flatten(np.asarray(observations[str(part.key)])) for part in self.parts]
            features = np.concatenate(rows, axis=1, dtype=np.float32)
            return features, None if key is None else np.asarray(observations[str(key)], np.float32).reshape(-1)
        if key is None:
            return self.parts[0].flatten(observations).astype(np.float32, copy=False), None
        values = observations.astype(np.float32, copy=False)
        return np.delete(values, int(key), axis=1), values[:, int(key)]

    def join(self, features: Array, names: frozenset[str] | None = None) -> Any:
        """Return the observations whose features are given, with a time of 0 where it is a column.

        :param features: (rows, D)
        :param names: keys of a Dict to return, Boxes all of them; None: the observation is a Box
        """
        if names is not None:
            boxes = [part for part in self.parts if part.key in names]
            return {part.key: features[:, part.columns].reshape(-1, *(part.space.shape or ())) for part in boxes}
        if self._source.key is not None:
            return np.insert(features, int(self._source.key), 0.0, axis=1)
        return features.reshape(-1, *(self.parts[0].space.shape or ()))

    def shown(self, features: th.Tensor) -> Any:
        """Return features, (rows, D), as a features extractor takes them: pixels from 0 to 1, a Dict by its keys."""
        named: dict[str | None, th.Tensor] = {}
        for part in self.parts:
            values = features[:, part.columns].reshape(-1, *part.shown.shape)
            named[part.key] = values / 255.0 if is_image_space(part.shown) else values
        return named.get(None, named)


def _one_hot(values: npt.NDArray[Any], options: Integers, starts: Integers, space: spaces.Space[Any]) -> Array:
    """Return choices of N environments as rows, (N, sum of the options).

    :param values: (N,), or (N, choices)
    :param options: of each choice
    :param starts: the first option of each choice
    """
    choices = values.astype(np.int64).reshape(len(values), -1) - starts
    if ((choices < 0) | (choices >= options)).any():
        raise ValueError(f"Expected observations in {space}, but got {values.tolist()}: none may be outside of it.")
    each = [np.eye(int(n), dtype=np.float32)[choice] for n, choice in zip(options, choices.T, strict=True)]
    return np.concatenate(each, axis=1)


def _size(space: spaces.Space[Any]) -> int:
    """Return the features that an observation of a space has.

    :raises TypeError: for a space that SB3 does not know
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise TypeError(
        f"Expected observations that are Box, Discrete, MultiDiscrete (of one dimension), MultiBinary, or a Dict of "
        f"these, but got {space}."
    )
