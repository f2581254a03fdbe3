"""Off-policy agents act in NumPy as SB3's own policies do, where they act deterministically."""

import copy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import QRDQN, TQC
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.sac.policies import SACPolicy
from torch import nn
from torch.nn.utils import parametrizations, prune

from sb3_ncde import VecHistory, memory, with_memory
from sb3_ncde.history_policies import HISTORY_POLICIES, HistoryPolicy, SACHistoryPolicy
from tests.test_extractor import BOX, CONTINUOUS, make, walk

ALGORITHMS: list[Any] = [SAC, TQC, TD3, DDPG, DQN, QRDQN]
TWO = spaces.Box(np.array([[-1], [-3]], np.float32), np.array([[1], [5]], np.float32))


def agent(algorithm: Any = SAC, n_envs: int = 2, **kwargs: Any) -> Any:
    """Return an agent whose weights are large enough for all of them to show."""
    env = walk(n_envs, action_space=TWO if algorithm in CONTINUOUS else spaces.Discrete(3))
    model = make(algorithm, env, **kwargs)
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for weight in model.policy.parameters():
            weight.add_(0.3 * th.randn(weight.shape, generator=generator))
    return model


def acted(model: Any, steps: int = 12, deterministic: bool = True) -> tuple[list[Any], int]:
    """Return the actions of some steps, and at how many of them NumPy has not chosen them."""
    env = model.get_env()
    env.seed(3)
    observation, actions = env.reset(), []
    th.manual_seed(7)
    with patch.object(BasePolicy, "predict", autospec=True, side_effect=BasePolicy.predict) as in_pytorch:
        for _ in range(steps):
            action, state = model.policy.predict(observation, ("state",), deterministic=deterministic)
            assert state == ("state",)
            actions.append(action)
            observation, *_ = env.step(action)
    return actions, in_pytorch.call_count


def acted_in_pytorch(model: Any, **kwargs: Any) -> list[Any]:
    """Return the actions of SB3's own ``predict``."""
    with patch.object(HistoryPolicy, "_in_numpy", return_value=None):
        actions, in_pytorch = acted(model, **kwargs)
    assert in_pytorch == len(actions)
    return actions


