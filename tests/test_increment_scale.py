"""The scale of increments: what sets it, when it changes, and that nothing is of another order than the rest by it."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde import NCDEPolicy
from sb3_ncde.cde import learning
from sb3_ncde.cde.increment_scale import MEMORY, IncrementScale
from sb3_ncde.normalize import VecNormalizeObserved
from tests.envs import RandomWalk


def scales(model: Any) -> th.Tensor:
    return model.policy.lstm_actor.increment_scale.scale.clone()  # type: ignore[no-any-return]


def make(env: Any = None, **kwargs: Any) -> Any:
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 30, "scale": 50.0}) if env is None else env
    defaults: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "n_epochs": 2, "device": "cpu", "seed": 0}
    return RecurrentPPO("NCDEPolicy", env, **(defaults | kwargs))


class Scales(BaseCallback):
    """Notes the scale at every step of a rollout, and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[list[th.Tensor]] = []

    def _on_rollout_start(self) -> None:
        self.rollouts.append([])

    def _on_step(self) -> bool:
        self.rollouts[-1].append(scales(self.model))
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts[-1].append(scales(self.model))


def test_it_changes_between_an_update_and_the_next_rollout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    callback, model = Scales(), make()
    during: list[th.Tensor] = []
    evaluate = NCDEPolicy.evaluate_actions

    def noting(self: NCDEPolicy, *args: Any) -> Any:
        during.append(self.lstm_actor.increment_scale.scale.clone())
        return evaluate(self, *args)

    monkeypatch.setattr(NCDEPolicy, "evaluate_actions", noting)
    model.learn(4 * 128, callback)
    updates = [during[start : start + 4] for start in range(0, 16, 4)]
    for rollout, update in zip(callback.rollouts, updates, strict=True):
        assert all(th.equal(rollout[0], other) for other in (*rollout, *update))
    first, *later = [rollout[0] for rollout in callback.rollouts]
    assert (first == 1).all()  # nothing has been learned from yet
    # The walk's steps have a standard deviation of 0.5 * 50.
    assert all(((1 / scale > 12) & (1 / scale < 50)).all() for scale in later)
    assert not th.equal(later[0], later[1])


def test_a_run_that_goes_on_has_the_scale_that_it_would_have_had() -> None:
    model, other = make(), make(seed=1)
    model.learn(128)
    other.set_parameters(model.get_parameters())
    for agent in (model, other):
        agent.learn(128, Scales(), reset_num_timesteps=False)
    assert th.equal(scales(model), scales(other))
    assert not (scales(model) == 1).any()


def test_of_learning_only_rows_of_a_loss_count() -> None:
    """Padding, and a forward pass that no loss is made of, are not learned from."""
    policy = make().policy
    zeros = th.zeros(1, 2, policy.lstm_actor.hidden_size)
    states = RNNStates((zeros, zeros), (zeros, zeros))
    walk = th.randn(2, 10, 3).cumsum(1)
    walk[0, 6:] = 0.0  # as RecurrentPPO pads
    arguments = (walk.flatten(0, 1), th.ones(20), states, th.zeros(20))
    policy.evaluate_actions(*arguments)
    scale = policy.lstm_actor.increment_scale
    assert not scale.count.any()
    values, _, _ = policy.evaluate_actions(*arguments)
    mask = th.ones(2, 10, dtype=th.bool)
    mask[0, 6:] = False
    values.flatten()[mask.flatten()].sum().backward()
    policy.evaluate_actions(*arguments)
    assert not scale.count.any()  # gradients alone are no learning
    th.optim.SGD(make().policy.parameters(), lr=1.0).step()
    assert not scale.count.any()  # nor is a step on other weights
    th.optim.SGD(policy.parameters(), lr=1e-3).step()
    changes = th.cat((walk[0, :6].diff(dim=0), walk[1].diff(dim=0)))
    assert (scale.count == len(changes)).all()
    th.testing.assert_close(scale.mean_square, changes.square().mean(dim=0).repeat(2))
    th.testing.assert_close(scale.scale, scale.mean_square.rsqrt())  # at once: nothing was acted on


