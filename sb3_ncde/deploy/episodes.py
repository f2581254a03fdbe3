"""Episodes to compare an agent on: observations at irregular times, with missing values, in several environments."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_ncde.deploy.contents import Tree
from sb3_ncde.deploy.observation import SINGLE, Clock, Input
from sb3_ncde.history.window_rule import Array

MISSING = 0.25
"""Of the values, where they may be missing."""
LONGEST = 5000
"""Steps that are recorded of an episode, about: some never end."""
SMOOTH = 0.99
"""Correlation of values from one step to the next."""


class Episodes(NamedTuple):
    """What T steps of N environments observe.

    :param observations: raw, (T, N, ...), by name; the time, where it is a key, among them
    :param starts: whether an observation is the first of its episode, (T, N)
    """

    observations: dict[str, Array]
    starts: npt.NDArray[np.bool_]

    def at(self, step: int) -> dict[str, Array]:
        """Return the observations of a step, (N, ...) by name."""
        return {name: values[step] for name, values in self.observations.items()}


def sampled(
    space: spaces.Space[Any], tree: Tree, n_envs: int, n_steps: int, rng: np.random.Generator, size: float = 1.0
) -> Episodes:
    """Return episodes of random observations: of order 1, or of the size that the statistics say.

    :param space: of raw observations
    :param tree: of the agent
    :param n_envs: N
    :param n_steps: T
    :param size: of the observations, as a multiple of that
    """
    length = tree["encoder"]["description"]["layout"]["rule"]["history_length"]
    starts = rng.random((n_steps, n_envs)) < 1 / (1.5 * length + 1)
    starts[0] = True
    clock, missing = Clock(**tree["clock"]), tree["encoder"]["description"]["layout"]["missing_values"]
    inputs = {part["name"]: Input(**part) for part in tree["inputs"]}
    observations: dict[str, Array] = {}
    for name, part in space.spaces.items() if isinstance(space, spaces.Dict) else [(SINGLE, space)]:
        if tree["mask"] is not None and name == tree["mask"]["name"]:
            observations[name] = _masks(part, tree["action"]["choices"], starts.shape, rng)
        elif name == clock.key:
            observations[name] = _times(clock, starts, rng).reshape(*starts.shape, *(part.shape or ()))
        else:
            observations[name] = _values(part, inputs.get(name), missing, starts.shape, rng, size)
    if isinstance(clock.key, int):
        observations[SINGLE][..., clock.key] = _times(clock, starts, rng)
    return Episodes(observations, starts)


def _values(
    space: spaces.Space[Any],
    part: Input | None,
    missing: bool,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    size: float,
) -> Array:
    if not isinstance(space, spaces.Box) or space.dtype.kind in "ui":
        space.seed(int(rng.integers(2**31)))
        return np.array([[space.sample() for _ in range(shape[1])] for _ in range(shape[0])])
    values = size * rng.normal(size=(*shape, *space.shape))
    for step in range(1, len(values)):  # as sensors have it, what is observed next is about what was observed before
        values[step] = SMOOTH * values[step - 1] + np.sqrt(1 - SMOOTH**2) * values[step]
    if part is not None and part.mean is not None:
        values = part.mean + part.deviation * values
    values = np.clip(values, space.low, space.high).astype(space.dtype)
    if missing:
        values[rng.random(values.shape) < MISSING] = np.nan
    return values


def _times(clock: Clock, starts: npt.NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Return elapsed times or timestamps, (T, N): now and then none at all, now and then much."""
    elapsed = clock.unit * rng.choice([0.0, 0.05, 1.0, 1.0, 2.5], starts.shape)
    if clock.kind == "elapsed":
        return elapsed.astype(np.float32)
    times = np.cumsum(elapsed, axis=0)
    begin = np.maximum.accumulate(np.where(starts, times, 0.0), axis=0)
    return (times - begin + clock.unit * rng.random()).astype(np.float32)


def _masks(space: spaces.Space[Any], choices: list[int], shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return action masks that allow at least one option of each choice, (T, N, options)."""
    masks = []
    for options in choices:
        allowed = rng.random((*shape, options)) < 0.5
        np.put_along_axis(allowed, rng.integers(options, size=(*shape, 1)), True, axis=-1)
        masks.append(allowed)
    return np.concatenate(masks, axis=-1).reshape(*shape, *(space.shape or ())).astype(space.dtype)


class Playback(gym.Env[Any, Any]):
    """An environment that shows the observations of one of N, whatever is done in it.

    :param space: of its observations
    :param action_space: of its actions
    :param episodes: to show
    :param env: which of the N
    """

    def __init__(self, space: spaces.Space[Any], action_space: spaces.Space[Any], episodes: Episodes, env: int) -> None:
        self.observation_space, self.action_space = space, action_space
        self._episodes, self._env, self._step = episodes, env, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Show the first observation of the next episode."""
        self._step += 1
        return self._observe(self._step), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Show the next observation, or at an episode's end a last one, which the agent does not act on."""
        following = self._step + 1
        if following < len(self._episodes.starts) and not self._episodes.starts[following, self._env]:
            self._step = following
            return self._observe(following), 0.0, False, False, {}
        return self._observe(self._step), 0.0, True, False, {}

    def _observe(self, step: int) -> Any:
        if step >= len(self._episodes.starts):
            step = 0  # after the end, to begin an episode that nobody looks at
        observation: Mapping[str, Any] = {
            name: values[step, self._env] for name, values in self._episodes.observations.items()
        }
        return dict(observation) if isinstance(self.observation_space, spaces.Dict) else observation[SINGLE]


def recorded(env: gym.Env[Any, Any], act: Callable[[Any, bool], Any], n_episodes: int) -> Episodes:
    """Return what one environment shows to who acts in it.

    :param env: with raw observations
    :param act: a function of an observation, and of whether it is the first of its episode
    :param n_episodes: to record; of an endless one its first :data:`LONGEST` steps
    """
    seen: list[dict[str, Any]] = []
    starts: list[bool] = []
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=None if episode else 0)
        over, begins = False, True
        while not over:
            seen.append(dict(observation) if isinstance(observation, Mapping) else {SINGLE: observation})
            starts.append(begins)
            observation, _, terminated, truncated, _ = env.step(act(observation, begins))
            over, begins = terminated or truncated or len(seen) % LONGEST == 0, False
    observations = {name: np.stack([step[name] for step in seen])[:, None] for name in seen[0]}
    return Episodes(observations, np.array(starts)[:, None])
