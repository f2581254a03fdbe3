"""Histories by hand: what VecHistory and HistoryReplayBuffer must make of the observations of an episode."""

from functools import partial
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_ncde import HistoryReplayBuffer, VecHistory
from tests.envs import RandomWalk

Array = npt.NDArray[Any]


class Chance(RandomWalk):
    """RandomWalk whose episodes end by termination or time limit, as it happens; values may be missing."""

    def __init__(self, missing: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.missing = missing

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.truncates = bool(self.np_random.random() < 0.5)
        return super().step(action)

    def _observe(self) -> Any:
        observation = super()._observe()
        if self.missing:
            columns = np.array([0, 2, 3]) if self.kind == "column" else np.arange(3)
            lost = columns[self.np_random.random(3) < self.missing]
            observation[lost] = np.nan
        return observation


class Summary:
    """The summary of an episode in float64, of each feature from all of its observed values."""

    def __init__(self, constants: Any, missing_values: bool) -> None:
        self.constants, self.missing_values = constants or (), missing_values
        self.now = 0.0
        self.rows = 0
        self.seen: dict[int, list[tuple[float, float]]] = {}

    def after(self, new: Array, seen: Array, elapsed: float) -> Array:
        """Return the summary's columns after one more observation."""
        self.now, self.rows = self.now + elapsed, self.rows + 1
        each = [self.seen.setdefault(feature, []) for feature in range(len(new))]
        for values, value, observed in zip(each, new, seen, strict=True):
            if observed:
                values.append((self.now, float(value)))
        first = np.array([values[0][1] if values else 0.0 for values in each])
        mean = [np.mean([value for _, value in values]) if values else 0.0 for values in each]
        filters = [[self._filter(values, constant) for values in each] for constant in self.constants]
        last = [self.now - (values[-1][0] if values else 0.0) for values in each]
        kept = [np.array(levels) - first for levels in filters]
        return np.concatenate([first, mean, 0 * first, *kept, last if self.missing_values else [float(self.rows)]])

    def _filter(self, values: list[tuple[float, float]], constant: float) -> float:
        """Return the filter at the present: straight from value to value, and the last one holds."""
        if not values:
            return 0.0
        level = values[0][1]
        for (begin, old), (end, new) in pairwise([*values, (self.now, values[-1][1])]):
            ratio = (end - begin) / constant
            if ratio > 1e-4:
                slope = (new - old) / ratio
                level = new - slope + (level - old + slope) * np.exp(-ratio)
            else:
                level += ratio * ((old + new) / 2 - level)
        return level


def by_hand(episode: list[Any], space: Any) -> Array:
    """Return the history of an episode's observations, (P,), from lists alone: (features, time) each."""
    arguments, layout = space.arguments, space.layout
    length, hop = arguments.history_length, arguments.hop
    timestamps = arguments.time_key is not None and arguments.time_kind == "timestamp"
    window: list[Any] = []
    held = np.zeros(layout.features_dim, np.float32)
    count = np.zeros(layout.features_dim, np.float32)
    last = None
    traces = Summary(arguments.time_constants, arguments.missing_values)
    for number, (features, time) in enumerate(episode):
        if len(window) == length:
            window = window[hop:]
        passed = np.float32(1.0) if time is None else np.float32(time)
        if timestamps:
            passed = np.float32(time) - np.float32(0.0 if last is None else last)
        elapsed = np.float32(0.0) if number == 0 else passed / np.float32(arguments.dt if time is not None else 1.0)
        last = time
        seen = ~np.isnan(features)
        held = np.where(seen, features, held)
        count = count + seen
        slot = [held, count] if arguments.missing_values else [held]
        if arguments.time_constants is not None:
            slot.append(traces.after(features, seen, float(elapsed)))
        window.append(np.concatenate((*slot, [elapsed])))
    packed = np.zeros(layout.packed_size, np.float32)
    packed[0] = len(episode)
    packed[1] = last if timestamps else 0.0
    slots = np.concatenate(window)
    packed[len(packed) - len(slots) :] = slots
    return packed


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps the observations of each episode in lists."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.episodes: list[list[Any]] = []

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        self.episodes.append([observation])
        return observation, info

    def step(self, action: Any) -> Any:
        step = self.env.step(action)
        self.episodes[-1].append(step[0])
        return step


def split(observation: Any, kind: str) -> tuple[Array, Any]:
    """Return features and time of an observation by hand."""
    if kind == "column":
        return np.delete(observation, 1), observation[1]
    if kind == "dict":
        flag = np.eye(3, dtype=np.float32)[observation["flag"]]
        return np.concatenate((flag, observation["walk"])), observation["time"][0]
    if kind == "discrete":
        return np.eye(3, dtype=np.float32)[observation], None
    return observation.astype(np.float32).ravel(), None


def _same(env: Recorder) -> Recorder:
    return env


class Run:
    """Environments with a buffer, filled as SB3's off-policy algorithms do, and lists of the same beside them."""

    def __init__(
        self, kind: str, n_envs: int, buffer_size: int, longest: int, seed: int, missing: float = 0.0, **history: Any
    ) -> None:
        self.kind, self.n_envs = kind, n_envs
        time_kind = history.get("time_kind", "elapsed")
        chance = partial(Chance, observation=kind, longest=longest, missing=missing, time_kind=time_kind)
        self.recorders = [Recorder(chance()) for _ in range(n_envs)]
        venv = DummyVecEnv([partial(_same, env) for env in self.recorders])
        venv.seed(seed)
        self.env: Any = VecHistory(venv, **history)
        self.buffer = HistoryReplayBuffer(
            buffer_size * n_envs, self.env.observation_space, self.env.action_space, "cpu", n_envs
        )
        self.last: Array = self.env.reset()
        self.stored: list[tuple[Array, ...]] = []

    def step(self) -> None:
        """Make a step and store it."""
        action = np.array([self.env.action_space.sample() for _ in range(self.n_envs)])
        obs, reward, done, infos = self.env.step(action)
        following = obs.copy()
        for env in np.flatnonzero(done):
            following[env] = infos[env]["terminal_observation"]
        self.buffer.add(self.last, following, action, reward, done, infos)
        timeouts = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        self.stored.append((reward, self.last, following, done & ~timeouts))
        self.last = obs

    def histories(self) -> list[Array]:
        """Return the present histories of all environments by hand."""
        space = self.env.observation_space
        return [by_hand([split(obs, self.kind) for obs in env.episodes[-1]], space) for env in self.recorders]

    def check(self) -> None:
        """Compare with the histories by hand; filters are rounded, all else is the same."""
        if self.env.observation_space.layout.traces is None:
            np.testing.assert_array_equal(self.last, self.histories())
        else:
            np.testing.assert_allclose(self.last, self.histories(), rtol=1e-5, atol=1e-5)


KINDS: dict[str, dict[str, Any]] = {
    "box": {},
    "column": {"time_key": 1, "dt": 0.7},
    "dict": {"time_key": "time", "dt": 0.5},
    "discrete": {},
    "image": {},
}