def test_a_loss_of_no_row_teaches_nothing() -> None:
    policy = make().policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    states = RNNStates((zeros, zeros), (zeros, zeros))
    values, _, _ = policy.evaluate_actions(th.randn(4, 3), th.ones(4), states, th.zeros(4))
    (0.0 * values.sum()).backward()
    policy.optimizer.step()
    assert not policy.lstm_actor.increment_scale.count.any()
    assert policy.lstm_actor.learned_range.low.isposinf().all()


def demonstrate(policy: Any, n_passes: int = 1) -> th.Tensor:
    """Learn from a walk in the way of a user's own loop; return the changes of all backward passes."""
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    optimizer = th.optim.Adam(policy.parameters(), lr=1e-3)
    optimizer.zero_grad()
    changes = []
    for _ in range(n_passes):
        walk = 10.0 * th.randn(10, 3).cumsum(0)
        states = RNNStates((zeros, zeros), (zeros, zeros))
        policy.evaluate_actions(walk, th.ones(10), states, th.zeros(10))[1].sum().backward()
        changes.append(walk.diff(dim=0))
    optimizer.step()
    return th.cat(changes)


def test_all_backward_passes_before_a_step_count() -> None:
    policy = make().policy
    changes = demonstrate(policy, n_passes=3)
    scale = policy.lstm_actor.increment_scale
    assert (scale.count == len(changes)).all()
    th.testing.assert_close(scale.mean_square, changes.square().mean(dim=0).repeat(2))


def test_demonstrations_set_it_at_once_unless_a_rollout_was_acted_with_it() -> None:
    """Also where the agent was asked for actions before, and where it has learned before."""
    policy = make().policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    with th.no_grad():
        policy.forward(th.zeros(1, 3), RNNStates((zeros, zeros), (zeros, zeros)), th.zeros(1))
    demonstrate(policy)
    assert not (policy.lstm_actor.increment_scale.scale == 1).any()
    model = make().learn(128)
    before = scales(model)
    demonstrate(model.policy)
    assert th.equal(scales(model), before)  # an update on the rollout might follow
    model.policy.set_training_mode(False)
    after = scales(model)
    assert not th.equal(after, before)
    demonstrate(model.policy)
    assert not th.equal(scales(model), after)


def test_a_mode_that_is_chosen_between_a_rollout_and_its_update_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Flip(Scales):
        def _on_rollout_end(self) -> None:
            self.model.policy.set_training_mode(False)
            super()._on_rollout_end()

    callback, model = Flip(), make()
    during: list[th.Tensor] = []
    evaluate = NCDEPolicy.evaluate_actions

    def noting(self: NCDEPolicy, *args: Any) -> Any:
        during.append(self.lstm_actor.increment_scale.scale)
        return evaluate(self, *args)

    monkeypatch.setattr(NCDEPolicy, "evaluate_actions", noting)
    model.learn(3 * 128, callback)
    for rollout, update in zip(callback.rollouts, (during[:4], during[4:8], during[8:]), strict=True):
        assert all(th.equal(rollout[0], other) for other in (*rollout, *update))


@pytest.mark.parametrize("way", ["backward", "autograd.grad"])
def test_an_analysis_with_gradients_is_not_learned_from(way: str) -> None:
    """Of gradients that are thrown away, also where training goes on after it."""
    policy = make().policy
    demonstrate(policy)
    scale = policy.lstm_actor.increment_scale
    before = scale.count.clone()
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    rows = (1e3 * th.randn(10, 3)).requires_grad_()
    values, _, _ = policy.evaluate_actions(rows, th.ones(10), RNNStates((zeros, zeros), (zeros, zeros)), th.zeros(10))
    if way == "backward":
        values.sum().backward()
    else:
        th.autograd.grad(values.sum(), rows)
    policy.optimizer.zero_grad()
    changes = demonstrate(policy)
    assert th.equal(scale.count, before + len(changes))
    assert policy.lstm_actor.learned_range.high.max() < 200


