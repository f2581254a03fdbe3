"""From raw observations to what networks see of them: normalised, one-hot, pixels from 0 to 1, and their time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sb3_ncde.deploy.networks import run

SINGLE = "observation"
"""Name of an observation that is no Dict."""


class Input(NamedTuple):
    """A part of an observation as the environment, or the robot, gives it.

    :param name: its key in a Dict, or :data:`SINGLE`
    :param kind: "box", "discrete" or "multi_discrete"
    :param shape: of one observation; () of "discrete"
    :param dtype: of its numbers
    :param options: of each choice of "discrete" and "multi_discrete"
    :param starts: the first option of each
    :param channels_last: whether it is an image whose channels are to be moved to the front
    :param divisor: of pixels, 255, and else 1
    :param mean: of normalisation, None where there is none
    :param deviation: of normalisation, the root of the variance
    :param clip: bound of what is normalised
    :param skipped: columns that are not normalised
    """

    name: str
    kind: str
    shape: list[int]
    dtype: str
    options: list[int]
    starts: list[int]
    channels_last: bool
    divisor: float
    mean: Any = None
    deviation: Any = None
    clip: float = 0.0
    skipped: Sequence[int] = ()

    def shown(self, xp: Any, values: Any) -> Any:
        """Return values of N observations, (N, *shape), as networks see them, (N, ...)."""
        if self.kind in ("discrete", "multi_discrete"):
            choices = xp.reshape(values, (-1, len(self.options))).astype(xp.int64)
            hot = [
                (choices[:, place : place + 1] == xp.arange(start, start + n)).astype(xp.float32)
                for place, (n, start) in enumerate(zip(self.options, self.starts, strict=True))
            ]
            return xp.concat(hot, axis=1)
        if self.mean is not None:
            raw = values.astype(xp.float64)
            normalized = (raw - xp.asarray(self.mean)) / xp.asarray(self.deviation)
            normalized = xp.clip(normalized, -self.clip, self.clip)
            if self.skipped:
                columns = [place in self.skipped for place in range(self.shape[-1])]
                normalized = xp.where(xp.asarray(columns), raw, normalized)
            values = normalized
        values = values.astype(xp.float32)
        if self.channels_last:
            values = xp.transpose(values, (0, 3, 1, 2))
        if self.divisor != 1:
            values = values / self.divisor
        return values if len(self.shape) else xp.reshape(values, (-1, 1))


class Clock(NamedTuple):
    """Where the time of an observation stands.

    :param key: of a Dict, column of a vector, or None: nowhere
    :param kind: "elapsed" or "timestamp"
    :param unit: the nominal time between two observations
    """

    key: str | int | None
    kind: str
    unit: float

    @property
    def input(self) -> str | None:
        """Name of the time among what an agent is given beside the observation; None: it is a column of that."""
        return self.kind if self.key is None or isinstance(self.key, str) else None


def features_of(
    xp: Any,
    inputs: Sequence[Input],
    networks: Sequence[Mapping[str, Any]],
    clock: Clock,
    observation: Mapping[str, Any],
) -> tuple[Any, Any | None]:
    """Return the features, (N, D), of N raw observations, and their time, (N,), where it is a column of them.

    :param inputs: that features are made of
    :param networks: the network of each, in the order of the features
    :param observation: arrays (N, *shape) by name
    """
    shown = {part.name: part.shown(xp, observation[part.name]) for part in inputs}
    time = None
    if isinstance(clock.key, int):
        rows, column = shown[SINGLE], clock.key
        time = rows[:, column]
        shown[SINGLE] = xp.concat([rows[:, :column], rows[:, column + 1 :]], axis=1)
    made = [run(xp, network["layers"], shown[network["name"]]) for network in networks]
    return made[0] if len(made) == 1 else xp.concat(made, axis=1), time
