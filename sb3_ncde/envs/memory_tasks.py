"""Tasks whose answer is older than any short window: a T-maze, a cue among distractors, counting."""

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_ncde.envs.spaces import Floats
from sb3_ncde.plain_values import check_integer

Step = tuple[Floats, float, bool, bool, dict[str, Any]]


class _AskedAtTheEnd(gym.Env[Floats, np.int64], ABC):
    """One of two cues is shown, and asked for at the end: 1 for the right answer, -1 for the other.

    An agent without memory reaches 0 on average.
    """

    def __init__(self, length: int, n_shown: int) -> None:
        check_integer("length", length, minimum=1)
        self.length = length
        self.observation_space = spaces.Box(0.0, 1.0, (n_shown,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode with another cue."""
        super().reset(seed=seed)
        self.now = 0
        self.cue = int(self.np_random.integers(2))
        self._begin()
        return self._observe(), {}

    def _begin(self) -> None:
        """Draw what else an episode has."""

    def step(self, action: np.int64) -> Step:
        """Go on, or answer."""
        if self.now == self.length:
            return self._observe(), 1.0 if action == self.cue else -1.0, True, False, {}
        self.now += 1
        return self._observe(), 0.0, False, False, {}

    @abstractmethod
    def _shown(self) -> int | None:
        """Return which of the observation's numbers is 1, or None."""

    def _observe(self) -> Floats:
        observation, shown = np.zeros(self.observation_space.shape or (), np.float32), self._shown()
        if shown is not None:
            observation[shown] = 1.0
        return observation


class TMaze(_AskedAtTheEnd):
    """A corridor that ends in a junction; what was seen at its beginning says where to turn.

    The passive T-maze (Bakker 2001): the agent is moved along by itself, and its action, left (0) or right (1), counts
    at the junction only. It is rewarded by 1 there if it turns where the cue pointed, and by -1 otherwise, and the
    episode ends. An agent without memory reaches 0 on average.

    The observation is one-hot: cue left, cue right, corridor, junction.

    :param length: steps from the cue to the junction
    :raises TypeError: for a length that is no integer
    :raises ValueError: for one below 1
    """

    def __init__(self, length: int = 16) -> None:
        super().__init__(length, n_shown=4)

    def _shown(self) -> int:
        return self.cue if self.now == 0 else 3 if self.now == self.length else 2


class CueAmongDistractors(_AskedAtTheEnd):
    """A cue at a random time, distractors at all others, and the question at the end.

    At one of the first ``within`` steps a cue is shown, of two kinds; at each other step, with a probability of a half,
    a distractor of two kinds. At the last step the agent is asked which cue it was: 1 for the right answer, -1 for the
    other. An agent without memory reaches 0 on average.

    The observation is one-hot: cue 0, cue 1, distractor 0, distractor 1, question; or 0, where nothing is shown.

    :param length: steps until the question
    :param within: steps from the beginning within which the cue is shown
    :raises TypeError: for a number that is no integer
    :raises ValueError: for a number below 1, or a cue that may come after the question
    """

    def __init__(self, length: int = 60, within: int = 20) -> None:
        super().__init__(length, n_shown=5)
        check_integer("within", within, minimum=1)
        if within > length:
            raise ValueError(f"within={within} with length={length}: the cue may come after the question.")
        self.within = within

    def _begin(self) -> None:
        self.shown_at = int(self.np_random.integers(self.within))

    def _shown(self) -> int | None:
        if self.now == self.length:
            return 4
        if self.now == self.shown_at:
            return self.cue
        return 2 + int(self.np_random.integers(2)) if self.np_random.random() < 0.5 else None


class Counting(gym.Env[Floats, np.int64]):
    """Symbols are shown one by one; at each step the agent says how often the present one has been shown before.

    As in POPGym's CountRecall (Morad et al. 2023, arXiv:2303.01859): a right answer is rewarded by 1 / length, a wrong
    one by -1 / length, so that returns are from -1 to 1.

    The observation is the present symbol, one-hot.

    :param length: symbols of an episode, each shown ``length / symbols`` times, in random order
    :param symbols: kinds of them
    :raises TypeError: for a number that is no integer
    :raises ValueError: for a number below 1, or a length that is no multiple of the symbols
    """

    def __init__(self, length: int = 24, symbols: int = 4) -> None:
        check_integer("length", length, minimum=1)
        check_integer("symbols", symbols, minimum=1)
        if length % symbols:
            raise ValueError(f"length={length} with symbols={symbols}: each symbol is shown equally often.")
        self.length, self.symbols = length, symbols
        self.observation_space = spaces.Box(0.0, 1.0, (symbols,), np.float32)
        self.action_space = spaces.Discrete(length // symbols)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """Begin an episode with the symbols in another order."""
        super().reset(seed=seed)
        self.now = 0
        self.shown = self.np_random.permutation(np.repeat(np.arange(self.symbols), self.length // self.symbols))
        return self._observe(), {}

    def step(self, action: np.int64) -> Step:
        """Answer, and see the next symbol."""
        before = int((self.shown[: self.now] == self.shown[self.now]).sum())
        reward = (1.0 if action == before else -1.0) / self.length
        self.now += 1
        over = self.now == self.length
        if over:
            self.now -= 1  # what is seen at the end is the last symbol
        return self._observe(), reward, over, False, {}

    def _observe(self) -> Floats:
        observation: Floats = np.eye(self.symbols, dtype=np.float32)[self.shown[self.now]]
        return observation


MEMORY_TASKS = {"TMaze": TMaze, "CueAmongDistractors": CueAmongDistractors, "Counting": Counting}


def register() -> None:
    """Register the tasks with Gymnasium."""
    for name in MEMORY_TASKS:
        gym.register(f"sb3_ncde/{name}-v1", f"sb3_ncde.envs.memory_tasks:{name}")
