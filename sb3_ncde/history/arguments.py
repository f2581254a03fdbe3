"""The arguments that say what is remembered: how many observations, and where their time is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sb3_ncde.history.observation_history import ObservationHistory
from sb3_ncde.history.time_source import TIME_KINDS
from sb3_ncde.history.traces import DEFAULT_TIME_CONSTANTS
from sb3_ncde.plain_values import check_choice, check_integer, check_positive, check_type


@dataclass(frozen=True, kw_only=True)
class HistoryArguments:
    """What is remembered of an episode; plain YAML values, checked on construction.

    :param history_length: H, observations in a full window
    :param hop_length: S, observations that a full window drops at once. null: half of ``history_length``
    :param dt: the time that usually passes from one observation to the next. With ``time_key`` it is the unit of time;
        without, it is what each step adds to the time channel
    :param time_key: key of a Dict observation, or column of a Box observation, that holds the time. null: observations
        come at a fixed rate
    :param time_kind: ``elapsed``: the time since the previous observation. ``timestamp``: the time within the episode
    :param missing_values: whether NaN means that a value was not observed. The last value is then held, and how often a
        value has been observed is a channel of the path
    :param traces: a summary of the whole episode beside the window: of each feature the first value, the mean and the
        sum of all, and averages with these time constants, in which what is older counts less. A time constant is in
        units of ``dt``; without ``time_key``, in observations. true: 4, 16, 64 and 256. []: no such averages. null: no
        summary. For vectors, not for features that are learned
    :raises TypeError: for a value of another type
    :raises ValueError: for a value out of range
    """

    history_length: int = 8
    hop_length: int | None = None
    dt: float = 1.0
    time_key: str | int | None = None
    time_kind: str = "elapsed"
    missing_values: bool = False
    traces: Sequence[float] | bool | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        check_integer("history_length", self.history_length, minimum=1)
        check_integer("hop_length", self.hop_length, minimum=1, optional=True)
        check_type("missing_values", self.missing_values, bool, "true or false")
        check_type("time_key", self.time_key, str | int | None, "a key of a Dict or a column of a Box observation")
        check_choice("time_kind", self.time_kind, TIME_KINDS)
        check_positive("dt", self.dt, "the time between two observations")
        self._check_traces()
        if self.hop > self.history_length:
            raise ValueError(
                f"hop_length={self.hop} is more than history_length={self.history_length}: "
                "a full window of history_length observations cannot drop hop_length of them."
            )

    def _check_traces(self) -> None:
        traces: Any = self.traces
        if isinstance(traces, bool) or traces is None:
            traces = DEFAULT_TIME_CONSTANTS if traces else None
        elif isinstance(traces, str | bytes) or not isinstance(traces, Sequence):
            raise TypeError(f"traces={traces!r}: expected a list of time constants, true or null.")
        else:
            for number, constant in enumerate(traces):
                check_positive(f"traces[{number}]", constant, "a time constant")
            traces = tuple(map(float, traces))
        # What is saved says which they are, whatever true stands for by then.
        object.__setattr__(self, "traces", traces)

    @property
    def time_constants(self) -> tuple[float, ...] | None:
        """Of the traces, or None where there are none; perhaps none beside first observation, mean and count."""
        return self.traces  # type: ignore[return-value]  # as __post_init__ has made it

    @property
    def hop(self) -> int:
        """``hop_length``, or half of ``history_length`` where it is None."""
        return max(1, self.history_length // 2) if self.hop_length is None else self.hop_length

    def make_history(self, features_dim: int, least_size: int = 0) -> ObservationHistory:
        """Return the layout of the state for observations of D = ``features_dim`` features."""
        observed = self.time_key is not None
        return ObservationHistory(
            self.history_length,
            self.hop,
            features_dim,
            unit=self.dt if observed else 1.0,
            timestamps=observed and self.time_kind == "timestamp",
            missing_values=self.missing_values,
            least_size=least_size,
            time_constants=self.time_constants,
        )


def check_traces(time_constants: tuple[float, ...] | None, learned: bool) -> None:
    """Raise ValueError for traces of what a features extractor learns to make of observations.

    :param time_constants: of the traces, or None
    :param learned: whether the extractor has weights
    """
    if time_constants is not None and learned:
        raise ValueError(
            "traces with a features extractor that learns, such as a CNN: a summary of what it made of observations "
            "would be of weights that have changed since. Leave traces out, or give the agent vectors (a frozen "
            "encoder as a wrapper of the environment)."
        )
