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

from sb3_ncde.envs.normalization import normalized_space, refuse_missing_statistics
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.vec_history import VecHistory, normalize_inside


def normalized_as_trained(
    model: BaseAlgorithm, makers: Sequence[Callable[[], gym.Env[Any, Any]]], vec_normalize: VecNormalize | None
) -> VecEnv:
    """Return environments with the normalisation of the training, which no longer learns.

    :raises ValueError: if the observations, normalised, or the actions are not those that the model was made for, or if
        the statistics of the training are missing
    """
    env: VecEnv = DummyVecEnv([partial(_monitored, make) for make in makers])
    normalize = model.get_vec_normalize_env() if vec_normalize is None else vec_normalize
    refuse_missing_statistics(model, normalize)
    normalize = normalize_inside(normalize)
    if normalize is not None:
        normalize = copy.deepcopy(normalize)  # as it is saved: without its environments
        normalize.observation_space = normalized_space(env.observation_space, normalize)  # not that of the training
        normalize.set_venv(env)
        normalize.training = normalize.norm_reward = False
        env = normalize
    space = model.observation_space
    if isinstance(space, HistorySpace):
        env = VecHistory(env, **vars(space.arguments))
    else:
        env = model._wrap_env(env, monitor_wrapper=False)  # images as SB3's networks take them
    check_for_correct_spaces(env, model.observation_space, model.action_space)
    return env


def _monitored(make_env: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    return Monitor(make_env())
