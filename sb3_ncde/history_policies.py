"""Policies of off-policy algorithms that read histories in less time: when they act deterministically, and learn.

For one environment PyTorch spends its time in the calls: SB3's ``predict`` takes longer for a few layers than the
encoder does for its step. Here both are in NumPy. Whatever is not known goes through the policy's modules as ever, and
so do samples. SAC and TQC compute gradients that they throw away, those of the critic in the actor's loss; here they
are not computed. A training is that of SB3's own policy, bit for bit.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch as th
from sb3_contrib.qrdqn.policies import QRDQNPolicy, QuantileNetwork
from sb3_contrib.tqc.policies import Actor as TQCActor
from sb3_contrib.tqc.policies import Critic as TQCCritic
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BaseModel, BasePolicy, ContinuousCritic
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from stable_baselines3.sac.policies import Actor as SACActor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import Actor as TD3Actor
from stable_baselines3.td3.policies import TD3Policy

from sb3_ncde.history.window_rule import Array
from sb3_ncde.known_layers import KnownLayers, Network, hooks_of, run
from sb3_ncde.torch_layers import NCDEExtractor, check_count

_ACTING = {
    "forward",
    "_predict",
    "obs_to_tensor",
    "extract_features",
    "get_action_dist_params",
    "proba_distribution",
    "actions_from_params",
    "get_actions",
    "mode",
}
"""Methods of SB3 on the way to an action, of which an instance may have one of its own."""
_FLOAT32 = {np.dtype(np.float32)}


class HistoryPolicy(BasePolicy):
    """What the policies below have in common: a ``predict`` in NumPy.

    :param args: of SB3's policy
    :param kwargs: of SB3's policy
    """

    actor_class: ClassVar[type[Any]]
    """Of the module that chooses actions."""
    actor_name: ClassVar[str]
    """Its name in the policy."""
    network_names: ClassVar[tuple[str, ...]]
    """The names of its networks."""
    acting_names: ClassVar[tuple[str, ...]]
    """The names of the modules that SB3 tells to act: targets are not among them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._layers = KnownLayers()

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """Return actions, and the state as it is; see SB3's ``predict``.

        :param observation: histories of VecHistory, (N, P), or one, (P,)
        :param state: of a recurrent policy, which this one is not
        :param episode_start: is not read
        :param deterministic: whether to take the actor's best actions instead of samples. Where it is False PyTorch
            chooses them, also for algorithms that sample nothing here (TD3, DQN)
        :raises ValueError: for what is no history
        """
        actions = self._in_numpy(observation) if deterministic else None
        if actions is None:
            return super().predict(observation, state, episode_start, deterministic)
        return actions, state

    def _in_numpy(self, observation: Any) -> Array | None:
        """Return the best actions, (N, *shape), or None: PyTorch has to choose them, or SB3 to say what is wrong."""
        if type(observation) is not np.ndarray or observation.dtype != np.float32 or observation.ndim != 2:
            return None
        modules: Any = self._modules
        actor = modules[self.actor_name]
        if observation.shape[1:] != self.observation_space.shape or not self._knows(actor):
            return None
        networks, _ = self._layers.in_numpy()
        if self._layers.dtypes != _FLOAT32:
            return None
        if self.training:
            self.set_training_mode(False)
        for name in self.acting_names:  # at every call, as SB3 does
            modules[name]._modules["features_extractor"].train(False)
        check_count(observation[:, 0])
        # It is kept, and the caller may write to it.
        seen = actor._modules["features_extractor"].follow(observation.copy())
        if seen is None:
            return None
        with np.errstate(all="ignore"):  # numbers that overflow become infinite, as in PyTorch
            actions = self._choose(networks, seen)
        if actions is None:
            return None
        actions = actions.reshape(-1, *self.action_space.shape)  # type: ignore[misc]
        return self.unscale_action(actions) if self.squash_output else actions

    def _knows(self, actor: Any) -> bool:
        """Return whether the module that chooses actions is as SB3 and this package have made it, and on the host."""
        if type(self) not in _KNOWN or type(actor) is not self.actor_class:
            return False
        modules, distribution = actor._modules, actor.__dict__.get("action_dist")
        # Of a Gaussian whose noise depends on the state, or a user's.
        if distribution is not None and type(distribution) is not SquashedDiagGaussianDistribution:
            return False
        extractor = modules["features_extractor"]
        if type(extractor) is not NCDEExtractor or any(hooks_of(actor)) or any(hooks_of(extractor)):
            return False
        if extractor.encoder.increment_scale.scale.device.type != "cpu":
            return False
        parts = (self, actor, extractor, *(() if distribution is None else (distribution,)))
        if any(not _ACTING.isdisjoint(vars(part)) for part in parts):
            return False
        for name in self.acting_names:  # a critic may have been compiled, or left out
            module = self._modules.get(name)
            if module is None or "features_extractor" not in module._modules:
                return False
        return self._layers.know(*(modules[name] for name in self.network_names))

    @abstractmethod
    def _choose(self, networks: list[Network], seen: Array) -> Array | None:
        """Return the best actions, (N, size) of a Box between -1 and 1, or (N,); None: PyTorch has to choose them.

        :param networks: those of :attr:`network_names`
        :param seen: by them, (N, features_dim)
        """


