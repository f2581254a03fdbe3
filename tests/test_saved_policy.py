"""A saved agent has all of its arguments, whatever the defaults are when it is loaded."""

import copy
import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde import NCDEPolicy
from sb3_ncde.arguments import NCDEArguments
from sb3_ncde.saved_policy import DEFAULTS_0_1_0
from tests.data.make_golden import GOLDEN
from tests.envs import RandomWalk

DEFAULTS: Any = NCDEArguments.__init__.__kwdefaults__
OTHER_DEFAULTS = {"solver": "rk4", "latent_size": 12, "history_length": 6, "rates": False, "field_depth": 2}


def make(**kwargs: Any) -> Any:
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 30})
    return RecurrentPPO(
        "NCDEPolicy", env, n_steps=32, batch_size=32, n_epochs=2, device="cpu", seed=0, policy_kwargs=kwargs
    )


def act(policy: Any) -> Any:
    rng, state, actions = np.random.default_rng(0), None, []
    for step in range(12):
        observation = rng.normal(size=(2, 3)).astype(np.float32)
        action, state = policy.predict(observation, state, np.full(2, step == 0), deterministic=True)
        with th.no_grad():
            states = tuple(map(th.tensor, state))
            actions.append((action, policy.predict_values(th.tensor(observation), states, th.zeros(2)).numpy()))
    return [part for pair in actions for part in pair]


