"""NCDEPolicy, CnnNCDEPolicy and MultiInputNCDEPolicy: the policies for sb3-contrib's RecurrentPPO.

This is the only module that knows RecurrentPPO's contract: a recurrent state for actor and critic, each a pair of
tensors (1, N, size) whose zeros mean an empty history; minibatches of N sequences, padded with zeros at their ends.
What may be called, overridden, loaded or set of RecurrentPPO's own policies may be of these.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    MlpExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch.nn import functional as F

from sb3_ncde.action_mask import ActionMask
from sb3_ncde.arguments import SB3_ARGUMENTS, split_arguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.heads import Acted, Heads
from sb3_ncde.history.arguments import check_traces
from sb3_ncde.history.diagnostics import MemoryWatch, RangeWatch, recommend_cpu
from sb3_ncde.history.guard import Guard
from sb3_ncde.history.observation_history import State
from sb3_ncde.history.observations import ObservationReader, check_critic_keys, check_extractor
from sb3_ncde.history.time_source import warn_of_time_among_features
from sb3_ncde.history.validation import check_gradient, check_keys, check_mask, check_state
from sb3_ncde.known_layers import hooks_of
from sb3_ncde.saved_policy import LONGEST_DEFAULT_HISTORY, SavedPolicy


class NCDEPolicy(SavedPolicy):
    """Actor-critic policy whose memory is a neural controlled differential equation over recent observations.

    For RecurrentPPO and vector observations: ``RecurrentPPO("NCDEPolicy", env)``. The recurrent state is the history
    of observations itself, so it never goes stale when the weights change.

    :param observation_space: of the environment
    :param action_space: of the environment
    :param lr_schedule: learning rate as a function of the remaining progress
    :param args: arguments of SB3's ``ActorCriticPolicy`` in its order, from ``net_arch`` on
    :param kwargs: arguments of :class:`sb3_ncde.arguments.NCDEArguments` (``policy_kwargs`` of RecurrentPPO), and of
        SB3's ``ActorCriticPolicy``
    :raises TypeError: for an argument of the LSTM policies, an unknown one, or a value of the wrong type
    :raises ValueError: for a value out of range, a time that the observation space does not have, observations that
        are for another of the three policies, or one encoder for two features extractors
    """

    default_features_extractor: type[BaseFeaturesExtractor] = FlattenExtractor
    # The names under which RecurrentPPO looks for the actor's and the critic's LSTM.
    lstm_actor: NeuralCDE
    lstm_critic: NeuralCDE | None

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        # Subclasses as SB3's documentation has them pass net_arch and activation_fn by their places.
        by_place = dict(zip(SB3_ARGUMENTS, args, strict=False))
        if len(args) > len(SB3_ARGUMENTS) or by_place.keys() & kwargs.keys():
            raise TypeError(f"{name} got {len(args)} arguments by their places: too many, or some twice.")
        loaded = "_saved" in self.__dict__
        kwargs = by_place | kwargs | self.__dict__.pop("_saved", {})
        # Plain attributes are what a module may have before it is initialised.
        self.arguments, sb3_kwargs = split_arguments(name, kwargs)
        self._given = frozenset(kwargs)
        sb3_kwargs.setdefault("features_extractor_class", self.default_features_extractor)
        if sb3_kwargs.get("optimizer_class", th.optim.Adam) is th.optim.Adam and not sb3_kwargs.get("optimizer_kwargs"):
            # SB3's eps; one kernel for all parameters, where a step of small networks is a quarter of SB3's default's.
            sb3_kwargs["optimizer_kwargs"] = {"eps": 1e-5, "fused": True}
        check_extractor(name, observation_space, sb3_kwargs["features_extractor_class"])
        mask_key, critic_keys = self.arguments.action_mask_key, self.arguments.critic_keys or ()
        self._mask = None if mask_key is None else ActionMask(observation_space, action_space, mask_key)
        check_critic_keys(observation_space, critic_keys)
        unseen = () if mask_key is None else (mask_key,)
        self._actor_reader = ObservationReader(observation_space, self.arguments.time_key, (*unseen, *critic_keys))
        self._critic_reader = ObservationReader(observation_space, self.arguments.time_key, unseen)
        if self.arguments.time_key is None and not loaded:
            warn_of_time_among_features(self._actor_reader.features_space)
        share_features_extractor = sb3_kwargs.get("share_features_extractor", True)
        share_encoder = self.arguments.share_encoder
        self._share_encoder = share_features_extractor if share_encoder is None else share_encoder
        # Of such observations nothing is to be made in preprocessing.
        self._plain = (
            isinstance(observation_space, spaces.Box)
            and len(observation_space.shape) > 0
            and not is_image_space(observation_space)
            and self.arguments.time_key is None
        )
        self._memory_watch, self._range_watch = MemoryWatch(name), RangeWatch()
        self._warned_of_device = False
        self._predicting = False
        # The parent builds an LSTM for the actor, which is replaced below: make it the smallest.
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            lstm_hidden_size=1,
            shared_lstm=share_features_extractor,
            enable_critic_lstm=False,
            **sb3_kwargs,
        )
        self.lstm_actor, self.lstm_critic = self._encoders
        del self._encoders
        self._guard = Guard(self.lstm_actor.history, self.arguments)
        self.critic = None
        self.features_dim = self.lstm_actor.input_size  # as extract_features returns them, with the time
        self.shared_lstm, self.enable_critic_lstm = self._share_encoder, self.lstm_critic is not None
        self.lstm_hidden_state_shape = (self.lstm_actor.num_layers, 1, self.lstm_actor.hidden_size)
        if self._mask is not None:
            self.action_dist = self._mask.distribution
            self.action_net = self._mask.distribution.proba_distribution_net(self.mlp_extractor.latent_dim_pi)
            if self.ortho_init:
                self.action_net.apply(partial(self.init_weights, gain=0.01))  # as SB3 does
            self.action_net.to(self.device)
        self._heads = Heads(self)
        # The parent's optimizer holds the discarded parameters and not ours.
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def device(self) -> th.device:
        """Where the policy is. SB3 looks through all parameters at each of several looks in a call of ``predict``."""
        encoder = self._modules.get("lstm_actor")
        if not isinstance(encoder, NeuralCDE):  # the policy is being built
            return super().device
        return encoder.increment_scale.scale.device

    # What is built

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Return the user's features extractor, for what actor or critic sees beside time and action mask."""
        # SB3 makes the actor's first, and the critic's only where they do not share it.
        reader = self._critic_reader if "pi_features_extractor" in self._modules else self._actor_reader
        return self.features_extractor_class(reader.features_space, **self.features_extractor_kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        """Build the encoders, then all that is sized by them."""
        arguments = self.arguments
        self.features_dim = int(self.features_dim)  # NumPy's integers are none to the parent's LSTM
        pi_dim, vf_dim = (int(part.features_dim) for part in (self.pi_features_extractor, self.vf_features_extractor))
        # RecurrentPPO has one size for the states of both.
        longest = arguments
        if "history_length" not in self._given:  # an agent of a version with a longer default may be loaded into it
            longest = replace(arguments, history_length=max(arguments.history_length, LONGEST_DEFAULT_HISTORY))
        least_size = max(*(longest.make_history(dim).size for dim in (pi_dim, vf_dim)), self._least_size)
        extractors = (self.pi_features_extractor, self.vf_features_extractor)
        check_traces(arguments.time_constants, any(True for part in extractors for _ in part.parameters()))
        actor, critic = self._make_encoder(pi_dim, least_size), None
        if not self._share_encoder and arguments.critic_encoder:
            critic = self._make_encoder(vf_dim, least_size)
        # A tuple, which registers no modules: the parent has yet to assign its LSTMs to lstm_actor and lstm_critic.
        self._encoders = (actor, critic)
        self.lstm_output_dim = actor.output_size
        self._critic_dim = vf_dim if critic is None else critic.output_size
        if self._share_encoder:
            self._critic_dim = actor.output_size
        super()._build(lr_schedule)

    def _make_encoder(self, features_dim: int, least_size: int) -> NeuralCDE:
        arguments = self.arguments
        time_scale = arguments.dt if arguments.time_key is None else 1.0
        return NeuralCDE(arguments.make_history(features_dim, least_size), arguments, time_scale)

    def _build_mlp_extractor(self) -> None:
        """Build the heads' hidden layers, sized by what the heads see, ``lstm_output_dim``."""
        super()._build_mlp_extractor()
        if self._critic_dim != self.lstm_output_dim:
            critic = MlpExtractor(self._critic_dim, self.net_arch, self.activation_fn, self.device)
            self.mlp_extractor.value_net = critic.value_net

    # Reading observations

    def extract_features(  # type: ignore[override]
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> th.Tensor | tuple[th.Tensor, th.Tensor]:
        """Return features and time of each row: D features, then the time as observed, or 1 (a step) where none is.

        :param obs: observations
        :param features_extractor: of the actor or of the critic; None: of both
        :return: (rows, D + 1); of actor and critic where no extractor is named and they do not share theirs
        """
        if features_extractor is None and not self.share_features_extractor:
            return self._features(obs, self.pi_features_extractor), self._features(obs, self.vf_features_extractor)
        return self._features(obs, features_extractor or self.features_extractor)

    def _features(self, obs: PyTorchObs, extractor: BaseFeaturesExtractor) -> th.Tensor:
        time: th.Tensor | None = None
        if self._plain and isinstance(obs, th.Tensor):
            rows = obs.float()
            if type(extractor) is FlattenExtractor and obs.ndim == 2 and not any(hooks_of(extractor)):
                return F.pad(rows, (0, 1), value=1.0)  # there is nothing to flatten
            values: PyTorchObs = rows
        else:
            observation = preprocess_obs(obs, self.observation_space, normalize_images=self.normalize_images)
            reader = self._actor_reader if extractor is self.pi_features_extractor else self._critic_reader
            values, time = reader.read(observation)
        features: th.Tensor = extractor(values)
        if time is None:
            return F.pad(features, (0, 1), value=1.0)
        return th.cat((features, time.to(features.dtype).unsqueeze(1)), dim=1)

    def _extract(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """Return features and time of each row for actor and critic, (rows, D + 1) each."""
        features = self.extract_features(obs)
        return features if isinstance(features, tuple) else (features, features)

    # Acting and learning

    def set_training_mode(self, mode: bool) -> None:
        """Choose between learning and acting; RecurrentPPO begins a rollout by choosing to act."""
        # predict() chooses at every call, which for all modules takes a quarter of its time.
        if not (self._predicting and self.training == self.features_extractor.training == mode):
            super().set_training_mode(mode)
        if not mode:
            self._heads.release_distribution(keep=self._predicting)
        for encoder in filter(None, (self.lstm_actor, self.lstm_critic)):
            encoder.learning.take_in()
            if not mode and not self._predicting:
                encoder.learning.await_rollout()

    def forward(  # type: ignore[override]
        self,
        obs: PyTorchObs,
        lstm_states: RNNStates | None = None,
        episode_starts: th.Tensor | None = None,
        deterministic: bool = False,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, RNNStates]:
        """Act: one step of each environment; with gradients, any number of steps of each.

        :param obs: observations of N environments
        :param lstm_states: their histories, two tensors (1, N, hidden_size) for actor and for critic
        :param episode_starts: 1 where the observation is the first of its episode, (N,)
        :param deterministic: whether to take the most likely action instead of a sample
        :return: actions, values (N, 1), log-probabilities (N,), the histories after this step
        :raises TypeError: without histories, by an algorithm that has none
        :raises ValueError: for values that are not finite, time that runs backwards, or another number of rows
        """
        if lstm_states is None or episode_starts is None:
            raise TypeError(_needs_states(self))
        pi_features, vf_features = self._extract(obs)
        self._check(obs, pi_features, lstm_states.pi, episode_starts)
        self._check_mask(obs, lstm_states.pi, episode_starts)
        if vf_features is not pi_features:
            self._check(obs, vf_features, lstm_states.vf, episode_starts)
        latent_pi, pi_state = self._process_sequence(pi_features, lstm_states.pi, episode_starts, self.lstm_actor)
        if not th.is_grad_enabled():
            self._watch(pi_features, pi_state, episode_starts)
        latent_vf, vf_state = latent_pi, pi_state
        if not self._share_encoder:
            latent_vf, vf_state = self._process_sequence(vf_features, lstm_states.vf, episode_starts, self.lstm_critic)
        acted = self._act(latent_pi, deterministic)
        if acted is not None:
            (actions, log_prob), values = acted, self._heads.values(latent_vf)
        else:
            distribution = self._distribution(latent_pi, obs)
            actions = distribution.get_actions(deterministic=deterministic)
            log_prob, values = distribution.log_prob(actions), self._value(latent_vf)
            actions = actions.reshape((-1, *self.action_space.shape))  # type: ignore[misc]
        return actions, values, log_prob, RNNStates(pi_state, vf_state)

    def evaluate_actions(  # type: ignore[override]
        self,
        obs: PyTorchObs,
        actions: th.Tensor,
        lstm_states: RNNStates | None = None,
        episode_starts: th.Tensor | None = None,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Evaluate the actions of N sequences of T steps, flattened to N * T rows.

        :param obs: observations, sequence by sequence
        :param actions: of each row
        :param lstm_states: the histories before each sequence
        :param episode_starts: 1 where a row is the first of its episode, anywhere in a sequence, (N * T,)
        :return: values (N * T, 1), log-probabilities and entropies (N * T,)
        :raises TypeError: without histories, by an algorithm that has none
        """
        if lstm_states is None or episode_starts is None:
            raise TypeError(_needs_states(self))
        pi_features, vf_features = self._extract(obs)
        check_state(len(pi_features), episode_starts, self.lstm_actor.history, lstm_states.pi, sequences=True)
        latent_pi, _ = self._process_sequence(pi_features, lstm_states.pi, episode_starts, self.lstm_actor)
        latent_vf = latent_pi
        if not self._share_encoder:
            latent_vf, _ = self._process_sequence(vf_features, lstm_states.vf, episode_starts, self.lstm_critic)
        distribution = self._distribution(latent_pi, obs)
        if isinstance(self.action_space, spaces.MultiBinary) and self._mask is None:
            actions = actions.to(latent_pi.dtype)  # the buffer has them in int8, which PyTorch's Bernoulli refuses
        values, log_prob = self._value(latent_vf), distribution.log_prob(actions)
        for output in (values, log_prob):
            if output.requires_grad:
                output.register_hook(check_gradient)  # type: ignore[no-untyped-call]
        return values, log_prob, distribution.entropy()

    def get_distribution(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: State, episode_starts: th.Tensor
    ) -> tuple[Distribution, State]:
        """Return the distribution of the actor's action, and its histories after this step.

        With gradients, of whole sequences, as :meth:`evaluate_actions` takes them.
        """
        latent_pi, state = self._seen_by_actor(obs, lstm_states, episode_starts)
        return self._distribution(latent_pi, obs), state

    def _predict(  # type: ignore[override]
        self, observation: PyTorchObs, lstm_states: State, episode_starts: th.Tensor, deterministic: bool = False
    ) -> tuple[th.Tensor, State]:
        """Return the actor's actions, and its histories after this step."""
        if type(self).get_distribution is not NCDEPolicy.get_distribution:  # a subclass overrides it
            return super()._predict(observation, lstm_states, episode_starts, deterministic)  # type: ignore[arg-type]
        latent_pi, state = self._seen_by_actor(observation, lstm_states, episode_starts)
        acted = self._act(latent_pi, deterministic)
        if acted is not None:
            return acted.actions, state
        return self._distribution(latent_pi, observation).get_actions(deterministic=deterministic), state

    def predict_values(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: State, episode_starts: th.Tensor
    ) -> th.Tensor:
        """Return the critic's values, (N, 1); with gradients, of whole sequences."""
        features = self._features(obs, self.vf_features_extractor)
        self._check(obs, features, lstm_states, episode_starts)
        latent_vf, _ = self._process_sequence(features, lstm_states, episode_starts, self.lstm_critic)
        return self._value(latent_vf)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions for observations, and the histories to pass as ``state`` with the next ones.

        Called again and again without a state, or with nothing but episode starts, it warns once that the agent acts
        without memory.

        :param observation: of one environment, (...), or of N, (N, ...); of a Dict, each key's but ``critic_keys``
        :param state: what the last call returned; None: empty histories
        :param episode_start: whether each observation is the first of its episode, (N,); None: none is
        :param deterministic: whether to take the most likely action instead of a sample
        :param action_masks: refused, as masks are part of the observation here
        :return: actions, (...) or (N, ...), and the histories, two arrays (1, N, hidden_size)
        :raises TypeError: for ``action_masks``
        :raises ValueError: for values that are not finite, time that runs backwards, a Dict without all its keys or of
            different numbers of rows, a mask that allows nothing, or a state of another number of environments
        """
        if action_masks is not None:
            raise TypeError(
                "The action mask is part of the observation here: name its key by action_mask_key, and let "
                "sb3_ncde.wrappers.ActionMaskObservation make such a Dict of action_masks()."
            )
        check_keys(observation, self.observation_space, self.arguments.critic_keys or ())
        self._memory_watch.check(state, episode_start)
        self._predicting = True
        try:
            return super().predict(observation, state, episode_start, deterministic)
        finally:
            self._predicting = False

    def _process_sequence(  # type: ignore[override]
        self, features: th.Tensor, lstm_states: State, episode_starts: th.Tensor, lstm: NeuralCDE | None
    ) -> tuple[th.Tensor, State]:
        """Encode one step of each environment, or with gradients sequences of steps.

        :param features: of :meth:`extract_features`
        :param lstm_states: the histories before
        :param episode_starts: 1 where a row is the first of its episode
        :param lstm: ``lstm_actor`` or ``lstm_critic``; None, as which a critic without one of its own has it: the
            actor's if they share it, and else no encoder
        :return: what the heads see, and the histories after
        """
        if lstm is None:
            if not self._share_encoder:
                seen = features[:, :-1].to(self.lstm_actor.increment_scale.scale.dtype)
                return seen.nan_to_num(nan=0.0), lstm_states  # NaN: a sensor of the actor without a value
            lstm = self.lstm_actor
        return lstm(features, lstm_states, episode_starts)  # type: ignore[no-any-return]

    def _seen_by_actor(self, obs: PyTorchObs, lstm_states: State, episode_starts: th.Tensor) -> tuple[th.Tensor, State]:
        """Return what the actor's head sees, (rows, lstm_output_dim), and its histories after this step."""
        features = self._features(obs, self.pi_features_extractor)
        self._check(obs, features, lstm_states, episode_starts)
        self._check_mask(obs, lstm_states, episode_starts)
        if self._predicting:
            self._range_watch.check(self.lstm_actor.learned_range, features[:, :-1], self.pi_features_extractor)
        return self._process_sequence(features, lstm_states, episode_starts, self.lstm_actor)

    def _act(self, latent_pi: th.Tensor, deterministic: bool) -> Acted | None:
        """Return what the heads do in NumPy; None where they are to be computed by PyTorch."""
        if self._mask is not None or th.is_grad_enabled() or not self._heads.can_act(latent_pi):
            return None
        return self._heads.act(latent_pi, deterministic)

    def _distribution(self, latent_pi: th.Tensor, obs: PyTorchObs) -> Distribution:
        latent_pi = self._heads.hidden(latent_pi)
        if self._mask is None:
            return self._get_action_dist_from_latent(latent_pi)
        distribution = self._mask.distribution.proba_distribution(self.action_net(latent_pi))
        distribution.apply_masking(self._mask.read(obs))
        return distribution

    def _value(self, latent_vf: th.Tensor) -> th.Tensor:
        return self._heads.value(latent_vf)

    # What is refused, and what is warned of

    def _check(self, obs: PyTorchObs, features: th.Tensor, state: State, episode_starts: th.Tensor) -> None:
        """Raise ValueError for what cannot be acted on; see :mod:`sb3_ncde.history.validation`."""
        history = self.lstm_actor.history
        check_state(features.shape[0], episode_starts, history, state, sequences=th.is_grad_enabled())
        if features.shape[0] == state[0].shape[1]:  # not of sequences, which have been acted on before
            self._guard.check(obs, features, episode_starts, state)

    def _check_mask(self, obs: PyTorchObs, state: State, episode_starts: th.Tensor) -> None:
        """Raise ValueError for a mask under which no action can be taken; a value needs none, as at a time limit."""
        mask = None if self._mask is None else self._mask.read(obs)
        if self._mask is not None and mask is not None and len(mask) == state[0].shape[1]:
            check_mask(mask, self._mask.choices, episode_starts, self.lstm_actor.history, state)

    def _watch(self, features: th.Tensor, state: State, episode_starts: th.Tensor) -> None:
        """Note a step of a rollout, and warn of what only shows over many; see :mod:`sb3_ncde.history.diagnostics`."""
        for encoder in filter(None, (self.lstm_actor, self.lstm_critic)):
            encoder.learning.note_rollout()
        if not self._warned_of_device:
            self._warned_of_device = True
            recommend_cpu(self.device, self.features_extractor)
        elapsed = self.lstm_actor.history.unpack(state)[2][:, -1, -1] if self._guard.timed else None
        self._guard.watch(features, episode_starts, elapsed)


def _needs_states(policy: NCDEPolicy) -> str:
    name = type(policy).__name__
    return (
        f"{name} was called without recurrent states, as PPO, A2C and TRPO do: it is for sb3-contrib's RecurrentPPO, "
        f"RecurrentPPO({name!r}, env). For masked actions too, see action_mask_key."
    )


class CnnNCDEPolicy(NCDEPolicy):
    """:class:`NCDEPolicy` for images: NatureCNN as features extractor.

    The history holds the extractor's outputs, so the part of a window that comes from the stored state carries the
    features of the rollout's weights, and no gradient to the extractor.
    """

    default_features_extractor = NatureCNN


class MultiInputNCDEPolicy(NCDEPolicy):
    """:class:`NCDEPolicy` for Dict observations: CombinedExtractor as features extractor."""

    default_features_extractor = CombinedExtractor
