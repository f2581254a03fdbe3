"""Tasks that ask for memory: what the right answer is, and that nothing but memory gives it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sb3_ncde  # noqa: F401  (registers environments)
from sb3_ncde.envs.memory_tasks import Counting, CueAmongDistractors, TMaze


def play(env: Any, answer: Any, episodes: int = 40) -> float:
    """Return the mean return of an agent that answers by all that it has observed, a list of arrays."""
    total = 0.0
    for episode in range(episodes):
        seen = [env.reset(seed=episode)[0]]
        over = False
        while not over:
            observation, reward, over, _, _ = env.step(answer(seen))
            seen.append(observation)
            total += reward
    return total / episodes


def cue(seen: list[Any]) -> int:
    return int(np.argmax(np.sum(seen, axis=0)[:2]))


def count(seen: list[Any]) -> int:
    return int(sum(np.array_equal(each, seen[-1]) for each in seen[:-1]))


@pytest.mark.parametrize(
    ("env", "remembers", "best"),
    [
        (TMaze(length=1), cue, 1.0),
        (TMaze(length=30), cue, 1.0),
        (CueAmongDistractors(length=20, within=20), cue, 1.0),
        (Counting(length=12, symbols=3), count, 1.0),
        (Counting(length=4, symbols=4), count, 1.0),
    ],
)
def test_who_remembers_is_right_and_who_does_not_is_not(env: Any, remembers: Any, best: float) -> None:
    assert play(env, remembers) == pytest.approx(best)
    if env.action_space.n > 1:
        assert play(env, lambda seen: remembers(seen[-1:])) < 0.5


def test_observations_are_what_they_are_called() -> None:
    maze = TMaze(length=3)
    seen = [maze.reset(seed=0)[0], *(maze.step(np.int64(0))[0] for _ in range(3))]
    assert seen[0][:2].sum() == 1
    assert [int(each.argmax()) for each in seen[1:]] == [2, 2, 3]
    env = CueAmongDistractors(length=30, within=10)
    for seed in range(20):
        episode = [env.reset(seed=seed)[0], *(env.step(np.int64(0))[0] for _ in range(30))]
        shown = np.array(episode)
        assert shown[:10, :2].sum() == shown[:, :2].sum() == 1
        assert shown[-1].tolist() == [0, 0, 0, 0, 1]
        assert shown[:, 2:4].sum() > 3


@pytest.mark.parametrize("name", ["TMaze", "CueAmongDistractors", "Counting"])
def test_registered_tasks_pass_gymnasium_s_checker(name: str) -> None:
    check_env(gym.make(f"sb3_ncde/{name}-v1").unwrapped, skip_render_check=True)


def test_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="length=0: expected at least 1"):
        TMaze(length=0)
    with pytest.raises(ValueError, match="the cue may come after the question"):
        CueAmongDistractors(length=5, within=6)
    with pytest.raises(ValueError, match="each symbol is shown equally often"):
        Counting(length=5, symbols=2)
