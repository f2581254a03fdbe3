"""Small environments for the tests: any spaces, episodes from one step up, time that jitters."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

WALK = spaces.Box(-np.inf, np.inf, (3,), np.float32)


class RandomWalk(gym.Env[Any, Any]):
    """Observations walk at random for a random number of steps; the reward is the first of their values.

    :param observation: "box", "dict" (adds a key "time"), "column" (time is column 1), "image", "dict_image"
    :param time_kind: what the time is: "elapsed" or "timestamp"
    :param longest: episodes take 1 to this many steps
    :param scale: of the observed values
    :param truncates: whether episodes end by time limit instead of termination
    """

    def __init__(
        self,
        observation: str = "box",
        action_space: spaces.Space[Any] | None = None,
        time_kind: str = "elapsed",
        longest: int = 9,
        scale: float = 1.0,
        truncates: bool = False,
    ) -> None:
        self.kind, self.time_kind, self.longest = observation, time_kind, longest
        self.scale, self.truncates = scale, truncates
        self.action_space = action_space or spaces.Discrete(2)
        image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        time = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = {
            "box": WALK,
            "dict": spaces.Dict({"walk": WALK, "flag": spaces.Discrete(3), "time": time}),
            "column": spaces.Box(-np.inf, np.inf, (4,), np.float32),
            "image": image,
            "dict_image": spaces.Dict({"camera": image, "walk": WALK}),
        }[observation]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, self.longest + 1))
        self.walk = self.np_random.normal(size=3)
        self.now, self.elapsed = 50.0 * self.np_random.random(), 0.0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.walk += 0.5 * self.np_random.normal(size=3)
        self.elapsed = 0.5 + self.np_random.random()
        self.now += self.elapsed
        self.left -= 1
        over = self.left == 0
        return self._observe(), float(self.walk[0]), over and not self.truncates, over and self.truncates, {}

    def _observe(self) -> Any:
        walk = (self.scale * self.walk).astype(np.float32)
        time = np.array([self.elapsed if self.time_kind == "elapsed" else self.now], np.float32)
        image = (np.abs(np.outer(np.arange(36), np.arange(36)) * self.walk[0]) % 255).astype(np.uint8)[None]
        return {
            "box": walk,
            "dict": {"walk": walk, "flag": np.int64(self.walk[1] > 0), "time": time},
            "column": np.insert(walk, 1, time),
            "image": image,
            "dict_image": {"camera": image, "walk": walk},
        }[self.kind]
