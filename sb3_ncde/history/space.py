"""The space of packed histories, which says what they are histories of."""

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from sb3_ncde.history.arguments import HistoryArguments, check_traces
from sb3_ncde.history.flattening import Flattening


class HistorySpace(spaces.Box):
    """A Box of packed histories (P,), laid out as :class:`sb3_ncde.history.layout.Layout` says.

    It is saved with an agent, and so says to whoever loads it what its observations are.

    :param observed: space of one observation
    :param arguments: what is remembered
    :raises ValueError: for a time that the observation does not have, or images that may be missing
    :raises TypeError: see :class:`sb3_ncde.history.flattening.Flattening`
    """

    def __init__(self, observed: spaces.Space[Any], arguments: HistoryArguments) -> None:
        self.observed = observed
        self.arguments = arguments
        self.flattening = Flattening(observed, arguments.time_key)
        if arguments.missing_values and self.flattening.images:
            raise ValueError(
                "missing_values=True with images: a pixel cannot be NaN. Give images and what may be missing to "
                "NCDEPolicy's features extractor, or leave missing_values out."
            )
        check_traces(arguments.time_constants, self.flattening.images)
        self.layout = arguments.make_history(self.flattening.features_dim).layout
        super().__init__(-np.inf, np.inf, (self.layout.packed_size,), np.float32)

    def __eq__(self, other: object) -> bool:
        """Return whether the other space is one of histories of the same."""
        if not isinstance(other, HistorySpace):
            return False
        return self.observed == other.observed and self._meant() == other._meant()

    def _meant(self) -> HistoryArguments:
        """Return the arguments with the default hop written out, and the time's column counted from 0."""
        return replace(self.arguments, hop_length=self.arguments.hop, time_key=self.flattening.time_key)

    def __repr__(self) -> str:
        """Name what the histories are of."""
        return f"HistorySpace({self.observed}, {self.arguments})"


@flatdim.register(HistorySpace)
def _refuse_to_flatten(space: HistorySpace) -> int:
    """Raise TypeError where SB3 sizes its FlattenExtractor: a network would train on counts and times as they are."""
    raise TypeError(
        "A policy was given packed histories, but nothing that reads them: pass policy_kwargs=dict("
        "features_extractor_class=sb3_ncde.NCDEExtractor), or use sb3_ncde.with_memory. For the same observations "
        "without the equation, use SB3's VecFrameStack in place of VecHistory."
    )
