"""Whose settings an agent has: the RL Zoo's, this package's, or those of ``memory.py``. None are made here."""

from typing import Any, NamedTuple

from memory import N_ENVS, PPO_SETTINGS
from zoo_settings import zoo_settings

from comparison.tasks import Task
from sb3_ncde.hyperparams import Settings, settings


class Chosen(NamedTuple):
    """Settings, and where they are from.

    :param source: of the settings
    :param n_envs: environments side by side
    :param normalize_reward: whether rewards are normalised, as the entry says
    :param normalize_observation: whether observations are
    :param model: arguments of the algorithm
    """

    source: str
    n_envs: int
    normalize_reward: bool
    normalize_observation: bool
    model: dict[str, Any]


def choose(task: Task, algorithm: str, ours: bool = False) -> Chosen:
    """Return the settings of an algorithm for a task.

    :param algorithm: the RL Zoo's name: ppo, ppo_lstm or sac
    :param ours: whether this package's entry for the task is taken, where there is one
    """
    if task.group == "long":
        source = "memory.py, for the task" if task.settings else "memory.py, tuned for no agent"
        return Chosen(source, N_ENVS, False, False, {**PPO_SETTINGS, **task.settings, "policy_kwargs": {}})
    if ours and task.ours is not None:
        return _chosen(f"configs/ppo_ncde.yml, {task.ours}", settings(task.ours), algorithm)
    env_id = task.zoo[algorithm]
    return _chosen(f"RL Zoo, {algorithm}.yml, {env_id}", zoo_settings(algorithm, env_id), algorithm)


def _chosen(source: str, found: Settings, algorithm: str) -> Chosen:
    model = {name: value for name, value in found.model.items() if name != "policy"} | {"device": "cpu"}
    model.setdefault("policy_kwargs", {})
    return Chosen(source, found.n_envs, found.normalize, algorithm != "sac", model)


def shared(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what an entry's ``policy_kwargs`` say of exploration, which other policies are given too.

    Networks are not: those of an entry are for its own policy, and others have theirs.
    """
    return {name: value for name, value in policy_kwargs.items() if name == "log_std_init"}
