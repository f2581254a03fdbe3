"""The operations of an exported agent as nodes of an ONNX graph, under the names of numpy_arrays.

They are those of ndonnx, an implementation of the Python array API that writes down what it is asked to compute.
"""

from typing import Any

import ndonnx as ndx
import numpy as np
from ndonnx import (
    arange,
    asarray,
    clip,
    concat,
    exp,
    expm1,
    float32,
    float64,
    int64,
    isnan,
    log,
    maximum,
    minimum,
    reshape,
    sqrt,
    sum,
    tanh,
    where,
)
from spox.opset.ai.onnx import v21

from sb3_ncde.history.window_rule import Array

__all__ = [
    "arange",
    "argmax",
    "asarray",
    "clip",
    "concat",
    "conv2d",
    "exp",
    "expm1",
    "flatten",
    "float32",
    "float64",
    "int64",
    "isnan",
    "log",
    "matmul",
    "maximum",
    "minimum",
    "reshape",
    "softplus",
    "sqrt",
    "sum",
    "tanh",
    "transpose",
    "unstack",
    "where",
]


op: Any = v21
"""The operations of ONNX themselves, where ndonnx has none, or makes a branch of one."""


def transpose(values: Any, axes: tuple[int, ...]) -> Any:
    """Return values with their dimensions in another order."""
    return ndx.permute_dims(values, axes)


def matmul(first: Any, second: Any) -> Any:
    """Return products of matrices; ndonnx would look whether they are empty, in a branch of the graph."""
    return ndx.asarray(op.matmul(first.unwrap_spox(), second.unwrap_spox()))


def argmax(values: Any, axis: int, keepdims: bool) -> Any:
    """Return where the greatest values stand, the first of several."""
    return ndx.asarray(op.arg_max(values.unwrap_spox(), axis=axis, keepdims=keepdims))


def unstack(values: Any, size: int) -> list[Any]:
    """Return the parts of values, (N, size, ...), (N, ...) each."""
    axis = op.const([1])
    parts = op.split(values.unwrap_spox(), axis=1, num_outputs=size) if size > 1 else [values.unwrap_spox()]
    return [ndx.asarray(op.squeeze(part, axis)) for part in parts]


def flatten(rows: Any) -> Any:
    """Return rows, (N, ...), of one dimension each."""
    return ndx.asarray(op.flatten(rows.unwrap_spox(), axis=1))


def softplus(values: Any) -> Any:
    """Return log(1 + exp(x))."""
    return ndx.asarray(op.softplus(values.unwrap_spox()))


def conv2d(images: Any, weight: Array, bias: Array, stride: list[int], padding: list[int]) -> Any:
    """Return the convolution of images; see :func:`sb3_ncde.deploy.numpy_arrays.conv2d`."""
    weights = (op.const(np.asarray(part)) for part in (weight, bias))
    return ndx.asarray(op.conv(images.unwrap_spox(), *weights, strides=stride, pads=[*padding, *padding]))
