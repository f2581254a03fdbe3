"""PreviousAction: what was done, what it brought, and both multiplied, beside the observation."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import SAC
from stable_baselines3.common.env_checker import check_env as check_env_sb3
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde import with_memory
from sb3_ncde.wrappers import PreviousAction
from tests.envs import RandomWalk

BOX = spaces.Box(1.0, 2.0, (2,), np.float32)
ACTIONS: dict[str, tuple[spaces.Space[Any], Any, list[float]]] = {
    "discrete": (spaces.Discrete(3), 2, [0, 0, 1]),
    "discrete from 5": (spaces.Discrete(3, start=5), 5, [1, 0, 0]),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), np.array([1, 0]), [0, 1, 1, 0, 0]),
    "multi-binary": (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), [1, 0, 1]),
    "box": (BOX, np.array([1.5, 2.0], np.float32), [1.5, 2.0]),
}


def walk(**kwargs: Any) -> RandomWalk:
    return RandomWalk(longest=50, **kwargs)


@pytest.mark.parametrize("name", ACTIONS)
def test_columns_are_added_to_a_vector(name: str) -> None:
    space, action, encoded = ACTIONS[name]
    env = PreviousAction(walk(action_space=space), reward=True, product=True)
    first, _ = env.reset(seed=0)
    size = len(encoded)
    assert first.shape == env.observation_space.shape == (3 + 2 * size + 1,)
    assert not first[3:].any()
    observation, reward, *_ = env.step(action)
    expected = np.array([*encoded, reward, *(np.float32(reward) * np.array(encoded, np.float32))], np.float32)
    np.testing.assert_array_equal(observation[3:], expected)
    assert env.observation_space.contains(first)
    assert env.observation_space.contains(observation)


@pytest.mark.parametrize("kind", ["dict", "discrete", "image", "scalar"])
def test_keys_are_added_to_any_other(kind: str) -> None:
    env = PreviousAction(walk(observation=kind, action_space=spaces.Discrete(2)), product=True)
    space: Any = env.observation_space
    assert set(space.spaces) >= {"previous_action", "action_times_reward"}
    assert "previous_reward" not in space.spaces
    assert ("observation" in space.spaces) == (kind != "dict")
    env.reset(seed=0)
    observation, reward, *_ = env.step(1)
    np.testing.assert_array_equal(observation["previous_action"], [0, 1])
    np.testing.assert_array_equal(observation["action_times_reward"], np.array([0, reward], np.float32))


def test_the_reward_alone() -> None:
    assert PreviousAction(walk(action_space=spaces.Text(3)), reward=True, action=False).observation_space.shape == (4,)
    env = PreviousAction(walk(), reward=True, action=False)
    assert env.reset(seed=0)[0][3:].tolist() == [0]
    observation, reward, *_ = env.step(1)
    assert observation[3:].tolist() == [np.float32(reward)]
    assert env.observation_space.contains(observation)
    of_keys: Any = PreviousAction(walk(observation="dict"), product=True, action=False).observation_space
    assert "action_times_reward" in of_keys.spaces
    assert "previous_action" not in of_keys.spaces
    with pytest.raises(ValueError, match="shows nothing"):
        PreviousAction(walk(), action=False)


def test_an_episode_begins_without_an_action() -> None:
    env = PreviousAction(walk())
    env.reset(seed=0)
    assert env.step(1)[0][3:].tolist() == [0, 1]
    assert env.reset()[0][3:].tolist() == [0, 0]


@pytest.mark.filterwarnings("ignore")
def test_checkers_are_content() -> None:
    env = PreviousAction(gym.make("CartPole-v1"), reward=True)
    check_env_sb3(env)
    check_env(env, skip_render_check=True)


def test_an_agent_learns_with_it() -> None:
    env = make_vec_env("sb3_ncde/PendulumNoVel-v1", wrapper_class=PreviousAction, wrapper_kwargs={"reward": True})
    with_memory(SAC, env, history_length=2, learning_starts=8, batch_size=8, buffer_size=50, device="cpu").learn(16)


def test_what_cannot_be_shown_is_refused() -> None:
    for observation in ("dict", "box"):
        with pytest.raises(ValueError, match="The environment is wrapped in PreviousAction already"):
            PreviousAction(gym.wrappers.TimeLimit(PreviousAction(walk(observation=observation)), 9))
    taken = gym.wrappers.TransformObservation(
        walk(), lambda values: {"previous_action": values}, spaces.Dict({"previous_action": walk().observation_space})
    )
    with pytest.raises(ValueError, match=r"has the keys \['previous_action'\] already, which PreviousAction adds"):
        PreviousAction(taken)
    with pytest.raises(TypeError, match="Expected actions that are Box, Discrete"):
        PreviousAction(walk(action_space=spaces.Text(3)))
