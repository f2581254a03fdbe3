"""Reports of people who train, pretrain, load and call the policies of RecurrentPPO, each tried on NCDEPolicy."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_ncde import MultiInputNCDEPolicy, NCDEPolicy
from sb3_ncde.history.diagnostics import recommend_cpu
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.wrappers import ActionMaskObservation
from tests.envs import MaskedWalk, RandomWalk


def make(env: Any = None, policy: Any = "NCDEPolicy", **kwargs: Any) -> Any:
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 30}) if env is None else env
    defaults: dict[str, Any] = {"n_steps": 32, "batch_size": 32, "n_epochs": 2, "device": "cpu", "seed": 0}
    return RecurrentPPO(policy, env, **(defaults | kwargs))


def states_of(policy: Any, n_seq: int) -> RNNStates:
    zeros = th.zeros(1, n_seq, policy.lstm_actor.hidden_size)
    return RNNStates((zeros, zeros), (zeros, zeros))


class Ratios(BaseCallback):
    """Notes the worst |ratio - 1| of each rollout before the first optimizer's step on it."""

    def __init__(self, during: Callable[[Any, int], None] = lambda policy, step: None) -> None:
        super().__init__()
        self.during = during
        self.worst: list[float] = []
        self.step = 0

    def _on_step(self) -> bool:
        self.step += 1
        self.during(self.model.policy, self.step)
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        buffer = copy.deepcopy(model.rollout_buffer)
        worst = 0.0
        with th.no_grad():
            for batch in buffer.get(None):
                _, log_prob, _ = model.policy.evaluate_actions(
                    batch.observations, batch.actions.long().flatten(), batch.lstm_states, batch.episode_starts
                )
                ratio = (log_prob - batch.old_log_prob).exp()[batch.mask > 1e-8]
                worst = max(worst, float((ratio - 1).abs().max()))
        self.worst.append(worst)


def flip_modes(policy: Any, step: int) -> None:
    """Choose to learn, and now and then to act again, in the middle of rollouts."""
    if step % 50 == 20:
        policy.set_training_mode(True)
    if step % 100 == 60:
        policy.set_training_mode(False)


# --- statistics ---


@pytest.mark.parametrize("before", [lambda policy: None, lambda policy: policy.train(), lambda policy: policy.eval()])
@pytest.mark.parametrize("during", [lambda policy, step: None, flip_modes])
def test_the_ratio_is_1_whatever_modes_are_chosen(before: Any, during: Any) -> None:
    """R1 (sb3-contrib #248): it was 6e-3 off after ``policy.train()``, 5e-3 off with a callback that switches modes."""
    env = VecNormalize(make_vec_env("sb3_ncde/CartPoleNoVel-v1", 2, seed=0))
    model = make(env, n_steps=300, batch_size=100)
    before(model.policy)
    callback = Ratios(during)
    model.learn(4 * 600, callback)
    assert len(callback.worst) == 4
    assert max(callback.worst) < 1e-5


def test_evaluation_inside_a_callback_changes_nothing() -> None:
    """R1: the same with EvalCallback, which acts in mid-rollout with other histories."""
    callback = Ratios()
    evaluation = EvalCallback(make_vec_env(RandomWalk), eval_freq=150, n_eval_episodes=2, verbose=0)
    make(n_steps=300, batch_size=100).learn(3 * 600, [evaluation, callback])
    assert max(callback.worst) < 1e-5


