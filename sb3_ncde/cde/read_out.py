"""What the features that are read out of z pass through on their way to the heads."""

from collections.abc import Callable

import torch as th
from torch.nn import functional as F


def layer_norm(features: th.Tensor) -> th.Tensor:
    """Return features, (rows, size), that have a mean of 0 and a variance of 1 in each row, without weights."""
    return F.layer_norm(features, features.shape[-1:])


def none(features: th.Tensor) -> th.Tensor:
    """Return the features as they are."""
    return features


FEATURE_NORMS: dict[str, Callable[[th.Tensor], th.Tensor]] = {"tanh": th.tanh, "layer_norm": layer_norm, "none": none}
"""By name: of features (rows, size)."""
