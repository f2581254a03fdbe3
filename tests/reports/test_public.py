"""More public reports of the same kinds, beside those that faults were known of; each test names its source."""

import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_ncde import NCDEPolicy
from sb3_ncde.history.observation_history import ObservationHistory
from sb3_ncde.history.validation import check_time
from sb3_ncde.sensors import IrregularSampling, NoisyObservation, SensorDropout
from tests.envs import RandomWalk


def make(policy: Any = "NCDEPolicy", env: Any = None, **kwargs: Any) -> Any:
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 30}) if env is None else env
    defaults: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu", "seed": 0}
    return RecurrentPPO(policy, env, **(defaults | kwargs))


def states_of(policy: Any, n_seq: int) -> RNNStates:
    zeros = th.zeros(1, n_seq, policy.lstm_actor.hidden_size)
    return RNNStates((zeros, zeros), (zeros, zeros))


def test_the_scale_of_a_frozen_encoder_stays() -> None:
    """sb3 #1825, #409: an encoder shared with a second agent, frozen; the first fell from 500.0 to 29.8."""
    first = make().learn(128)
    second = make(env=make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 30, "scale": 1000.0}))
    second.policy.lstm_actor = first.policy.lstm_actor
    second.policy.lstm_actor.requires_grad_(False)
    before = copy.deepcopy(first.policy.state_dict())
    second.learn(192)
    assert all(th.equal(value, before[name]) for name, value in first.policy.state_dict().items())


def test_a_copy_by_the_state_dict_acts_the_same() -> None:
    """sb3 #996, sb3-contrib PR #99: copies by ``parameters()`` leave statistics out, by ``state_dict()`` not."""
    model, other = make().learn(192), make(seed=1)
    other.policy.load_state_dict(model.policy.state_dict())
    observation = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    first, second = (agent.predict(observation, None, np.ones(2), deterministic=True)[0] for agent in (model, other))
    np.testing.assert_array_equal(first, second)


def test_weights_of_other_arguments_are_named() -> None:
    """sb3 #1877, #1414: parameters set in a model of other arguments; returns of 57 to 104 instead of 500, no word."""
    model = make(policy_kwargs={"history_length": 4}).learn(64)
    other = make(policy_kwargs={"history_length": 8, "rates": True})
    with pytest.warns(UserWarning, match=r"history_length=8 \(saved: 4\).*unless the difference is meant"):
        other.set_parameters(model.get_parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(policy_kwargs={"history_length": 4}).set_parameters(model.get_parameters())


class Counting(RandomWalk):
    """Gymnasium's TimeAwareObservation: a column that counts the steps of the episode."""

    def _observe(self) -> Any:
        observation = super()._observe()
        observation[1] = 0.0 if not hasattr(self, "steps") else self.steps
        return observation

    def reset(self, **kwargs: Any) -> Any:
        self.steps = 0.0
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.steps += 1.0
        return super().step(action)


def test_a_timestamp_taken_for_an_elapsed_time_is_named() -> None:
    """gym #3013 (TimeAwareObservation): trained without a word."""
    kwargs = {"observation": "column", "longest": 100}
    env = make_vec_env(Counting, 2, seed=1, env_kwargs=kwargs)
    with pytest.warns(UserWarning, match=r"counts up within the episode.*time_kind='timestamp'"):
        make(env=env, n_steps=128, policy_kwargs={"time_key": 1}).learn(256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(env=env, n_steps=128, policy_kwargs={"time_key": 1, "time_kind": "timestamp"}).learn(256)


def test_an_elapsed_time_taken_for_a_timestamp_is_named() -> None:
    """The reverse: the error named VecNormalize alone."""
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"observation": "dict", "longest": 30})
    model = make("MultiInputNCDEPolicy", env, policy_kwargs={"time_key": "time", "time_kind": "timestamp"})
    with pytest.raises(ValueError, match=r"If it is the time since the observation before, set time_kind='elapsed'"):
        model.learn(64)


