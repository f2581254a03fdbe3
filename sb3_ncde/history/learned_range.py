"""The range of what an agent learned from: by it an agent notices values of other units, or not normalised."""

import warnings
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_ncde.history.window_rule import Array

FAR = 3.0
"""Widths of the range from which on a value is far outside: agents go beyond what they learned from, but not so."""


class LearnedRange(nn.Module):
    """Least and greatest value of each feature in what was learned from.

    :param size: D, features of an observation
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("low", th.full((size,), th.inf))
        self.register_buffer("high", th.full((size,), -th.inf))

    def learn(self, features: Array) -> None:
        """Take in features of observations, (rows, D); NaN where a value was not observed."""
        low = np.fmin.reduce(features, axis=0, initial=np.inf)
        high = np.fmax.reduce(features, axis=0, initial=-np.inf)
        self.low = th.minimum(self.low, th.from_numpy(low).to(self.low))
        self.high = th.maximum(self.high, th.from_numpy(high).to(self.high))

    def holds(self, features: Array) -> bool:
        """Return whether all features, (rows, D), are within the range."""
        low, high = self.low.numpy(force=True), self.high.numpy(force=True)
        return bool(((features >= low) & (features <= high)).all())

    def far_outside(self, features: Array) -> Array:
        """Return which features are far outside of the range, (rows, D); none of those that were always the same."""
        low, high = self.low.numpy(force=True), self.high.numpy(force=True)
        width = high - low  # not above 0 where nothing was learned from
        far = FAR * width
        outside: Array = ((features > high + far) | (features < low - far)) & (width > 0)
        return outside

    def warn(self, features: Array, outside: Array) -> None:
        """Warn of a value that is far outside."""
        row, index = np.argwhere(outside)[0].tolist()
        warnings.warn(
            f"Feature {index} of the observation is {features[row, index]:.3g}, but the agent learned from values from "
            f"{self.low[index]:.3g} to {self.high[index]:.3g}. If the environments of the training were wrapped in "
            "VecNormalize, observations must be normalised here as well, by its statistics: VecNormalize.load(path, "
            "env) with training = False, or its normalize_obs(observation).",
            stacklevel=6,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take agents of version 0.1.0, which did not note it, as well."""
        state_dict.setdefault(f"{prefix}low", th.full_like(self.low, th.inf))
        state_dict.setdefault(f"{prefix}high", th.full_like(self.high, -th.inf))
        super()._load_from_state_dict(state_dict, prefix, *args)
