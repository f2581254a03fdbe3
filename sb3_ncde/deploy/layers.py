"""PyTorch's modules as layers that a file can hold."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sb3_contrib.common.torch_layers import BatchRenorm1d
from torch import nn

from sb3_ncde.deploy.networks import Layer
from sb3_ncde.history.window_rule import Array


class CannotExportError(ValueError):
    """The agent does something that the exported file cannot say; the message says what."""


def layers_of(module: nn.Module, name: str) -> list[Layer]:
    """Return the layers of a module: its own, or those of its parts in their order.

    Whether a module of a user's own does just this is not known here: the comparison before a file is written finds it.

    :param module: in evaluation mode
    :param name: of the module, for messages
    :raises CannotExportError: for a layer that is not known, by its name
    """
    if type(module) in LAYERS:
        return LAYERS[type(module)](module, name)
    # Not by named_children(), which has a module once that is used twice.
    parts = [(part_name, part) for part_name, part in module._modules.items() if part is not None]
    if not parts and not isinstance(module, nn.Sequential):
        known = ", ".join(sorted(kind.__name__ for kind in LAYERS))
        raise CannotExportError(
            f"The layer {name} is a {type(module).__name__}, which an exported file cannot hold. It knows {known}, and "
            "modules that are made of these alone."
        )
    return [layer for part_name, part in parts for layer in layers_of(part, f"{name}.{part_name}")]


def _array(tensor: Any) -> Array:
    return np.array(tensor.numpy(force=True), np.float32, order="C")


def _linear(module: Any, name: str) -> list[Layer]:
    weight = _array(module.weight.t())
    bias = np.zeros(weight.shape[1], np.float32) if module.bias is None else _array(module.bias)
    return [{"kind": "linear", "weight": weight, "bias": bias}]


def _conv2d(module: Any, name: str) -> list[Layer]:
    plain = (module.groups, module.dilation, module.padding_mode) == (1, (1, 1), "zeros")
    if not plain or isinstance(module.padding, str):
        raise CannotExportError(
            f"The layer {name} is {module}: only groups=1, dilation=1 and numbers of zeros as padding are known."
        )
    bias = np.zeros(module.out_channels, np.float32) if module.bias is None else _array(module.bias)
    shape = {"stride": list(module.stride), "padding": list(module.padding)}
    return [{"kind": "conv2d", "weight": _array(module.weight), "bias": bias, **shape}]


def _batch_norm(module: Any, name: str) -> list[Layer]:
    """Return what a batch norm does in evaluation mode, with the statistics of its training."""
    renorm = isinstance(module, BatchRenorm1d)
    mean, variance = (module.ra_mean, module.ra_var) if renorm else (module.running_mean, module.running_var)
    if mean is None:
        raise CannotExportError(f"The layer {name} is {module}, whose statistics are those of each batch.")
    scale = 1 / np.sqrt(_array(variance) + module.eps)
    weight, bias = (module.scale, module.bias) if renorm else (module.weight, module.bias)
    if weight is not None:
        scale = scale * _array(weight)
    shift = -_array(mean) * scale + (0 if bias is None else _array(bias))
    return [{"kind": "affine", "scale": scale, "shift": shift}]


def _layer_norm(module: Any, name: str) -> list[Layer]:
    size = module.normalized_shape[-1]
    if len(module.normalized_shape) != 1:
        raise CannotExportError(f"The layer {name} is {module}: only one dimension can be normed.")
    scale = np.ones(size, np.float32) if module.weight is None else _array(module.weight)
    shift = np.zeros(size, np.float32) if module.bias is None else _array(module.bias)
    return [{"kind": "layer_norm", "scale": scale, "shift": shift, "eps": module.eps}]


def _plain(kind: str, **names: str) -> Callable[[Any, str], list[Layer]]:
    """Return a function that makes a layer without weights.

    :param names: of its numbers, and of the module's attributes that hold them
    """
    return lambda module, name: [
        {"kind": kind, **{ours: float(getattr(module, theirs)) for ours, theirs in names.items()}}
    ]


def _softplus(module: Any, name: str) -> list[Layer]:
    if (module.beta, module.threshold) != (1, 20):
        raise CannotExportError(f"The layer {name} is {module}: only beta=1 and threshold=20 are known.")
    return [{"kind": "softplus"}]


def _nothing(module: nn.Module, name: str) -> list[Layer]:
    return []


LAYERS: dict[type[nn.Module], Callable[[Any, str], list[Layer]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.Flatten: _plain("flatten"),
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    BatchRenorm1d: _batch_norm,
    nn.Tanh: _plain("tanh"),
    nn.ReLU: _plain("relu"),
    nn.ELU: _plain("elu", alpha="alpha"),
    nn.LeakyReLU: _plain("leaky_relu", slope="negative_slope"),
    nn.SiLU: _plain("silu"),
    nn.Sigmoid: _plain("sigmoid"),
    nn.Softplus: _softplus,
    nn.Hardtanh: _plain("hardtanh", low="min_val", high="max_val"),
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
}
"""By type; not by a subclass, which may do something else."""
