"""Small environments for the tests: any spaces, episodes from one step up, time that jitters."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_ncde.envs.spaces import choices

SCALAR = spaces.Box(-np.inf, np.inf, (), np.float32)
WALK = spaces.Box(-np.inf, np.inf, (3,), np.float32)


class RandomWalk(gym.Env[Any, Any]):
    """Observations walk at random for a random number of steps; the reward is the first of their values.

    :param observation: "box", "dict" (adds a key "time"), "column" (time is column 1), "image", "dict_image",
        "scalar", "matrix", "discrete", "multi_discrete", "multi_binary", "dict_scalar"
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
            "scalar": SCALAR,
            "matrix": spaces.Box(-np.inf, np.inf, (3, 1), np.float32),
            "discrete": spaces.Discrete(3),
            "multi_discrete": spaces.MultiDiscrete([2, 3]),
            "multi_binary": spaces.MultiBinary(3),
            "dict_scalar": spaces.Dict({"scalar": SCALAR, "bits": spaces.MultiBinary(3), "time": SCALAR}),
        }[observation]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, self.longest + 1))
        self.walk = self.np_random.normal(size=3)
        self.now, self.elapsed = 50.0 * self.np_random.random(), 0.0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action))
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
            "scalar": walk[0],
            "matrix": walk[:, None],
            "discrete": np.int64((self.walk > 0).sum() % 3),
            "multi_discrete": (self.walk[:2] > 0).astype(np.int64),
            "multi_binary": (self.walk > 0).astype(np.int8),
            "dict_scalar": {"scalar": walk[0], "bits": (self.walk > 0).astype(np.int8), "time": time[0]},
        }[self.kind]


class MaskedWalk(RandomWalk):
    """A walk that allows some of its actions, as sb3-contrib's ``action_masks()`` says, and takes no others."""

    def action_masks(self) -> Any:
        """Return which options are allowed; of each choice at least one."""
        return self.masks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        result = super().reset(seed=seed, options=options)
        self._mask()
        return result

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        first = np.cumsum([0, *choices(self.action_space)[:-1]])
        assert self.masks[first + np.atleast_1d(action)].all()
        result = super().step(action)
        self._mask()
        return result

    def _mask(self) -> None:
        masks = []
        for options in choices(self.action_space):
            mask = self.np_random.random(options) < 0.4
            mask[self.np_random.integers(options)] = True
            masks.append(mask)
        self.masks = np.concatenate(masks)
