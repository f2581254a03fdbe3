"""Where everything stands in a packed history."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sb3_ncde.history.traces import Traces
from sb3_ncde.history.window_rule import WindowRule


@dataclass(frozen=True)
class Layout:
    """A packed history: the count of observations, the time of the newest, then H slots, the newest in the last.

    A slot holds the features of an observation, with missing values how often each has been observed, with traces the
    summary of the episode up to it, and the nominal steps since the observation before. Slots that are not in use are
    zero.

    :param rule: H and S
    :param features_dim: D, size of one observation
    :param unit: length of a nominal step, in the unit of the observed time
    :param timestamps: whether the observed time is a timestamp; otherwise it is the time since the observation before
    :param missing_values: whether features may be NaN
    :param traces: of the summary, or None
    """

    rule: WindowRule
    features_dim: int
    unit: float
    timestamps: bool
    missing_values: bool
    traces: Traces | None = None

    @cached_property
    def slot_size(self) -> int:
        """Numbers of an observation: features, with missing values their counts, summary, elapsed time."""
        return self.observed_size + (0 if self.traces is None else self.traces.size) + 1

    @cached_property
    def observed_size(self) -> int:
        """Numbers of what is observed: features, and with missing values their counts."""
        return self.features_dim * (2 if self.missing_values else 1)

    def counts(self, slots: Any) -> Any:
        """Return how often each feature has been observed, (..., D), from slots, (..., slot_size), or None.

        The slots may be arrays or tensors, and may lack what stands after the counts.
        """
        return slots[..., self.features_dim : self.observed_size] if self.missing_values else None

    @cached_property
    def packed_size(self) -> int:
        """P, numbers of a history: count, time, H slots."""
        return 2 + self.rule.history_length * self.slot_size

    @cached_property
    def newest(self) -> slice:
        """Where the newest observation stands."""
        return slice(self.packed_size - self.slot_size, self.packed_size)
