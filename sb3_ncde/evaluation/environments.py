"""Environments of an evaluation, as the agent saw those of its training."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize


def normalized_as_trained(
    model: BaseAlgorithm, makers: Sequence[Callable[[], gym.Env[Any, Any]]], vec_normalize: VecNormalize | None
) -> VecEnv:
    """Return environments with the normalisation of the training, which no longer learns."""
    env = DummyVecEnv([partial(_monitored, make) for make in makers])
    wrapped = model._wrap_env(env, monitor_wrapper=False)  # images as SB3's networks take them
    check_for_correct_spaces(wrapped, model.observation_space, model.action_space)
    normalize = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
    if normalize is None:
        return wrapped
    normalize = copy.deepcopy(normalize)  # as it is saved: without its environments
    normalize.set_venv(env)
    normalize.training = normalize.norm_reward = False
    return model._wrap_env(normalize, monitor_wrapper=False)


def _monitored(make_env: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    return Monitor(make_env())
