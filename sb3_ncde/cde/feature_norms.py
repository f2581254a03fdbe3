"""What the features that are read out of z pass through: in PyTorch, and in NumPy with their gradients."""

import math
from collections.abc import Callable

import numpy as np
import torch as th
from torch.nn import functional as F

from sb3_ncde.acting.networks import mean_weights
from sb3_ncde.history.window_rule import Array


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

Pullback = Callable[[Array], Array]
"""From the gradient of an output, (rows, size), to that of the input."""


def _tanh(rows: Array) -> tuple[Array, Pullback]:
    out = np.tanh(rows)
    return out, lambda gradient: gradient * (1.0 - out * out)


def _layer_norm(rows: Array) -> tuple[Array, Pullback]:
    mean = mean_weights(rows.shape[1], rows.dtype)
    out = rows - rows @ mean
    deviation = np.sqrt((out * out) @ mean + 1e-5)  # PyTorch's
    out /= deviation

    def pullback(gradient: Array) -> Array:
        of_rows: Array = gradient - gradient @ mean
        of_rows -= out * ((gradient * out) @ mean)
        of_rows /= deviation
        return of_rows

    return out, pullback


def _unit(rows: Array) -> tuple[Array, Pullback]:
    out, pullback = _layer_norm(rows)
    root = math.sqrt(rows.shape[1])
    return out / root, lambda gradient: pullback(gradient / root)


NORMS: dict[str, Callable[[Array], tuple[Array, Pullback]]] = {
    "tanh": _tanh,
    "layer_norm": _layer_norm,
    "unit": _unit,
    "none": lambda rows: (rows, lambda gradient: gradient),
}
"""By the names of :data:`FEATURE_NORMS`: outputs for features (rows, size), and their pullback.

Of another norm PyTorch finds the gradient."""
