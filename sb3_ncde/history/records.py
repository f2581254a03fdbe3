"""Stored observations: each once, in the types of their space, apart from the histories that they are in."""

from typing import Any

import numpy as np

from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.window_rule import Array


class Records:
    """Observations with their times, in the types of their space.

    :param shape: of the places
    :param space: of the histories
    """

    def __init__(self, shape: tuple[int, ...], space: HistorySpace) -> None:
        layout = space.layout
        self._layout = layout
        self.width = layout.slot_size + int(layout.timestamps)
        self._columns = [part.columns for part in space.flattening.parts]
        types = [part.dtype for part in space.flattening.parts]
        self._columns.append(slice(layout.features_dim, self.width))  # counts, summary, elapsed time, timestamp
        types.append(np.float32)
        widths = [columns.stop - columns.start for columns in self._columns]
        self._arrays = [np.zeros((*shape, width), dtype) for width, dtype in zip(widths, types, strict=True)]

    @property
    def rows(self) -> int:
        """Places of the first dimension."""
        return len(self._arrays[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all places."""
        return sum(array.nbytes for array in self._arrays)

    def double(self) -> None:
        """Make as many places again behind those that there are."""
        self._arrays = [np.concatenate((array, np.zeros_like(array))) for array in self._arrays]

    def of(self, packed: Array) -> Array:
        """Return the newest observations of histories, (N, width): slot, and a timestamp where there is one."""
        newest = packed[:, self._layout.newest]
        return np.concatenate((newest, packed[:, 1:2]), axis=1) if self._layout.timestamps else newest.copy()

    def put(self, place: Any, records: Array) -> None:
        """Store records, (..., width)."""
        for columns, array in zip(self._columns, self._arrays, strict=True):
            array[place] = records[..., columns]

    def get(self, place: Any) -> Array:
        """Return the records of some places, (..., width), as float32."""
        parts = [array[place] for array in self._arrays]
        return np.concatenate(parts, axis=-1, dtype=np.float32)
