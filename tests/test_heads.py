"""The heads in NumPy, while an agent acts, are those of PyTorch: the same actions from the same seed."""

import copy
import pickle
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from sb3_ncde import NCDEPolicy
from sb3_ncde.heads import Heads

BOX = spaces.Box(-1, 1, (3,))
KNOWN: dict[str, tuple[spaces.Space[Any], dict[str, Any]]] = {
    "discrete": (spaces.Discrete(4), {}),
    "box": (BOX, {}),
    "box of two dimensions": (spaces.Box(-1, 1, (2, 2)), {}),
    "gSDE": (BOX, {"use_sde": True}),
}
UNKNOWN: dict[str, tuple[spaces.Space[Any], dict[str, Any]]] = {
    "several choices": (spaces.MultiDiscrete([2, 3]), {}),
    "bits": (spaces.MultiBinary(3), {}),
    "gSDE, squashed": (BOX, {"use_sde": True, "squash_output": True}),
    "gSDE, a number for each unit": (BOX, {"use_sde": True, "full_std": False}),
    "gSDE, expln": (BOX, {"use_sde": True, "use_expln": True}),
    "another activation": (BOX, {"activation_fn": nn.GELU}),
}
Outputs = dict[str, th.Tensor]


def make(actions: spaces.Space[Any], **kwargs: Any) -> NCDEPolicy:
    """Return a policy whose weights are large enough for all of them to show."""
    policy = NCDEPolicy(spaces.Box(-10, 10, (2,)), actions, lambda _: 1e-3, history_length=3, **kwargs)
    with th.no_grad():
        for weight in policy.parameters():
            weight.add_(0.3 * th.randn_like(weight))
    policy.set_training_mode(False)
    return policy


def empty(policy: NCDEPolicy, n_envs: int, dtype: th.dtype = th.float32) -> tuple[th.Tensor, th.Tensor]:
    """Return empty histories of environments."""
    return (th.zeros(1, n_envs, policy.lstm_actor.hidden_size, dtype=dtype),) * 2


def act(policy: NCDEPolicy, n_envs: int = 3, deterministic: bool = False) -> tuple[Outputs, bool]:
    """Return all outputs of a rollout's step and of ``predict``, and whether NumPy has made them."""
    th.manual_seed(7)
    if policy.use_sde:
        policy.reset_noise(n_envs)
    observations, dtype = th.randn(n_envs, 2), next(policy.value_net.parameters()).dtype
    state = empty(policy, n_envs, dtype)
    with th.no_grad(), patch.object(Heads, "act", autospec=True, side_effect=Heads.act) as used:
        actions, values, log_prob, _ = policy.forward(
            observations, RNNStates(state, state), th.ones(n_envs), deterministic
        )
        predicted, _ = policy.predict(observations.numpy(), None, np.ones(n_envs, bool), deterministic)
    assert used.call_count in (0, 2)  # by both or by none
    outputs = {"actions": actions, "values": values, "log_prob": log_prob, "predicted": th.as_tensor(predicted)}
    return outputs, used.call_count == 2


def act_in_pytorch(policy: NCDEPolicy, n_envs: int = 3, deterministic: bool = False) -> Outputs:
    """Return the same of PyTorch's heads."""
    with patch.object(Heads, "can_act", return_value=False):
        return act(policy, n_envs, deterministic)[0]


def same(outputs: Outputs, others: Outputs, tolerance: float = 1e-5) -> bool:
    """Return whether outputs have the same shapes, types and numbers."""
    for name, output in outputs.items():
        assert (output.shape, output.dtype) == (others[name].shape, others[name].dtype), name
    return all(np.allclose(output, others[name], rtol=tolerance, atol=tolerance) for name, output in outputs.items())


@given(
    st.sampled_from(list(KNOWN.values())),
    st.sampled_from([nn.Tanh, nn.ReLU]),
    st.sampled_from([None, [], [5], {"pi": [], "vf": [4]}, {"pi": [4, 6], "vf": []}]),
    st.booleans(),
    st.integers(1, 5),
    st.booleans(),
)
def test_numpy_and_pytorch_act_alike(
    actions: tuple[spaces.Space[Any], dict[str, Any]],
    activation: type[nn.Module],
    net_arch: Any,
    shared: bool,
    n_envs: int,
    deterministic: bool,
) -> None:
    space, kwargs = actions
    policy = make(space, activation_fn=activation, net_arch=net_arch, share_features_extractor=shared, **kwargs)
    outputs, in_numpy = act(policy, n_envs, deterministic)
    assert in_numpy
    assert same(outputs, act_in_pytorch(policy, n_envs, deterministic))


