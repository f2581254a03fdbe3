"""The previous action and its reward as a part of the observation, which meta-learning and bandits need."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_ncde.envs.spaces import BoxWithMissing, Floats


class PreviousAction(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows the previous action, its reward, the product of both, or some of these.

    A count of rewards by action, which a bandit asks for, is the sum of that product over time (Duan et al. 2016,
    RL^2, arXiv:1611.02779, show an agent action and reward). Discrete actions are shown one-hot; at the first
    observation of an episode all is 0, which is no action.

    To a Box of one dimension this adds columns, in the order action, reward, product. To a Dict it adds the keys
    ``previous_action``, ``previous_reward`` and ``action_times_reward``; any other observation becomes a Dict, with the
    key ``observation``.

    :param env: an environment with Box, Discrete, MultiDiscrete (of one dimension) or MultiBinary actions; with any
        others its reward can be shown alone
    :param reward: whether the reward is shown as well
    :param product: whether the product of action and reward is
    :param action: whether the action is
    :raises TypeError: for other actions, if they or the product are shown
    :raises ValueError: if nothing is shown, the observation has one of the keys already, or the environment is wrapped
        in another one
    """

    def __init__(
        self, env: gym.Env[Any, Any], reward: bool = False, product: bool = False, action: bool = True
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, reward=reward, product=product, action=action)
        super().__init__(env)
        inner: gym.Env[Any, Any] = env
        while isinstance(inner, gym.Wrapper):
            if isinstance(inner, PreviousAction):
                raise ValueError("The environment is wrapped in PreviousAction already.")
            inner = inner.env
        self.shows_action = action
        self.shows_reward = reward
        self.shows_product = product
        space = env.observation_space
        added: dict[str, spaces.Box] = {}
        if action:
            added["previous_action"] = _encoded_space(env.action_space)
        if reward:
            added["previous_reward"] = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        if product:
            shape = _encoded_space(env.action_space).shape
            added["action_times_reward"] = spaces.Box(-np.inf, np.inf, shape, np.float32)
        if not added:
            raise ValueError("PreviousAction with action=False shows nothing: it needs reward=True or product=True.")
        self._columns = isinstance(space, spaces.Box) and len(space.shape) == 1
        if isinstance(space, spaces.Box) and self._columns:
            low = np.concatenate([space.low, *(box.low for box in added.values())])
            high = np.concatenate([space.high, *(box.high for box in added.values())])
            kind = BoxWithMissing if isinstance(space, BoxWithMissing) else spaces.Box
            self.observation_space = kind(low.astype(np.float32), high.astype(np.float32))
            return
        known = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        taken = sorted(known.keys() & added.keys())
        if taken:
            raise ValueError(f"The observation has the keys {taken} already, which PreviousAction adds: rename them.")
        self.observation_space = spaces.Dict({**known, **added})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, with no action before it."""
        observation, info = super().reset(seed=seed, options=options)
        return self._joined(observation, None, 0.0), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act, and show the action beside what it led to."""
        observation, reward, terminated, truncated, info = super().step(action)
        return self._joined(observation, action, float(reward)), reward, terminated, truncated, info

    def _joined(self, observation: Any, action: Any, reward: float) -> Any:
        encoded = _encode(self.action_space, action) if self.shows_action or self.shows_product else np.zeros(0)
        added: dict[str, Floats] = {}
        if self.shows_action:
            added["previous_action"] = encoded
        if self.shows_reward:
            added["previous_reward"] = np.array([reward], np.float32)
        if self.shows_product:
            added["action_times_reward"] = encoded * np.float32(reward)
        if self._columns:
            return np.concatenate((np.asarray(observation, np.float32), *added.values()))
        return {**(observation if isinstance(observation, dict) else {"observation": observation}), **added}


def _options(space: spaces.Space[Any]) -> list[int] | None:
    """Return the options of each choice of a discrete action, or None."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return [int(n) for n in space.nvec]
    return None


def _encoded_space(space: spaces.Space[Any]) -> spaces.Box:
    """Return the space of encoded actions, (size,); raise TypeError if there is none."""
    options = _options(space)
    if options is not None:
        return spaces.Box(0.0, 1.0, (sum(options),), np.float32)
    if isinstance(space, spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, (int(np.prod(space.shape)),), np.float32)
    if isinstance(space, spaces.Box):  # 0 is no action, be it within the bounds or not
        low, high = np.minimum(space.low, 0).ravel(), np.maximum(space.high, 0).ravel()
        return spaces.Box(low.astype(np.float32), high.astype(np.float32))
    raise TypeError(f"Expected actions that are Box, Discrete, MultiDiscrete or MultiBinary, but got {space}.")


def _encode(space: spaces.Space[Any], action: Any) -> Floats:
    """Return an action as numbers, (size,); zeros for none."""
    options = _options(space)
    if action is None:
        return np.zeros(_encoded_space(space).shape, np.float32)
    if options is None:
        return np.asarray(action, np.float32).ravel()
    start = np.ravel(getattr(space, "start", 0))
    chosen = np.ravel(action) - start + np.cumsum([0, *options[:-1]])
    encoded = np.zeros(sum(options), np.float32)
    encoded[chosen.astype(np.int64)] = 1.0
    return encoded
