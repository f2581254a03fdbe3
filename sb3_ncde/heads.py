"""The heads of NCDEPolicy: from what they see to actions and values. While it acts, in NumPy.

For a handful of rows PyTorch spends its time in the calls: in a rollout the heads and their distribution cost more in
PyTorch than the encoder does in NumPy, and in an update the calls of modules cost half of what they compute. Whatever
is not known here goes through the policy's modules as ever.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.distributions import (
    CategoricalDistribution,
    DiagGaussianDistribution,
    Distribution,
    StateDependentNoiseDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn
from torch.distributions import Categorical, Normal

from sb3_ncde.acting.distributions import categorical, gaussian, state_dependent
from sb3_ncde.cde.host_weights import on_host
from sb3_ncde.history.window_rule import Array
from sb3_ncde.known_layers import KnownLayers, Network, called, run

_FORWARD = ("forward", "forward_actor", "forward_critic")


class Acted(NamedTuple):
    """What the actor's head makes of N rows.

    :param actions: (N, *shape of an action)
    :param log_prob: of them, (N,)
    """

    actions: th.Tensor
    log_prob: th.Tensor


class Heads:
    """Actor's and critic's head of a policy, computed with the policy's own parameters, which are shared, not copied.

    :param policy: whose heads they are
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self._policy = policy
        self._layers = KnownLayers()
        self._networks: list[Network] = []  # hidden layers and output of the actor, and of the critic
        self._log_std: Array = np.zeros(0)

    def release_distribution(self, keep: bool) -> None:
        """Take from SB3's distribution what it has of a minibatch, which stays there while actions are drawn here.

        In a rollout it would be taken for the distribution of the actions; and with its graph it could not be copied.

        :param keep: whether its numbers remain, without their graph
        """
        held: Any = vars(self._policy.action_dist)
        distribution = held.get("distribution")
        if not is_known(self._policy.action_dist) or distribution is None:
            return
        if not keep:
            del held["distribution"]
            held.pop("_latent_sde", None)
        elif isinstance(distribution, Categorical):
            held["distribution"] = Categorical(logits=distribution.logits.detach(), validate_args=False)
        else:
            mean, deviation = distribution.mean.detach(), distribution.stddev.detach()
            held["distribution"] = Normal(mean, deviation, validate_args=False)

    def hidden(self, latent: th.Tensor) -> th.Tensor:
        """Return what the actor's hidden layers make of what it sees, (rows, size)."""
        if self._are_known():
            return called(self._layers.parts[0], latent)
        return self._policy.mlp_extractor.forward_actor(latent)

    def value(self, latent: th.Tensor) -> th.Tensor:
        """Return the critic's values, (rows, 1), of what it sees."""
        if self._are_known():
            return called(self._layers.parts[3], called(self._layers.parts[2], latent))
        value: th.Tensor = self._policy.value_net(self._policy.mlp_extractor.forward_critic(latent))
        return value

    def can_act(self, latent: th.Tensor) -> bool:
        """Return whether to act in NumPy: on the host, from a known distribution.

        :param latent: what the heads see
        """
        policy: Any = self._policy
        if not self._are_known() or not is_known(policy.action_dist):
            return False
        # What a subclass or an instance has in place of SB3's is called, and so is a standard deviation of its own.
        making = getattr(policy._get_action_dist_from_latent, "__func__", None)
        if making is not ActorCriticPolicy._get_action_dist_from_latent:
            return False
        if "log_std" not in policy._parameters and not isinstance(policy.action_dist, CategoricalDistribution):
            return False
        weight = self._layers.parts[3][0]._parameters["weight"]
        if latent.dtype != weight.dtype or not latent.device.type == weight.device.type == "cpu":
            return False
        self._renew()
        return True

    def _are_known(self) -> bool:
        """Return whether the heads are of SB3's own layers, with no hook on any."""
        parts: dict[str, Any] = self._policy._modules
        extractor = parts["mlp_extractor"]
        if type(extractor) is not MlpExtractor or not extractor.__dict__.keys().isdisjoint(_FORWARD):
            return False
        hidden: dict[str, Any] = extractor._modules
        actor, critic = hidden["policy_net"], hidden["value_net"]
        action, value = parts["action_net"], parts["value_net"]
        if not type(actor) is type(critic) is nn.Sequential or not type(action) is type(value) is nn.Linear:
            return False
        return self._layers.know(actor, action, critic, value)

    def _renew(self) -> None:
        """Look where the parameters are."""
        log_std: Any = self._policy._parameters.get("log_std")
        self._networks, others = self._layers.in_numpy([] if log_std is None else [log_std])
        if others:
            self._log_std = others[0]

    @np.errstate(all="ignore")  # numbers that overflow become infinite, as in PyTorch
    def act(self, latent: th.Tensor, deterministic: bool) -> Acted | None:
        """Return actions and their log-probabilities; None where they are not finite, which PyTorch's heads refuse.

        :param latent: what the actor sees, (N, size), for which :meth:`can_act` has just been true
        :param deterministic: whether to take the most likely actions instead of samples
        """
        actor, action, *_ = self._networks
        hidden = run(actor, latent.numpy())
        out = run(action, hidden)
        distribution: Any = self._policy.action_dist
        if isinstance(distribution, CategoricalDistribution):
            noise = None if deterministic else _random(out, th.Tensor.exponential_)
            actions, log_prob = categorical(out, noise)
        elif isinstance(distribution, DiagGaussianDistribution):
            noise = None if deterministic else _random(out, th.Tensor.normal_)
            actions, log_prob = gaussian(out, self._log_std, noise)
        else:
            noise = None if deterministic else _explore(distribution, hidden)
            actions, log_prob = state_dependent(out, hidden, self._log_std, noise, distribution.epsilon)
        # A sum is finite only where all of its numbers are.
        if not np.isfinite(np.add.reduce(log_prob) + np.add.reduce(out, axis=None)):
            return None
        actions = actions.reshape(-1, *self._policy.action_space.shape)  # type: ignore[misc]
        return Acted(th.from_numpy(actions), th.from_numpy(log_prob))

    @np.errstate(all="ignore")
    def values(self, latent: th.Tensor) -> th.Tensor:
        """Return values, (N, 1).

        :param latent: what the critic sees, (N, size), after :meth:`act`
        """
        *_, critic, value = self._networks
        return th.from_numpy(run(value, run(critic, latent.numpy())))


def is_known(distribution: Distribution) -> bool:
    """Return whether actions of a distribution can be drawn here."""
    if type(distribution) is StateDependentNoiseDistribution:
        return distribution.full_std and not distribution.use_expln and distribution.bijector is None
    return type(distribution) in (CategoricalDistribution, DiagGaussianDistribution)


def _random(like: Array, draw: Callable[[th.Tensor], th.Tensor]) -> Array:
    """Return numbers of PyTorch's generator, of the shape and type of an array."""
    noise = np.empty_like(like)
    draw(th.from_numpy(noise))
    return noise


def _explore(distribution: StateDependentNoiseDistribution, hidden: Array) -> Array:
    """Return what gSDE adds to the mean, (N, A): of a matrix for each row, where it has as many."""
    matrices = on_host(distribution.exploration_matrices)
    if len(hidden) == 1 or len(hidden) != len(matrices):
        return hidden @ on_host(distribution.exploration_mat)
    explored: Array = np.matmul(hidden[:, None], matrices)[:, 0]
    return explored
