"""What networks are given of the whole episode, where there are traces."""

import torch as th
from torch import nn

from sb3_ncde.cde.increment_scale import AT_REST_IN_SUMMARIES, IncrementScale
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import CLIP, Traces


class Summary(nn.Module):
    """Makes numbers of order 1 of the summaries in a history (:mod:`sb3_ncde.history.traces`).

    :param layout: of the histories
    :param traces: of the layout
    :param width: numbers to project a summary to; None: it is given as it is
    """

    def __init__(self, layout: Layout, traces: Traces, width: int | None) -> None:
        super().__init__()
        self.layout = layout
        self.traces = traces
        self.scale = IncrementScale(traces.values_size, AT_REST_IN_SUMMARIES)
        self.projection = None if width is None else nn.Linear(traces.values_size, width)
        self.size = traces.values_size if width is None else width

    def forward(self, slots: th.Tensor) -> th.Tensor:
        """Return what networks are given of the episode up to observations, (rows, size).

        :param slots: of the observations, but for elapsed times, (rows, slot_size - 1)
        """
        layout, rows = self.layout, slots.numpy(force=True)
        numbers = self.traces.values(rows[:, layout.observed_size :], layout.counts(rows))
        values = (th.from_numpy(numbers).to(slots.device) * self.scale.scale).clamp(-CLIP, CLIP)
        return values if self.projection is None else self.projection(values)
