"""A trained model as a tree of plain values and arrays: all that it computes from a raw observation to an action."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.qrdqn.policies import QRDQNPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN

from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.deploy.contents import FORMAT, FORMAT_VERSION, Tree
from sb3_ncde.deploy.encoding import described
from sb3_ncde.deploy.heads import Action, Heads
from sb3_ncde.deploy.layers import CannotExportError, layers_of
from sb3_ncde.deploy.networks import Layer
from sb3_ncde.deploy.observation import SINGLE, Clock
from sb3_ncde.deploy.spaces import action_of, input_of, named, raw_space
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.validation import NORMALIZED_TIME
from sb3_ncde.policies import NCDEPolicy
from sb3_ncde.torch_layers import NCDEExtractor

PACKAGES = ("sb3-ncde", "torch", "stable-baselines3", "sb3-contrib", "gymnasium", "numpy")


class Memory(NamedTuple):
    """How a policy remembers.

    :param observed: space of an observation, as SB3 gives it
    :param arguments: what is remembered
    :param extractor: of the actor, or None: the observation itself
    :param encoder: of the actor
    :param critic: of the critic, if it has one of its own that reads the same history
    :param valued: whether the critic's value can be told from what the actor observes
    :param mask_key: of an action mask, or None
    :param critic_keys: of what only the critic sees
    :param pixels: whether those of images are divided by 255
    :param own: whether the observation was made flat by VecHistory
    """

    observed: spaces.Space[Any]
    arguments: HistoryArguments
    extractor: BaseFeaturesExtractor | None
    encoder: NeuralCDE
    critic: NeuralCDE | None
    valued: bool
    mask_key: str | None = None
    critic_keys: Sequence[str] = ()
    pixels: bool = True
    own: bool = False


def tree_of(algorithm: str, policy: Any, raw: spaces.Space[Any], normalize: VecNormalize | None) -> Tree:
    """Return a trained agent as plain values and arrays.

    :param algorithm: its name
    :param policy: NCDEPolicy, or one with NCDEExtractor over VecHistory; in evaluation mode
    :param raw: space of raw observations
    :param normalize: what normalised its observations; None: nothing did
    :raises CannotExportError: for what a file cannot say
    """
    memory = _memory(policy)
    clock = Clock(memory.arguments.time_key, memory.arguments.time_kind, float(memory.arguments.dt))
    if isinstance(clock.key, int):
        clock = clock._replace(key=clock.key % int(memory.observed.shape[0]))  # type: ignore[index]
    seen, parts = named(memory.observed), named(raw)
    inputs = {
        name: input_of(name, parts[name], seen[name], normalize, memory.pixels, memory.own)
        for name in seen
        if name not in memory.critic_keys
    }
    _refuse_normalized_time(clock, inputs)
    mask = None if memory.mask_key is None else inputs.pop(memory.mask_key)._asdict()
    inputs = {name: part for name, part in inputs.items() if name != clock.key}
    heads, action = _heads(policy, memory)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "algorithm": algorithm,
        "policy": type(policy).__name__,
        "spaces": {"observation": str(raw), "action": str(policy.action_space)},
        "versions": {name: version(name) for name in PACKAGES},
        "is_dict": isinstance(raw, spaces.Dict),
        "ignored": list(memory.critic_keys),
        "inputs": [part._asdict() for part in inputs.values()],
        "mask": mask,
        "clock": clock._asdict(),
        "features": _features(memory, list(inputs), {name: seen[name] for name in inputs}),
        "encoder": _encoder(memory.encoder),
        "value_encoder": None if memory.critic is None else _encoder(memory.critic),
        "heads": heads._asdict(),
        "action": action._asdict(),
    }


def raw_observations(model: BaseAlgorithm, normalize: VecNormalize | None) -> spaces.Space[Any]:
    """Return the space of observations as the environments of the training give them, before all of SB3's wrappers."""
    env = model.get_env()
    return raw_space(_memory(model.policy).observed, normalize if env is None else env)


def _memory(policy: Any) -> Memory:
    """Return how a policy remembers; raise CannotExportError for one that does not, by this package."""
    if isinstance(policy, NCDEPolicy):
        arguments = policy.arguments
        same = policy.share_features_extractor or not any(True for _ in policy.pi_features_extractor.parameters())
        valued = arguments.critic_keys is None and same
        return Memory(
            policy.observation_space,
            arguments,
            policy.pi_features_extractor,
            policy.lstm_actor,
            policy.lstm_critic if valued else None,
            valued,
            arguments.action_mask_key,
            arguments.critic_keys or (),
            policy.normalize_images,
        )
    actor = getattr(policy, "actor", None) or getattr(policy, "q_net", None) or getattr(policy, "quantile_net", policy)
    extractor = actor.features_extractor
    if isinstance(policy, ActorCriticPolicy):
        extractor = policy.pi_features_extractor
    if not isinstance(extractor, NCDEExtractor):
        raise CannotExportError(
            f"The policy {type(policy).__name__} has a {type(extractor).__name__}, and no memory of this package: an "
            "exported agent is one with NCDEPolicy, or of sb3_ncde.with_memory."
        )
    if isinstance(policy, MaskableActorCriticPolicy):
        raise CannotExportError(
            "MaskablePPO is told the mask beside the observation, where an exported agent does not see it: use "
            "RecurrentPPO with NCDEPolicy and action_mask_key."
        )
    critic = getattr(policy, "vf_features_extractor", extractor)
    valued = critic is extractor or extractor.extractor is None
    return Memory(
        extractor.space.observed,
        extractor.space.arguments,
        extractor.extractor,
        extractor.encoder,
        critic.encoder if valued and critic is not extractor else None,
        valued,
        pixels=extractor.extractor is not None,
        own=True,
    )


