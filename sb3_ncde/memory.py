"""with_memory: an algorithm of SB3 with all three parts of the memory, in one line."""

import inspect
from dataclasses import fields
from typing import Any, TypeVar

import gymnasium as gym
from sb3_contrib import ARS, QRDQN, TQC, RecurrentPPO
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, is_vecenv_wrapped
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_ncde.buffers import HistoryReplayBuffer
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history_policies import HISTORY_POLICIES
from sb3_ncde.torch_layers import NCDEExtractor
from sb3_ncde.vec_history import VecHistory, refuse_normalized_histories

FUSED = (SAC, TD3, TQC, DQN)
"""Algorithms whose optimizer is PyTorch's Adam as it is; the others have settings of their own for it."""
IN_LESS_TIME = (SAC, TQC, TD3, DDPG, DQN, QRDQN)
"""Algorithms whose policy is one of :mod:`sb3_ncde.history_policies`; not a subclass, which may learn otherwise."""
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

    with PyTorch's fused Adam for :data:`FUSED`, which makes the same steps in less time for such small networks. In
    place of "MlpPolicy" of :data:`IN_LESS_TIME` stands one of :mod:`sb3_ncde.history_policies`, which does the same
    in less time. An environment of an evaluation has to be wrapped in VecHistory with the same arguments.

    :param algorithm: SAC, TD3, DDPG, DQN, TQC, QRDQN, CrossQ, PPO, A2C, TRPO, MaskablePPO, ...
    :param env: an environment, its id, or several in a VecEnv. A VecNormalize is inside, VecHistory is put around it
    :param policy: of the algorithm; a class is taken as it is
    :param policy_kwargs: of the policy
    :param features_extractor_kwargs: of :class:`sb3_ncde.NCDEExtractor`
    :param kwargs: of :class:`sb3_ncde.VecHistory` and of the algorithm
    :raises TypeError: for ARS, RecurrentPPO, hindsight experience replay, a features extractor that reads no histories,
        or an unknown argument
    :raises ValueError: for histories that are normalised, another discount factor of the buffer, or images that would
        not be seen as such
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
        if issubclass(buffer_class, HistoryReplayBuffer):
            # SB3 hands n_steps to its own buffer only.
            buffer = {"n_steps": kwargs.pop("n_steps", 1)} | (kwargs.get("replay_buffer_kwargs") or {})
            if buffer["n_steps"] == 1:
                del buffer["n_steps"]
            else:
                _discount(buffer, kwargs["gamma"] if "gamma" in kwargs else _default(algorithm, "gamma"))
            kwargs["replay_buffer_kwargs"] = buffer
    given = dict(policy_kwargs or {})
    defaults: dict[str, Any] = {"features_extractor_class": NCDEExtractor}
    if features_extractor_kwargs:
        of_policy = given.get("features_extractor_kwargs") or {}
        given["features_extractor_kwargs"] = of_policy | features_extractor_kwargs
    _check_policy(algorithm, policy, defaults | given, env)
    if issubclass(algorithm, FUSED) and "optimizer_class" not in given:
        defaults["optimizer_kwargs"] = {"fused": True}
    return algorithm(_in_less_time(algorithm, policy), env, policy_kwargs=defaults | given, **kwargs)


def _in_less_time(algorithm: type[BaseAlgorithm], policy: str | type[Any]) -> str | type[Any]:
    """Return the policy that does the same as one that was named, in less time, if there is one."""
    if algorithm not in IN_LESS_TIME or not isinstance(policy, str):
        return policy
    named: Any = algorithm.policy_aliases.get(policy)
    return HISTORY_POLICIES.get(named, policy)


def _with_histories(env: str | gym.Env[Any, Any] | VecEnv, arguments: dict[str, Any]) -> VecEnv:
    """Return environments wrapped in VecHistory."""
    if isinstance(env, VecEnv) and is_vecenv_wrapped(env, VecHistory):
        refuse_normalized_histories(env)
        if arguments:
            given = ", ".join(sorted(arguments))
            raise TypeError(f"The environments are wrapped in VecHistory already: give it {given}.")
        return env
    if isinstance(env, str):
        env = make_vec_env(env)
    return VecHistory(BaseAlgorithm._wrap_env(env), **arguments)


def _discount(buffer: dict[str, Any], gamma: float) -> None:
    """Give a buffer of n-step returns the algorithm's discount factor; raise ValueError if it has another."""
    if buffer.setdefault("gamma", gamma) != gamma:
        raise ValueError(
            f"replay_buffer_kwargs discount by gamma={buffer['gamma']}, the algorithm by {gamma}: give gamma to "
            "with_memory alone."
        )


def _check_policy(
    algorithm: type[BaseAlgorithm], policy: str | type[Any], policy_kwargs: dict[str, Any], env: VecEnv
) -> None:
    """Raise for a policy whose networks would be given histories as if they were observations."""
    chosen = policy_kwargs["features_extractor_class"]
    if not (isinstance(chosen, type) and issubclass(chosen, NCDEExtractor)):
        raise TypeError(
            f"features_extractor_class={chosen} of policy_kwargs would be given histories in place of observations. "
            "What makes features of each observation is an argument of NCDEExtractor: "
            "features_extractor_kwargs=dict(features_extractor_class=..., features_extractor_kwargs=dict(...)). "
            "A class that reads histories is for the algorithm itself, with VecHistory around the environments."
        )
    space = env.observation_space
    if not isinstance(space, HistorySpace):
        return
    of_each = (policy_kwargs.get("features_extractor_kwargs") or {}).get("features_extractor_class")
    cnn = policy in ("CnnPolicy", algorithm.policy_aliases.get("CnnPolicy"))
    if cnn and chosen is NCDEExtractor and of_each is None and not space.flattening.images:
        raise ValueError(
            f"CnnPolicy, but {space.observed} is no image as SB3 knows them, uint8 from 0 to 255. To have a CNN see "
            "it: features_extractor_kwargs=dict(features_extractor_class=NatureCNN, "
            "features_extractor_kwargs=dict(normalized_image=True))."
        )
    if policy_kwargs.get("normalize_images") is False and space.flattening.images:
        raise ValueError(
            f"normalize_images=False, but pixels of {space.observed} are divided by 255 in a history. If they are to "
            "go to the network as they are, let the environment return them in float32."
        )


def _default(algorithm: type[BaseAlgorithm], name: str) -> Any:
    """Return the default of an argument, which a subclass may hand on without naming it."""
    signatures = (inspect.signature(kind).parameters for kind in algorithm.__mro__)
    return next(parameters[name].default for parameters in signatures if name in parameters)