def same(actions: list[Any], others: list[Any]) -> None:
    """Assert that actions have the same shapes, types and numbers."""
    for action, other in zip(actions, others, strict=True):
        assert (action.shape, action.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(action, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_numpy_and_pytorch_act_alike(algorithm: Any, n_envs: int) -> None:
    model = agent(algorithm, n_envs)
    actions, in_pytorch = acted(model)
    assert in_pytorch == 0
    assert len({action.tobytes() for action in actions}) > 1
    same(actions, acted_in_pytorch(model))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_samples_are_left_to_sb3(algorithm: Any) -> None:
    actions, in_pytorch = acted(agent(algorithm), deterministic=False)
    assert in_pytorch == len(actions)


@pytest.mark.parametrize(
    ("algorithm", "shared"),
    [*product(ALGORITHMS[:4], (False, True)), *((algorithm, None) for algorithm in ALGORITHMS[4:])],
)
def test_a_training_is_that_of_sb3s_policy(algorithm: Any, shared: bool | None) -> None:
    """Bit for bit, though no gradients are computed that it throws away."""
    space: spaces.Space[Any] = TWO if algorithm in CONTINUOUS else spaces.Discrete(3)
    kwargs: dict[str, Any] = {"policy_kwargs": {} if shared is None else {"share_features_extractor": shared}}
    if algorithm in (SAC, TQC):
        kwargs |= {"gradient_steps": 2, "use_sde": shared}
        kwargs["policy_kwargs"]["n_critics"] = 3
    models = []
    for swapped in (HISTORY_POLICIES, {}):
        with patch.object(memory, "HISTORY_POLICIES", swapped):
            model = make(algorithm, walk(2, action_space=copy.deepcopy(space)), **copy.deepcopy(kwargs))
        models.append(model.learn(60))
    ours, theirs = models
    assert type(ours.policy) is not type(theirs.policy)
    for name, weight in ours.policy.state_dict().items():
        assert th.equal(weight, theirs.policy.state_dict()[name]), name


@pytest.mark.parametrize("algorithm", [SAC, TQC])
def test_the_critic_keeps_the_gradients_of_its_own_loss(algorithm: Any) -> None:
    """SB3 adds those of the actor's loss, and throws all of them away."""
    model = agent(algorithm, gradient_steps=3)
    model.learn(20)
    critic, seen = model.critic, []
    frozen = critic.q_networks[0][0].weight.requires_grad_(False)
    learning = [weight for weight in critic.parameters() if weight is not frozen]
    with patch.object(critic.optimizer, "step", lambda: seen.append([weight.grad.clone() for weight in learning])):
        model.train(1, 8)
    assert all(gradient.any() for gradient in seen[0][:2])
    for gradient, weight in zip(seen[0], learning, strict=True):
        assert weight.grad is not None
        assert th.equal(gradient, weight.grad)
    with pytest.raises(ValueError, match="Histories of 1 numbers"):
        critic(th.zeros(1, 1), model.actor.log_std.bias[None] * 2)
    assert {id(weight) for weight in critic.parameters() if weight.requires_grad} == {*map(id, learning)}


def test_an_algorithm_of_a_user_has_sb3s_policy() -> None:
    """It may learn from what SAC throws away."""

    class Other(SAC):
        pass

    env = walk(action_space=TWO)
    assert type(with_memory(Other, env, history_length=2, device="cpu").policy) is SACPolicy


def _prune(policy: Any) -> None:
    prune.random_unstructured(policy.actor.mu, "weight", 0.5)  # type: ignore[no-untyped-call]


def _norm(policy: Any) -> None:
    layer = parametrizations.weight_norm(policy.actor.latent_pi[0])
    with th.no_grad():
        layer.parametrizations.weight.original0.mul_(0.5)


def _hook(policy: Any) -> None:
    policy.actor.register_forward_hook(lambda module, inputs, out: out * 0.5)


def _hook_on_extractor(policy: Any) -> None:
    policy.actor.features_extractor.register_forward_hook(lambda module, inputs, out: out * 0.5)


def _patch(policy: Any) -> None:
    of_class = policy.actor.get_action_dist_params
    policy.actor.get_action_dist_params = lambda obs: (of_class(obs)[0] * 0.5, *of_class(obs)[1:])


def _hook_on_spread(policy: Any) -> None:
    policy.actor.log_std.register_forward_hook(lambda module, inputs, out: out)


def _hook_on_another_container(policy: Any) -> None:
    policy.actor.latent_pi = nn.Sequential(*policy.actor.latent_pi)
    policy.actor.latent_pi.register_forward_hook(lambda module, inputs, out: out * 0.5)


class Halved(SquashedDiagGaussianDistribution):
    """Whose best action is another one."""

    def mode(self) -> th.Tensor:
        return 0.5 * super().mode()


def _another_distribution(policy: Any) -> None:
    policy.actor.action_dist = Halved(2)


def _replace(policy: Any) -> None:
    policy.actor.latent_pi = nn.Sequential(*policy.actor.latent_pi, nn.GELU())


CHANGES = [
    _prune,
    _norm,
    _hook,
    _hook_on_extractor,
    _hook_on_spread,
    _hook_on_another_container,
    _patch,
    _another_distribution,
    _replace,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_known_is_left_to_sb3(change: Callable[[Any], None]) -> None:
    """And noticed at the next step."""
    model = agent()
    before, in_pytorch = acted(model)
    assert in_pytorch == 0
    change(model.policy)
    actions, in_pytorch = acted(model)
    assert in_pytorch == len(actions)
    assert change is _hook_on_spread or not np.allclose(actions, before)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"use_sde": True},
        {"policy_kwargs": {"activation_fn": nn.GELU}},
        {"features_extractor_kwargs": {"solver": "dopri5"}},
    ],
)
def test_other_settings_are_left_to_sb3(kwargs: dict[str, Any]) -> None:
    actions, in_pytorch = acted(agent(**kwargs))
    assert in_pytorch == len(actions)


