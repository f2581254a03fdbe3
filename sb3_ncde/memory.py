"""with_memory: an algorithm of SB3 with all three parts of the memory, in one line."""

import inspect
from dataclasses import fields
from typing import Any, TypeVar

import gymnasium as gym
from sb3_contrib import ARS, TQC, RecurrentPPO
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, is_vecenv_wrapped
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_ncde.buffers import HistoryReplayBuffer
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.torch_layers import NCDEExtractor
from sb3_ncde.vec_history import VecHistory

FUSED = (SAC, TD3, TQC, DQN)
"""Algorithms whose optimizer is PyTorch's Adam as it is; the others have settings of their own for it."""
Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)


def with_memory(
    algorithm: type[Algorithm],
    env: str | gym.Env[Any, Any] | VecEnv,
    *,
    policy: str | type[Any] = "MlpPolicy",
    policy_kwargs: dict[str, Any] | None = None,
    features_extractor_kwargs: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Algorithm:
    """Return an algorithm whose agent remembers.

    ``with_memory(SAC, env, history_length=4)`` is short for ::

        SAC(
            "MlpPolicy",
            VecHistory(make_vec_env(env), history_length=4),
            policy_kwargs=dict(features_extractor_class=NCDEExtractor),
            replay_buffer_class=HistoryReplayBuffer,
        )

    with PyTorch's fused Adam for :data:`FUSED`, which makes the same steps in less time for such small networks. An
    environment of an evaluation has to be wrapped in VecHistory with the same arguments.

    :param algorithm: SAC, TD3, DDPG, DQN, TQC, QRDQN, CrossQ, PPO, A2C, TRPO, MaskablePPO, ...
    :param env: an environment, its id, or several in a VecEnv. A VecNormalize is inside, VecHistory is put around it
    :param policy: of the algorithm
    :param policy_kwargs: of the policy
    :param features_extractor_kwargs: of :class:`sb3_ncde.NCDEExtractor`
    :param kwargs: of :class:`sb3_ncde.VecHistory` and of the algorithm
    :raises TypeError: for ARS, RecurrentPPO, hindsight experience replay, or an unknown argument
    """
    if issubclass(algorithm, ARS):
        raise TypeError("ARS has a policy of its own, which takes no features extractor, and so no memory.")
    if issubclass(algorithm, RecurrentPPO):
        raise TypeError('The policies of RecurrentPPO have their memory inside: RecurrentPPO("NCDEPolicy", env).')
    for name in {field.name for field in fields(EncoderArguments)} & kwargs.keys():
        raise TypeError(f"{name} is an argument of NCDEExtractor: features_extractor_kwargs=dict({name}=...).")
    remembered = {field.name for field in fields(HistoryArguments)}
    env = _with_histories(env, {name: kwargs.pop(name) for name in remembered & kwargs.keys()})
    if issubclass(algorithm, OffPolicyAlgorithm):
        kwargs["replay_buffer_class"] = buffer_class = kwargs.get("replay_buffer_class") or HistoryReplayBuffer
        if issubclass(buffer_class, HerReplayBuffer):
            raise TypeError(
                "HerReplayBuffer writes other goals into stored observations, and a history has the goals of all its "
                "observations in it: hindsight experience replay is not supported."
            )
        if issubclass(buffer_class, HistoryReplayBuffer) and kwargs.get("n_steps", 1) > 1:
            # SB3 hands these to its own buffer only.
            several = {"n_steps": kwargs.pop("n_steps"), "gamma": kwargs.get("gamma", _default(algorithm, "gamma"))}
            kwargs["replay_buffer_kwargs"] = several | (kwargs.get("replay_buffer_kwargs") or {})
    given = dict(policy_kwargs or {})
    defaults: dict[str, Any] = {"features_extractor_class": NCDEExtractor}
    if features_extractor_kwargs:
        given["features_extractor_kwargs"] = given.get("features_extractor_kwargs", {}) | features_extractor_kwargs
    if issubclass(algorithm, FUSED) and "optimizer_class" not in given:
        defaults["optimizer_kwargs"] = {"fused": True}
    return algorithm(policy, env, policy_kwargs=defaults | given, **kwargs)


def _with_histories(env: str | gym.Env[Any, Any] | VecEnv, arguments: dict[str, Any]) -> VecEnv:
    """Return environments wrapped in VecHistory."""
    if isinstance(env, VecEnv) and is_vecenv_wrapped(env, VecHistory):
        if isinstance(env, VecNormalize) and not isinstance(env, VecHistory):
            raise ValueError(
                "VecNormalize is wrapped around VecHistory, whose counts and times are not to be normalised: put it "
                "inside, VecHistory(VecNormalize(venv))."
            )
        if arguments:
            given = ", ".join(sorted(arguments))
            raise TypeError(f"The environments are wrapped in VecHistory already: give it {given}.")
        return env
    if isinstance(env, str):
        env = make_vec_env(env)
    return VecHistory(BaseAlgorithm._wrap_env(env), **arguments)


def _default(algorithm: type[BaseAlgorithm], name: str) -> Any:
    return inspect.signature(algorithm).parameters[name].default
