"""What stands between observations and the history: what is wrong is refused, and what may be is warned of."""

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.diagnostics import ClockWatch, FailureWatch
from sb3_ncde.history.observation_history import ObservationHistory, State
from sb3_ncde.history.validation import check_finite, check_time


class Guard:
    """Looks at observations before they are appended, and at histories after.

    :param history: layout of the state
    :param arguments: what is remembered
    """

    def __init__(self, history: ObservationHistory, arguments: HistoryArguments) -> None:
        self._history = history
        self.timed = arguments.time_key is not None
        self._clock = ClockWatch(arguments.dt, arguments.time_kind == "timestamp")
        self._failures = FailureWatch()

    def check(self, observation: PyTorchObs, rows: th.Tensor, episode_starts: th.Tensor, state: State) -> None:
        """Raise ValueError for values that are not finite, or time that runs backwards.

        :param observation: of N environments, as it was given
        :param rows: features and time that were made of it, (N, D + 1)
        :param episode_starts: 1 where an observation is the first of its episode, (N,)
        :param state: the histories before, two tensors (1, N, size)
        """
        check_finite(observation, rows, episode_starts, self._history, state)
        if self.timed:
            check_time(rows[:, -1], episode_starts, self._history, state)

    def watch(self, features: th.Tensor, episode_starts: th.Tensor, elapsed: th.Tensor | None) -> None:
        """Take in a step, and warn once of what only shows over many.

        :param features: of the observations, (N, D)
        :param episode_starts: 1 where an observation is the first of its episode, (N,)
        :param elapsed: nominal steps since the observation before, (N,); not read where time is not observed
        """
        if self._history.missing_values:
            self._failures.check(features)
        if self.timed and elapsed is not None:
            self._clock.check(elapsed, episode_starts)
