"""The agents: an algorithm, what of a task it is shown, and whose settings it has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import gymnasium as gym
from features import Features
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from comparison.settings import Chosen, choose, shared
from comparison.tasks import TASKS, Sensors, Task
from sb3_ncde import VecHistory, with_memory
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.presets import lerax

N_EVALUATED = 20
"""Environments that an agent is evaluated in side by side."""
SAC_LENGTH = 4
"""Observations of a history or a stack for SAC."""


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent.

    :param algorithm: ppo, ppo_lstm (RecurrentPPO) or sac
    :param view: what it is shown: "sensors" (as they are), "features" (:class:`features.Features`), "traces" (these and
        the traces), "newest" (nothing of the past), or "everything"
    :param frames: of "features" that are stacked
    :param ours: whether it has this package's settings, where there are any
    :param policy_kwargs: its own, beside those of the settings
    :param only: groups, or tasks, that it is run on; empty: all
    :param rank: of agents with a higher one, all runs come after those of this one
    :param most_seeds: of a task at most
    :param steps_per_second: a guess, until some have been measured
    """

    algorithm: str
    view: str
    frames: int = 1
    ours: bool = False
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    rank: int = 0
    most_seeds: int = 10
    steps_per_second: float = 2500.0

    def does(self, name: str, task: Task) -> bool:
        """Return whether it is run on a task."""
        if self.algorithm == "sac" and not task.sac_steps:
            return False
        if self.view == "everything" and task.best is not None:
            return False  # what it would reach is known
        return not self.only or name in self.only or task.group in self.only

    def steps(self, task: Task) -> int:
        """Return the steps of its training on a task."""
        return task.sac_steps if self.algorithm == "sac" else task.steps


FLOOR, CEILING = "PPO, no memory", "PPO, sees everything"
"""Between these, scores are from 0 to 1."""
ONE_OF_EACH_GROUP = ("CartPole", "irregular CartPole", "CartPole, asynchronous", "cue within 64")
WITH_AN_ENTRY = tuple(name for name, task in TASKS.items() if task.ours is not None)
WINDOW_OF_3 = ("irregular Pendulum", "irregular Pendulum, actions hidden")
"""Tasks of an entry whose ``history_length`` is 3."""
AGENTS = {
    "NCDEPolicy": Agent(algorithm="ppo_lstm", view="sensors", ours=True, steps_per_second=1200),
    "NCDEPolicy with traces": Agent(
        algorithm="ppo_lstm", view="sensors", ours=True, policy_kwargs={"traces": True}, only=("long",)
    ),
    "lerax preset": Agent(
        algorithm="ppo_lstm", view="sensors", ours=True, policy_kwargs={"preset": "lerax"}, steps_per_second=900
    ),
    "MlpLstmPolicy 64": Agent(
        algorithm="ppo_lstm", view="features", policy_kwargs={"lstm_hidden_size": 64}, steps_per_second=350
    ),
    "PPO, 8 stacked frames": Agent(algorithm="ppo", view="features", frames=8),
    "PPO, traces": Agent(algorithm="ppo", view="traces"),
    "PPO, rates": Agent(algorithm="ppo", view="features"),
    FLOOR: Agent(algorithm="ppo", view="newest"),
    CEILING: Agent(algorithm="ppo", view="everything"),
    "SAC, memory": Agent(algorithm="sac", view="sensors", rank=1, most_seeds=5, steps_per_second=60),
    "SAC, 4 stacked frames": Agent(
        algorithm="sac", view="features", frames=SAC_LENGTH, rank=1, most_seeds=5, steps_per_second=110
    ),
    "SAC, sees everything": Agent(algorithm="sac", view="everything", rank=1, most_seeds=5, steps_per_second=110),
    "PPO, memory, NCDEPolicy's settings": Agent(
        algorithm="ppo", view="sensors", ours=True, only=WITH_AN_ENTRY, rank=2, most_seeds=5, steps_per_second=1200
    ),
    "MlpLstmPolicy 64, NCDEPolicy's settings": Agent(
        algorithm="ppo_lstm",
        view="features",
        ours=True,
        policy_kwargs={"lstm_hidden_size": 64},
        only=WITH_AN_ENTRY,
        rank=2,
        most_seeds=5,
        steps_per_second=350,
    ),
    "PPO, 8 stacked frames, NCDEPolicy's settings": Agent(
        algorithm="ppo", view="features", frames=8, ours=True, only=WITH_AN_ENTRY, rank=2, most_seeds=5
    ),
    "PPO, 3 stacked frames, NCDEPolicy's settings": Agent(
        algorithm="ppo", view="features", frames=3, ours=True, only=WINDOW_OF_3, rank=2, most_seeds=5
    ),
    "PPO, rates, NCDEPolicy's settings": Agent(
        algorithm="ppo", view="features", ours=True, only=WITH_AN_ENTRY, rank=2, most_seeds=5
    ),
    "PPO, sees everything, NCDEPolicy's settings": Agent(
        algorithm="ppo", view="everything", ours=True, only=WITH_AN_ENTRY, rank=2, most_seeds=5
    ),
    "MlpLstmPolicy 256": Agent(
        algorithm="ppo_lstm",
        view="features",
        policy_kwargs={"lstm_hidden_size": 256},
        only=ONE_OF_EACH_GROUP,
        rank=3,
        most_seeds=3,
        steps_per_second=100,
    ),
}
"""By name, in the order in which they are run and reported."""


