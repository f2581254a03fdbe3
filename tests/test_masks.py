"""Action masks: masked options have probability 0 everywhere, and wrong masks are refused."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_ncde import MultiInputNCDEPolicy
from sb3_ncde.envs.spaces import choices
from sb3_ncde.wrappers import ActionMaskObservation
from tests.envs import MaskedWalk, RandomWalk
from tests.test_ratio import worst_difference

ACTIONS = [spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)]


def _states(zeros: th.Tensor) -> RNNStates:
    return RNNStates((zeros, zeros), (zeros, zeros))


def masked(**kwargs: Any) -> gym.Env[Any, Any]:
    return ActionMaskObservation(MaskedWalk(**kwargs))


def make(action_space: spaces.Space[Any], observation: str = "box", **kwargs: Any) -> Any:
    env = make_vec_env(masked, 3, seed=0, env_kwargs={"action_space": action_space, "observation": observation})
    policy_kwargs = {"action_mask_key": "action_mask"} | kwargs
    sizes: Any = {"n_steps": 16, "batch_size": 16, "n_epochs": 2}
    return RecurrentPPO("MultiInputNCDEPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu", **sizes)


@pytest.mark.parametrize("action_space", ACTIONS, ids=lambda space: type(space).__name__)
def test_masked_actions_are_never_taken(action_space: spaces.Space[Any]) -> None:
    """The environment asserts it, in rollouts and in evaluations, stochastic and deterministic."""
    model = make(action_space).learn(200)
    for deterministic in (True, False):
        evaluate_policy(model, model.get_env(), 10, deterministic=deterministic, warn=False)


@pytest.mark.parametrize("action_space", ACTIONS, ids=lambda space: type(space).__name__)
def test_ratio_is_one_under_masks(action_space: spaces.Space[Any]) -> None:
    assert worst_difference(make(action_space, ortho_init=False), 2) < 1e-5


@pytest.mark.parametrize("action_space", ACTIONS, ids=lambda space: type(space).__name__)
def test_probabilities_and_entropy_are_those_of_the_allowed_options(action_space: spaces.Space[Any]) -> None:
    """Two options allowed of equal probability have the entropy log 2, and one alone has none."""
    policy = make(action_space).policy
    th.nn.init.zeros_(policy.action_net.weight)
    choices = policy._mask.choices
    mask = np.concatenate([[1, 1, *[0] * (n - 2)] if i == 0 else [1, *[0] * (n - 1)] for i, n in enumerate(choices)])
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    observation = {"observation": th.zeros(1, 3), "action_mask": th.tensor(mask[None])}
    n_actions = len(choices)
    last_allowed = th.tensor([[1, *[0] * (n_actions - 1)]])
    arguments = (_states(zeros), th.ones(1))
    _, log_prob, entropy = policy.evaluate_actions(observation, last_allowed.squeeze(1), *arguments)
    th.testing.assert_close(log_prob.exp(), th.tensor([0.5]))
    th.testing.assert_close(entropy, th.tensor([np.log(2.0)], dtype=th.float32))
    forbidden = th.tensor([[choices[0] - 1 if n_actions == 1 else 0, *[1] * (n_actions - 1)]])
    assert (policy.evaluate_actions(observation, forbidden.squeeze(1), *arguments)[1].exp() == 0).all()


def test_the_mask_is_no_part_of_the_path() -> None:
    policy = make(spaces.Discrete(4)).policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    results = []
    for mask in ([1, 1, 1, 1], [0, 1, 0, 1]):
        observation = {"observation": th.ones(1, 3), "action_mask": th.tensor([mask])}
        *_, states = policy(observation, _states(zeros), th.ones(1))
        results.append((policy.predict_values(observation, (zeros, zeros), th.ones(1)), *states.pi))
    assert all(map(th.equal, *results))


def test_keys_of_a_dict_stay_and_time_is_found() -> None:
    make(spaces.Discrete(4), "dict", time_key="time").learn(96)


@pytest.mark.parametrize("space", ACTIONS, ids=lambda space: type(space).__name__)
def test_the_wrapper_shows_the_mask_of_the_present_step(space: spaces.Space[Any]) -> None:
    env = ActionMaskObservation(TimeLimit(MaskedWalk(action_space=space), 5), "mask", "walk")
    observation, _ = env.reset(seed=0)
    assert observation.keys() == {"walk", "mask"}
    assert env.observation_space.contains(observation)
    assert (observation["mask"] == env.unwrapped.action_masks()).all()  # type: ignore[attr-defined]


def test_a_truncated_episode_may_end_with_nothing_allowed() -> None:
    """RecurrentPPO asks for the value of its last observation, and takes no action there."""

    class Exhausted(MaskedWalk):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            result = super().step(action)
            if result[3]:
                self.masks = np.zeros_like(self.masks)
            return result

    env = make_vec_env(lambda: ActionMaskObservation(Exhausted(truncates=True)), 2, seed=0)
    policy_kwargs = {"action_mask_key": "action_mask"}
    RecurrentPPO("MultiInputNCDEPolicy", env, n_steps=32, policy_kwargs=policy_kwargs, seed=0, device="cpu").learn(64)


def test_the_wrapper_s_mask_is_a_copy() -> None:
    env = ActionMaskObservation(MaskedWalk())
    observation, _ = env.reset(seed=0)
    before = observation["action_mask"].copy()
    env.unwrapped.masks[:] = ~env.unwrapped.masks  # type: ignore[attr-defined]
    assert (observation["action_mask"] == before).all()


@pytest.mark.parametrize(
    ("observation", "found"),
    [
        (np.zeros(3, np.float32), "ndarray"),
        ({"observation": np.zeros(3, np.float32)}, r"one with \['observation'\]"),
        ({"observation": np.zeros(3, np.float32), 0: 1}, r"one with \['0', 'observation'\]"),
        (({}, {}), r"tuple \(of what reset\(\) returns, pass the first\)"),
    ],
)
def test_an_observation_without_its_mask_is_refused(observation: Any, found: str) -> None:
    model = make(spaces.Discrete(4))
    with pytest.raises(ValueError, match=rf"keys \['action_mask', 'observation'\], but got {found}"):
        model.predict(observation)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 2, 4), ()])
def test_a_mask_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    observation = {"observation": np.zeros(3, np.float32), "action_mask": np.ones(shape, np.int8)}
    message = rf"'action_mask': {re.escape(str(shape))}.* is not one row, .*'action_mask': \(4,\)"
    with pytest.raises(ValueError, match=message):
        make(spaces.Discrete(4)).predict(observation)


def test_a_mask_of_shape_nothing() -> None:
    space = spaces.Dict(walk=spaces.Box(-1, 1, (3,)), mask=spaces.Box(0, 1, ()))
    policy = MultiInputNCDEPolicy(space, spaces.Discrete(1), lambda _: 0.0, action_mask_key="mask")
    observation = {"walk": np.zeros(3, np.float32), "mask": np.ones((), np.float32)}
    assert policy.predict(observation)[0] == 0


def test_environments_that_cannot_be_wrapped_are_refused() -> None:
    with pytest.raises(ValueError, match="no method action_masks"):
        ActionMaskObservation(RandomWalk())
    with pytest.raises(ValueError, match="has a key 'action_mask' already"):
        ActionMaskObservation(masked())
    env = ActionMaskObservation(MaskedWalk())
    env.unwrapped.action_masks = lambda: np.ones(7)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"returned 7 values, but .* has 2 options"):
        env.reset(seed=0)
    env.unwrapped.action_masks = lambda: np.array([0.5, 1.0])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"returned \[0.5, 1.0\], but its values must be 0 or 1"):
        env.reset(seed=0)
    for space in (spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete(np.array([[2, 3], [3, 2]]))):
        with pytest.raises(TypeError, match=r"MultiDiscrete \(of one dimension\) .* can be masked, not (Box|Multi)"):
            choices(space)


@pytest.mark.parametrize(
    ("policy", "env_kwargs", "key", "error", "message"),
    [
        ("NCDEPolicy", {}, "mask", TypeError, "names a key of a Dict observation"),
        ("MultiInputNCDEPolicy", {"observation": "dict"}, "mask", ValueError, "not among the keys"),
        (
            "MultiInputNCDEPolicy",
            {"observation": "dict"},
            "walk",
            ValueError,
            r"a mask for Discrete\(2\) has 2 entries",
        ),
        ("MultiInputNCDEPolicy", {"observation": "dict"}, "flag", ValueError, r"use a MultiBinary\(2\)"),
        (
            "MultiInputNCDEPolicy",
            {"observation": "dict", "action_space": spaces.Box(-1, 1, (2,))},
            "walk",
            TypeError,
            r"Only Discrete, MultiDiscrete \(of one dimension\) and MultiBinary actions can be masked",
        ),
    ],
)
def test_wrong_keys_are_refused(
    policy: str, env_kwargs: dict[str, Any], key: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RecurrentPPO(policy, make_vec_env(RandomWalk, env_kwargs=env_kwargs), policy_kwargs={"action_mask_key": key})


def test_an_observation_of_nothing_but_the_mask_is_refused() -> None:
    space = spaces.Dict(mask=spaces.MultiBinary(2))
    with pytest.raises(ValueError, match="nothing but the action mask 'mask'"):
        MultiInputNCDEPolicy(space, spaces.Discrete(2), lambda _: 0.0, action_mask_key="mask")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], r"Environment 1 of 2.*allows none of the 2 options of choice 0"),
        ([[1, 1, 0.5, 1, 1], [1, 1, 1, 1, 1]], r"Environment 0 of 2.*must be 0 or 1.*VecNormalize"),
    ],
)
def test_wrong_masks_are_refused(mask: list[list[float]], message: str) -> None:
    policy = make(spaces.MultiDiscrete([2, 3])).policy
    zeros = th.zeros(1, 2, policy.lstm_actor.hidden_size)
    with pytest.raises(ValueError, match=message):
        policy({"observation": th.zeros(2, 3), "action_mask": th.tensor(mask)}, _states(zeros), th.ones(2))
