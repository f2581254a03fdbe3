"""What an agent does in PyTorch and Stable-Baselines3, step by step: what an exported one is compared with."""

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN

from sb3_ncde.deploy.contents import Tree
from sb3_ncde.deploy.episodes import Episodes, Playback
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.history.window_rule import Array
from sb3_ncde.policies import NCDEPolicy
from sb3_ncde.vec_history import VecHistory

Speaker = tuple[th.nn.Module, Callable[[th.Tensor], th.Tensor]]
"""A module, and what is meant by its output."""


def outputs_in_pytorch(
    policy: Any, normalize: VecNormalize | None, space: spaces.Space[Any], tree: Tree, episodes: Episodes
) -> Iterator[dict[str, Array]]:
    """Yield, step by step, the outputs of an exported agent as PyTorch has them.

    The observations go through the wrappers of the training: VecNormalize, what SB3 does to images, VecHistory.

    :param policy: that is exported
    :param normalize: of the training, or None
    :param space: of raw observations
    :param tree: of the agent
    :param episodes: to go through
    """
    n_envs = episodes.starts.shape[1]
    env: VecEnv = DummyVecEnv(
        [partial(Playback, space, policy.action_space, episodes, number) for number in range(n_envs)]
    )
    if normalize is not None:
        env = _renewed(normalize, env)
    env = BaseAlgorithm._wrap_env(env, verbose=0)
    if isinstance(policy.observation_space, HistorySpace):
        arguments = policy.observation_space.arguments
        env = VecHistory(env, **{name: getattr(arguments, name) for name in arguments.__dataclass_fields__})
    as_observed = all(layer["kind"] == "flatten" for network in tree["features"] for layer in network["layers"])
    observation, state = env.reset(), None
    for starts in episodes.starts:
        with _told(policy) as told, th.no_grad():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of random observations, at random times
                action, after = policy.predict(observation, state, starts, deterministic=True)
            outputs = {"action": action} | told
            if tree["heads"]["value"] is not None:
                rows, _ = policy.obs_to_tensor(observation)
                before = _histories(policy, state, starts)
                outputs["value"] = policy.predict_values(rows, *before).numpy(force=True)[:, 0]
        if after is not None:
            outputs["next_history"] = np.concatenate(after, axis=2)[0]
        elif as_observed:  # else the history of the model has the images, and that of the agent what was made of them
            outputs["next_history"] = observation
        yield outputs
        state = after
        observation, _, _, _ = env.step(action)


def _renewed(normalize: VecNormalize, env: VecEnv) -> VecNormalize:
    """Return a copy of a normalisation around other environments, which learns nothing of them."""
    copy: VecNormalize = pickle.loads(pickle.dumps(normalize))
    copy.set_venv(env)
    copy.training = copy.norm_reward = False
    return copy


def _histories(policy: Any, state: Any, starts: Array) -> tuple[Any, ...]:
    """Return what a recurrent policy is given beside an observation: histories, and where episodes begin."""
    if not isinstance(policy, NCDEPolicy):
        return ()
    empty = np.zeros((1, len(starts), policy.lstm_actor.hidden_size), np.float32)
    histories = tuple(th.from_numpy(part).to(policy.device) for part in (state or (empty, empty)))
    return histories, th.from_numpy(starts.astype(np.float32)).to(policy.device)


@contextmanager
def _told(policy: Any) -> Iterator[dict[str, Array]]:
    """Yield a dict that will hold what the actor of a policy says within the context."""
    told: dict[str, Array] = {}

    def listen(module: th.nn.Module, name: str, meant: Callable[[th.Tensor], th.Tensor]) -> Any:
        def hear(_: Any, __: Any, output: th.Tensor) -> None:
            told[name] = meant(output).numpy(force=True).copy()

        return module.register_forward_hook(hear)

    handles = [listen(module, name, meant) for name, (module, meant) in _speakers(policy).items()]
    try:
        yield told
    finally:
        for handle in handles:
            handle.remove()


def _speakers(policy: Any) -> dict[str, Speaker]:
    """Return, by name, the modules that say the parameters of the action's distribution, and how these are meant."""
    if isinstance(policy, ActorCriticPolicy):
        if not isinstance(policy.action_space, spaces.Box):
            return {"logits": (policy.action_net, _as_said)}
        speakers: dict[str, Speaker] = {"mean": (policy.action_net, _as_said)}
        if not policy.use_sde:
            speakers["log_std"] = (policy.action_net, lambda mean: policy.log_std.expand_as(mean))
        return speakers
    if isinstance(policy, DQNPolicy):
        return {"q_values": (policy.q_net, _as_said)}
    if isinstance(policy, QRDQNPolicy):
        return {"q_values": (policy.quantile_net, lambda quantiles: quantiles.mean(dim=1))}
    speakers = {"mean": (policy.actor.mu, _as_said)}
    if isinstance(getattr(policy.actor, "log_std", None), th.nn.Module):  # of gSDE it is a parameter
        speakers["log_std"] = (policy.actor.log_std, lambda said: said.clamp(LOG_STD_MIN, LOG_STD_MAX))
    return speakers


def _as_said(output: th.Tensor) -> th.Tensor:
    return output
