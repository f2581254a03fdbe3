"""What an agent is given: raw observations and their time, as arrays of N environments, or refused with a reason."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_ncde.deploy.observation import SINGLE, Clock, Input
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.window_rule import Array

LARGEST = 1e18
"""Above it, the square of a value overflows float32."""
COARSEST = 0.5
"""Spacing of float32 at a timestamp, in nominal steps, from which on steps cannot be told apart."""


class Given(NamedTuple):
    """An observation of each of N environments.

    :param values: raw, (N, *shape), by name
    :param time: that was given beside or among them, (N,); None: there was none, or it is a column of the observation
    :param alone: whether it was one observation, and not a batch of one
    """

    values: dict[str, Array]
    time: Array | None
    alone: bool

    @property
    def n_envs(self) -> int:
        """N."""
        return len(next(iter(self.values.values())))


class Intake:
    """Takes in observations of the shapes and values that an agent knows.

    :param inputs: parts of an observation, the mask among them
    :param clock: where its time stands
    :param is_dict: whether it is a Dict
    :param ignored: keys that may be there and are not read: only the critic saw them
    """

    def __init__(self, inputs: Sequence[Input], clock: Clock, is_dict: bool, ignored: Sequence[str]) -> None:
        self._inputs, self._clock, self._is_dict = inputs, clock, is_dict
        self._time_key = clock.key if isinstance(clock.key, str) else None
        self._needed = {part.name for part in inputs}
        self._known = self._needed | set(ignored) | ({self._time_key} if self._time_key else set())

    def take(self, observation: Any, elapsed: Any) -> Given:
        """Return an observation as arrays.

        :param observation: of one environment or of N
        :param elapsed: time since the one before, a number or (N,), or None
        :raises ValueError: for other keys, shapes or options than in the training, or a time that has no place
        """
        named = self._named(observation)
        values = {part.name: _rows(part, np.asarray(named[part.name])) for part in self._inputs}
        alone = {part.name: np.ndim(named[part.name]) == len(part.shape) for part in self._inputs}
        sizes = {name: len(rows) for name, rows in values.items()}
        n_envs = next(iter(sizes.values()))
        if len({*sizes.values()}) > 1 or len({*alone.values()}) > 1 or n_envs == 0:
            raise ValueError(
                f"The parts of the observation are of different numbers of environments, or none: {sizes}."
            )
        if elapsed is not None and self._clock.input != "elapsed":
            raise ValueError(
                f"elapsed={elapsed!r}, but this agent reads the time in the observation, as {self._clock.key!r}: write "
                "it there."
            )
        time = elapsed if elapsed is not None or self._time_key is None else named.get(self._time_key)
        return Given(values, None if time is None else _times(time, n_envs), all(alone.values()))

    def _named(self, observation: Any) -> Mapping[str, Any]:
        if not self._is_dict:
            if isinstance(observation, Mapping | tuple):
                raise ValueError(f"Expected an array of shape {tuple(self._inputs[0].shape)}, but got {observation!r}.")
            return {SINGLE: observation}
        if not isinstance(observation, Mapping) or not self._needed <= set(observation) <= self._known:
            found = sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
            raise ValueError(
                f"Expected an observation with the keys {sorted(self._needed)} ({sorted(self._known - self._needed)} "
                f"may be there as well), but got {found}."
            )
        return observation

    def check_finite(self, features: Array, missing_values: bool) -> None:
        """Raise ValueError for features, (N, D), that are not finite or too large.

        :param missing_values: whether NaN is allowed
        """
        allowed = np.abs(features) <= LARGEST
        if missing_values:
            allowed |= np.isnan(features)
        if not allowed.all():
            env, index = np.argwhere(~allowed)[0].tolist()
            raise ValueError(
                f"Environment {env} of {len(features)}: feature {index} of the observation is "
                f"{features[env, index]:g}. Observations must be finite and not above {LARGEST:g}; NaN is for agents "
                "that were trained with missing_values=True."
            )

    def checked_time(self, time: Array | None, last: Array, begins: npt.NDArray[np.bool_]) -> Array:
        """Return the time as the history takes it, (N,).

        :param time: as it was observed, (N,), or None
        :param last: time of the observation before, where times are timestamps, (N,)
        :param begins: whether an observation is the first of its episode, (N,)
        :raises ValueError: for no time where one is needed, one that is not finite, or runs backwards
        """
        clock = self._clock
        if time is None:
            if clock.key is None:
                return np.ones(len(begins), np.float32)
            if clock.kind == "timestamp" or not begins.all():
                raise ValueError(f"There is no time: pass elapsed, or {clock.key!r} in the observation.")
            return np.zeros(len(begins), np.float32)
        if clock.kind == "timestamp":
            since, coarse = time - last, np.spacing(np.abs(time)) > COARSEST * clock.unit
            wrong = ~np.isfinite(time) | coarse | ((since < 0) & ~begins)
        else:
            time = np.where(begins, np.float32(0), time)  # not read
            wrong = ~(time >= 0) | np.isinf(time)
        if wrong.any():
            env = int(wrong.argmax())
            before = f" after {last[env]:g}" if clock.kind == "timestamp" else ""
            raise ValueError(
                f"Environment {env} of {len(time)}: the time is {time[env]:g}{before}. It must be finite, cannot run "
                "backwards, and a timestamp must not be so large that float32 cannot tell steps of "
                f"{clock.unit:g} apart."
            )
        return time if clock.key is not None else time / np.float32(clock.unit)

    def check_mask(self, mask: Array, choices: Sequence[int]) -> None:
        """Raise ValueError for a mask, (N, options), that allows no option of a choice, or has other values than 0, 1.

        :param choices: options of each choice that an action makes
        """
        begins = np.cumsum([0, *choices[:-1]])
        if not (((mask == 0) | (mask == 1)).all() and np.add.reduceat(mask, begins, axis=1).all()):
            raise ValueError(
                f"The action mask is {mask.tolist()}: its values must be 0 or 1, with a 1 among the options of each "
                f"choice, which are {list(choices)}."
            )


def check_histories(histories: Array, layout: Layout) -> None:
    """Raise ValueError for a state, (N, P), that no agent with this layout can have had."""
    count = histories[:, 0]
    possible = (
        np.isfinite(histories).all(axis=1) & (count == np.rint(count)) & (count >= 0) & (count <= layout.rule.most)
    )
    if possible.all():
        length = layout.rule.history_length
        points = layout.rule.points(count.astype(np.int64))
        slots = histories[:, 2 : layout.packed_size].reshape(len(histories), length, layout.slot_size)
        unused = np.arange(length) < length - points[:, None]
        possible = ~(slots.any(axis=2) & unused).any(axis=1) & (slots[..., -1] >= 0).all(axis=1)
    if not possible.all():
        env = int(possible.argmin())
        raise ValueError(
            f"Environment {env} of {len(histories)}: no history of this agent is like this, with a count of "
            f"{count[env]:g}: the state is damaged, or that of an agent with another hop_length."
        )


def _rows(part: Input, values: npt.NDArray[Any]) -> Array:
    """Return values as rows, (N, *shape)."""
    shape = tuple(part.shape)
    if values.dtype.kind not in "biuf":  # None, as JSON has NaN, or something that is no number
        if any(not (value is None or isinstance(value, int | float | np.number)) for value in values.reshape(-1)):
            raise ValueError(
                f"{part.name!r} is {values.tolist()}: expected numbers, and NaN or None where one is missing."
            )
        values = values.astype(np.float64)
    if (values.shape != shape and values.shape[1:] != shape) or values.ndim > len(shape) + 1:
        raise ValueError(
            f"{part.name!r} has the shape {values.shape}, but expected {shape}, or (N, ...) of N environments."
        )
    if part.kind in ("discrete", "multi_discrete"):
        least, options = np.array(part.starts), np.array(part.options)
        choices = values.reshape(-1, len(options))
        if ((choices < least) | (choices >= least + options) | (choices != np.rint(choices))).any():
            raise ValueError(
                f"{part.name!r} is {values.tolist()}, but its options are {part.options}, from {part.starts}."
            )
    elif values.dtype.kind == "f" and np.isinf(values).any():
        raise ValueError(f"{part.name!r} has an infinite value: {values.tolist()}.")
    return values.reshape(-1, *shape)


def _times(time: Any, n_envs: int) -> Array:
    """Return a time for each of N environments, (N,)."""
    times = np.asarray(time, np.float32).reshape(-1)
    if len(times) not in (1, n_envs):
        raise ValueError(f"{len(times)} times for {n_envs} environments: pass one for each.")
    return np.broadcast_to(times, (n_envs,))