@pytest.fixture
def other_defaults(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the arguments other defaults, as a later version might have them."""

    def change() -> None:
        for name, value in OTHER_DEFAULTS.items():
            monkeypatch.setitem(DEFAULTS, name, value)

    return change


def test_a_default_that_changes_does_not_change_a_saved_agent(other_defaults: Any, tmp_path: Path) -> None:
    model = make(field_width=20).learn(128)
    before, arguments = act(model.policy), model.policy.arguments
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy")
    other_defaults()
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 30})
    loaded: Any = RecurrentPPO.load(tmp_path / "model", env=env, device="cpu")
    alone = NCDEPolicy.load(str(tmp_path / "policy"), device="cpu")
    for policy in (loaded.policy, alone):
        assert policy.arguments == arguments
        for found, expected in zip(act(policy), before, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    # What RecurrentPPO holds is of the policy that it now has.
    assert loaded.policy.lstm_actor.hidden_size == loaded.rollout_buffer.hidden_state_shape[-1]
    parameters = {id(parameter) for parameter in loaded.policy.parameters()}
    assert {id(p) for group in loaded.policy.optimizer.param_groups for p in group["params"]} == parameters
    weights = copy.deepcopy(list(loaded.policy.parameters()))
    loaded.learn(64, reset_num_timesteps=False)
    assert all(not th.equal(*pair) for pair in zip(weights, loaded.policy.parameters(), strict=True))
    # And it is saved again as it is.
    loaded.save(tmp_path / "again")
    again: Any = RecurrentPPO.load(tmp_path / "again", device="cpu")
    assert again.policy.arguments == arguments


@pytest.mark.parametrize("longer", [9, 12])
def test_a_default_that_becomes_longer_or_shorter(longer: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A state may be larger than it needs to be; where it would be too small, nothing has changed after the error."""
    make().learn(64).save(tmp_path / "shorter")
    monkeypatch.setitem(DEFAULTS, "history_length", longer)
    assert RecurrentPPO.load(tmp_path / "shorter", device="cpu").policy.arguments.history_length == 8  # type: ignore[union-attr]
    model = make().learn(64)
    model.save(tmp_path / "longer")
    monkeypatch.setitem(DEFAULTS, "history_length", 8)
    other = make()
    before = copy.deepcopy(other.policy.state_dict())
    with pytest.raises(ValueError, match=rf"there is room for 17.*custom_objects=.*history_length={longer}"):
        other.set_parameters(model.get_parameters())
    assert all(th.equal(value, before[name]) for name, value in other.policy.state_dict().items())
    other.learn(64)
    loaded: Any = RecurrentPPO.load(
        tmp_path / "longer", device="cpu", custom_objects={"policy_kwargs": {"history_length": longer}}
    )
    assert loaded.policy.arguments == model.policy.arguments


class Fixed(NCDEPolicy):
    """A policy with a fixed argument, and one of its own, which takes no others."""

    def __init__(self, *args: Any, use_sde: bool = False, width: int = 3) -> None:
        super().__init__(*args, solver="euler", use_sde=use_sde)
        self.own = th.nn.Linear(width, width)


def test_a_subclass_is_made_as_it_was(other_defaults: Any, tmp_path: Path) -> None:
    env = make_vec_env(RandomWalk, 2, seed=0)
    model = RecurrentPPO(Fixed, env, n_steps=16, batch_size=16, device="cpu", policy_kwargs={"width": 5})
    model.save(tmp_path / "model")
    other_defaults()
    loaded: Any = RecurrentPPO.load(tmp_path / "model", device="cpu").policy
    assert loaded.arguments == model.policy.arguments
    assert loaded.own.weight.shape == (5, 5)
    assert loaded.arguments.solver == "euler"


class Solver(str, enum.Enum):
    EULER = "euler"


def test_arguments_of_other_types_of_text_and_number_are_plain_in_a_file(tmp_path: Path) -> None:
    """Files are read with ``weights_only``, which knows Python's own types alone."""
    model = make(solver=Solver.EULER, dt=np.float64(0.5), history_length=np.int64(4))
    model.save(tmp_path / "model")
    loaded: Any = RecurrentPPO.load(tmp_path / "model", device="cpu")
    assert loaded.policy.arguments.solver == "euler"
    assert type(loaded.policy.arguments.solver) is str


def test_an_agent_of_version_0_1_0_has_the_defaults_of_its_time(other_defaults: Any) -> None:
    other_defaults()
    policy: Any = RecurrentPPO.load(GOLDEN / "default.zip", device="cpu").policy
    assert policy.arguments.solver == "midpoint"
    assert policy.arguments.latent_size == 16
    assert policy.arguments.rates
    assert policy.arguments.field_width == 16  # which was given
    assert DEFAULTS_0_1_0.keys() <= DEFAULTS.keys()


def test_what_was_given_stays_and_is_named(other_defaults: Any) -> None:
    saved = make().policy.state_dict()
    other_defaults()
    model = make(latent_size=16, field_depth=1, rates=True, history_length=8, solver="heun")
    with pytest.warns(UserWarning, match=r"solver='heun' \(saved: 'euler'\)"):
        model.policy.load_state_dict(saved)
    assert model.policy.arguments.solver == "heun"
    # A part of a policy says nothing of the whole.
    partly = {name: value for name, value in saved.items() if name.startswith("mlp_extractor")}
    before = model.policy.arguments
    model.policy.load_state_dict(partly, strict=False)
    assert model.policy.arguments == before


def test_a_rebuilt_policy_gives_way_again(other_defaults: Any) -> None:
    first = make().policy.state_dict()
    other_defaults()
    second = make()
    other = copy.deepcopy(second.policy.state_dict())
    for saved, solver in ((first, "euler"), (other, "rk4"), (first, "euler")):
        second.policy.load_state_dict(saved)
        assert second.policy.arguments.solver == solver


def test_a_policy_inside_another_module_keeps_its_weights() -> None:
    """There the state dict says nothing of arguments."""
    outer, other = th.nn.ModuleList([make().policy]), th.nn.ModuleList([make().policy])
    other.load_state_dict(outer.state_dict())
    assert th.equal(other[0].value_net.weight, outer[0].value_net.weight)  # type: ignore[union-attr, arg-type]


def test_a_file_of_a_later_version_is_refused_by_name() -> None:
    model = make()
    state_dict = model.policy.state_dict()
    state_dict._metadata[""] |= {"sb3_ncde": "9.9", "arguments": {"recall": True}}
    with pytest.raises(ValueError, match=r"saved by sb3_ncde 9.9 with the arguments recall, which this version"):
        model.policy.load_state_dict(state_dict)
