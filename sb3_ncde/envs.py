"""Environments that hide what an agent needs to remember."""

from typing import Any

import gymnasium as gym
from gymnasium.spaces import Box
from gymnasium.wrappers import TransformObservation


def _select(env: gym.Env[Any, Any], indices: list[int]) -> gym.Env[Any, Any]:
    """Return the environment with only some entries of its vector observation.

    :param env: an environment with a one-dimensional Box observation
    :param indices: of the entries that stay
    """
    space = env.observation_space
    assert isinstance(space, Box)
    return TransformObservation(
        env, lambda observation: observation[indices], Box(space.low[indices], space.high[indices])
    )


def cart_pole_no_vel(**kwargs: Any) -> gym.Env[Any, Any]:
    """Return CartPole that shows the cart's position and the pole's angle (m, rad), and neither velocity."""
    return _select(gym.make("CartPole-v1", **kwargs).unwrapped, [0, 2])


def pendulum_no_vel(**kwargs: Any) -> gym.Env[Any, Any]:
    """Return Pendulum that shows the cosine and sine of its angle, and not the angular velocity."""
    return _select(gym.make("Pendulum-v1", **kwargs).unwrapped, [0, 1])


gym.register(
    "sb3_ncde/CartPoleNoVel-v1", "sb3_ncde.envs:cart_pole_no_vel", max_episode_steps=500, reward_threshold=475.0
)
gym.register("sb3_ncde/PendulumNoVel-v1", "sb3_ncde.envs:pendulum_no_vel", max_episode_steps=200)
