"""The operations that an exported agent is made of, which something has to compute, or to write down.

A function of this room that is given ``xp`` takes them from it: :data:`sb3_ncde.deploy.numpy_arrays.NUMPY` computes,
:data:`sb3_ncde.deploy.onnx_arrays.ONNX` writes the nodes of a graph.
"""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

COMMON = (
    *("float32", "float64", "int64", "asarray", "arange", "reshape", "where", "isnan", "sum"),
    *("minimum", "maximum", "clip", "exp", "expm1", "log", "sqrt", "tanh"),
)
"""Those of the array API that NumPy and ndonnx both have under these names."""
OWN = {"argmax", "concat", "conv2d", "flatten", "matmul", "softplus", "transpose", "unstack"}
"""Those for which each has its own function."""


def operations(module: ModuleType, **own: Callable[..., Any]) -> SimpleNamespace:
    """Return all operations.

    :param module: that has the common ones
    :param own: the others
    """
    assert own.keys() == OWN
    return SimpleNamespace(**{name: getattr(module, name) for name in COMMON}, **own)