def demonstrations(n_seq: int, n_steps: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """Return observations (N * T, 2), actions and episode starts (N * T,) of a controller that sees velocities.

    A third of the actions that are taken are random, so that its corrections are seen; those that are returned are its.
    """
    env, rng = gym.make("sb3_ncde/CartPoleNoVel-v1"), np.random.default_rng(0)
    observations, actions, starts = [], [], []
    for sequence in range(n_seq):
        observation, _ = env.reset(seed=sequence)
        start = True
        for _ in range(n_steps):
            x, speed, angle, turn = env.unwrapped.state  # type: ignore[attr-defined]
            action = int(angle + 0.3 * turn + 0.02 * x + 0.04 * speed > 0)
            observations.append(observation)
            actions.append(action)
            starts.append(float(start))
            observation, _, start, _, _ = env.step(int(rng.integers(2)) if rng.random() < 1 / 3 else action)
            if start:
                observation, _ = env.reset()
    return th.tensor(np.array(observations)), th.tensor(actions), th.tensor(starts)


def test_a_clone_acts_the_same_after_learning_begins() -> None:
    """R1 (sb3-contrib #248): a clone fell from 284.7 to 76.0 in three rollouts at a learning rate of 1e-12."""
    model = make(make_vec_env("sb3_ncde/CartPoleNoVel-v1", 4, seed=0), n_steps=300, batch_size=100, learning_rate=1e-12)
    policy = model.policy
    observations, actions, starts = demonstrations(16, 100)
    optimizer = th.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(150):
        _, log_prob, _ = policy.evaluate_actions(observations, actions, states_of(policy, 16), starts)
        optimizer.zero_grad()
        (-log_prob.mean()).backward()
        optimizer.step()
    scale = policy.lstm_actor.increment_scale
    assert (scale.scale > 10).all()  # set by the demonstrations
    before: Any = evaluate_policy(model, make_vec_env("sb3_ncde/CartPoleNoVel-v1", 10, seed=5), 10)[0]
    cloned = copy.deepcopy(scale.scale)
    callback = Ratios()
    model.learn(3 * 1200, callback)
    assert max(callback.worst) < 1e-5
    after: Any = evaluate_policy(model, make_vec_env("sb3_ncde/CartPoleNoVel-v1", 10, seed=5), 10)[0]
    assert before > 150
    assert after > 0.8 * before
    th.testing.assert_close(scale.scale, cloned, rtol=0.3, atol=0.0)


def test_a_clone_of_an_agent_that_has_learned_acts_the_same_after_it_learns_again() -> None:
    """R1: ``set_training_mode(False)`` before demonstrations says that no update on the last rollout follows."""
    model = make(make_vec_env("sb3_ncde/CartPoleNoVel-v1", 4, seed=0), n_steps=32, batch_size=64, learning_rate=1e-12)
    model.learn(128)
    policy = model.policy
    assert (policy.lstm_actor.increment_scale.scale == 1).all()
    policy.set_training_mode(False)
    observations, actions, starts = demonstrations(4, 50)
    optimizer = th.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(10):
        loss = -policy.evaluate_actions(observations, actions, states_of(policy, 4), starts)[1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before = policy.lstm_actor.increment_scale.scale.clone()
    assert (before > 10).all()
    policy.set_training_mode(False)
    th.testing.assert_close(policy.lstm_actor.increment_scale.scale, before)


@pytest.mark.parametrize("missing_values", [False, True])
def test_600_calls_outside_of_learning_change_no_bit(missing_values: bool) -> None:
    """R7: the first call of ``forward`` put a new scale to use, 600 changed the statistics for good."""
    env = make_vec_env(RandomWalk, 2, seed=0)
    model = make(env, policy_kwargs={"missing_values": missing_values})
    model.learn(3 * 64)
    policy = model.policy
    observation = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    predicted = model.predict(observation, deterministic=True, episode_start=np.ones(2))
    states, starts = states_of(policy, 2), th.zeros(2)
    for call in range(600):
        rows = th.randn(2, 3)
        with th.no_grad():
            policy.forward(rows, states, starts)
            policy.predict_values(rows, states.vf, starts)
        if call % 10 == 0:  # with gradients, for an analysis, and without an optimizer's step
            policy.evaluate_actions(rows, th.zeros(2), states, starts)[0].sum().backward()
            policy.train(call % 20 == 0)
        model.predict(rows.numpy(), episode_start=np.ones(2))
    for name, value in policy.state_dict().items():
        assert th.equal(value, before[name]), name
    actions, after = model.predict(observation, deterministic=True, episode_start=np.ones(2))
    np.testing.assert_array_equal(actions, predicted[0])
    np.testing.assert_array_equal(after, predicted[1])


def test_a_feature_that_is_observed_late_trains_on_and_begins_at_order_1() -> None:
    """R4 (ml-agents #4728): an error after 5,000 observations; the column's scale began at 100 instead of 0.71."""

    class Late(RandomWalk):
        total = 0

        def _observe(self) -> Any:
            Late.total += 1
            observation = super()._observe()
            observation[2] = np.nan if Late.total < 20_000 else observation[2]
            return observation

    env = VecNormalizeObserved(make_vec_env(Late, 8, seed=0, env_kwargs={"longest": 200}))
    model = make(env, n_steps=250, batch_size=500, n_epochs=1, policy_kwargs={"missing_values": True})
    with pytest.warns(UserWarning, match=r"Feature 2 has been NaN .* all is well.*VecNormalizeObserved"):
        model.learn(18_000)
    scale = model.policy.lstm_actor.increment_scale
    assert scale.scale[2] == scale.scale[5] == 1
    assert (scale.count[[2, 5]] == 0).all()
    first = []

    class Increments(BaseCallback):
        def _on_step(self) -> bool:
            change = self.locals["lstm_states"].pi
            slots = model.policy.lstm_actor.history.unpack(change)[2]
            first.extend((slots[:, -1, 2] - slots[:, -2, 2])[(slots[:, -2, 5] > 0)].tolist())
            return True

    model.learn(4_000, Increments(), reset_num_timesteps=False)
    assert 0.05 < np.sqrt(np.mean(np.square(first[:500]))) < 5
    assert 0.05 < scale.scale[2] < 20


# --- what ends a sound run, or is silent on a mistake ---


@pytest.mark.filterwarnings("ignore:std")  # PyTorch's, of the standard deviation of one row
@pytest.mark.parametrize("n_epochs", [1, 3])
def test_a_minibatch_of_one_row_is_refused_before_the_optimizer_s_step(n_epochs: int) -> None:
    """R2 (sb3 #265, #325, #440): all weights became NaN; with one epoch the agent was even saved."""
    model = make(n_steps=33, batch_size=65, n_epochs=n_epochs)
    with pytest.raises(ValueError, match=r"a minibatch of one row.*batch_size that divides n_steps \* n_envs"):
        model.learn(66)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    model.normalize_advantage = False  # then one row is as good as any
    model.learn(66)


@pytest.mark.filterwarnings("ignore:std")
def test_a_minibatch_of_one_row_is_refused_with_a_frozen_encoder_too() -> None:
    """R2: the heads would become NaN."""
    model = make(n_steps=33, batch_size=65)
    model.policy.lstm_actor.requires_grad_(False)
    with pytest.raises(ValueError, match="a minibatch of one row"):
        model.learn(66)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


def test_a_loss_of_nan_is_refused_before_the_optimizer_s_step() -> None:
    """R2: of the same kind, a reward of NaN."""

    class Broken(RandomWalk):
        def step(self, action: Any) -> Any:
            observation, _, *rest = super().step(action)
            return observation, np.nan, *rest

    model = make(make_vec_env(Broken, 2, seed=0))
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(ValueError, match=r"The loss of a minibatch of .* rows is not finite .*NaN in rewards"):
        model.learn(64)
    assert all(map(th.equal, before, model.policy.parameters()))


class JobShop(gym.Env[Any, Any]):
    """Twenty decisions at one instant, then time passes; the mask says which jobs are left to dispatch."""

    observation_space = spaces.Dict(
        {
            "jobs": spaces.Box(0, 1, (20,), np.float32),
            "time": spaces.Box(0, np.inf, (1,), np.float32),
            "action_mask": spaces.MultiBinary(20),
        }
    )
    action_space = spaces.Discrete(20)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.rounds, self.left = 0, np.ones(20, np.int8)
        return self._observe(0.0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.left[action]
        self.left[action] = 0
        elapsed = 0.0
        if not self.left.any():
            self.left[:], elapsed, self.rounds = 1, 20.0, self.rounds + 1
        return self._observe(elapsed), -float(action) / 20, self.rounds == 3, False, {}

    def _observe(self, elapsed: float) -> Any:
        time = np.array([elapsed], np.float32)
        return {"jobs": self.left.astype(np.float32), "time": time, "action_mask": self.left.copy()}


@pytest.mark.parametrize("n_envs", [1, 8, 128])
def test_many_decisions_at_one_instant_train(n_envs: int) -> None:
    """R3 (JSSEnv): an error after 120 steps with 8 environments, after a single one with 128."""
    env = make_vec_env(JobShop, n_envs, seed=0)
    kwargs = {"time_key": "time", "action_mask_key": "action_mask"}
    n_steps = max(4, 512 // n_envs)
    model = make(env, "MultiInputNCDEPolicy", n_steps=n_steps, batch_size=256, n_epochs=1, policy_kwargs=kwargs)
    model.learn(2048)


@pytest.mark.parametrize(("dt", "advice"), [(1.0, "0.043"), (1e-4, "0.043")])
def test_a_dt_far_from_what_passes_is_named_with_the_value_to_set(dt: float, advice: str) -> None:
    """U2: with ``dt`` 23 times too large all rates were bounded, and nobody said so; 430 times too small likewise."""

    class Fast(RandomWalk):
        def _observe(self) -> Any:
            observation = super()._observe()
            return {**observation, "time": np.array([0.043], np.float32)}

    env = make_vec_env(Fast, 4, seed=0, env_kwargs={"observation": "dict"})
    model = make(env, "MultiInputNCDEPolicy", n_steps=128, policy_kwargs={"time_key": "time", "dt": dt})
    with pytest.warns(UserWarning, match=rf"{advice} passes on average.*dt={dt:g}.*set dt={advice} in policy_kwargs"):
        model.learn(512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(512)  # once
        kwargs = {"time_key": "time", "dt": 0.15}
        make(env, "MultiInputNCDEPolicy", n_steps=128, policy_kwargs=kwargs).learn(512)


def test_a_gpu_without_a_cnn_is_named_as_by_ppo() -> None:
    """U5 (sb3 #2012): a machine with a GPU trains on it, slowly."""
    policy = make().policy
    with pytest.warns(UserWarning, match="on the GPU without a CNN.*device='cpu'"):
        recommend_cpu(th.device("cuda"), policy.features_extractor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recommend_cpu(th.device("cpu"), policy.features_extractor)
        image = make(make_vec_env(RandomWalk, env_kwargs={"observation": "image"}), "CnnNCDEPolicy").policy
        recommend_cpu(th.device("cuda"), image.features_extractor)


# --- doors of SB3 ---


def test_weights_of_a_pretrained_extractor_load_by_sb3_s_keys() -> None:
    """R8 (sb3 #409, #1825): keys had a prefix more, so ``strict=False`` loaded nothing, and ``.cnn`` was missing."""
    env = make_vec_env(RandomWalk, env_kwargs={"observation": "image"})
    pretrained = PPO("CnnPolicy", env, n_steps=8, batch_size=8, device="cpu")
    weights = {
        name: value for name, value in pretrained.policy.state_dict().items() if name.startswith("features_extractor.")
    }
    model = make(env, "CnnNCDEPolicy")
    assert weights.keys() <= model.policy.state_dict().keys()
    model.policy.load_state_dict(weights, strict=False)
    other = make(env, "CnnNCDEPolicy", seed=1)
    other.set_parameters({"policy": weights}, exact_match=False)
    for policy in (model.policy, other.policy):
        assert th.equal(policy.features_extractor.cnn[0].weight, weights["features_extractor.cnn.0.weight"])
    for parameter in model.policy.features_extractor.parameters():
        parameter.requires_grad = False
    model.learn(64)
    assert th.equal(model.policy.features_extractor.cnn[0].weight, weights["features_extractor.cnn.0.weight"])
    both = make(make_vec_env(RandomWalk, env_kwargs={"observation": "dict_image"}), "MultiInputNCDEPolicy")
    assert set(both.policy.features_extractor.extractors) == {"camera", "walk"}


@pytest.mark.parametrize("share", [True, False])
def test_whole_sequences_with_gradients(share: bool) -> None:
    """R6 (sb3-contrib #248, #270): code for RecurrentPPO's policies that goes through its private methods."""
    policy = make(policy_kwargs={"share_encoder": share}).policy
    states, starts = states_of(policy, 3), th.zeros(30)
    starts[[4, 15]] = 1
    rows, actions = th.randn(30, 3), th.zeros(30)
    values, log_prob, _ = policy.evaluate_actions(rows, actions, states, starts)
    distribution, after = policy.get_distribution(rows, states.pi, starts)
    th.testing.assert_close(distribution.log_prob(actions), log_prob)
    th.testing.assert_close(policy.predict_values(rows, states.vf, starts), values)
    assert after[0].shape == states.pi[0].shape
    # As upstream's own forward is written, and copies of it.
    features = policy.extract_features(rows)
    latent_pi, states_pi = policy._process_sequence(features, states.pi, starts, policy.lstm_actor)
    latent_vf, _ = policy._process_sequence(features, states.vf, starts, policy.lstm_critic)
    head = policy.mlp_extractor
    found = policy._get_action_dist_from_latent(head.forward_actor(latent_pi)).log_prob(actions)
    th.testing.assert_close(found, log_prob)
    th.testing.assert_close(policy.value_net(head.forward_critic(latent_vf)), values)
    assert th.equal(states_pi[0], after[0])
    found.sum().backward()
    assert policy.lstm_actor.initial[0].weight.grad.any()
    # While acting, other numbers of rows remain a mistake.
    with th.no_grad(), pytest.raises(ValueError, match="30 environments, but a state of 3"):
        policy.get_distribution(rows, states.pi, starts)
    with pytest.raises(ValueError, match="31 environments, but a state of 3"):
        policy.predict_values(th.randn(31, 3), states.vf, th.zeros(31))


class OwnSequence(NCDEPolicy):
    """Changes what the heads see."""

    def _process_sequence(self, *args: Any) -> Any:  # type: ignore[override]
        latent, states = super()._process_sequence(*args)
        return latent.clamp(-0.5, 0.5), states


def test_an_overridden_sequence_is_used_everywhere() -> None:
    """R6: in the rollout and in the update on it, or the ratio does not begin at 1."""
    callback = Ratios()
    make(policy=OwnSequence).learn(192, callback)
    assert max(callback.worst) < 1e-5


def test_other_numbers_of_environments_may_be_acted_on() -> None:
    """R7: to log values, of others than those of the training."""
    env = make_vec_env(RandomWalk, 4, seed=0, env_kwargs={"observation": "dict", "longest": 30})
    policy = make(env, "MultiInputNCDEPolicy", policy_kwargs={"time_key": "time"}).learn(32 * 4).policy
    observation: Any = make_vec_env(RandomWalk, 3, env_kwargs={"observation": "dict"}).reset()
    with th.no_grad():
        policy.forward(policy.obs_to_tensor(observation)[0], states_of(policy, 3), th.ones(3))


class OwnHeads(NCDEPolicy):
    """As SB3's page on custom policies does it, without a call of super."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = MlpExtractor(self.lstm_output_dim, net_arch=[24], activation_fn=nn.ReLU)


def test_own_heads_without_super() -> None:
    """R10 (sb3-contrib #308): AttributeError ``_encoders``; sb3-contrib's own policies train."""
    model = make(policy=OwnHeads)
    model.learn(64)
    assert model.policy.mlp_extractor.latent_dim_pi == 24
    assert model.policy.lstm_output_dim == model.policy.lstm_actor.output_size


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_other_algorithms_are_told_what_to_use(algorithm: Any) -> None:
    """R14 (sb3-contrib #257): "forward() missing 2 required positional arguments"."""
    model = algorithm(NCDEPolicy, make_vec_env(RandomWalk), device="cpu")
    with pytest.raises(TypeError, match=r"as PPO, A2C and TRPO do.*RecurrentPPO\('NCDEPolicy', env\)"):
        model.learn(10)
    with pytest.raises(TypeError, match="RecurrentPPO"):
        model.policy.evaluate_actions(th.zeros(1, 3), th.zeros(1))


@pytest.mark.parametrize("name", ["NCDEPolicy", "CnnNCDEPolicy", "MultiInputNCDEPolicy"])
@pytest.mark.parametrize(
    "algorithm",
    [A2C, ARS, CrossQ, DDPG, DQN, MaskablePPO, PPO, QRDQN, SAC, TD3, TQC, TRPO],
    ids=lambda algorithm: algorithm.__name__,
)
def test_other_algorithms_say_what_to_use_when_asked_for_a_name(algorithm: Any, name: str) -> None:
    """R14 (sb3-contrib #257): "Policy NCDEPolicy unknown"."""
    env = "CartPole-v1" if algorithm in (A2C, DQN, QRDQN, MaskablePPO, PPO, TRPO, ARS) else "Pendulum-v1"
    with pytest.raises(TypeError, match=rf"{name} is for .*RecurrentPPO\('{name}', env\).*action_mask_key"):
        algorithm(name, env, device="cpu")


def test_masks_as_maskable_ppo_takes_them_are_refused_in_a_sentence() -> None:
    """R15 (sb3-contrib #178, #212): habits from MaskablePPO."""
    with pytest.raises(TypeError, match=r"part of the observation here.*action_mask_key"):
        make().policy.predict(np.zeros(3, np.float32), action_masks=np.ones(2))


# --- a critic that sees more ---


class Privileged(gym.Env[Any, Any]):
    """The actor sees a position, the critic the velocity as well."""

    observation_space = spaces.Dict(
        {
            "sensors": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "simulator": spaces.Box(-np.inf, np.inf, (5,), np.float32),
            "time": spaces.Box(0, np.inf, (1,), np.float32),
        }
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.now = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.now += 1
        return self._observe(), 1.0, False, self.now == 20, {}

    def _observe(self) -> Any:
        normal = self.np_random.normal
        time = np.array([0.5 + self.np_random.random()], np.float32)
        return {
            "sensors": normal(size=2).astype(np.float32),
            "simulator": normal(size=5).astype(np.float32),
            "time": time,
        }


@pytest.mark.parametrize("critic_encoder", [True, False])
def test_a_critic_may_see_what_the_actor_does_not(critic_encoder: bool, tmp_path: Any) -> None:
    """R13 (sb3 #1182, IsaacLab #2712): a critic on the simulator's state beside an actor on sensors."""
    env = VecNormalizeObserved(make_vec_env(Privileged, 2, seed=0), skip=["time"])
    kwargs = {"time_key": "time", "critic_keys": ["simulator"], "critic_encoder": critic_encoder}
    model = make(env, "MultiInputNCDEPolicy", policy_kwargs=kwargs)
    callback = Ratios()
    model.learn(200, callback)
    assert max(callback.worst) < 1e-5
    observation: Any = env.reset()
    action, state = model.predict(observation, None, np.ones(2), deterministic=True)
    other = {**observation, "simulator": observation["simulator"] + 1.0}
    alone = {key: value for key, value in observation.items() if key != "simulator"}
    for seen in (other, alone):
        again, state_again = model.predict(seen, None, np.ones(2), deterministic=True)
        np.testing.assert_array_equal(again, action)
        np.testing.assert_array_equal(state_again[0], state[0])
    with pytest.raises(ValueError, match=r"\['simulator'\] may be left out\), but got one with \['time'\]"):
        model.predict({"time": observation["time"]})
    with th.no_grad():
        states, starts = states_of(model.policy, 2), th.ones(2)
        values = [
            model.policy.predict_values(model.policy.obs_to_tensor(dict(seen))[0], states.vf, starts)
            for seen in (observation, other)
        ]
    assert (values[0] != values[1]).all()
    model.save(tmp_path / "model")
    loaded = RecurrentPPO.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(alone, deterministic=True)[0], action)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"critic_keys": "simulator"}, TypeError, "a list of keys"),
        ({"critic_keys": []}, ValueError, "at least one key"),
        ({"critic_keys": ["time"], "time_key": "time"}, ValueError, "are the actor's too"),
        ({"critic_keys": ["nowhere"]}, ValueError, "some keys of a Dict observation"),
        ({"critic_keys": ["sensors", "simulator", "time"]}, ValueError, "and not all of them"),
        ({"critic_keys": ["simulator"], "share_encoder": True}, ValueError, "share_encoder=True with critic_keys"),
        ({"critic_keys": ["simulator"], "share_features_extractor": True}, ValueError, "share_features_extractor=True"),
        ({"critic_encoder": False}, ValueError, "critic_encoder=False without critic_keys"),
    ],
)
def test_critic_keys_that_cannot_be_meant_are_refused(kwargs: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        MultiInputNCDEPolicy(Privileged.observation_space, spaces.Discrete(2), lambda _: 1e-3, **kwargs)


@pytest.mark.filterwarnings("ignore:Feature . has been NaN")
def test_a_critic_without_an_encoder_beside_sensors_that_fail() -> None:
    """R13: NaN of the actor's sensors reached the critic's head."""

    class Failing(Privileged):
        def _observe(self) -> Any:
            observation = super()._observe()
            observation["sensors"][0] = np.nan
            return observation

    kwargs = {"critic_keys": ["simulator"], "critic_encoder": False, "missing_values": True, "time_key": "time"}
    make(make_vec_env(Failing, 2, seed=0), "MultiInputNCDEPolicy", policy_kwargs=kwargs).learn(128)


def test_nan_in_what_the_critic_sees_is_named() -> None:
    """R13: it was found at the end of the rollout only, or as NaN in rewards."""

    class Failing(Privileged):
        def _observe(self) -> Any:
            observation = super()._observe()
            observation["simulator"][1] = np.nan
            return observation

    kwargs = {"critic_keys": ["simulator"], "time_key": "time"}
    model = make(make_vec_env(Failing, 2, seed=0), "MultiInputNCDEPolicy", policy_kwargs=kwargs)
    with pytest.raises(ValueError, match=r"step 0 of its episode: the observation 'simulator' is nan at index \[1\]"):
        model.learn(64)


def test_masks_and_critic_keys_go_together() -> None:
    class Both(MaskedWalk):
        def __init__(self) -> None:
            super().__init__("dict")
            more = {"state": spaces.Box(-1, 1, (2,), np.float32), "action_mask": spaces.MultiBinary(2)}
            self.observation_space = spaces.Dict({**self.observation_space.spaces, **more})  # type: ignore[attr-defined]

        def _observe(self) -> Any:
            if not hasattr(self, "masks"):
                self.masks = np.ones(2, bool)
            more = {"state": np.zeros(2, np.float32), "action_mask": self.masks.astype(np.int8)}
            return {**super()._observe(), **more}

        def step(self, action: Any) -> Any:
            return RandomWalk.step(self, action)

    kwargs = {"critic_keys": ["state"], "action_mask_key": "action_mask", "time_key": "time"}
    make(make_vec_env(Both, 2, seed=0), "MultiInputNCDEPolicy", policy_kwargs=kwargs).learn(128)


@pytest.mark.filterwarnings("error")
def test_other_n_steps_are_for_load_and_never_silent(tmp_path: Path) -> None:
    """A rollout of another length: given to ``load``, the ratio begins at 1; as an attribute it is an error (R+)."""
    model = make(n_steps=64)
    model.learn(128)
    model.save(tmp_path / "agent")
    ratios = Ratios()
    RecurrentPPO.load(tmp_path / "agent", model.get_env(), n_steps=16, device="cpu").learn(96, ratios)
    assert len(ratios.worst) == 3
    assert max(ratios.worst) < 1e-5
    loaded = RecurrentPPO.load(tmp_path / "agent", model.get_env(), device="cpu")
    loaded.n_steps = 16
    with pytest.raises(AssertionError, match="must be full"):
        loaded.learn(96)


def test_habits_from_maskable_ppo_end_in_an_error_that_the_page_explains() -> None:
    """``predict`` with masks, ``MaskableEvalCallback``, ``MaskablePPO(NCDEPolicy)``: each has its row (R14, R15)."""
    env = make_vec_env(lambda: ActionMaskObservation(MaskedWalk()), 2)
    model = make(env, "MultiInputNCDEPolicy", policy_kwargs={"action_mask_key": "action_mask"})
    with pytest.raises(TypeError, match="action_masks"):
        model.predict(env.reset(), action_masks=np.ones((2, 3)))
    with pytest.raises(TypeError, match="action_masks"):
        model.learn(64, MaskableEvalCallback(env, eval_freq=1, n_eval_episodes=1, verbose=0))
    with pytest.raises(ValueError, match="Policy must subclass MaskableActorCriticPolicy"):
        MaskablePPO(NCDEPolicy, make_vec_env(RandomWalk, 2), device="cpu")  # type: ignore[arg-type]
    page = (Path(__file__).parents[2] / "docs" / "masks.md").read_text()
    for habit in ("action_masks=masks", "MaskableEvalCallback", "MaskablePPO(NCDEPolicy", "Policy must subclass"):
        assert habit in page
