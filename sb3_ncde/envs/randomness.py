"""Randomness of wrappers that ``reset(seed=...)`` repeats, whatever environment they wrap."""

from typing import Any

import gymnasium as gym
import numpy as np


class SeededWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that draws from the environment's own ``np_random``, where a seed reaches it.

    Some environments seed a generator of their own and leave ``np_random`` alone, or have an older generator of NumPy's
    under this name. Then the wrapper has one of its own, which ``reset(seed=...)`` seeds as well.
    """

    _seed: int | None = None
    _own: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The generator to draw from."""
        env = self.unwrapped
        if isinstance(env.np_random, np.random.Generator) and self._seed in (None, env.np_random_seed):
            return env.np_random
        if self._own is None:
            self._own = np.random.default_rng(self._seed)
        return self._own

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and keep the seed in mind."""
        if seed is not None:
            self._seed, self._own = seed, None
        return super().reset(seed=seed, options=options)
