"""One step of N environments in NumPy, without PyTorch: observations in, features for actor and critic out."""

from functools import cache, partial
from typing import NamedTuple

import numpy as np

from sb3_ncde.acting.description import Description, Weights
from sb3_ncde.acting.interpolation import CURVED, INTERPOLATIONS, Bend, Interval
from sb3_ncde.acting.networks import FEATURE_NORMS, linear, relu_mlp
from sb3_ncde.acting.observation_history import Histories, append, follows, unpack
from sb3_ncde.acting.path import Knots, advance
from sb3_ncde.acting.solver import field, integrate
from sb3_ncde.history.traces import CLIP
from sb3_ncde.history.window_rule import Array, Integers


class Solutions(NamedTuple):
    """The solutions of the L open windows of N environments at their newest observation, R = N * L.

    :param knots: of the path
    :param z: (R, Z)
    :param drive: what the path's values add to the first layer of the field, (R, units), or None
    :param bend: of the newest interval, where the curve over the next one depends on it
    """

    knots: Knots
    z: Array
    drive: Array | None
    bend: Bend | None


class Carried(NamedTuple):
    """What a step leaves to the next one.

    :param state_key: the numbers of the state after the step
    :param weights_key: the numbers of the weights
    """

    state_key: bytes
    weights_key: bytes
    histories: Histories
    solutions: Solutions


class Followed(NamedTuple):
    """What :meth:`Stepper.follow` leaves to its next call: ``solutions`` is None where nothing has gone on yet."""

    weights_key: bytes
    histories: Histories
    solutions: Solutions | None