class _Critic(BaseModel):
    """A critic that learns from its own loss alone. SB3 throws away what the actor's loss would teach it."""

    @contextmanager
    def _learning_of(self, actions: th.Tensor) -> Iterator[None]:
        """Give no weight a gradient within, where an actor has chosen the actions and learns from their values.

        :param actions: (rows, A)
        """
        weights = self.parameters() if actions.grad_fn is not None else ()
        frozen = [weight for weight in weights if weight.requires_grad and weight.is_leaf]
        try:
            for weight in frozen:
                weight.requires_grad_(False)
            yield
        finally:
            for weight in frozen:
                weight.requires_grad_(True)


class _SACCritic(_Critic, ContinuousCritic):
    def forward(self, obs: Any, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """Return the values of actions, (rows, 1) of each network; see SB3's."""
        with self._learning_of(actions):
            return super().forward(obs, actions)


class _TQCCritic(_Critic, TQCCritic):
    def forward(self, obs: Any, action: th.Tensor) -> th.Tensor:
        """Return the quantiles of the values of actions, (rows, networks, quantiles); see sb3-contrib's."""
        with self._learning_of(action):
            return super().forward(obs, action)


class _Squashed(HistoryPolicy):
    """Actions are the tanh of a Gaussian (Haarnoja et al. 2018, arXiv:1812.05905), the best that of its mean."""

    actor_name, network_names, acting_names = "actor", ("latent_pi", "mu", "log_std"), ("actor", "critic")

    def _choose(self, networks: list[Network], seen: Array) -> Array | None:
        hidden, mean, spread = networks
        latent = run(hidden, seen)
        means, log_std = run(mean, latent), run(spread, latent)
        # A sum is finite only where all of its numbers are. NaN is for PyTorch's distribution to refuse.
        if not np.isfinite(np.add.reduce(means, axis=None) + np.add.reduce(log_std, axis=None)):
            return None
        best: Array = np.tanh(means)
        return best


class SACHistoryPolicy(_Squashed, SACPolicy):
    """SAC's. Not for a subclass of SAC whose critic learns through actions that the actor has chosen."""

    actor_class = SACActor

    def make_critic(self, features_extractor: Any = None) -> ContinuousCritic:
        """Return a critic that learns from its own loss alone."""
        return _SACCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)


class TQCHistoryPolicy(_Squashed, TQCPolicy):
    """TQC's. Not for a subclass of TQC whose critic learns through actions that the actor has chosen."""

    actor_class = TQCActor

    def make_critic(self, features_extractor: Any = None) -> TQCCritic:
        """Return a critic that learns from its own loss alone."""
        return _TQCCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)


class TD3HistoryPolicy(HistoryPolicy, TD3Policy):
    """That of TD3 and DDPG. Noise is added by the algorithm."""

    actor_class, actor_name, network_names, acting_names = TD3Actor, "actor", ("mu",), ("actor", "critic")

    def _choose(self, networks: list[Network], seen: Array) -> Array:
        return run(networks[0], seen)


class DQNHistoryPolicy(HistoryPolicy, DQNPolicy):
    """DQN's. Random actions are the algorithm's."""

    actor_class, actor_name = QNetwork, "q_net"
    network_names = acting_names = ("q_net",)

    def _choose(self, networks: list[Network], seen: Array) -> Array:
        best: Array = run(networks[0], seen).argmax(axis=1)
        return best


class QRDQNHistoryPolicy(HistoryPolicy, QRDQNPolicy):
    """QR-DQN's. Random actions are the algorithm's."""

    actor_class, actor_name = QuantileNetwork, "quantile_net"
    network_names = acting_names = ("quantile_net",)

    def _choose(self, networks: list[Network], seen: Array) -> Array:
        quantiles = run(networks[0], seen).reshape(len(seen), self.quantile_net.n_quantiles, -1)
        best: Array = quantiles.mean(axis=1).argmax(axis=1)
        return best


HISTORY_POLICIES: dict[type[BasePolicy], type[HistoryPolicy]] = {
    SACPolicy: SACHistoryPolicy,
    TQCPolicy: TQCHistoryPolicy,
    TD3Policy: TD3HistoryPolicy,
    DQNPolicy: DQNHistoryPolicy,
    QRDQNPolicy: QRDQNHistoryPolicy,
}
"""By SB3's. They are for these algorithms as SB3 has them: another may learn from what these throw away."""
_KNOWN = frozenset(HISTORY_POLICIES.values())
