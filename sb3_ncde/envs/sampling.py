"""Irregular sampling: observations, and actions, after a random number of the environment's own steps.

``reset(seed=...)`` repeats it, see :mod:`sb3_ncde.envs.randomness`.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_ncde.envs.randomness import SeededWrapper
from sb3_ncde.envs.spaces import join, with_more

DISTRIBUTIONS = ("uniform", "exponential")


class IrregularSampling(SeededWrapper, gym.utils.RecordConstructorArgs):
    """Observes, and lets the agent act, after a random number of the environment's own steps.

    An action is held for k steps: the physics is the environment's, step by step, rewards add up, and an episode ends
    where the environment ends it, so that its time limit is one of physical time. The time since the previous
    observation, k ``dt``, is part of the observation; at the first it is 0.

    :param env: an environment with a Box observation of one dimension, or a Dict
    :param low: least k
    :param high: greatest k
    :param distribution: of k: "uniform" from low to high, or "exponential", waiting times with mean (low + high) / 2
        rounded up to whole steps and cut off at high
    :param values: k is one of these, each as likely as it is often among them, instead of low, high and distribution
    :param per_episode: whether k is drawn once an episode rather than at each step
    :param dt: what a step of the environment takes, in the unit in which time is observed. (The policy's argument of
        this name is the time that usually passes from one observation to the next: here the mean of k times as much)
    :param time_key: key of the elapsed time in the Dict observation that this makes; None: the last column of a Box
    :raises TypeError: if the observation is no Box of one dimension, nor a Dict where ``time_key`` is given
    :raises ValueError: for steps that are not whole and at least 1, an unknown distribution, a ``dt`` that is not
        positive, or a key that exists
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        low: int = 1,
        high: int = 5,
        distribution: str = "uniform",
        values: Sequence[int] | None = None,
        per_episode: bool = False,
        dt: float = 1.0,
        time_key: str | None = "time",
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(
            self,
            low=low,
            high=high,
            distribution=distribution,
            values=values,
            per_episode=per_episode,
            dt=dt,
            time_key=time_key,
        )
        super().__init__(env)
        if distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution={distribution!r} is not one of {', '.join(DISTRIBUTIONS)}.")
        steps = (low, high) if values is None else values
        if min(steps, default=0) < 1 or low > high or not all(float(k).is_integer() for k in steps):
            raise ValueError(
                f"low={low}, high={high}, values={values}: an action is held for at least one step of the environment, "
                "for whole ones, and low is not above high."
            )
        if not 0 < dt < np.inf:
            raise ValueError(f"dt={dt}: a step of the environment takes a positive, finite time.")
        self.low, self.high, self.distribution, self.values = low, high, distribution, values
        self.per_episode, self.dt, self.time_key = per_episode, dt, time_key
        self.observation_space = with_more(env.observation_space, {time_key or "time": (1,)}, time_key is not None)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = super().reset(seed=seed, options=options)
        self.held = self._draw()
        return self._observe(observation, 0), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold the action until the next observation."""
        if not self.per_episode:
            self.held = self._draw()
        total, steps = 0.0, 0
        terminated = truncated = False
        while steps < self.held and not (terminated or truncated):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total, steps = total + float(reward), steps + 1
        return self._observe(observation, steps), total, terminated, truncated, info

    def _draw(self) -> int:
        if self.values is not None:
            return int(self.rng.choice(self.values))
        if self.distribution == "uniform":
            return int(self.rng.integers(self.low, self.high, endpoint=True))
        waited = self.rng.exponential((self.low + self.high) / 2)
        return int(np.clip(np.ceil(waited), self.low, self.high))

    def _observe(self, observation: Any, steps: int) -> Any:
        elapsed = {self.time_key or "time": np.array([steps * self.dt], np.float32)}
        return join(observation, elapsed, self.time_key is not None)


def refuse_time_column(env: gym.Env[Any, Any], cure: str) -> None:
    """Raise ValueError if :class:`IrregularSampling` has made time a column, which then would fail or be noisy too."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, IrregularSampling) and env.time_key is None:
            raise ValueError(
                "IrregularSampling(time_key=None) has made a column of the observation the time, which is no sensor's: "
                f"{cure}, or let the time be a key of a Dict (time_key)."
            )
        env = env.env