def test_images_and_other_precisions_are_left_to_sb3() -> None:
    model = make(SAC, walk(observation="image", action_space=BOX), history_length=2)
    assert acted(model, 3)[1] == 3
    model = agent()
    model.policy.actor.double()
    observation = model.get_env().reset()
    for _ in range(2):
        assert model.policy._in_numpy(observation) is None
        assert model.predict(observation, deterministic=True)[0].dtype == np.float64


def test_a_subclass_is_left_to_sb3() -> None:
    """It may choose otherwise."""

    class HalvedPolicy(SACHistoryPolicy):
        def _predict(self, observation: Any, deterministic: bool = False) -> Any:
            return 0.5 * super()._predict(observation, deterministic)

    model = agent(policy=HalvedPolicy)
    assert acted(model)[1] == 12


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("net_arch", [[], [4], [4, 4, 4]])
def test_heads_of_any_depth(algorithm: Any, net_arch: list[int]) -> None:
    model = agent(algorithm, policy_kwargs={"net_arch": net_arch})
    actions, in_pytorch = acted(model, 4)
    assert in_pytorch == 0
    same(actions, acted_in_pytorch(model, steps=4))


def test_episodes_are_the_same_whatever_was_before() -> None:
    """Bit for bit: also after episodes in another number of environments, and by an agent that has never acted."""
    actions = [np.concatenate(acted(agent())[0])]
    model = agent()
    other = VecHistory(walk(3, action_space=TWO), history_length=3)
    model.predict(other.reset(), deterministic=True)
    actions += [np.concatenate(acted(model)[0]) for _ in range(2)]
    for again in actions[1:]:
        np.testing.assert_array_equal(again, actions[0])


def test_an_agent_on_a_gpu_and_without_a_critic_is_left_to_sb3() -> None:
    model = agent()
    observation = model.get_env().reset()
    model.policy.critic_target = None
    assert model.policy._in_numpy(observation) is not None
    critic, model.policy.critic = model.policy.critic, None
    assert model.policy._in_numpy(observation) is None
    model.policy.critic = critic
    scale = model.policy.actor.features_extractor.encoder.increment_scale
    scale.scale = scale.scale.to("meta")  # as it would be on a GPU: not on the host
    assert model.policy._in_numpy(observation) is None


def test_memory_of_the_caller_may_be_used_again() -> None:
    model = agent()
    env, zeros = model.get_env(), np.zeros((2, *TWO.shape), np.float32)
    kept = env.reset().copy()
    for step in range(8):
        if step % 3 != 1:
            model.predict(kept, deterministic=True)
        kept[:] = env.step(zeros)[0]
    actions, _ = model.predict(kept, deterministic=True)
    with patch.object(HistoryPolicy, "_in_numpy", return_value=None):
        same([actions], [agent().predict(kept, deterministic=True)[0]])


@pytest.mark.parametrize("algorithm", [SAC, DQN])
def test_acting_does_to_targets_what_sb3_does(algorithm: Any) -> None:
    """The scale of a frozen agent stays, and SB3 does not tell targets to act."""
    model = agent(algorithm)
    model.learn(60)
    acting = model.policy.actor if algorithm is SAC else model.policy.q_net
    for part in (acting, getattr(model.policy, "critic", acting)):
        part.requires_grad_(False)
    target = model.policy.critic_target if algorithm is SAC else model.policy.q_net_target
    scale = acting.features_extractor.encoder.increment_scale.scale.clone()
    target.train(True)
    acted(model)
    assert target.features_extractor.training
    np.testing.assert_array_equal(acting.features_extractor.encoder.increment_scale.scale, scale)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.ma.MaskedArray])