class Stepper:
    """Encodes one step of N environments as :class:`sb3_ncde.cde.encoder.NeuralCDE` does.

    The solutions of the L open windows are carried along from the last call, so that a step is one interval of each.
    They are used only for exactly the histories and the weights that they were computed for, and are made anew from the
    history otherwise: the history remains the state, and nothing goes stale.

    :param description: of the encoder
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self._pieces = INTERPOLATIONS[description.interpolation]
        self._norm = FEATURE_NORMS[description.feature_norm]
        self._curved = description.interpolation in CURVED
        self._newest = description.layout.newest
        self._carried: Carried | None = None
        self._followed: Followed | None = None

    @np.errstate(all="ignore")  # numbers that overflow become infinite, as in PyTorch
    def step(
        self, features: Array, time: Array, state: tuple[Array, Array], starts: Array, weights: Weights, key: bytes
    ) -> tuple[Array, tuple[Array, Array]]:
        """Encode one step of N environments.

        :param features: of the observations, NaN where missing, (N, D)
        :param time: of them, as observed, (N,)
        :param state: the histories before them, two arrays (1, N, size)
        :param starts: whether an observation is the first of its episode, (N,)
        :param weights: of the encoder
        :param key: the numbers of all weights
        :return: features for the heads, (N, output_size), and the histories after this step
        """
        state_key = _key(state)
        carried = self._carried
        if carried is not None and carried.weights_key == key and carried.state_key == state_key:
            histories, solutions = carried.histories, carried.solutions
        else:
            histories = unpack(state, self.description.layout.rule)
            solutions = self._again(histories, starts, weights)
        histories = append(histories, features, time, starts, self.description.layout)
        newest = histories.packed[:, self._newest]
        solutions = self._continue(solutions, newest, histories.phase, weights)
        after = histories.state()
        self._carried = Carried(_key(after), key, histories, solutions)
        return self._read_out(solutions, newest, histories.phase, weights), after

    def follow(self, packed: Array, weights: Weights, key: bytes) -> Array | None:
        """Encode the newest observations of histories that hold them already.

        The solutions are carried along from the call before where the histories go on from its; where those had not
        gone on from the ones before them, they are made anew. Where all episodes begin there is nothing to go on from,
        so that an episode is the same whatever was before it. Rows that are no step of the same environments, as those
        of a minibatch, are for one solve of whole windows.

        :param packed: of N environments, (N, P)
        :param weights: of the encoder
        :param key: the numbers of all weights
        :return: features for the heads, (N, output_size), or None where the histories do not go on
        """
        layout, followed = self.description.layout, self._followed
        seen = packed[:, 0].astype(np.int64)
        histories = Histories(packed, layout.rule.phase(seen), empty=False, most=0)
        self._followed = Followed(key, histories, None)
        starts = seen == 1
        if starts.all():
            followed = self._followed
        if followed is None or followed.histories.packed.shape != packed.shape:
            return None
        if not (starts | follows(followed.histories.packed, packed, layout)).all():
            return None
        newest = packed[:, layout.newest]
        with np.errstate(all="ignore"):  # numbers that overflow become infinite, as in PyTorch
            solutions = followed.solutions
            if solutions is None or followed.weights_key != key:
                solutions = self._again(followed.histories, starts, weights)
            solutions = self._continue(solutions, newest, histories.phase, weights)
            self._followed = Followed(key, histories, solutions)
            return self._read_out(solutions, newest, histories.phase, weights)

    def _again(self, histories: Histories, starts: Array, weights: Weights) -> Solutions:
        """Return the solutions at the newest observations of histories, made anew from all that they hold."""
        description = self.description
        layout, packed = description.layout, histories.packed
        rule, slot = layout.rule, layout.slot_size
        n_envs, length = len(packed), rule.history_length
        slots = packed[:, 2 : layout.packed_size].reshape(n_envs, length, slot)
        points = np.where(starts, 0, rule.phases.points[histories.phase])
        rows, dtype = n_envs * rule.n_open, packed.dtype
        first = np.zeros((n_envs, layout.observed_size), dtype)
        controls = np.zeros((n_envs, description.control_dim), dtype)
        values = np.zeros((n_envs, rule.n_open, description.values_dim), dtype)
        drive = None if weights.drive is None else np.zeros((rows, weights.drive.weight.shape[1]), dtype)
        bend = Bend(np.zeros((rows, description.channels), dtype), drive, np.zeros((rows, 1), dtype))
        z = np.zeros((rows, weights.initial[-1].weight.shape[1]), dtype)
        solutions = Solutions(Knots(first, controls, values), z, drive, bend if self._curved else None)
        seen = packed[:, 0].astype(np.int64)
        for place in range(length - points.max(), length):
            # What stands before a history's beginning is overwritten where its windows begin.
            phase = rule.phase(np.maximum(seen - (length - 1 - place), 0))
            solutions = self._continue(solutions, slots[:, place], phase, weights)
        return solutions

    def _continue(self, solutions: Solutions, newest: Array, phase: Integers, weights: Weights) -> Solutions:
        """Carry the solutions over the newest interval, and begin the windows that begin.

        :param newest: slots of the newest observations, (N, slot_size)
        :param phase: of the step, (N,)
        """
        description, layout = self.description, self.description.layout
        phases = layout.rule.phases
        observed, elapsed = newest[:, : layout.observed_size], newest[:, -1:]
        knots, increments = advance(solutions.knots, observed, elapsed, description, weights)
        z, drive = solutions.z, None
        values = knots.values.reshape(len(z), -1)  # (R, V), a view
        envs = phases.begins[phase].nonzero()[0]
        if envs.size:
            begun = phases.beginning[phase[envs]] + _rows(len(phase), layout.rule.n_open)[envs]
            values[begun, description.control_dim :] = 0.0
        if weights.drive is not None:
            drive = linear(values, weights.drive)
        interval = Interval(increments.reshape(len(z), -1), solutions.drive, drive, elapsed, solutions.bend)
        product = partial(field, weights=weights)
        z = integrate(z, self._pieces(interval), description.tableau, description.solver_steps, product)
        bend = interval.next_bend()
        if envs.size:
            summary = None if layout.traces is None else self._summary(newest[envs], weights)
            z[begun] = self._begin(knots.controls[envs], newest[envs], summary, weights)
            if bend is not None:
                bend.taken[begun] = 0.0
        return Solutions(knots, z, drive, bend)

    def _begin(self, controls: Array, newest: Array, summary: Array | None, weights: Weights) -> Array:
        """Return z of windows that begin at observations, (rows, Z).

        :param controls: of the observations, (rows, K)
        :param newest: their slots, (rows, slot_size)
        :param summary: what is made of these, (rows, numbers), or None
        """
        layout, start = self.description.layout, controls
        if layout.missing_values:  # a value that is held and 0 is not one that has never been observed
            counts = newest[:, layout.features_dim : layout.observed_size]
            start = np.concatenate((start, np.minimum(counts, 1.0)), axis=1)
        if summary is not None:
            start = np.concatenate((start, summary), axis=1)
        return relu_mlp(start, weights.initial)

    def _features(self, z: Array, weights: Weights) -> Array:
        """Return the features that are read out of z, (N, Z)."""
        return self._norm(z if weights.read_out is None else linear(z, weights.read_out))

    def _read_out(self, solutions: Solutions, newest: Array, phase: Integers, weights: Weights) -> Array:
        """Return what the heads see, (N, output_size)."""
        description, layout = self.description, self.description.layout
        serving = layout.rule.phases.serving[phase] + _rows(len(phase), layout.rule.n_open)
        z = self._features(solutions.z.take(serving, axis=0), weights)
        if not description.skip:
            return z
        values = solutions.knots.values.reshape(len(solutions.z), -1).take(serving, axis=0)
        held, elapsed = newest[:, : layout.features_dim], newest[:, -1:] * description.time_scale
        seen = [z, held, elapsed, values[:, description.control_dim :]]
        if layout.traces is not None:
            summary = self._summary(newest, weights)
            seen.append(summary)
            if description.begins_anew:
                seen.append(self._features(self._begin(solutions.knots.controls, newest, summary, weights), weights))
        return np.concatenate(seen, axis=1)

    def _summary(self, newest: Array, weights: Weights) -> Array:
        """Return what networks are given of the episode up to observations, (rows, numbers), from their slots."""
        layout = self.description.layout
        assert layout.traces is not None
        values = layout.traces.values(newest[:, layout.observed_size : -1], layout.counts(newest))
        values = np.clip(values * weights.summary_scale, -CLIP, CLIP)
        return values if weights.summary is None else linear(values, weights.summary)


@cache
def _rows(n_envs: int, n_open: int) -> Integers:
    """Return the first row of each environment, (N,)."""
    return n_open * np.arange(n_envs)


def _key(state: tuple[Array, Array]) -> bytes:
    return state[0].tobytes() + state[1].tobytes()
