"""Networks of SB3 that are made of linear layers and activations alone: computed without calling the modules."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_ncde.acting.networks import Layer, linear, relu
from sb3_ncde.cde.host_weights import HostWeights
from sb3_ncde.history.window_rule import Array

ACTIVATIONS: dict[type[Any], tuple[Callable[[Array], Array], Callable[[th.Tensor], th.Tensor]]] = {
    nn.Tanh: (np.tanh, th.tanh),
    nn.ReLU: (relu, th.relu),
}
"""In NumPy and in PyTorch, by type; not by a subclass, which may do something else."""
Network = list[Layer | Callable[[Array], Array]]
"""Layers and activations, one after the other."""


class KnownLayers:
    """Networks that are made of known layers, with the modules' own parameters, which are shared, not copied."""

    def __init__(self) -> None:
        self.parts: list[list[Any]] = []
        self.dtypes: set[np.dtype[Any]] = set()  # of all that is in NumPy
        self._modules: tuple[Any, ...] = ()
        self._types: list[type[Any]] = []
        self._known = False
        self._hooks: list[dict[int, Any]] = []
        self._host = HostWeights(())
        self._networks: list[Network] = []
        self._others: list[Array] = []

    def know(self, *networks: Any) -> bool:
        """Return whether networks are of known layers, with no hook on any; :attr:`parts` are then their layers.

        :param networks: the same number at every call, each a Sequential or one layer
        """
        # By the modules' dictionaries a look takes a fraction of the time of one by their attributes.
        parts = [[*network._modules.values()] if type(network) is nn.Sequential else [network] for network in networks]
        layers = [layer for part in parts for layer in part]
        modules = (*layers, *networks)
        # A layer that is parametrized (torch.nn.utils.parametrize) remains, but is of another type.
        if modules != self._modules or [*map(type, modules)] != self._types:
            self._modules, self._types = modules, [*map(type, modules)]
            self.parts = parts
            self._known = all(type(layer) is nn.Linear or type(layer) in ACTIVATIONS for layer in layers)
            self._host = HostWeights([[layer for layer in part if type(layer) is nn.Linear] for part in parts])
            self._networks = []
            self._hooks = [hooks for module in modules for hooks in hooks_of(module)]
        if any(self._hooks):
            self._modules = ()  # pruning and weight norms hook in, and change where the weights are
            return False
        return self._known and not any("forward" in module.__dict__ for module in modules)

    def in_numpy(self, others: Sequence[th.Tensor] = ()) -> tuple[list[Network], list[Array]]:
        """Return the networks that are known, and other tensors beside them, in NumPy.

        :param others: the same number at every call
        """
        if self._host.renewed(*others) or not self._networks:
            groups = list(self._host.arrays())
            self.dtypes = self._host.dtypes
            of_layers = len(self.parts)
            self._others = groups[of_layers:]
            layers = iter([layer for group in groups[:of_layers] for layer in group])
            self._networks = [
                [next(layers) if type(part) is nn.Linear else ACTIVATIONS[type(part)][0] for part in parts]
                for parts in self.parts
            ]
        return self._networks, self._others


def hooks_of(module: Any) -> tuple[dict[int, Any], ...]:
    """Return where a module holds what else a call of it does."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def run(network: Network, rows: Array) -> Array:
    """Return the outputs of a network, (N, n_out), for inputs (N, n_in)."""
    for part in network:
        rows = linear(rows, part) if isinstance(part, Layer) else part(rows)
    return rows


def called(parts: list[Any], rows: th.Tensor) -> th.Tensor:
    """Return what known layers make of rows one after the other, without calling the modules."""
    for part in parts:
        activation = ACTIVATIONS.get(type(part))
        rows = F.linear(rows, part.weight, part.bias) if activation is None else activation[1](rows)
    return rows
