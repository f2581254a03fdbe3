"""Off-policy algorithms of SB3 with memory, beside stacked frames of the same window and beside the full state.

All agents of a task have the same algorithm and settings, those of the RL Zoo for the task with all that is observed,
but for what ``STEADY`` changes on CartPole. All have the same information: where time is irregular, stacked frames are
given the elapsed time and the rates of change.

    python benchmarks/off_policy.py                                 # one after the other: many hours
    python benchmarks/off_policy.py --tasks Pendulum --seeds 0 1    # goes on with what the folder has
    python benchmarks/off_policy.py --report docs/off_policy.csv    # tables of results that are there
    python benchmarks/off_policy.py --tasks Pendulum --steps 128 --episodes 1 --seeds 0 --output runs/tiny
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from comparison.tasks import SAMPLING, make_body
from features import Features
from resumable import main
from sb3_contrib import QRDQN
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack
from zoo_settings import zoo_settings

from sb3_ncde import VecHistory, with_memory
from sb3_ncde.envs import TASKS
from sb3_ncde.hyperparams import with_schedules

MUJOCO = ("Hopper", "HalfCheetah")
MUJOCO_SETTINGS = "Hopper-v4"
"""Whose settings the RL Zoo has for both."""


def make_irregular_features() -> gym.Env[Any, Any]:
    """Return Pendulum without its velocity after 1 to 5 steps of physics, with rates and elapsed time as columns."""
    return Features(make_body("Pendulum", shows_action=False, sensors=SAMPLING, everything=False))


Maker = Callable[[], gym.Env[Any, Any]]


class Task(NamedTuple):
    """A task and what it is solved with.

    :param algorithm: of all agents, with the RL Zoo's settings for ``settings_of``
    :param settings_of: an environment of the RL Zoo
    :param evaluated: steps of training after which an agent is evaluated
    :param memory: makes the environment for the agent with memory
    :param full: for the one that sees everything
    :param frames: for the one with stacked frames; None: that of the agent with memory
    :param time: arguments of VecHistory beside its length
    :param changed: settings that are not the RL Zoo's
    """

    algorithm: type[BaseAlgorithm]
    settings_of: str
    evaluated: tuple[int, ...]
    memory: Maker
    full: Maker
    frames: Maker | None = None
    time: Mapping[str, Any] = {}
    changed: Mapping[str, Any] = {}


LENGTH = 4
"""Of the history, and of the stack of frames."""
QUARTERS = {steps: tuple(steps * part // 4 for part in range(1, 5)) for steps in (20_000, 40_000, 50_000, 100_000)}
SHOWN = {task: partial(gym.make, env_id) for task, (env_id, *_) in TASKS.items()}
HIDDEN = {task: partial(gym.make, f"sb3_ncde/{task}NoVel-v1") for task in TASKS}
STEADY = {
    "learning_rate": "lin_1e-3",
    "batch_size": 256,
    "train_freq": 16,
    "gradient_steps": 8,
    "target_update_interval": 256,
}
"""Of CartPole: with the RL Zoo's settings the last weights are a matter of luck, with all that is observed as well."""

RUNS = {
    "Pendulum": Task(SAC, "Pendulum-v1", QUARTERS[20_000], HIDDEN["Pendulum"], SHOWN["Pendulum"]),
    # The previous action is not shown: SAC learns more slowly with it (NOTES.md).
    "IrregularPendulum": Task(
        SAC,
        "Pendulum-v1",
        QUARTERS[40_000],
        partial(make_body, "Pendulum", shows_action=False, sensors=SAMPLING, everything=False),
        partial(make_body, "Pendulum", shows_action=False, sensors=SAMPLING, everything=True),
        make_irregular_features,
        {"time_key": "time", "dt": 0.15},
    ),
    "CartPole": Task(QRDQN, "CartPole-v1", QUARTERS[50_000], HIDDEN["CartPole"], SHOWN["CartPole"], changed=STEADY),
    "MountainCarContinuous": Task(
        SAC,
        "MountainCarContinuous-v0",
        QUARTERS[50_000],
        HIDDEN["MountainCarContinuous"],
        SHOWN["MountainCarContinuous"],
    ),
} | {
    name: Task(
        SAC,
        MUJOCO_SETTINGS,
        QUARTERS[100_000],
        partial(make_body, name, shows_action=False, sensors={}, everything=False),
        partial(make_body, name, shows_action=False, sensors={}, everything=True),
    )
    for name in MUJOCO
}
"""By name."""


def settings(task: Task) -> dict[str, Any]:
    """Return the settings of a task's algorithm, as its arguments."""
    zoo = zoo_settings(task.algorithm.__name__.lower(), task.settings_of).model
    return zoo | with_schedules(dict(task.changed)) | {"device": "cpu"}


def _two(make: Maker, seed: int) -> tuple[VecEnv, VecEnv]:
    """Return an environment to train in, and one to evaluate in."""
    return make_vec_env(make, 1, seed=seed), make_vec_env(make, 1, seed=1000 + seed)


def make_memory(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent with memory, and the environment that it is evaluated on."""
    env, evaluated = (VecHistory(part, history_length=LENGTH, **task.time) for part in _two(task.memory, seed))
    return with_memory(task.algorithm, env, seed=seed, **settings(task)), evaluated


def make_stacked(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent that sees as many stacked frames as the history is long."""
    env, evaluated = (VecFrameStack(part, LENGTH) for part in _two(task.frames or task.memory, seed))
    return task.algorithm("MlpPolicy", env, seed=seed, **settings(task)), evaluated


def make_full(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent that sees everything."""
    env, evaluated = _two(task.full, seed)
    return task.algorithm("MlpPolicy", env, seed=seed, **settings(task)), evaluated


AGENTS = {"memory": make_memory, "stacked frames": make_stacked, "full state": make_full}


def make(name: str, agent: str, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent, and the environment that it is evaluated on."""
    return AGENTS[agent](RUNS[name], seed)


if __name__ == "__main__":
    main(
        __doc__.splitlines()[0],
        {name: task.evaluated for name, task in RUNS.items()},
        list(AGENTS),
        make,
        Path("runs/off_policy"),
    )
