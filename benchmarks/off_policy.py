"""Off-policy algorithms of SB3 with memory, beside stacked frames of the same window and beside the full state.

All agents of a task have the same algorithm and settings: those of the task's entry in ``configs/``, or of the RL Zoo
where there is none. All but the last have the same information: where time is irregular, stacked frames are given the
elapsed time and the rates of change. What is not equal stands in ``docs/algorithms.md``.

    python benchmarks/off_policy.py                                 # one after the other: many hours
    python benchmarks/off_policy.py --tasks Pendulum --seeds 0 1    # goes on with what the folder has
    python benchmarks/off_policy.py --report docs/off_policy.csv    # tables of results that are there
    python benchmarks/off_policy.py --tasks Pendulum --steps 128 --episodes 1 --seeds 0 --output runs/tiny
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import yaml
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
from sb3_ncde.wrappers import PreviousAction
from sb3_ncde.zoo.config_entry import as_mapping

CONFIGS = Path(__file__).parents[1] / "configs"
OURS = "sb3_ncde/"
MUJOCO = ("Hopper", "HalfCheetah")
MUJOCO_SETTINGS = "Hopper-v4"
"""Whose settings the RL Zoo has for both."""


def make_irregular_features() -> gym.Env[Any, Any]:
    """Return Pendulum without its velocity after 1 to 5 steps of physics, with rates and elapsed time as columns."""
    return Features(make_body("Pendulum", shows_action=False, sensors=SAMPLING, everything=False))


def make_positions(name: str) -> gym.Env[Any, Any]:
    """Return a body that shows its positions."""
    return make_body(name, shows_action=False, sensors={}, everything=False)


def make_rewarded(name: str) -> gym.Env[Any, Any]:
    """Return a body that shows its positions and the previous reward, most of which is the forward velocity."""
    return PreviousAction(make_positions(name), reward=True, action=False)


Maker = Callable[[], gym.Env[Any, Any]]


class Task(NamedTuple):
    """A task and what it is solved with.

    :param algorithm: of all agents
    :param settings_of: an environment that ``configs/`` has an entry for, or the RL Zoo where it is not this package's
    :param evaluated: steps of training after which an agent is evaluated
    :param memory: makes the environment for the agent with memory
    :param full: for the one that sees everything
    :param frames: for the one with stacked frames; None: that of the agent with memory
    """

    algorithm: type[BaseAlgorithm]
    settings_of: str
    evaluated: tuple[int, ...]
    memory: Maker
    full: Maker
    frames: Maker | None = None


def _mujoco(name: str, make: Maker) -> Task:
    """Return a task of MuJoCo.

    :param make: makes what all but the full state see
    """
    full = partial(make_body, name, shows_action=False, sensors={}, everything=True)
    return Task(SAC, MUJOCO_SETTINGS, QUARTERS[100_000], make, full)


QUARTERS = {steps: tuple(steps * part // 4 for part in range(1, 5)) for steps in (20_000, 40_000, 50_000, 100_000)}
SHOWN = {task: partial(gym.make, env_id) for task, (env_id, *_) in TASKS.items()}
HIDDEN = {task: partial(gym.make, f"{OURS}{task}NoVel-v1") for task in TASKS}
RUNS: dict[str, Task] = {
    "Pendulum": Task(SAC, f"{OURS}PendulumNoVel-v1", QUARTERS[20_000], HIDDEN["Pendulum"], SHOWN["Pendulum"]),
    # The previous action is not shown: SAC learns more slowly with it (NOTES.md).
    "IrregularPendulum": Task(
        SAC,
        f"{OURS}IrregularPendulumNoVel-v1",
        QUARTERS[40_000],
        partial(make_body, "Pendulum", shows_action=False, sensors=SAMPLING, everything=False),
        partial(make_body, "Pendulum", shows_action=False, sensors=SAMPLING, everything=True),
        make_irregular_features,
    ),
    "CartPole": Task(QRDQN, f"{OURS}CartPoleNoVel-v1", QUARTERS[50_000], HIDDEN["CartPole"], SHOWN["CartPole"]),
    "MountainCarContinuous": Task(
        SAC,
        f"{OURS}MountainCarContinuousNoVel-v1",
        QUARTERS[50_000],
        HIDDEN["MountainCarContinuous"],
        SHOWN["MountainCarContinuous"],
    ),
}
RUNS |= {name: _mujoco(name, partial(make_positions, name)) for name in MUJOCO}
# Their agents of the full state are those of the tasks without the reward, and need not be trained twice.
RUNS |= {f"{name}Reward": _mujoco(name, partial(make_rewarded, name)) for name in MUJOCO}


def settings(task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a task's algorithm, as its arguments, and those of VecHistory."""
    name = task.algorithm.__name__.lower()
    if not task.settings_of.startswith(OURS):
        return zoo_settings(name, task.settings_of).model | {"device": "cpu"}, {"history_length": 4}
    entry = yaml.safe_load((CONFIGS / f"{name}.yml").read_text())[task.settings_of]
    history: dict[str, Any] = entry["vec_env_wrapper"]["sb3_ncde.VecHistory"]
    policy_kwargs = as_mapping(entry["policy_kwargs"])
    # Which policy, extractor, buffer and optimizer there are is each agent's own.
    del policy_kwargs["features_extractor_class"]
    policy_kwargs.pop("optimizer_kwargs", None)
    for key in ("policy", "n_timesteps", "vec_env_wrapper", "replay_buffer_class"):
        del entry[key]
    entry["n_steps"] = entry.pop("replay_buffer_kwargs", {}).get("n_steps", 1)
    return with_schedules(entry | {"policy_kwargs": policy_kwargs, "device": "cpu"}), history


def _two(make: Maker, seed: int) -> tuple[VecEnv, VecEnv]:
    """Return an environment to train in, and one to evaluate in."""
    return make_vec_env(make, 1, seed=seed), make_vec_env(make, 1, seed=1000 + seed)


def make_memory(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent with memory, and the environment that it is evaluated on."""
    model, history = settings(task)
    env, evaluated = (VecHistory(part, **history) for part in _two(task.memory, seed))
    return with_memory(task.algorithm, env, seed=seed, **model), evaluated


def make_stacked(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent that sees as many stacked frames as the history is long."""
    model, history = settings(task)
    env, evaluated = (VecFrameStack(part, history["history_length"]) for part in _two(task.frames or task.memory, seed))
    return task.algorithm("MlpPolicy", env, seed=seed, **model), evaluated


def make_full(task: Task, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent that sees everything."""
    env, evaluated = _two(task.full, seed)
    return task.algorithm("MlpPolicy", env, seed=seed, **settings(task)[0]), evaluated


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