def test_that_of_the_critic_s_own_encoder_is_as_constant() -> None:
    model = make(policy_kwargs={"share_encoder": False})
    seen: list[th.Tensor] = []

    class Critic(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(model.policy.lstm_critic.increment_scale.scale)
            return True

    model.learn(3 * 128, Critic())
    for rollout in (seen[:64], seen[64:128], seen[128:]):
        assert all(th.equal(rollout[0], other) for other in rollout)
    evaluated: list[th.Tensor] = []
    evaluate = model.policy.evaluate_actions

    def noting(*args: Any) -> Any:
        evaluated.append(model.policy.lstm_critic.increment_scale.scale)
        return evaluate(*args)

    model.policy.evaluate_actions = noting
    model.train()
    assert evaluated
    assert all(th.equal(scale, seen[-1]) for scale in evaluated)


@pytest.mark.parametrize("value", [th.inf, th.nan])
def test_a_gradient_that_is_not_finite_is_refused(value: float) -> None:
    policy = make().policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    states = RNNStates((zeros, zeros), (zeros, zeros))
    values, _, _ = policy.evaluate_actions(th.randn(4, 3), th.ones(4), states, th.zeros(4))
    with pytest.raises(ValueError, match="minibatch of 4 rows is not finite"):
        (values.sum() * value).backward()
    assert not policy.lstm_actor.increment_scale.count.any()


def test_it_is_the_root_mean_square_of_all_that_was_observed() -> None:
    """Also of a channel that moves seldom, and of one that is not always observed."""
    changes = th.randn(4000, 4, dtype=th.float64) * th.tensor([1e-3, 1.0, 1e3, 1.0])
    changes[:, 1] *= th.rand(4000) < 0.1
    changes[th.rand(4000) < 0.5, 3] = th.nan
    scale = IncrementScale(4).double()
    for part in th.split(changes, 150):
        scale.observe(part.numpy())
    scale.observe(np.zeros((0, 4)))
    expected = changes.square().nanmean(dim=0)
    th.testing.assert_close(scale.mean_square, expected)
    scale.renew()
    th.testing.assert_close(scale.scale[1:], expected[1:].rsqrt())
    # Slower than a hundredth a step, a channel is at rest by degrees.
    th.testing.assert_close(scale.scale[0], expected[0].sqrt() * 1e4)


def test_a_channel_at_rest_or_never_observed_has_a_scale_of_1() -> None:
    scale = IncrementScale(3)
    scale.observe(np.tile([0.0, 5e-5, np.nan], (1000, 1)))
    scale.renew()
    assert (scale.scale == 1).all()


def test_a_channel_that_begins_late_finds_its_scale() -> None:
    scale = IncrementScale(1)
    for _ in range(3):
        scale.observe(np.zeros((int(MEMORY) // 2, 1)))
    assert scale.count == MEMORY
    for _ in range(10):
        scale.observe(np.ones((int(MEMORY) // 100, 1)))
    scale.renew()
    assert 1 < scale.scale < 5


def test_huge_changes_leave_a_finite_scale() -> None:
    scale = IncrementScale(2)
    scale.observe(np.tile([0.0, 1e30], (1000, 1)))
    scale.observe(np.ones((4, 2)))
    scale.renew()
    assert scale.scale.isfinite().all()
    assert (scale.scale > 0).all()


class Features(gym.Env[Any, Any]):
    """Features of every kind: pulses, steps, constants, drifts, late ones, discrete ones, a usual one."""

    NAMES = (
        "pulse",
        "rare pulse",
        "step",
        "constant",
        "zero",
        "drift",
        "late",
        "late pulse",
        "flag",
        "one-hot",
        "walk",
    )
    observation_space = spaces.Box(-np.inf, np.inf, (len(NAMES),), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, late: int = 100, missing: bool = False) -> None:
        self.total, self.late, self.missing = 0, late, missing

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.now, self.walk, self.level = 0, 0.0, 0.0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.now, self.total = self.now + 1, self.total + 1
        observation = self._observe()
        return observation, float(self.walk), self.now == 200, False, {}

    def _observe(self) -> Any:
        rng = self.np_random
        self.walk += 0.1 * rng.normal()
        self.level += float(rng.random() < 0.02) * rng.normal()
        late = self.total >= self.late
        unseen = np.nan if self.missing else 0.0
        values = (
            rng.random() < 0.05,
            rng.random() < 0.005,
            self.level,
            5.0,
            0.0,
            0.01 * self.now,
            rng.normal() if late else unseen,
            float(rng.random() < 0.1) if late else unseen,
            np.sin(self.now / 7) > 0,
            rng.integers(3) == 0,
            self.walk,
        )
        return np.array(values, np.float32)


@pytest.mark.filterwarnings("ignore:Feature . has been NaN")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("late", "traces"), [(100, False), (250, False), (350, False), (250, True)])
def test_all_that_field_and_heads_see_is_of_order_1(late: int, missing: bool, traces: bool) -> None:
    """E1: under VecNormalize rare events had a scale of 100, and rates of 800 hid all else from the heads."""
    env = make_vec_env(Features, 4, seed=0, env_kwargs={"late": late, "missing": missing})
    env = VecNormalizeObserved(env) if missing else VecNormalize(env)
    arguments = {"missing_values": missing, "traces": traces}
    model = make(env, n_steps=128, batch_size=128, n_epochs=4, policy_kwargs=arguments)
    model.learn(2 * 512)
    seen: dict[str, list[th.Tensor]] = {"increments": [], "values": [], "heads": []}
    encoder = model.policy.lstm_actor
    path, solve = encoder.path, encoder._solve

    def noting_path(*args: Any) -> Any:
        found = path(*args)
        timed = found.steps.squeeze(-1) > 0
        seen["increments"].append(found.increments[timed])
        seen["values"].append(found.values[-1])
        return found

    def noting_solve(*args: Any) -> Any:
        found = solve(*args)
        seen["heads"].append(found)
        return found

    encoder.path, encoder._solve, encoder._stepper = noting_path, noting_solve, None
    _, callback = model._setup_learn(10_000, reset_num_timesteps=False)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    for name, parts in seen.items():
        rms = th.cat(parts).square().mean(dim=0).sqrt()
        assert rms.max() < 20, (name, rms)
        # A constant, and what is not yet observed, has nothing to show; everything else has.
        assert (rms > 0.05).sum() >= len(rms) * 0.5, (name, rms)
    n_features = len(Features.NAMES)
    moves = [i for i, kind in enumerate(Features.NAMES) if kind not in ("constant", "zero", "late", "late pulse")]
    for rows in (
        th.cat(seen["increments"])[:, 1 : 1 + n_features],
        th.cat(seen["values"])[:, n_features : 2 * n_features],
    ):
        rms = rows.square().mean(dim=0).sqrt()[moves]
        assert rms.min() > 0.05, rms


def test_minibatches_taken_in_together_are_those_taken_in_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for together in (1, 64):
        monkeypatch.setattr(learning, "MAX_SETTLED", together)
        model = make(seed=0).learn(256)
        found.append({name: value for name, value in model.policy.state_dict().items() if "increment" in name})
    for name, value in found[0].items():
        th.testing.assert_close(value, found[1][name], rtol=1e-5, atol=1e-6)


def test_without_a_scale_the_range_is_learned_from_demonstrations() -> None:
    policy = make(policy_kwargs={"scale_increments": False}).policy
    demonstrate(policy)
    assert policy.lstm_actor.learned_range.high.isfinite().all()
    assert (policy.lstm_actor.increment_scale.scale == 1).all()
