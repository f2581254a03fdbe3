"""The weights of linear layers as NumPy arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_ncde.acting.networks import Layer
from sb3_ncde.history.window_rule import Array


def on_host(tensor: th.Tensor) -> Array:
    """Return the numbers of a tensor, which share its memory where it is on the host."""
    return tensor.numpy(force=True)


class HostWeights:
    """The weights of linear layers as arrays that share the memory of the parameters, so that they are never stale.

    Where they cannot share it (a GPU), they are copied at each call of :meth:`renewed`.

    :param groups: of layers
    """

    def __init__(self, groups: Sequence[Sequence[nn.Linear]]) -> None:
        self._groups = groups
        layers = [layer for group in groups for layer in group]
        self._names = [(layer, name) for layer in layers for name, own in layer.named_parameters() if own is not None]
        # By the modules' dictionaries a look takes a fifth of the time of one by their attributes.
        self._places = [(layer._parameters, name) for layer, name in self._names]
        self._pointers: list[int] = []
        self._arrays: list[Array] = []

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied or pickled: the arrays are not, as the copy has parameters of its own."""
        return self.__dict__ | {"_pointers": [], "_arrays": []}

    def renewed(self, *others: th.Tensor) -> bool:
        """Look whether the parameters are where they were, and return False if they are.

        :param others: tensors beside the parameters
        """
        try:
            tensors: list[Any] = [parameters[name] for parameters, name in self._places]
        except KeyError:  # of a layer that makes its weight of others (torch.nn.utils.parametrize)
            tensors = [getattr(layer, name) for layer, name in self._names]
        tensors.extend(others)
        pointers = [tensor.data_ptr() for tensor in tensors]
        if pointers == self._pointers:
            return False
        self._arrays = [np.ascontiguousarray(on_host(tensor)) for tensor in tensors]
        shared = all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors)
        self._pointers = pointers if shared else []
        return True

    def numbers(self) -> bytes:
        """Return all numbers, one after the other."""
        return b"".join(self._arrays)  # type: ignore[arg-type]  # arrays are buffers

    def arrays(self) -> Iterator[Any]:
        """Yield the layers, group by group, and then the other tensors."""
        arrays = iter(self._arrays)
        for group in self._groups:
            yield tuple(
                Layer(next(arrays).T, next(arrays) if layer.bias is not None else np.zeros(1)) for layer in group
            )
        yield from arrays
