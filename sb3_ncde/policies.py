"""NCDEPolicy, CnnNCDEPolicy and MultiInputNCDEPolicy: the policies for sb3-contrib's RecurrentPPO.

This is the only module that knows RecurrentPPO's contract: a recurrent state for actor and critic, each a pair of
tensors (1, N, size) whose zeros mean an empty history; minibatches of N sequences, padded with zeros at their ends.
"""

import warnings
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from sb3_ncde.action_mask import ActionMask
from sb3_ncde.arguments import split_arguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.history.diagnostics import ClockWatch, FailureWatch
from sb3_ncde.history.observation_history import State
from sb3_ncde.history.validation import check_finite, check_keys, check_mask, check_state, check_time
from sb3_ncde.torch_layers import ObservationReader, check_extractor


class NCDEPolicy(RecurrentActorCriticPolicy):
    """Actor-critic policy whose memory is a neural controlled differential equation over recent observations.

    For RecurrentPPO and vector observations: ``RecurrentPPO("NCDEPolicy", env)``. The recurrent state is the history
    of observations itself, so it never goes stale when the weights change.

    :param observation_space: of the environment
    :param action_space: of the environment
    :param lr_schedule: learning rate as a function of the remaining progress
    :param latent_size: size Z of the latent state z
    :param field_width: units of each hidden layer of the vector field
    :param field_depth: hidden layers of the vector field
    :param initial_width: units of each hidden layer of the network that makes z of the window's oldest observation
    :param initial_depth: hidden layers of that network
    :param history_length: observations H in a full window
    :param hop_length: observations S that a full window drops at once; None: half of ``history_length``. The work per
        step is about H/S intervals; at 1 the window slides
    :param dt: the nominal time between two observations. With ``time_key``, the unit in which elapsed time enters the
        path; without, what every step adds to the channel of time
    :param time_key: key of a Dict observation, or column of a Box observation, that holds the time; None: none does
    :param time_kind: "elapsed" (since the previous observation) or "timestamp" (within the episode)
    :param missing_values: whether NaN in an observation means that the value was not observed: its last one is held,
        and how often it has been observed is a channel of the path. The features extractor must let NaN pass, as
        SB3's for vectors and Dicts of vectors do
    :param solver: euler, midpoint, heun or rk4; or an adaptive one of torchdiffeq: dopri5, dopri8, bosh3, fehlberg2,
        adaptive_heun
    :param solver_steps: steps of a fixed solver from one observation to the next
    :param rtol: relative tolerance of an adaptive solver
    :param atol: absolute tolerance of an adaptive solver
    :param adjoint: whether the gradients of an adaptive solver come from the adjoint equation (less memory, more time)
    :param interpolation: linear; hermite (cubic with backward differences, for rk4 or an adaptive solver); or
        rectilinear (time moves first, then the values)
    :param time_channel: whether time is a channel of the path
    :param scale_increments: whether changes and rates are scaled by their root mean square in rollouts
    :param rates: whether the rates of change of the features are channels of the path
    :param path_in_field: whether the vector field sees the path's value and rates beside z
    :param feature_size: size of the features that a linear map makes of z for the heads; None or ``latent_size``:
        z itself
    :param feature_norm: what they pass through on their way to the heads: tanh, layer_norm or none
    :param skip: whether the newest features, their rates and the elapsed time go past the CDE to the heads
    :param share_encoder: whether actor and critic share one encoder, both gradients flowing; None: as
        ``share_features_extractor``
    :param control_size: features wider than this (images) are projected to it by a learned linear map; None: never
    :param value_width: units of each hidden layer of the critic's head; this and the next three are another way to say
        ``net_arch``, and what of them is not given is as SB3 has it (64 units, 2 layers)
    :param value_depth: hidden layers of the critic's head
    :param action_width: units of each hidden layer of the actor's head
    :param action_depth: hidden layers of the actor's head
    :param action_mask_key: key of a Dict observation that holds the mask of the allowed actions, see
        :class:`sb3_ncde.action_mask.ActionMask`; None: all are allowed
    :param kwargs: arguments of SB3's ``ActorCriticPolicy``
    :raises TypeError: for an argument of the LSTM policies, an unknown one, or a value of the wrong type
    :raises ValueError: for a value out of range, a time that the observation space does not have, observations that
        are for another of the three policies, or one encoder for two features extractors
    """

    default_features_extractor: type[BaseFeaturesExtractor] = FlattenExtractor
    # The names under which RecurrentPPO looks for the actor's and the critic's LSTM.
    lstm_actor: NeuralCDE  # type: ignore[assignment]
    lstm_critic: NeuralCDE | None  # type: ignore[assignment]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        self.arguments, sb3_kwargs = split_arguments(name, kwargs)
        sb3_kwargs.setdefault("features_extractor_class", self.default_features_extractor)
        if sb3_kwargs.get("optimizer_class", th.optim.Adam) is th.optim.Adam and not sb3_kwargs.get("optimizer_kwargs"):
            # SB3's eps; one kernel for all parameters, where a step of small networks is a quarter of SB3's default's.
            sb3_kwargs["optimizer_kwargs"] = {"eps": 1e-5, "fused": True}
        check_extractor(name, observation_space, sb3_kwargs["features_extractor_class"])
        mask_key = self.arguments.action_mask_key
        self._mask = None if mask_key is None else ActionMask(observation_space, action_space, mask_key)
        share_features_extractor = sb3_kwargs.get("share_features_extractor", True)
        share_encoder = self.arguments.share_encoder
        # These are plain attributes, which a module may have before it is initialised.
        self._share_encoder = share_features_extractor if share_encoder is None else share_encoder
        self._failures = FailureWatch()
        self._clock = ClockWatch()
        self._calls_without_state = 0
        self._warned_without_state = False
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
        self.critic = None
        self.shared_lstm, self.enable_critic_lstm = self._share_encoder, not self._share_encoder
        self.lstm_hidden_state_shape = (self.lstm_actor.num_layers, 1, self.lstm_actor.hidden_size)
        if self._mask is not None:
            self.action_dist = self._mask.distribution
            self.action_net = self._mask.distribution.proba_distribution_net(self.mlp_extractor.latent_dim_pi)
            if self.ortho_init:
                self.action_net.apply(partial(self.init_weights, gain=0.01))  # as SB3 does
            self.action_net.to(self.device)
        # The parent's optimizer holds the discarded parameters and not ours.
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Return the user's features extractor, with time passing by it."""
        return ObservationReader(
            self.observation_space,
            self.arguments.time_key,
            self.arguments.action_mask_key,
            self.features_extractor_class,
            **self.features_extractor_kwargs,
        )

    def _build_mlp_extractor(self) -> None:
        """Build the encoders, then the heads' hidden layers, which are sized by the encoders' output."""
        # A tuple, which registers no modules: the parent has yet to assign its LSTMs to lstm_actor and lstm_critic.
        self._encoders = (self._make_encoder(), None if self._share_encoder else self._make_encoder())
        self.lstm_output_dim = self._encoders[0].output_size
        super()._build_mlp_extractor()

    def _make_encoder(self) -> NeuralCDE:
        arguments = self.arguments
        time_scale = arguments.dt if arguments.time_key is None else 1.0
        return NeuralCDE(arguments.make_history(self.features_dim - 1), arguments, time_scale)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        """Return what :meth:`load` needs to build the same policy."""
        parameters = super()._get_constructor_parameters()
        if self.arguments.net_arch is not None:
            del parameters["net_arch"]
        return parameters | asdict(self.arguments) | {"share_features_extractor": self.share_features_extractor}

    def forward(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: RNNStates, episode_starts: th.Tensor, deterministic: bool = False
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, RNNStates]:
        """Act: one step of each environment.

        :param obs: observations of N environments
        :param lstm_states: their histories, two tensors (1, N, hidden_size) for actor and for critic
        :param episode_starts: 1 where the observation is the first of its episode, (N,)
        :param deterministic: whether to take the most likely action instead of a sample
        :return: actions, values (N, 1), log-probabilities (N,), the histories after this step
        :raises ValueError: for values that are not finite, time that runs backwards, or another number of rows
        """
        pi_features, vf_features = self._extract(obs)
        self._check(obs, pi_features, lstm_states.pi, episode_starts)
        self._check_mask(obs, lstm_states.pi, episode_starts)
        if self.arguments.missing_values and not self.training:
            self._failures.check(pi_features[:, :-1])
        latent_pi, pi_state = self._step(
            self.lstm_actor, pi_features, lstm_states.pi, episode_starts, not self.training
        )
        if self.arguments.time_key is not None and not self.training:
            self._clock.check(self.lstm_actor.history.unpack(pi_state)[2][:, -1, -1], episode_starts)
        latent_vf, vf_state = latent_pi, pi_state
        if self.lstm_critic is not None:
            latent_vf, vf_state = self._step(
                self.lstm_critic, vf_features, lstm_states.vf, episode_starts, not self.training
            )
        distribution = self._distribution(latent_pi, obs)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        actions = actions.reshape((-1, *self.action_space.shape))  # type: ignore[misc]
        return actions, self._value(latent_vf), log_prob, RNNStates(pi_state, vf_state)

    def evaluate_actions(  # type: ignore[override]
        self, obs: PyTorchObs, actions: th.Tensor, lstm_states: RNNStates, episode_starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """Evaluate the actions of N sequences of T steps, flattened to N * T rows.

        :param obs: observations, sequence by sequence
        :param actions: of each row
        :param lstm_states: the histories before each sequence
        :param episode_starts: 1 where a row is the first of its episode, anywhere in a sequence, (N * T,)
        :return: values (N * T, 1), log-probabilities and entropies (N * T,)
        """
        pi_features, vf_features = self._extract(obs)
        latent_pi = latent_vf = self.lstm_actor(pi_features, lstm_states.pi, episode_starts)[0]
        if self.lstm_critic is not None:
            latent_vf = self.lstm_critic(vf_features, lstm_states.vf, episode_starts)[0]
        distribution = self._distribution(latent_pi, obs)
        if isinstance(self.action_space, spaces.MultiBinary) and self._mask is None:
            actions = actions.to(latent_pi.dtype)  # the buffer has them in int8, which PyTorch's Bernoulli refuses
        return self._value(latent_vf), distribution.log_prob(actions), distribution.entropy()

    def get_distribution(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: State, episode_starts: th.Tensor
    ) -> tuple[Distribution, State]:
        """Return the distribution of the actor's action, and its histories after this step."""
        # ActorCriticPolicy's own extract_features would run both extractors where they are not shared.
        features = super(ActorCriticPolicy, self).extract_features(obs, self.pi_features_extractor)
        self._check(obs, features, lstm_states, episode_starts)
        self._check_mask(obs, lstm_states, episode_starts)
        latent_pi, state = self._step(self.lstm_actor, features, lstm_states, episode_starts)
        return self._distribution(latent_pi, obs), state

    def predict_values(  # type: ignore[override]
        self, obs: PyTorchObs, lstm_states: State, episode_starts: th.Tensor
    ) -> th.Tensor:
        """Return the critic's values, (N, 1)."""
        features = super(ActorCriticPolicy, self).extract_features(obs, self.vf_features_extractor)
        self._check(obs, features, lstm_states, episode_starts)
        encoder = self.lstm_actor if self.lstm_critic is None else self.lstm_critic
        # Not step(): the rollout goes on from the solutions that it carries.
        return self._value(encoder(features, lstm_states, episode_starts)[0])

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions for observations, and the histories to pass as ``state`` with the next ones.

        Called again without a state, at no episode's start, it warns once that the agent acts without memory.

        :param observation: of one environment, (...), or of N, (N, ...); of a Dict, each key's
        :param state: what the last call returned; None: empty histories
        :param episode_start: whether each observation is the first of its episode, (N,); None: none is
        :param deterministic: whether to take the most likely action instead of a sample
        :return: actions, (...) or (N, ...), and the histories, two arrays (1, N, hidden_size)
        :raises ValueError: for values that are not finite, time that runs backwards, a Dict without all its keys or of
            different numbers of rows, a mask that allows nothing, or a state of another number of environments
        """
        check_keys(observation, self.observation_space)
        if state is not None or (episode_start is not None and np.all(episode_start)):
            self._calls_without_state = 0
        else:
            self._calls_without_state += 1
        if self._calls_without_state == 3 and not self._warned_without_state:
            self._warned_without_state = True
            warnings.warn(
                f"predict() is called again and again without a state, so {type(self).__name__} acts without memory. "
                "Pass the state that the last call returned: action, state = model.predict(obs, state, episode_start).",
                stacklevel=3,
            )
        return super().predict(observation, state, episode_start, deterministic)

    def _extract(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """Return features and time of each row for actor and critic, (rows, D + 1) each."""
        features = self.extract_features(obs)
        return features if isinstance(features, tuple) else (features, features)

    @staticmethod
    def _step(
        encoder: NeuralCDE, features: th.Tensor, state: State, starts: th.Tensor, rollout: bool = False
    ) -> tuple[th.Tensor, State]:
        """Encode one step of each environment: what the heads see, and the histories after it."""
        if th.is_grad_enabled():
            return encoder(features, state, starts)  # type: ignore[no-any-return]
        return encoder.step(features, state, starts, rollout)

    def _distribution(self, latent_pi: th.Tensor, obs: PyTorchObs) -> Distribution:
        latent_pi = self.mlp_extractor.forward_actor(latent_pi)
        if self._mask is None:
            return self._get_action_dist_from_latent(latent_pi)
        distribution = self._mask.distribution.proba_distribution(self.action_net(latent_pi))
        distribution.apply_masking(self._mask.read(obs))
        return distribution

    def _value(self, latent_vf: th.Tensor) -> th.Tensor:
        value: th.Tensor = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        return value

    def _check(self, obs: PyTorchObs, features: th.Tensor, state: State, episode_starts: th.Tensor) -> None:
        """Raise ValueError for what cannot be acted on; see :mod:`sb3_ncde.history.validation`."""
        history = self.lstm_actor.history
        check_state(features.shape[0], episode_starts, history, state)
        check_finite(obs, features, episode_starts, history, state)
        if self.arguments.time_key is not None:
            check_time(features[:, -1], episode_starts, history, state)

    def _check_mask(self, obs: PyTorchObs, state: State, episode_starts: th.Tensor) -> None:
        """Raise ValueError for a mask under which no action can be taken; a value needs none, as at a time limit."""
        if self._mask is not None:
            check_mask(self._mask.read(obs), self._mask.choices, episode_starts, self.lstm_actor.history, state)


class CnnNCDEPolicy(NCDEPolicy):
    """:class:`NCDEPolicy` for images: NatureCNN as features extractor.

    The history holds the extractor's outputs, so the part of a window that comes from the stored state carries the
    features of the rollout's weights, and no gradient to the extractor.
    """

    default_features_extractor = NatureCNN


class MultiInputNCDEPolicy(NCDEPolicy):
    """:class:`NCDEPolicy` for Dict observations: CombinedExtractor as features extractor."""

    default_features_extractor = CombinedExtractor