@pytest.mark.parametrize("name", KNOWN)
def test_in_float64_they_are_the_same_formulas(name: str) -> None:
    space, kwargs = KNOWN[name]
    policy = make(space, **kwargs).double()
    if policy.use_sde:
        policy.reset_noise(3)  # SB3's noise has the precision of the weights that it was drawn for
    outputs, in_numpy = act(policy)
    assert in_numpy
    assert same(outputs, act_in_pytorch(policy), 1e-12)


@given(st.sampled_from([nn.Tanh, nn.ReLU, nn.GELU]), st.sampled_from([None, [], {"pi": [4], "vf": []}]))
def test_learning_is_that_of_the_modules(activation: type[nn.Module], net_arch: Any) -> None:
    policy = make(BOX, activation_fn=activation, net_arch=net_arch)
    latent = th.randn(5, policy.lstm_output_dim)
    own, heads = policy.mlp_extractor, policy._heads
    assert th.equal(heads.hidden(latent), own.forward_actor(latent))
    assert th.equal(heads.value(latent), policy.value_net(own.forward_critic(latent)))


def test_a_gradient_passes_the_users_hooks() -> None:
    policy, seen = make(BOX), []
    policy.mlp_extractor.policy_net[0].register_full_backward_hook(lambda *_: seen.append("hidden"))
    policy.value_net.register_full_backward_hook(lambda *_: seen.append("value"))
    latent = th.randn(5, policy.lstm_output_dim, requires_grad=True)
    loss = policy._heads.hidden(latent).sum() + policy._heads.value(latent).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert sorted(seen) == ["hidden", "value"]


def test_what_is_seen_in_another_precision_is_for_pytorch_to_refuse() -> None:
    policy = make(BOX)
    latent = th.zeros(1, policy.lstm_output_dim)
    assert policy._heads.can_act(latent)
    assert not policy._heads.can_act(latent.double())


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_acts_by_pytorch(name: str) -> None:
    space, kwargs = UNKNOWN[name]
    assert not act(make(space, **kwargs))[1]


class Scaled(MlpExtractor):
    """A user's own hidden layers."""

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return 2 * super().forward_actor(features)


def own_hidden_layers(policy: NCDEPolicy) -> None:
    policy.mlp_extractor = Scaled(policy.lstm_output_dim, [64], nn.Tanh)
    policy.action_net = nn.Linear(64, 3)
    policy.value_net = nn.Linear(64, 1)


def a_parametrized_layer(policy: NCDEPolicy) -> None:
    parametrizations.spectral_norm(policy.action_net)


def a_hook(policy: NCDEPolicy) -> None:
    policy.mlp_extractor.value_net.register_forward_hook(lambda module, inputs, output: output + 1)


def several_layers_for_one(policy: Any) -> None:
    policy.value_net = nn.Sequential(nn.ReLU(), policy.value_net)


def a_layer_of_another_type(policy: NCDEPolicy) -> None:
    policy.mlp_extractor.policy_net[1] = nn.Softsign()


class Tripled(nn.Sequential):
    """Hidden layers that do something else than one after the other."""

    def forward(self, rows: th.Tensor) -> th.Tensor:
        for part in self:
            rows = part(rows)
        return 3 * rows


def another_container(policy: NCDEPolicy) -> None:
    policy.mlp_extractor.policy_net = Tripled(*policy.mlp_extractor.policy_net)


def no_container(policy: NCDEPolicy) -> None:
    policy.mlp_extractor.policy_net = nn.Linear(policy.lstm_output_dim, 64)  # type: ignore[assignment]


class Clamp(nn.Module):
    def forward(self, values: th.Tensor) -> th.Tensor:
        return values.clamp(max=-1.0)


def a_clamped_deviation(policy: NCDEPolicy) -> None:
    parametrize.register_parametrization(policy, "log_std", Clamp())


def a_fixed_deviation(policy: NCDEPolicy) -> None:
    del policy.log_std
    policy.register_buffer("log_std", th.full((3,), -1.0))


def a_patched_layer(policy: NCDEPolicy) -> None:
    policy.action_net.forward = lambda rows: rows[:, :3] + 1


def a_patched_extractor(policy: NCDEPolicy) -> None:
    policy.mlp_extractor.forward_actor = lambda features: th.ones(len(features), 64)  # type: ignore[method-assign]


def a_patched_policy(policy: NCDEPolicy) -> None:
    plain = policy._get_action_dist_from_latent
    policy._get_action_dist_from_latent = lambda latent_pi: plain(latent_pi + 1)  # type: ignore[method-assign]