def test_episode_start_that_is_always_true_is_named() -> None:
    """sb3-contrib #169, RLTrader #49: the agent never had more than one observation, and nobody said so."""
    model = make()
    state: Any = None
    observation = np.zeros((2, 3), np.float32)
    for _ in range(3):
        _, state = model.predict(observation, state, np.ones(2, bool))
    with pytest.warns(UserWarning, match=r"with episode_start true each time.*without memory"):
        model.predict(observation, state, np.ones(2, bool))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):  # evaluate_policy of several environments begins so, and never again
            model.predict(observation, None, np.ones(2, bool))


@pytest.mark.filterwarnings("ignore")  # those of a tracer
def test_a_trace_is_refused_in_a_sentence() -> None:
    """sb3 #1125, #1349 (export of RecurrentPPO): a trace was wrong by half of the range of actions, without a word."""
    policy = make().policy
    states = states_of(policy, 1).pi

    class Actor(nn.Module):
        def forward(self, observation: th.Tensor, first: th.Tensor, second: th.Tensor) -> Any:
            return policy.get_distribution(observation, (first, second), th.zeros(1))[0].distribution.logits

    with pytest.raises(RuntimeError, match="cannot be traced"):
        th.jit.trace(Actor(), (th.zeros(1, 3), *states))  # type: ignore[no-untyped-call]


def test_gradients_flow_through_steps_one_by_one() -> None:
    """sb3 #1365 (integrated gradients): "Can't call numpy() on Tensor that requires grad" at the second step."""
    policy = make().policy
    states: Any = states_of(policy, 1).pi
    rows = th.randn(4, 1, 3, requires_grad=True)
    for row in rows:
        distribution, states = policy.get_distribution(row, states, th.zeros(1))
    distribution.distribution.logits[0, 0].backward()
    assert rows.grad is not None
    assert (rows.grad.abs().sum(dim=(1, 2)) > 0).all()


def test_hooks_on_the_encoder_are_called_when_it_acts() -> None:
    """sb3-contrib #160, sb3 #1467: activations by ``register_forward_hook``; none of 20 calls was seen."""
    model, seen = make(), []
    model.policy.lstm_actor.register_forward_hook(lambda module, given, output: seen.append(output[0]))
    state: Any = None
    for step in range(20):
        _, state = model.predict(np.zeros((1, 3), np.float32), state, np.array([step == 0]))
    assert len(seen) == 20


def test_an_endless_episode_goes_on() -> None:
    """hill-a #992, sb3 #814: an error at step 163,840 of an endless episode, for an error of 2 % of dt."""
    history = ObservationHistory(2, 1, 1, unit=0.05, timestamps=True)
    zeros = th.zeros(1, 1, history.size)
    with pytest.warns(UserWarning, match=r"In a long episode, around the timestamp 8192"):
        check_time(th.tensor([8192.0]), th.ones(1), history, (zeros, zeros))
    with pytest.raises(ValueError, match=r"too coarse for dt=0.05"):
        check_time(th.tensor([1e6]), th.ones(1), history, (zeros, zeros))


def test_noise_on_all_numbers_of_a_policy() -> None:
    """sb3 PR #199 (evolution strategies): noise on the whole state dict; a Bool in it refused it, ``learn`` got NaN."""
    model = make().learn(128)
    noisy = {name: value + 0.1 * th.randn_like(value) for name, value in model.policy.state_dict().items()}
    model.policy.load_state_dict(noisy)
    model.learn(64)
    averaged = {name: (value + noisy[name]) / 2 for name, value in model.policy.state_dict().items()}
    model.policy.load_state_dict(averaged)
    model.learn(64)


