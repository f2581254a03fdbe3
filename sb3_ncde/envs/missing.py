"""Sensors that have no value at times: they fail, or each has its own rate.

``reset(seed=...)`` repeats it, see :mod:`sb3_ncde.envs.randomness`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_ncde.envs.randomness import SeededWrapper
from sb3_ncde.envs.sampling import refuse_time_column
from sb3_ncde.envs.spaces import BoxWithMissing, join, vector_space, with_more

FILLS = ("nan", "hold")


class MissingValues(SeededWrapper, gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs, ABC):
    """Lets sensors, groups of the columns of an observation, have no value at times.

    :param env: an environment with a Box observation of one dimension, or a Dict with one under ``key``
    :param groups: columns of each sensor; None: each column is one of its own
    :param fill: what stands where there is no value: "nan"; or "hold", the last value of the episode (0 before the
        first), with the steps since then and whether there is one now (1 or 0), for each sensor, in the observation: as
        the keys "age" and "observed" of a Dict, or as the last columns of a Box
    :param key: of the observation in a Dict
    :raises TypeError: if there is no Box of one dimension
    :raises ValueError: for an unknown fill, or columns that do not exist or are in two groups
    """

    def __init__(
        self, env: gym.Env[Any, Any], groups: Sequence[Sequence[int]] | None, fill: str, key: str, **recorded: Any
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, groups=groups, fill=fill, key=key, **recorded)
        super().__init__(env)
        space = env.observation_space
        self.is_dict = isinstance(space, spaces.Dict)
        box = vector_space(space, key)
        if fill not in FILLS:
            raise ValueError(f"fill={fill!r} is not one of {', '.join(FILLS)}.")
        n_columns = box.shape[0]
        if groups is None:
            refuse_time_column(env, "groups must name the columns of the sensors")
        self.groups = [[column] for column in range(n_columns)] if groups is None else [list(g) for g in groups]
        named = sorted(column for group in self.groups for column in group)
        if len(set(named)) < len(named) or not set(named) <= set(range(n_columns)):
            raise ValueError(
                f"groups={self.groups}: each of the {n_columns} columns of the observation belongs to one sensor at "
                f"most, and columns are counted from 0 to {n_columns - 1}."
            )
        self.fill, self.key = fill, key
        n = len(self.groups)
        if fill == "hold":
            # Before its first value, a sensor reads 0. Columns of no sensor are as they were.
            held = spaces.Box if len(named) == n_columns else type(box)
            values: spaces.Space[Any] = held(np.minimum(box.low, 0), np.maximum(box.high, 0), dtype=np.float32)
            inner = spaces.Dict({**space.spaces, key: values}) if isinstance(space, spaces.Dict) else values
            self.observation_space = with_more(inner, {"age": (n,), "observed": (n,)}, self.is_dict)
        else:
            values = BoxWithMissing(box.low, box.high, dtype=np.float32)
            self.observation_space = (
                spaces.Dict({**space.spaces, key: values}) if isinstance(space, spaces.Dict) else values
            )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, in which no sensor has had a value yet."""
        self.held = np.zeros(vector_space(self.env.observation_space, self.key).shape, np.float32)
        self.age = np.zeros(len(self.groups), np.float32)
        self.n_observed = 0
        return super().reset(seed=seed, options=options)

    @abstractmethod
    def observed(self) -> npt.NDArray[np.bool_]:
        """Return which sensors have a value now; called once per observation, ``n_observed`` counts them."""

    def observation(self, observation: Any) -> Any:
        """Return the observation without the values of the sensors that have none."""
        values = np.asarray(observation[self.key] if self.is_dict else observation, np.float32).copy()
        observed = self.observed().copy()
        self.n_observed += 1
        for sensor, group in enumerate(self.groups):
            if self.fill == "nan":
                values[group] = values[group] if observed[sensor] else np.nan
            else:
                known = observed[sensor] & ~np.isnan(values[group])  # a sensor may have failed in a wrapper beneath
                values[group] = np.where(known, values[group], self.held[group])
                observed[sensor] = known.all()
        if self.fill == "nan":
            return {**observation, self.key: values} if self.is_dict else values
        self.held = values.copy()
        self.age = np.where(observed, 0, self.age + 1).astype(np.float32)
        inner = {**observation, self.key: values} if self.is_dict else values
        return join(inner, {"age": self.age, "observed": observed.astype(np.float32)}, self.is_dict)


class SensorDropout(MissingValues):
    """Sensors that fail at random, for one observation or for bursts of them.

    :param env: see :class:`MissingValues`
    :param probability: that a sensor has no value, in the long run
    :param burst: mean length of a failure, in observations; None: whether a sensor fails is independent of the past
    :param groups: see :class:`MissingValues`
    :param fill: see :class:`MissingValues`
    :param key: see :class:`MissingValues`
    :raises ValueError: for a probability outside [0, 1), or a burst too short for so many failures
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        probability: float = 0.5,
        burst: float | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        fill: str = "nan",
        key: str = "observation",
    ) -> None:
        super().__init__(env, groups, fill, key, probability=probability, burst=burst)
        if not 0 <= probability < 1:
            raise ValueError(f"probability={probability}: it must be at least 0 and below 1.")
        # Failures independent of each other last 1 / (1 - probability) observations.
        self.burst = 1 / (1 - probability) if burst is None else burst
        shortest = max(1.0, probability / (1 - probability))
        if not shortest <= self.burst < np.inf:
            raise ValueError(
                f"burst={burst} with probability={probability}: a failure lasts at least one observation, and here at "
                f"least {shortest:.3g} on average."
            )
        self.begins = probability / ((1 - probability) * self.burst)
        self.probability = probability
        self.failed = np.zeros(len(self.groups), bool)

    def observed(self) -> npt.NDArray[np.bool_]:
        """Return which sensors have a value now: a Markov chain for each."""
        draw = self.rng.random(len(self.groups))
        if self.n_observed == 0:
            self.failed = draw < self.probability
        else:
            self.failed = np.where(self.failed, draw >= 1 / self.burst, draw < self.begins)
        return ~self.failed


class AsynchronousSensors(MissingValues):
    """Sensors that have a value only at every so many observations, each at its own.

    :param env: see :class:`MissingValues`
    :param periods: of each sensor, the observations from one of its values to its next
    :param offsets: of each sensor's first value, in observations; None: all begin with the episode
    :param groups: see :class:`MissingValues`
    :param fill: see :class:`MissingValues`
    :param key: see :class:`MissingValues`
    :raises ValueError: if periods and offsets are not one whole number for each sensor, or a period is below 1
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        periods: Sequence[int],
        offsets: Sequence[int] | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        fill: str = "nan",
        key: str = "observation",
    ) -> None:
        super().__init__(env, groups, fill, key, periods=periods, offsets=offsets)
        self.periods = np.array(periods)
        self.offsets = np.zeros_like(self.periods) if offsets is None else np.array(offsets)
        whole = all(np.issubdtype(numbers.dtype, np.integer) for numbers in (self.periods, self.offsets))
        if {self.periods.shape, self.offsets.shape} != {(len(self.groups),)} or not whole or self.periods.min() < 1:
            raise ValueError(
                f"periods={periods}, offsets={offsets}: one of at least 1, and one offset, for each of the "
                f"{len(self.groups)} sensors {self.groups}, in whole observations."
            )

    def observed(self) -> npt.NDArray[np.bool_]:
        """Return which sensors have a value now."""
        since: npt.NDArray[np.int64] = self.n_observed - self.offsets
        due: npt.NDArray[np.bool_] = (since >= 0) & (since % self.periods == 0)
        return due
