"""Normalisation that leaves time and missing values alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize


class ObservedMeanStd(RunningMeanStd):
    """Running mean and variance of each column, over those of its values that are not NaN."""

    def __init__(self, epsilon: float = 1e-4, shape: tuple[int, ...] = ()) -> None:
        super().__init__(epsilon, shape)
        self.count = np.full(shape, epsilon)  # type: ignore[assignment]  # one for each column, not one for all

    def copy(self) -> "ObservedMeanStd":
        """Return a copy."""
        new = ObservedMeanStd(shape=self.mean.shape)
        new.mean, new.var, new.count = self.mean.copy(), self.var.copy(), np.copy(self.count)  # type: ignore[assignment]
        return new

    def update(self, arr: npt.NDArray[Any]) -> None:
        """Take in a batch of values, (rows, ...); those that are NaN do not count.

        :raises ValueError: for an infinite value, and the statistics stay as they are
        """
        refuse_infinite(arr)
        observed = ~np.isnan(arr)
        count = observed.sum(axis=0)
        mean = np.where(observed, arr, 0.0).sum(axis=0) / np.maximum(count, 1)
        variance = np.square(np.where(observed, arr - mean, 0.0)).sum(axis=0) / np.maximum(count, 1)
        self.update_from_moments(mean, variance, count)


def refuse_infinite(values: npt.NDArray[Any]) -> None:
    """Raise ValueError if one of the values is infinite, and say where it is."""
    infinite = np.isinf(values)
    if infinite.any():
        index = tuple(map(int, np.argwhere(infinite)[0]))
        raise ValueError(
            f"The observation, of shape {values.shape}, is {values[index]} at {index}. Observations must be finite; "
            "where a sensor has no value, it is NaN (with policy_kwargs missing_values=True)."
        )


class VecNormalizeObserved(VecNormalize):
    """SB3's VecNormalize, without what must not be normalised, and with statistics of observed values only.

    Elapsed time that is normalised is negative half of the time, and a single NaN makes all later statistics NaN. Here
    the named keys or columns pass as they are, NaN stays NaN and does not count, and an infinite value is an error
    (ValueError) rather than the end of the statistics. It is saved, loaded and kept in step
    with an evaluation environment's as SB3's own.

    :param venv: environments with Box or Dict observations
    :param skip: keys of a Dict observation, or columns of a Box, that pass as they are. In a Dict, keys that are no Box
        pass as well, unless ``norm_obs_keys`` names those to normalise
    :param kwargs: arguments of VecNormalize
    :raises ValueError: for a key or a column that does not exist
    """

    def __init__(self, venv: VecEnv, skip: Sequence[str | int] = (), **kwargs: Any) -> None:
        space = venv.observation_space
        self.skip_columns: list[int] = []
        if isinstance(space, spaces.Dict):
            keys = kwargs.pop("norm_obs_keys", None)
            unknown = [key for key in (*skip, *(keys or ())) if key not in space.spaces]
            if unknown:
                raise ValueError(
                    f"skip={list(skip)}, norm_obs_keys={keys}: the observation has no {unknown}, but "
                    f"{sorted(space.spaces)}."
                )
            if keys is None:
                keys = [key for key, subspace in space.spaces.items() if isinstance(subspace, spaces.Box)]
            kwargs["norm_obs_keys"] = [key for key in keys if key not in skip]
        elif skip:
            columns = space.shape[-1] if isinstance(space, spaces.Box) and space.shape else 0
            if not all(isinstance(column, (int, np.integer)) and -columns <= column < columns for column in skip):
                raise ValueError(f"skip={list(skip)}: the observation is a {space}, with columns 0 to {columns - 1}.")
            self.skip_columns = [int(column) for column in skip]
        super().__init__(venv, **kwargs)
        if self.norm_obs:
            if isinstance(self.obs_rms, dict):
                self.obs_rms = {key: ObservedMeanStd(shape=rms.mean.shape) for key, rms in self.obs_rms.items()}
            else:
                self.obs_rms = ObservedMeanStd(shape=self.obs_rms.mean.shape)

    def _normalize_obs(self, obs: npt.NDArray[Any], obs_rms: RunningMeanStd) -> npt.NDArray[Any]:
        refuse_infinite(obs)  # which would be clipped where statistics are not updated
        normalized = super()._normalize_obs(obs, obs_rms)
        normalized[..., self.skip_columns] = obs[..., self.skip_columns]
        return normalized

    def _unnormalize_obs(self, obs: npt.NDArray[Any], obs_rms: RunningMeanStd) -> npt.NDArray[Any]:
        unnormalized = super()._unnormalize_obs(obs, obs_rms)
        unnormalized[..., self.skip_columns] = obs[..., self.skip_columns]
        return unnormalized
