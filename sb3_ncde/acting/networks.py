"""Layers, activations and norms of small networks, for rows in NumPy."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from sb3_ncde.history.window_rule import Array


class Layer(NamedTuple):
    """A linear layer, x W + b.

    :param weight: W, (n_in, n_out)
    :param bias: b, (n_out,)
    """

    weight: Array
    bias: Array


def linear(rows: Array, layer: Layer) -> Array:
    """Return the outputs of a layer, (rows, n_out), for inputs (rows, n_in)."""
    out: Array = rows @ layer.weight
    out += layer.bias
    return out


def relu(rows: Array) -> Array:
    """Return each number, or 0 where it is below."""
    return np.maximum(rows, 0.0)


def relu_mlp(rows: Array, layers: Sequence[Layer]) -> Array:
    """Return the outputs of linear layers with ReLU between them, (rows, n_out), for inputs (rows, n_in)."""
    for layer in layers[:-1]:
        rows = relu(linear(rows, layer))
    return linear(rows, layers[-1])


LINEAR = 20.0
"""Above it softplus is x, as it is in PyTorch."""
EXPONENTIAL = float(np.exp(LINEAR)) * (1 - 1e-6)
"""Of it, whatever the precision."""


def softplus(values: Array, out: Array | None = None, exponential: Array | None = None) -> Array:
    """Return log(1 + exp(x)).

    :param values: x
    :param out: an array to write to, or None
    :param exponential: one for exp(x), of which :func:`softplus_derivative` is made, or None
    """
    exponential = np.minimum(values, LINEAR, out=out if exponential is None else exponential)
    np.exp(exponential, out=exponential)  # above, it may overflow
    out = np.log1p(exponential, out=exponential if out is None else out)
    return np.maximum(out, values, out=out)


def softplus_derivative(exponential: Array) -> Array:
    """Return 1 / (1 + exp(-x)) from exp(x) as :func:`softplus` leaves it, and 1 where that is x."""
    derivative: Array = exponential / (exponential + 1.0)
    derivative[exponential >= EXPONENTIAL] = 1.0
    return derivative


def layer_norm(features: Array) -> Array:
    """Return features, (rows, size), that have a mean of 0 and a variance of 1 in each row, without weights."""
    mean = mean_weights(features.shape[1], features.dtype)
    centred: Array = features - features @ mean
    variance = (centred * centred) @ mean
    variance += 1e-5  # PyTorch's
    np.sqrt(variance, out=variance)
    centred /= variance
    return centred


def unit(features: Array) -> Array:
    """Return features, (rows, size), as :func:`layer_norm` does, and divided by the root of their size."""
    normed = layer_norm(features)
    normed /= math.sqrt(features.shape[1])
    return normed


@cache
def mean_weights(size: int, dtype: np.dtype[Any]) -> Array:
    """Return the weights of a mean, (size, 1): a product with them takes a third of the time of ``mean()``."""
    return np.full((size, 1), 1 / size, dtype)


def none(features: Array) -> Array:
    """Return the features as they are."""
    return features


FEATURE_NORMS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "layer_norm": layer_norm,
    "unit": unit,
    "none": none,
}
"""By the names of :data:`sb3_ncde.cde.feature_norms.FEATURE_NORMS`: of features (rows, size)."""
