"""What a step in NumPy has to know of an encoder: its sizes, its choices and its weights."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from sb3_ncde.acting.networks import Layer
from sb3_ncde.acting.tableaus import Tableau
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.window_rule import Array


def begins_anew(layout: Layout, skip: bool) -> bool:
    """Return whether the heads also see what z would be if a window began at the newest observation.

    With traces, the network that makes z also makes features of the summary of the episode. At a window's oldest
    observation these are late by as many steps as the window has. A window of one observation begins at the newest.
    """
    return skip and layout.traces is not None and layout.rule.history_length > 1


@dataclass(frozen=True)
class Description:
    """The sizes and choices of an encoder. The letters are those of :class:`sb3_ncde.cde.encoder.NeuralCDE`.

    :param layout: of the histories
    :param control_dim: K, controls of the path
    :param time_scale: what a nominal step counts in the channel of time
    :param time_channel: whether time is a channel of the path
    :param rates: whether the rates of the controls are
    :param interpolation: a name in :data:`sb3_ncde.acting.interpolation.INTERPOLATIONS`
    :param tableau: of the solver
    :param solver_steps: per interval
    :param feature_norm: a name in :data:`sb3_ncde.acting.networks.FEATURE_NORMS`
    :param skip: whether the newest features, rates, elapsed time and summary go to the heads beside z
    """

    layout: Layout
    control_dim: int
    time_scale: float
    time_channel: bool
    rates: bool
    interpolation: str
    tableau: Tableau
    solver_steps: int
    feature_norm: str
    skip: bool

    @cached_property
    def begins_anew(self) -> bool:
        """Whether the heads also see what z would be if a window began at the newest observation."""
        return begins_anew(self.layout, self.skip)

    @cached_property
    def ages_dim(self) -> int:
        """Ages among the values of the path, and counts among its channels."""
        return self.layout.features_dim if self.layout.missing_values else 0

    @cached_property
    def values_dim(self) -> int:
        """V, values of the path: controls, rates, ages."""
        return self.control_dim * (2 if self.rates else 1) + self.ages_dim

    @cached_property
    def channels(self) -> int:
        """C, channels of the path: time, controls, rates, counts."""
        return int(self.time_channel) + self.values_dim


class Weights(NamedTuple):
    """The weights of an encoder.

    :param control: the projection of the features, or None
    :param initial: the layers of the network that makes z of the observation that a window begins at
    :param field: the layers of the vector field; with ``drive``, the bias of the first is added there
    :param drive: from the path's values to the first layer of the field, or None: the field sees z alone
    :param read_out: from z to the features for the heads, or None: z itself
    :param scale: of the changes and rates of the controls, (V,)
    :param summary: the projection of the summary, or None
    :param summary_scale: of the summary's numbers, or None where there are no traces
    """

    control: Layer | None
    initial: tuple[Layer, ...]
    field: tuple[Layer, ...]
    drive: Layer | None
    read_out: Layer | None
    scale: Array
    summary: Layer | None
    summary_scale: Array | None