CHANGES = [
    own_hidden_layers,
    a_parametrized_layer,
    a_hook,
    several_layers_for_one,
    a_layer_of_another_type,
    another_container,
    no_container,
    a_clamped_deviation,
    a_fixed_deviation,
    a_patched_layer,
    a_patched_extractor,
    a_patched_policy,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_head_of_the_users_own_acts_by_pytorch(change: Callable[[NCDEPolicy], None]) -> None:
    policy = make(BOX)
    before, in_numpy = act(policy)
    assert in_numpy
    change(policy)
    after, in_numpy = act(policy)
    assert not in_numpy
    assert not same(before, after)


def test_a_layer_that_is_no_longer_pruned_is_acted_with() -> None:
    policy = make(BOX)
    prune.l1_unstructured(policy.action_net, "weight", 0.5)  # type: ignore[no-untyped-call]
    assert not act(policy)[1]
    prune.remove(policy.action_net, "weight")  # type: ignore[no-untyped-call]
    outputs, in_numpy = act(policy)
    assert in_numpy
    assert same(outputs, act_in_pytorch(policy))


@pytest.mark.parametrize("use_sde", [False, True])
def test_the_ratio_begins_at_1_where_the_deviation_is_small(use_sde: bool) -> None:
    """Learning knows the actions as they have been rounded, and nothing of the noise that they were made of."""
    policy = make(BOX, use_sde=use_sde)
    with th.no_grad():
        policy.get_parameter("log_std").fill_(-4.0)
    outputs, in_numpy = act(policy)
    assert in_numpy
    th.manual_seed(7)
    if use_sde:
        policy.reset_noise(3)
    rows, state = th.randn(3, 2), empty(policy, 3)
    _, log_prob, _ = policy.evaluate_actions(rows, outputs["actions"], RNNStates(state, state), th.ones(3))
    th.testing.assert_close(log_prob, outputs["log_prob"], rtol=1e-3, atol=1e-3)


def other_numbers(policy: NCDEPolicy) -> None:
    with th.no_grad():
        policy.get_parameter("action_net.weight").add_(1)
        policy.get_parameter("log_std").add_(1)


def another_layer(policy: NCDEPolicy) -> None:
    policy.mlp_extractor.policy_net[0] = nn.Linear(policy.lstm_output_dim, 64)


def another_parameter(policy: NCDEPolicy) -> None:
    policy.log_std = nn.Parameter(policy.get_parameter("log_std").detach() + 1)


@pytest.mark.parametrize("change", [other_numbers, another_layer, another_parameter])
def test_what_is_changed_is_acted_with(change: Callable[[NCDEPolicy], None]) -> None:
    policy = make(BOX)
    before, _ = act(policy)
    change(policy)
    after, in_numpy = act(policy)
    assert in_numpy
    assert not same(before, after)
    assert same(after, act_in_pytorch(policy))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))])
def test_a_copy_has_weights_of_its_own(copied: Callable[[NCDEPolicy], NCDEPolicy]) -> None:
    policy = make(BOX)
    before, _ = act(policy)
    other = copied(policy)
    other_numbers(other)
    assert same(act(policy)[0], before)
    assert not same(act(other)[0], before)
    assert same(act(other)[0], act_in_pytorch(other))


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("part", ["action_net.bias", "log_std"])
def test_numbers_that_are_not_finite_are_an_error_as_in_pytorch(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, kwargs = KNOWN[name]
    policy = make(space, **kwargs)
    weights = dict(policy.named_parameters())
    if part not in weights:
        part = "mlp_extractor.policy_net.0.weight"
    with th.no_grad():
        weights[part].flatten()[0] = np.nan
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", True)  # some libraries turn it off
    messages = []
    for acted in (act, act_in_pytorch):
        with pytest.raises(ValueError, match="invalid values") as raised:
            acted(policy)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_numbers_that_overflow_are_as_in_pytorch_and_give_no_warning() -> None:
    policy = make(spaces.Discrete(4), net_arch=[])
    with th.no_grad():
        policy.value_net.bias.fill_(3e38)
        policy.value_net.weight.fill_(0.0)
        policy.value_net.weight[0, policy.lstm_actor.arguments.latent_size] = 3e38  # of a feature
    outputs, in_numpy = act(policy)
    assert in_numpy
    assert th.isinf(outputs["values"]).any()
    assert same(outputs, act_in_pytorch(policy))


def test_no_distribution_of_a_minibatch_stays_while_the_agent_acts() -> None:
    policy = make(BOX, use_sde=True)
    policy.get_distribution(th.randn(2, 2), empty(policy, 2), th.ones(2))
    assert hasattr(policy.action_dist, "distribution")
    policy.set_training_mode(False)
    assert not hasattr(policy.action_dist, "distribution")
    assert act(policy)[1]
