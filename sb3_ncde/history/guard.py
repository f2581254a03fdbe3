"""What stands between observations and the history: what is wrong is refused, and what may be is warned of."""

import warnings

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.clock_watch import LONGEST_RISE, ClockWatch, Suspicion
from sb3_ncde.history.diagnostics import FailureWatch
from sb3_ncde.history.observation_history import ObservationHistory, State
from sb3_ncde.history.validation import NORMALIZED_TIME, check_finite, check_time


class Guard:
    """Looks at observations before they are appended, and at histories after.

    :param history: layout of the state
    :param arguments: what is remembered
    """

    def __init__(self, history: ObservationHistory, arguments: HistoryArguments) -> None:
        self._history = history
        self.timed = arguments.time_key is not None
        self.watches = self.timed or history.missing_values  # else there is nothing that only shows over many steps
        self._clock = ClockWatch(arguments.time_kind == "timestamp")
        self._dt = arguments.dt
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

    def watch(self, rows: th.Tensor, episode_starts: th.Tensor, elapsed: th.Tensor | None) -> None:
        """Take in a step, and warn once of what only shows over many.

        :param rows: features of the observations, and whatever stands behind them, (N, D or more)
        :param episode_starts: 1 where an observation is the first of its episode, (N,)
        :param elapsed: nominal steps since the observation before, (N,); not read where time is not observed
        """
        if self._history.missing_values:
            self._failures.check(rows.numpy(force=True)[:, : self._history.features_dim])
        if self.timed and elapsed is not None:
            suspicion = self._clock.check(
                elapsed.numpy(force=True), episode_starts.flatten().numpy(force=True).astype(bool)
            )
            if suspicion is not None:
                self._warn_of_clock(suspicion)

    def _warn_of_clock(self, suspicion: Suspicion) -> None:
        if suspicion.mean is None:
            warnings.warn(
                f"The elapsed time rises from each observation to the next, {LONGEST_RISE} in a row in every "
                "environment: if it counts up within the episode, set time_kind='timestamp' in policy_kwargs, or in "
                "VecHistory.",
                stacklevel=4,
            )
            return
        observed = float(f"{suspicion.mean * self._dt:.2g}")
        # Normalised, a constant time is 0 but for rounding errors.
        advice = f"set dt={observed:g} in policy_kwargs, or in VecHistory. " if suspicion.mean > 1e-4 else ""
        warnings.warn(
            f"From one observation to the next {observed:g} passes on average (of {suspicion.steps}), but "
            f"dt={self._dt:g}, which should be about as much: {advice or 'hardly any time passes. '}{NORMALIZED_TIME}",
            stacklevel=4,
        )
