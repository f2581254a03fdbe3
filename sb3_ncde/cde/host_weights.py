"""The weights of linear layers as NumPy arrays."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_ncde.acting.description import Weights
from sb3_ncde.acting.networks import Layer
from sb3_ncde.cde.increment_scale import IncrementScale
from sb3_ncde.cde.vector_field import VectorField
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
        self._names = [
            (layer, name) for layer in layers for name in ("weight", "bias") if getattr(layer, name) is not None
        ]
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

    @property
    def dtypes(self) -> set[np.dtype[Any]]:
        """Those of the arrays."""
        return {array.dtype for array in self._arrays}

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


class EncoderOnHost:
    """The weights of an encoder as a step in NumPy takes them.

    :param control: the projection of the features, or None
    :param initial: linear layers with ReLU between them
    :param field: the vector field
    :param read_out: from z to the features for the heads, or None
    :param summary: the projection of the summary, or None
    """

    def __init__(
        self,
        control: nn.Linear | None,
        initial: nn.Sequential,
        field: VectorField,
        read_out: nn.Linear | None,
        summary: nn.Linear | None,
    ) -> None:
        groups: list[list[nn.Linear]] = [
            [layer for layer in group if isinstance(layer, nn.Linear)]
            for group in ([control], initial, field.layers, [field.drive_layer], [read_out], [summary])
        ]
        self._host = HostWeights(groups)
        self._weights: Weights | None = None

    def weights(self, scale: IncrementScale, summary_scale: IncrementScale | None) -> tuple[Weights, bytes]:
        """Return the weights and scales as arrays, and their numbers."""
        scales = [scale.scale] if summary_scale is None else [scale.scale, summary_scale.scale]
        if self._host.renewed(*scales) or self._weights is None:
            control, initial, field, drive, read_out, summary, *arrays = self._host.arrays()
            # What the drive adds to the first layer of the field has that layer's bias in it.
            drive = tuple(Layer(layer.weight, field[0].bias) for layer in drive)
            one = [group[0] if group else None for group in (control, drive, read_out, summary)]
            self._weights = Weights(
                control=one[0],
                initial=initial,
                field=field,
                drive=one[1],
                read_out=one[2],
                scale=arrays[0],
                summary=one[3],
                summary_scale=arrays[1] if summary_scale is not None else None,
            )
        return self._weights, self._host.numbers()
