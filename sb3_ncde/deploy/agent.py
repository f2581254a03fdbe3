"""Agent: a trained agent in NumPy alone, from one file, for robots."""

import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_ncde.acting.stepper import Stepper
from sb3_ncde.deploy.contents import Tree, metadata_of, read
from sb3_ncde.deploy.encoding import description_of, weights_of
from sb3_ncde.deploy.heads import Action, Heads
from sb3_ncde.deploy.intake import Intake, check_histories
from sb3_ncde.deploy.numpy_arrays import NUMPY
from sb3_ncde.deploy.observation import Clock, Input, features_of
from sb3_ncde.history.clock_watch import ClockWatch
from sb3_ncde.history.window_rule import Array


class Agent:
    """A trained agent that acts in NumPy: raw observations in, actions of the environment out.

    It is made of a file that :func:`sb3_ncde.deploy.export_numpy` has written, and needs neither PyTorch nor
    Stable-Baselines3 nor Gymnasium::

        agent = Agent.load("agent.npz")
        action = agent.act(observation, elapsed=0.013)

    Its state is data: the newest observations of the running episode. Its actions are deterministic.

    :param tree: of the file
    """

    def __init__(self, tree: Tree) -> None:
        self.metadata = metadata_of(tree)
        self._inputs = [Input(**part) for part in tree["inputs"]]
        self._mask = None if tree["mask"] is None else Input(**tree["mask"])
        self._networks = tree["features"]
        self._clock = Clock(**tree["clock"])
        read = self._inputs if self._mask is None else [*self._inputs, self._mask]
        self._intake = Intake(read, self._clock, tree["is_dict"], tree["ignored"])
        self._heads, self._action = Heads(**tree["heads"]), Action(**tree["action"])
        description = description_of(tree["encoder"])
        self._layout = description.layout
        self._stepper, self._weights = Stepper(description), weights_of(tree["encoder"])
        self._judge, judging = None, tree["value_encoder"]
        if judging is not None:
            self._judge, self._judging = Stepper(description_of(judging)), weights_of(judging)
        self._state: tuple[Array, Array] | None = None
        self._starts = np.zeros(0, bool)
        self._clock_watch = ClockWatch(self._clock.kind == "timestamp")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Agent":
        """Load an agent.

        :param path: of the file
        :raises OtherFormatError: for a file of another kind or version, or one that has changed since it was written
        """
        return cls(read(Path(path)))

    def act(self, observation: Any, elapsed: Any = None) -> Any:
        """Return the action for an observation, or for those of N environments, and remember the observation.

        :param observation: raw, as the environment of the training gave it: one, of the shape of its space, or of N
            environments, (N, ...); of a Dict, a mapping with its keys
        :param elapsed: the time since the observation before, a number or (N,), in the unit of the training. It stands
            for the time in the observation, which then may lack it; where the training had no times, None is its
            nominal step. Of the first observation of an episode it is not read
        :return: one action or N, of the action space
        :raises ValueError: for values that are not finite (NaN is allowed where values may be missing), another shape,
            another number of environments than before, time that runs backwards, or a mask that allows nothing
        """
        outputs, alone = self._step(observation, elapsed, judging=False)
        action = outputs["action"].astype(self._action.dtype)
        return action[0] if alone else action

    def step(self, observation: Any, elapsed: Any = None) -> dict[str, Array]:
        """Do what :meth:`act` does, and return all that the agent has to say.

        :return: by name, of N environments (1 of a single observation): ``action``, the parameters of its distribution
            (``mean`` and ``log_std``, ``logits``, or ``q_values``), and ``value`` where there is a critic
        """
        return self._step(observation, elapsed, judging=True)[0]

    def reset(self, done: Any = None) -> None:
        """Begin a new episode: forget what was observed.

        :param done: which of N environments begin one, (N,), or of one whether it does; None: all, and their number may
            change
        """
        if done is None or self._state is None:
            self._state = None
            return
        starts = np.atleast_1d(np.asarray(done, bool))
        if starts.shape != self._starts.shape:
            raise ValueError(f"done has the shape {starts.shape}, but there are {len(self._starts)} environments.")
        self._starts = self._starts | starts

    @property
    def state(self) -> Array:
        """The histories, (N, P); zeros where nothing has been observed, and (0, P) before the first observation.

        It may be kept, and set again, here or in another process. (After a restart :meth:`replay` makes it anew.)
        """
        size = self._layout.packed_size
        if self._state is None:
            return np.zeros((0, size), np.float32)
        packed = np.concatenate(self._state, axis=2)[0, :, :size]
        return np.where(self._starts[:, None], np.float32(0), packed)

    @state.setter
    def state(self, histories: Array) -> None:
        histories = np.asarray(histories, np.float32)
        size = self._layout.packed_size
        if histories.ndim != 2 or histories.shape[1] != size:
            raise ValueError(
                f"The state has the shape {histories.shape}, but this agent's is (N, {size}): it is the state of "
                "another agent."
            )
        check_histories(histories, self._layout)
        self._state = self._packed(histories) if len(histories) else None
        self._starts = np.zeros(len(histories), bool)

    def replay(self, log: Iterable[tuple[Any, Any]]) -> list[Any]:
        """Begin an episode, and go through what was observed in it: afterwards the state is what it was.

        :param log: observations and elapsed times as :meth:`act` was given them, from the beginning of the episode on
        :return: the action at each
        """
        self.reset()
        return [self.act(observation, elapsed) for observation, elapsed in log]

    def _packed(self, histories: Array) -> tuple[Array, Array]:
        """Return histories, (N, P), as a step takes them, two arrays (1, N, size)."""
        half = (self._layout.packed_size + 1) // 2
        packed = np.zeros((1, len(histories), 2 * half), np.float32)
        packed[0, :, : histories.shape[1]] = histories
        return packed[..., :half].copy(), packed[..., half:].copy()

    def _step(self, observation: Any, elapsed: Any, judging: bool) -> tuple[dict[str, Array], bool]:
        given = self._intake.take(observation, elapsed)
        if self._state is None:
            state, begun = self._packed(np.zeros((given.n_envs, self._layout.packed_size))), np.ones(given.n_envs, bool)
        else:
            state, begun = self._state, self._starts
        if given.n_envs != len(begun):
            raise ValueError(
                f"Observations of {given.n_envs} environments, but the state is of {len(begun)}: pass one for each, or "
                "call reset() first."
            )
        first, _ = state
        features, column = features_of(NUMPY, self._inputs, self._networks, self._clock, given.values)
        self._intake.check_finite(features, self._layout.missing_values)
        begins = begun | (first[0, :, 0] == 0)
        time = self._intake.checked_time(given.time if column is None else column, first[0, :, 1], begins)
        mask = None
        if self._mask is not None:
            mask = self._mask.shown(NUMPY, given.values[self._mask.name]).reshape(given.n_envs, -1)
            self._intake.check_mask(mask, self._action.choices)
        step = (features, time, state, begun)
        seen, after = self._stepper.step(*step, self._weights, b"")
        outputs = self._heads.act(NUMPY, self._action, seen, mask)
        if judging:
            if self._judge is not None:
                seen, _ = self._judge.step(*step, self._judging, b"")
            outputs |= self._heads.judge(NUMPY, seen)
        self._watch_clock(after[1][0], begins)  # which may be an error, before anything is remembered
        self._state, self._starts = after, np.zeros(given.n_envs, bool)
        return outputs, given.alone

    def _watch_clock(self, second: Array, begins: npt.NDArray[np.bool_]) -> None:
        """Warn once of times that are others than those of the training.

        :param second: halves of the histories, with the newest elapsed times at their ends, (N, size)
        :param begins: whether the newest observation is the first of its episode, (N,)
        """
        suspicion = self._clock_watch.check(second[:, self._layout.packed_size - 1 - second.shape[1]], begins)
        if suspicion is None:
            return
        if suspicion.mean is None:
            warnings.warn(
                "The elapsed time rises from each observation to the next, as the time since a beginning does: pass "
                "the time since the observation before.",
                stacklevel=4,
            )
        else:
            observed = float(f"{suspicion.mean * self._clock.unit:.2g}")
            warnings.warn(
                f"From one observation to the next {observed:g} passes on average, but the nominal step of the "
                f"training, dt, is {self._clock.unit:g}: pass the time in the unit of the training.",
                stacklevel=4,
            )
