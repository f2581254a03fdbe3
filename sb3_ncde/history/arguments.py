"""The arguments that say what is remembered: how many observations, and where their time is."""

from dataclasses import dataclass

from sb3_ncde.history.observation_history import ObservationHistory
from sb3_ncde.history.time_source import TIME_KINDS
from sb3_ncde.plain_values import check_choice, check_integer, check_positive, check_type


@dataclass(frozen=True, kw_only=True)
class HistoryArguments:
    """What is remembered of an episode; plain YAML values, checked on construction.

    :param history_length: observations H in a full window
    :param hop_length: observations S that a full window drops at once; None: half of ``history_length``
    :param dt: the nominal time between two observations
    :param time_key: key of a Dict observation, or column of a Box observation, that holds the time; None: none does
    :param time_kind: a name in :data:`sb3_ncde.history.time_source.TIME_KINDS`
    :param missing_values: whether NaN in an observation means that the value was not observed
    :raises TypeError: for a value of another type
    :raises ValueError: for a value out of range
    """

    history_length: int = 8
    hop_length: int | None = None
    dt: float = 1.0
    time_key: str | int | None = None
    time_kind: str = "elapsed"
    missing_values: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        check_integer("history_length", self.history_length, minimum=1)
        check_integer("hop_length", self.hop_length, minimum=1, optional=True)
        check_type("missing_values", self.missing_values, bool, "true or false")
        check_type("time_key", self.time_key, str | int | None, "a key of a Dict or a column of a Box observation")
        check_choice("time_kind", self.time_kind, TIME_KINDS)
        check_positive("dt", self.dt, "the time between two observations")
        if self.hop > self.history_length:
            raise ValueError(
                f"hop_length={self.hop} is more than history_length={self.history_length}: "
                "a full window of history_length observations cannot drop hop_length of them."
            )

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
        )
