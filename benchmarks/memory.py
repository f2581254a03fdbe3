"""Tasks whose answer is older than a short window: traces beside a control, an LSTM and stacked frames.

The control is the same policy with a window of one observation: traces, initial network and heads, but no equation. All
agents have the same settings of PPO on a task. But for those that NOTES.md tells of, they are tuned for none of them.

    python benchmarks/memory.py                                           # one after the other: many hours
    python benchmarks/memory.py --tasks "T-maze 64" --seeds 0 1 2         # goes on with what the folder has
    python benchmarks/memory.py --report docs/memory.csv                  # a table of results that are there
    python benchmarks/memory.py --tasks "T-maze 64" --steps 4096 --seeds 0 --episodes 2 --output runs/tiny

Tasks of POPGym need ``pip install popgym``.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from resumable import main
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

import sb3_ncde  # noqa: F401  (registers policies and environments)
from sb3_ncde.wrappers import PreviousAction


class Task(NamedTuple):
    """A task.

    :param make: makes it
    :param steps: of training
    :param settings: of PPO, for this task and all agents
    :param shown: what PreviousAction shows of the step before, as its arguments; None: nothing
    :param window: ``history_length``, as many as are stacked, and ``hop_length``, where they are not the defaults
    """

    make: Callable[[], gym.Env[Any, Any]]
    steps: int
    settings: Mapping[str, Any] = {}
    shown: Mapping[str, bool] | None = None
    window: Mapping[str, int] = {}


def popgym(name: str) -> gym.Env[Any, Any]:
    """Return an environment of POPGym (Morad et al. 2023, arXiv:2303.01859)."""
    import popgym.envs

    env: gym.Env[Any, Any] = getattr(popgym.envs, name)()
    return env


ENDS = {"n_steps": 1024, "batch_size": 1024}
"""Where the end alone is rewarded, rollouts hold whole episodes: of rollouts without an end PPO learns noise."""
ANSWERS = {"gamma": 0.0, "ent_coef": 0.05}
"""Where an answer changes nothing about what comes, all that it brings is its own reward; the others are noise.

Found on CountRecallEasy, seed 0, by six trainings of "traces alone" (``NOTES.md``), for all agents.
"""
TASKS = {
    "T-maze 16": Task(partial(gym.make, "sb3_ncde/TMaze-v1", length=16), 100_000),
    "T-maze 64": Task(partial(gym.make, "sb3_ncde/TMaze-v1", length=64), 200_000),
    "T-maze 1000": Task(partial(gym.make, "sb3_ncde/TMaze-v1", length=1000), 600_000, ENDS),
    "cue within 64": Task(partial(gym.make, "sb3_ncde/CueAmongDistractors-v1", length=64, within=64), 300_000),
    "RepeatFirstMedium": Task(partial(popgym, "RepeatFirstMedium"), 300_000),
    "RepeatFirstHard": Task(partial(popgym, "RepeatFirstHard"), 500_000),
    # The answer is the oldest of 32 cards.
    "RepeatPreviousMedium": Task(
        partial(popgym, "RepeatPreviousMedium"), 200_000, ANSWERS, window={"history_length": 32, "hop_length": 1}
    ),
    "CountRecallEasy": Task(partial(popgym, "CountRecallEasy"), 3_000_000, ANSWERS),
    "CountRecallMedium": Task(partial(popgym, "CountRecallMedium"), 3_000_000, ANSWERS),
    "MultiarmedBanditEasy": Task(
        partial(popgym, "MultiarmedBanditEasy"), 3_000_000, shown={"reward": True, "product": True}
    ),
    # Positions that are half noise say less of the velocities than what the agent has done, which POPGym shows as well.
    "NoisyPositionOnlyCartPoleMedium": Task(partial(popgym, "NoisyPositionOnlyCartPoleMedium"), 3_000_000, shown={}),
}
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 512,
    "n_epochs": 5,
    "learning_rate": 3e-4,
    "ent_coef": 0.01,
    "device": "cpu",
}
N_ENVS = 16


AGENTS: dict[str, Callable[..., BaseAlgorithm]] = {
    "NCDEPolicy, traces": partial(RecurrentPPO, "NCDEPolicy"),
    "NCDEPolicy, traces, unit": partial(RecurrentPPO, "NCDEPolicy"),
    "traces alone": partial(RecurrentPPO, "NCDEPolicy"),
    "MlpLstmPolicy 64": partial(RecurrentPPO, "MlpLstmPolicy"),
    "stacked frames": partial(PPO, "MlpPolicy"),
}


def policy_kwargs(task: Task, agent: str) -> dict[str, Any]:
    """Return what an agent's policy is given."""
    own: dict[str, dict[str, Any]] = {
        "NCDEPolicy, traces": {"traces": True, **task.window},
        "NCDEPolicy, traces, unit": {"traces": True, **task.window, "feature_norm": "unit"},
        "traces alone": {"traces": True, "history_length": 1},
        "MlpLstmPolicy 64": {"lstm_hidden_size": 64},
    }
    return own.get(agent, {})


def make_env(task: Task, agent: str, seed: int) -> VecEnv:
    """Return a task's environments for an agent; observations are vectors for all."""

    def make() -> gym.Env[Any, Any]:
        env = task.make()
        if not isinstance(env.observation_space, gym.spaces.Box):
            env = gym.wrappers.FlattenObservation(env)
        return env if task.shown is None else PreviousAction(env, **task.shown)

    env = make_vec_env(make, N_ENVS, seed=seed)
    return VecFrameStack(env, task.window.get("history_length", 8)) if agent == "stacked frames" else env


def make(name: str, agent: str, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent, and the environments that it is evaluated on."""
    task = TASKS[name]
    env, evaluated = (make_env(task, agent, number) for number in (seed, 1000 + seed))
    chosen = {**PPO_SETTINGS, **task.settings, "policy_kwargs": policy_kwargs(task, agent)}
    return AGENTS[agent](env, seed=seed, **chosen), evaluated


if __name__ == "__main__":
    gym.logger.min_level = gym.logger.ERROR
    tenths = {name: [task.steps * part // 10 for part in range(1, 11)] for name, task in TASKS.items()}
    main(__doc__.splitlines()[0], tenths, list(AGENTS), make, Path("runs/memory"))