def make(task: Task, agent: Agent, seed: int) -> tuple[BaseAlgorithm, VecEnv, Chosen]:
    """Return an agent, the environments that it is evaluated on, and its settings."""
    chosen = choose(task, agent.algorithm, agent.ours)
    env = environments(task, agent, chosen, task.sensors, chosen.n_envs, 1000 * seed, training=True)
    evaluated = environments(task, agent, chosen, task.sensors, N_EVALUATED, first_evaluated(seed))
    model = _make_model(task, agent, chosen, env, seed)
    env.seed(1000 * seed)  # SB3 has seeded them by seed, seed + 1, ...: those of the next run would be nearly the same
    return model, evaluated, chosen


def first_evaluated(seed: int) -> int:
    """Return the seed of the first environment of an evaluation, for a seed of training."""
    return 1000 * seed + 500


def environments(
    task: Task, agent: Agent, chosen: Chosen, sensors: Sensors, n: int, seed: int, training: bool = False
) -> VecEnv:
    """Return the environments of a task as an agent is shown them, with any sensors."""
    env: VecEnv = make_vec_env(partial(shown, task, agent, sensors), n, seed=seed)
    if chosen.normalize_observation or chosen.normalize_reward:
        env = VecNormalizeObserved(
            env,
            skip=["time"] if agent.view == "sensors" and task.timed else [],
            training=training,
            norm_obs=chosen.normalize_observation,
            norm_reward=chosen.normalize_reward and training,
            gamma=chosen.model.get("gamma", 0.99),
        )
    if agent.frames > 1:  # what is not there yet is 0, as in the RL Zoo, which stacks what is normalised
        env = VecFrameStack(env, agent.frames)
    if agent.view == "sensors" and agent.algorithm != "ppo_lstm":
        length = {"history_length": SAC_LENGTH} if agent.algorithm == "sac" else _of(HistoryArguments, chosen)
        return VecHistory(env, **length | remembered(task))
    return env


VIEWS: dict[str, Callable[[gym.Env[Any, Any], Task], gym.Env[Any, Any]]] = {
    "sensors": lambda env, task: env,
    "everything": lambda env, task: env,
    "features": lambda env, task: Features(env, task.missing),
    "traces": lambda env, task: Features(env, task.missing, traces=task.dt),
    "newest": lambda env, task: Features(env, task.missing, memory=False),
}


def shown(task: Task, agent: Agent, sensors: Sensors) -> gym.Env[Any, Any]:
    """Return one environment as an agent is shown it."""
    return VIEWS[agent.view](task.make(sensors, agent.view == "everything"), task)


def remembered(task: Task) -> dict[str, Any]:
    """Return what NCDEPolicy and VecHistory must be told of a task's sensors."""
    arguments: dict[str, Any] = {"time_key": "time", "dt": task.dt} if task.timed else {}
    return arguments | ({"missing_values": True} if task.missing else {})


def _of(arguments: type[Any], chosen: Chosen) -> dict[str, Any]:
    """Return what an entry's ``policy_kwargs`` say of the history, or of the encoder."""
    known = {each.name for each in fields(arguments)}
    return {name: value for name, value in chosen.model["policy_kwargs"].items() if name in known}


def _make_model(task: Task, agent: Agent, chosen: Chosen, env: VecEnv, seed: int) -> BaseAlgorithm:
    kwargs: dict[str, Any] = {**chosen.model, "seed": seed}
    entry, own = kwargs.pop("policy_kwargs"), dict(agent.policy_kwargs)
    if agent.algorithm == "sac":
        make_sac = with_memory if agent.view == "sensors" else _without_memory
        return make_sac(SAC, env, policy_kwargs=entry, **kwargs)
    if agent.algorithm == "ppo" and agent.view == "sensors":
        encoder = _of(EncoderArguments, chosen)
        return with_memory(PPO, env, features_extractor_kwargs=encoder, policy_kwargs=shared(entry), **kwargs)
    if agent.algorithm == "ppo":
        return PPO("MlpPolicy", env, policy_kwargs=shared(entry) if agent.ours else entry, **kwargs)
    if agent.view != "sensors":
        return RecurrentPPO(
            "MlpLstmPolicy", env, policy_kwargs=(shared(entry) if agent.ours else entry) | own, **kwargs
        )
    if task.ours is None:
        entry = shared(entry)
    if own.pop("preset", None) == "lerax":
        # Time is none of the preset's channels: where it is irregular, it must be.
        entry = lerax(**shared(entry), **({"time_channel": True} if task.timed else {}))
    policy = "MultiInputNCDEPolicy" if task.timed else "NCDEPolicy"
    return RecurrentPPO(policy, env, policy_kwargs=entry | remembered(task) | own, **kwargs)


def _without_memory(algorithm: type[SAC], env: VecEnv, **kwargs: Any) -> SAC:
    return algorithm("MlpPolicy", env, **kwargs)