def _refuse_normalized_time(clock: Clock, inputs: dict[str, Any]) -> None:
    column = isinstance(clock.key, int)
    part = inputs.get(SINGLE if column else str(clock.key))
    if part is not None and part.mean is not None and not (column and clock.key in part.skipped):
        raise CannotExportError(f"The time, {clock.key!r}, is normalised: {NORMALIZED_TIME}")


def _features(memory: Memory, names: list[str], seen: dict[str, spaces.Space[Any]]) -> list[Tree]:
    """Return the network of each part of an observation that features are made of."""
    extractor = memory.extractor
    if extractor is None or type(extractor) is FlattenExtractor:
        flat: list[Layer] = [{"kind": "flatten"}]
        return [{"name": name, "layers": flat if len(seen[name].shape or ()) > 1 else []} for name in names]
    if type(extractor) is CombinedExtractor:
        modules = extractor.extractors
        return [{"name": name, "layers": layers_of(modules[name], f"{name} of CombinedExtractor")} for name in names]
    if names != [SINGLE]:
        raise CannotExportError(
            f"The features extractor {type(extractor).__name__} reads a Dict in a way of its own, which an exported "
            "file cannot say: CombinedExtractor can be exported."
        )
    return [{"name": SINGLE, "layers": layers_of(extractor, type(extractor).__name__)}]


def _encoder(encoder: NeuralCDE) -> Tree:
    described_weights = encoder.in_numpy()
    if described_weights is None:
        arguments = encoder.arguments
        raise CannotExportError(
            f"solver={arguments.solver!r} with interpolation={arguments.interpolation!r}: an exported agent takes "
            "steps of fixed size, and an adaptive solver chooses them by the data. Train with solver='rk4', which is "
            "about as accurate."
        )
    return described(*described_weights)


def _heads(policy: Any, memory: Memory) -> tuple[Heads, Action]:
    """Return the heads of a policy, and what is made of their output."""
    space = policy.action_space
    squash = bool(policy.squash_output)
    if isinstance(policy, DQNPolicy | QRDQNPolicy):
        network = layers_of(policy.q_net.q_net, "q_net") if isinstance(policy, DQNPolicy) else _means(policy)
        return Heads("q_values", [], network, None, None), action_of(space, False, False, False)
    if isinstance(policy, ActorCriticPolicy):
        hidden = layers_of(policy.mlp_extractor.policy_net, "policy_net")
        actor = layers_of(policy.action_net, "action_net")
        value = None
        if memory.valued:
            value = layers_of(policy.mlp_extractor.value_net, "value_net") + layers_of(policy.value_net, "value_net")
        continuous = isinstance(space, spaces.Box)
        log_std = policy.log_std.numpy(force=True).copy() if continuous and not policy.use_sde else None
        action = action_of(space, squash, squash, memory.mask_key is not None)
        return Heads("mean" if continuous else "logits", hidden, actor, log_std, value), action
    actor = policy.actor
    if not hasattr(actor, "latent_pi"):  # TD3, DDPG: the tanh is a layer
        return Heads("mean", [], layers_of(actor.mu, "mu"), None, None), action_of(space, False, squash, False)
    spread = None
    if not actor.use_sde:
        bounds = {"kind": "hardtanh", "low": float(LOG_STD_MIN), "high": float(LOG_STD_MAX)}
        spread = [*layers_of(actor.log_std, "log_std"), bounds]
    hidden = layers_of(actor.latent_pi, "latent_pi")
    return Heads("mean", hidden, layers_of(actor.mu, "mu"), spread, None), action_of(space, True, squash, False)


def _means(policy: QRDQNPolicy) -> list[Layer]:
    """Return the layers of a quantile network, the last of which gives the mean of the quantiles of each action."""
    network: Any = policy.quantile_net
    *hidden, last = layers_of(network.quantile_net, "quantile_net")
    n_actions = int(network.action_space.n)
    means = {name: last[name].reshape(-1, network.n_quantiles, n_actions).mean(axis=1) for name in ("weight", "bias")}
    return [*hidden, {"kind": "linear", "weight": means["weight"], "bias": means["bias"][0]}]