def test_other_arrays_are_left_to_sb3(kind: Any) -> None:
    model = agent()
    observation = model.get_env().reset()
    given = np.ma.array(observation) if kind is np.ma.MaskedArray else observation.astype(kind)
    with patch.object(BasePolicy, "predict", autospec=True, side_effect=BasePolicy.predict) as in_pytorch:
        actions = model.predict(given, deterministic=True)[0]
    assert in_pytorch.call_count == 1
    np.testing.assert_allclose(actions, model.predict(observation, deterministic=True)[0], atol=2e-2)


@given(events=st.lists(st.sampled_from(["weights", "learn", "copy", "load", "mode"]), max_size=5))
def test_nothing_is_stale(events: list[str]) -> None:
    model = agent(SAC)
    model.learn(12)
    for event in events:
        if event == "weights":
            with th.no_grad():
                for weight in model.policy.actor.parameters():
                    weight.mul_(1.1)
        elif event == "learn":
            model.learn(10, reset_num_timesteps=False)
        elif event == "copy":
            kept = model.policy.actor.action_dist  # what it holds has gradients, which cannot be copied
            model.policy = copy.deepcopy(model.policy, {id(kept): copy.copy(kept)})
            model._create_aliases()
        elif event == "load":
            model.policy.load_state_dict(copy.deepcopy(model.policy.state_dict()))
        else:
            model.policy.set_training_mode(True)
        actions, in_pytorch = acted(model, 4)
        assert in_pytorch == 0
        acting = (model.policy, model.actor, model.critic, model.actor.features_extractor)
        assert not any(part.training for part in acting)
        same(actions, acted_in_pytorch(model, steps=4))


def test_what_is_wrong_is_said_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", True)  # th.compile turns it off
    model = agent()
    observation = model.get_env().reset()
    with pytest.raises(ValueError, match="Unexpected observation shape"):
        model.predict(observation[:, 1:], deterministic=True)
    with pytest.raises(ValueError, match="mixing Gym API"):
        model.predict((observation, {}), deterministic=True)
    with pytest.raises(ValueError, match=r"a count of 0\.5"):
        model.predict(observation * 0.5, deterministic=True)
    np.testing.assert_array_equal(model.predict(observation[0], deterministic=True)[0].shape, TWO.shape)
    with th.no_grad():
        model.policy.actor.log_std.bias.fill_(np.nan)
    for _ in range(2):
        with pytest.raises(ValueError, match="Expected parameter scale"):
            model.predict(observation, deterministic=True)
    with th.no_grad():
        model.policy.actor.mu.bias.fill_(np.nan)
    for _ in range(2):
        with pytest.raises(ValueError, match="Expected parameter loc"):
            model.predict(observation, deterministic=True)
    model.policy.actor.mu.double()
    with pytest.raises(RuntimeError, match="dtype"):
        model.predict(observation, deterministic=True)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    for algorithm in ALGORITHMS:
        model = agent(algorithm)
        assert type(model.policy) in HISTORY_POLICIES.values()
        model.save(tmp_path / "model")
        loaded = algorithm.load(tmp_path / "model", model.get_env(), device="cpu")
        assert type(loaded.policy) is type(model.policy)
        same(acted(loaded)[0], acted(model)[0])


def test_one_environment_after_another() -> None:
    """As an evaluation between the steps of a rollout."""
    model = agent(SAC)
    envs = [model.get_env(), VecHistory(walk(2, seed=9, action_space=TWO), history_length=3)]
    observations = [env.reset() for env in envs]
    other = agent(SAC)
    with patch.object(BasePolicy, "predict", autospec=True, side_effect=BasePolicy.predict) as in_pytorch:
        for _ in range(4):
            for place, env in enumerate(envs):
                for _ in range(3):
                    observation = observations[place]
                    actions = model.predict(observation, deterministic=True)[0]
                    expected = other.policy._predict(th.from_numpy(observation), deterministic=True).numpy(force=True)
                    same([actions], [other.policy.unscale_action(expected.reshape(2, *TWO.shape))])
                    observations[place] = env.step(actions)[0]
    assert in_pytorch.call_count == 6  # at each change, but where the other environments begin their episodes
