"""What the heads see: the features that are read out of z, and the newest observation beside them."""

import math
from collections.abc import Callable

import numpy as np
import torch as th
from torch.nn import functional as F


def layer_norm(features: th.Tensor) -> th.Tensor:
    """Return features, (rows, size), that have a mean of 0 and a variance of 1 in each row, without weights."""
    return F.layer_norm(features, features.shape[-1:])


def unit(features: th.Tensor) -> th.Tensor:
    """Return features, (rows, size), as :func:`layer_norm` does, and divided by the root of their size.

    So they are a vector of length 1: together as large as one number of order 1. Heads see few numbers beside them.
    """
    normed = layer_norm(features)
    return normed / math.sqrt(features.shape[-1])


def none(features: th.Tensor) -> th.Tensor:
    """Return the features as they are."""
    return features


FEATURE_NORMS: dict[str, Callable[[th.Tensor], th.Tensor]] = {
    "tanh": th.tanh,
    "layer_norm": layer_norm,
    "unit": unit,
    "none": none,
}
"""By name: of features (rows, size)."""


def seen_beside(
    newest: th.Tensor,
    values: th.Tensor,
    knot: th.Tensor,
    window: th.Tensor,
    features_dim: int,
    control_dim: int,
    time_scale: float,
    summary: th.Tensor | None,
) -> th.Tensor:
    """Return what the heads see beside z: features, elapsed time, rates, ages, and the summary, (rows, numbers).

    :param newest: slot of each row's newest observation, (rows, slot_size)
    :param values: of the path through the windows, (H, B, V)
    :param knot: of each row, (rows,)
    :param window: of each row, (rows,)
    :param features_dim: D
    :param control_dim: K
    :param time_scale: what a nominal step counts
    :param summary: of the episode up to each row, (rows, numbers), or None
    """
    if summary is None and newest.device.type == "cpu" and not (newest.requires_grad or values.requires_grad):
        rows, on_path = newest.numpy(), values.numpy()[knot.numpy(), window.numpy()]
        parts = (rows[:, :features_dim], rows[:, -1:] * time_scale, on_path[:, control_dim:])
        return th.from_numpy(np.concatenate(parts, axis=1))
    seen = [newest[:, :features_dim], newest[:, -1:] * time_scale, values[knot, window][:, control_dim:]]
    return th.cat(seen if summary is None else [*seen, summary], dim=1)