class ByPlace(NCDEPolicy):
    """As the documentation of SB3 1.x has it, and copies of it."""

    def __init__(
        self, observation_space: Any, action_space: Any, lr_schedule: Any, net_arch: Any = None,
        activation_fn: Any = nn.Tanh, *args: Any, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(observation_space, action_space, lr_schedule, net_arch, activation_fn, *args, **kwargs)


def test_arguments_by_their_places() -> None:
    """sb3 #906, #1055: "takes 4 positional arguments but 6 were given"."""
    policy = make(ByPlace, policy_kwargs={"net_arch": [7], "activation_fn": nn.ReLU}).learn(32).policy
    assert policy.mlp_extractor.latent_dim_pi == 7
    assert isinstance(policy.mlp_extractor.policy_net[1], nn.ReLU)


def test_arguments_that_are_given_twice() -> None:
    """By place and by name: the name won, without a word."""
    with pytest.raises(TypeError, match="4 arguments by their places: too many, or some twice"):
        NCDEPolicy(
            spaces.Box(-1, 1, (2,)), spaces.Discrete(2), lambda _: 1e-3, [8], nn.ReLU, True, False, ortho_init=True
        )


class OwnGenerator(gym.Env[Any, Any]):
    """Seeds a generator of its own, and leaves Gymnasium's alone; or has an old one of NumPy's under its name."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, old: bool) -> None:
        self.old = old
        if old:
            self.__dict__["generator"] = np.random.RandomState(0)

    @property  # type: ignore[misc]
    def np_random(self) -> Any:
        return self.__dict__["generator"] if self.old else super().np_random

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.ones(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.ones(2, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("old", [False, True])
def test_wrappers_are_repeated_by_a_seed_whatever_the_environment_does(old: bool) -> None:
    """boptest-gym #121, minigrid PR #509 (seeds that go nowhere); gym PR #2422 (``RandomState``): three other runs."""

    def run(seed: int | None) -> list[float]:
        env = NoisyObservation(OwnGenerator(old), 1.0)
        wrapped = SensorDropout(IrregularSampling(env, time_key="time"), 0.5, fill="hold")
        numbers = []
        for episode in range(2):
            observation, _ = wrapped.reset(seed=seed if episode == 0 else None)
            for _ in range(10):
                numbers.extend(np.concatenate([observation["time"], observation["observation"]]).tolist())
                observation = wrapped.step(0)[0]
        return numbers

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert run(3)[:30] != run(3)[30:]


def test_the_order_of_keys_does_not_matter() -> None:
    """Gymnasium #1072, hill-a #709: a Dict in another order than that of the training."""
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"observation": "dict"})
    model = make("MultiInputNCDEPolicy", env, policy_kwargs={"time_key": "time"}).learn(64)
    observation: Any = env.reset()
    turned = {key: observation[key].copy() for key in reversed(list(observation))}
    first, _ = model.predict(observation, None, np.ones(2), deterministic=True)
    second, _ = model.predict(turned, None, np.ones(2), deterministic=True)
    np.testing.assert_array_equal(first, second)


def test_learning_in_pieces_is_learning() -> None:
    """sb3 #957, #502: eight times ``learn(64)`` is ``learn(512)``, to the bit."""
    whole, pieces = make().learn(512), make()
    for piece in range(8):
        pieces.learn(64, reset_num_timesteps=piece == 0)
    for name, value in whole.policy.state_dict().items():
        assert th.equal(value, pieces.policy.state_dict()[name]), name


def test_values_far_outside_of_what_was_learned_are_named() -> None:
    """IsaacLab #2635, sb3 #1256: an agent of normalised observations acts on raw ones, and nobody says so."""
    model = make().learn(192)
    model.predict(np.zeros((2, 3), np.float32), None, np.ones(2))
    with pytest.warns(UserWarning, match=r"Feature 1 of the observation is 300.*VecNormalize"):
        model.predict(np.array([[0.0, 300.0, 0.0]], np.float32), None, np.ones(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(np.array([[0.0, 300.0, 0.0]], np.float32), None, np.ones(1))  # once
