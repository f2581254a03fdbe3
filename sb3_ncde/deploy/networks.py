"""Networks as lists of layers, which are plain values and arrays, so that a file can hold them.

What computes with them is handed in as ``xp``, see :mod:`sb3_ncde.deploy.operations`.
"""

from collections.abc import Callable, Sequence
from typing import Any

Layer = dict[str, Any]
"""Its ``kind``, a name in :data:`LAYERS`, and its weights and numbers by name."""


def run(xp: Any, network: Sequence[Layer], rows: Any) -> Any:
    """Return the outputs of the layers one after the other, for inputs (N, ...)."""
    for layer in network:
        rows = LAYERS[layer["kind"]](xp, rows, layer)
    return rows


def _linear(xp: Any, rows: Any, layer: Layer) -> Any:
    return xp.matmul(rows, xp.asarray(layer["weight"])) + xp.asarray(layer["bias"])


def _conv2d(xp: Any, images: Any, layer: Layer) -> Any:
    return xp.conv2d(images, layer["weight"], layer["bias"], layer["stride"], layer["padding"])


def _flatten(xp: Any, rows: Any, layer: Layer) -> Any:
    return xp.flatten(rows)


def _affine(xp: Any, rows: Any, layer: Layer) -> Any:
    return rows * xp.asarray(layer["scale"]) + xp.asarray(layer["shift"])


def _layer_norm(xp: Any, rows: Any, layer: Layer) -> Any:
    return normed(xp, rows, len(layer["scale"]), layer["eps"]) * xp.asarray(layer["scale"]) + xp.asarray(layer["shift"])


def normed(xp: Any, rows: Any, size: int, eps: float = 1e-5) -> Any:
    """Return rows, (N, size), that have a mean of 0 and a variance of 1 each, as PyTorch's layer norm without weights.

    :param eps: that is added to the variance
    """
    mean = xp.asarray([[1 / size]] * size, dtype=rows.dtype)
    centred = rows - xp.matmul(rows, mean)
    return centred / xp.sqrt(xp.matmul(centred * centred, mean) + eps)


def _sigmoid(xp: Any, rows: Any) -> Any:
    return 0.5 * (1.0 + xp.tanh(0.5 * rows))  # which does not overflow


LAYERS: dict[str, Callable[[Any, Any, Layer], Any]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "flatten": _flatten,
    "affine": _affine,
    "layer_norm": _layer_norm,
    "tanh": lambda xp, rows, layer: xp.tanh(rows),
    "relu": lambda xp, rows, layer: xp.maximum(rows, 0.0),
    "elu": lambda xp, rows, layer: xp.where(rows > 0, rows, layer["alpha"] * xp.expm1(xp.minimum(rows, 0.0))),
    "leaky_relu": lambda xp, rows, layer: xp.where(rows > 0, rows, layer["slope"] * rows),
    "silu": lambda xp, rows, layer: rows * _sigmoid(xp, rows),
    "sigmoid": lambda xp, rows, layer: _sigmoid(xp, rows),
    "softplus": lambda xp, rows, layer: xp.softplus(rows),
    "hardtanh": lambda xp, rows, layer: xp.clip(rows, layer["low"], layer["high"]),
}
"""By kind: functions of ``xp``, of inputs (N, ...), and of the layer, which return outputs (N, ...)."""
