"""The operations of an exported agent as nodes of an ONNX graph.

They are those of ndonnx, an implementation of the Python array API that writes down what it is asked to compute.
"""

from typing import Any

import ndonnx as ndx
import numpy as np
from spox.opset.ai.onnx import v21

from sb3_ncde.deploy.operations import operations
from sb3_ncde.history.window_rule import Array

op: Any = v21
"""The operations of ONNX themselves, where ndonnx has none, or makes a branch of one."""


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


ONNX = operations(
    ndx,
    argmax=argmax,
    concat=ndx.concat,
    conv2d=conv2d,
    flatten=flatten,
    matmul=matmul,
    softplus=softplus,
    transpose=ndx.permute_dims,
    unstack=unstack,
)
