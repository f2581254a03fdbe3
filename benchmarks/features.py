"""What a policy without a notion of time is given of a sensor: all that NCDEPolicy makes of it itself, as numbers."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_ncde.history.traces import DEFAULT_TIME_CONSTANTS, Traces


class Features(gym.ObservationWrapper[Any, Any, Any]):
    """Shows held values, their rates, the elapsed time, and where values may be missing which ones are.

    :param env: with a vector of D values, NaN where one is missing; or a Dict of "observation", that vector, and
        "time", the time since the observation before
    :param missing: whether values may be missing; then it is shown which ones are observed, and for how long not
    :param memory: whether what was observed before has a part in it. Without, only the newest values are shown, 0 where
        they are missing, with the elapsed time and which ones are observed
    :param traces: the nominal time between two observations, to show the traces of the episode as well
        (:mod:`sb3_ncde.history.traces`, with their default time constants); None: no traces
    """

    def __init__(
        self, env: gym.Env[Any, Any], missing: bool = False, memory: bool = True, traces: float | None = None
    ) -> None:
        super().__init__(env)
        space = env.observation_space
        self.timed = isinstance(space, spaces.Dict)
        vector = space["observation"] if isinstance(space, spaces.Dict) else space
        self.missing, self.memory, self.dt = missing, memory, 1.0 if traces is None else traces
        self.n_columns = n = int(np.prod(vector.shape or ()))
        self.traces = None if traces is None else Traces(DEFAULT_TIME_CONSTANTS, n, missing)
        size = n * (1 + memory + missing * (1 + memory)) + self.timed
        size += 0 if self.traces is None else self.traces.values_size
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, of which nothing is known."""
        self.held, self.rate, self.age = np.zeros((3, self.n_columns))
        self.times_observed = np.zeros(self.n_columns)
        self.begins = True
        if self.traces is not None:
            self.summary = np.zeros((1, self.traces.size))
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """Return all of it, in this order: values, rates, elapsed time, which are observed, ages, traces."""
        elapsed = float(observation["time"][0]) if self.timed else 1.0
        values = np.asarray(observation["observation"] if self.timed else observation, np.float64)
        observed = ~np.isnan(values)
        if self.memory:
            parts = self._remembered(values, observed, elapsed)
        else:
            parts = [np.where(observed, values, 0.0), *self._shown(elapsed), *([observed] if self.missing else [])]
        self.begins = False
        return np.concatenate(parts).astype(np.float32)

    def _shown(self, elapsed: float) -> list[Any]:
        return [[elapsed]] if self.timed else []

    def _remembered(self, values: Any, observed: Any, elapsed: float) -> list[Any]:
        since, before = self.age + elapsed, self.held
        slope = (values - self.held) / np.maximum(since, 1e-6)  # no time has passed at the first one
        self.rate = np.where(observed & (self.times_observed > 0), slope, self.rate)
        self.held = np.where(observed, values, self.held)
        self.age = np.where(observed, 0.0, since)
        self.times_observed += observed
        parts = [self.held, self.rate, *self._shown(elapsed), *([observed, self.age] if self.missing else [])]
        return parts if self.traces is None else [*parts, self._traced(self.traces, before, observed, elapsed)]

    def _traced(self, traces: Traces, before: Any, observed: Any, elapsed: float) -> Any:
        """Return the traces after this observation, (values_size,); N and T are 1."""
        counts = self.times_observed if self.missing else self.times_observed[:1]
        steps = 0.0 if self.begins else elapsed / self.dt if self.timed else 1.0
        self.summary = traces.unroll(
            self.summary,
            np.stack((before, self.held))[None],
            counts[None, None],
            observed[None, None] if self.missing else None,
            np.full((1, 1, 1), steps),
            np.full((1, 1, 1), self.begins),
        )[:, 0]
        return traces.values(self.summary[0], self.times_observed if self.missing else None)
