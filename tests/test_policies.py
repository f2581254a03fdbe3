"""The policies in RecurrentPPO: everything that it accepts, saving and loading, and what is refused."""

import copy
import dataclasses
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

from sb3_ncde import CnnNCDEPolicy, MultiInputNCDEPolicy, NCDEPolicy
from sb3_ncde.acting import solver, stepper
from sb3_ncde.arguments import NCDEArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.wrappers import ActionMaskObservation
from tests.envs import MaskedWalk, RandomWalk

CONTINUOUS = spaces.Box(-1, 1, (2,), np.float32)
NON_DEFAULT: dict[str, Any] = {
    "latent_size": 5,
    "field_width": 6,
    "field_depth": 2,
    "initial_width": 7,
    "initial_depth": 2,
    "history_length": 6,
    "hop_length": 2,
    "dt": 0.5,
    "time_key": 1,
    "time_kind": "timestamp",
    "solver": "heun",
    "solver_steps": 2,
    "rates": False,
    "path_in_field": False,
    "feature_norm": "tanh",
    "skip": False,
    "share_encoder": False,
    "control_size": 2,
    "rtol": 1e-3,
    "atol": 1e-3,
    "interpolation": "rectilinear",
    "scale_increments": False,
    "feature_size": 6,
    "value_width": 9,
    "value_depth": 1,
    "action_width": 8,
    "action_depth": 0,
    "traces": (3.0, 20.0),
}
OTHERS: dict[str, Any] = {
    "solver": "dopri5",
    "adjoint": True,
    "time_channel": False,
    "action_mask_key": "action_mask",
    "missing_values": True,
}
"""The arguments that go with none of those."""


def walks(n_envs: int = 2, seed: int = 0, **env_kwargs: Any) -> VecEnv:
    return make_vec_env(RandomWalk, n_envs=n_envs, seed=seed, env_kwargs=env_kwargs)


def make(policy: str = "NCDEPolicy", env: VecEnv | None = None, **kwargs: Any) -> Any:
    defaults: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "device": "cpu", "seed": 0}
    return RecurrentPPO(policy, env or walks(), **(defaults | kwargs))


def act(model: Any, env: VecEnv, n_steps: int = 12) -> np.ndarray:
    """Act for some steps, with memory: (n_steps, n_envs, ...)."""
    env.seed(7)
    observation, state, starts = env.reset(), None, np.ones(env.num_envs, dtype=bool)
    actions = []
    for _ in range(n_steps):
        action, state = model.predict(observation, state, starts, deterministic=True)
        actions.append(action)
        observation, _, starts, _ = env.step(action)
    return np.stack(actions)


def check_save_load(model: Any, env: VecEnv, path: Path) -> None:
    model.save(path / "model")
    loaded = RecurrentPPO.load(path / "model", device="cpu")
    np.testing.assert_array_equal(act(loaded, env), act(model, env))


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Box(-2, 1, (2,), np.float32),
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
    ],
    ids=lambda space: type(space).__name__,
)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_all_action_spaces_learn_act_save_and_load(
    action_space: spaces.Space[Any], n_envs: int, tmp_path: Path
) -> None:
    env = walks(n_envs, action_space=action_space, truncates=True)
    model = make(env=env).learn(100)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=4, warn=False)
    assert np.isfinite(mean)
    check_save_load(model, env, tmp_path)


@pytest.mark.parametrize(
    ("policy", "observation"),
    [("CnnNCDEPolicy", "image"), ("MultiInputNCDEPolicy", "dict"), ("MultiInputNCDEPolicy", "dict_image")],
)
@pytest.mark.parametrize("share", [True, False])
def test_all_observations_learn_act_save_and_load(policy: str, observation: str, share: bool, tmp_path: Path) -> None:
    env = walks(observation=observation, action_space=CONTINUOUS)
    time = {"time_key": "time"} if observation == "dict" else {}
    model = make(policy, env, policy_kwargs={"share_features_extractor": share, **time}).learn(40)
    assert (model.policy.lstm_critic is None) == share
    check_save_load(model, env, tmp_path)


@pytest.mark.parametrize("squash", [True, False])
def test_gsde(squash: bool, tmp_path: Path) -> None:
    env = walks(action_space=spaces.Box(-1, 1, (2,), np.float32))
    model = make(env=env, use_sde=True, sde_sample_freq=4, policy_kwargs={"squash_output": squash}).learn(64)
    check_save_load(model, env, tmp_path)
    model.policy.save(tmp_path / "policy")
    loaded = NCDEPolicy.load(str(tmp_path / "policy"), device="cpu")
    np.testing.assert_array_equal(act(loaded, env), act(model.policy, env))


def test_eval_callback_and_vec_normalize(tmp_path: Path) -> None:
    env, eval_env = VecNormalize(walks(3)), VecNormalize(walks(2, seed=9), training=False, norm_reward=False)
    callback = EvalCallback(eval_env, n_eval_episodes=5, eval_freq=16, best_model_save_path=str(tmp_path), verbose=0)
    make(env=env).learn(96, callback)
    np.testing.assert_array_equal(vars(eval_env)["obs_rms"].mean, vars(env)["obs_rms"].mean)
    assert (tmp_path / "best_model.zip").exists()


def test_subprocesses() -> None:
    env = make_vec_env("sb3_ncde:sb3_ncde/CartPoleNoVel-v1", n_envs=2, seed=0, vec_env_cls=SubprocVecEnv)
    make(env=env).learn(32)
    env.close()


def test_continue_with_another_number_of_environments(tmp_path: Path) -> None:
    make(env=walks(2)).learn(32).save(tmp_path / "model")
    model = RecurrentPPO.load(tmp_path / "model", env=walks(5), device="cpu")
    model.learn(80, reset_num_timesteps=False)
    assert model.num_timesteps == 32 + 80


def test_two_runs_with_a_seed_are_equal_to_the_bit() -> None:
    first, second = (make(env=walks(2, seed=3), seed=3).learn(128).policy.state_dict() for _ in range(2))
    assert all(th.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("arguments", [{}, {"share_encoder": False}, {"field_depth": 0, "initial_depth": 0}], ids=str)
def test_every_parameter_is_in_the_optimizer_and_moves(arguments: dict[str, Any]) -> None:
    model = make(env=walks(longest=20), policy_kwargs=arguments)
    optimized = {id(parameter) for group in model.policy.optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in model.policy.parameters()}
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(32)
    for name, value in model.policy.named_parameters():
        assert not th.equal(value, before[name]), name


def test_no_lstm_is_left() -> None:
    policy = make().policy
    assert not any(isinstance(module, th.nn.RNNBase) for module in policy.modules())
    assert not any("weight_ih" in name or name.startswith("critic.") for name in policy.state_dict())
    assert sum(parameter.numel() for parameter in policy.parameters()) < 20_000


@pytest.mark.parametrize("arguments", [NON_DEFAULT, OTHERS], ids=["fixed", "adaptive"])
def test_policy_save_and_load_with_other_arguments(arguments: dict[str, Any], tmp_path: Path) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(NCDEArguments)}
    assert defaults.keys() == NON_DEFAULT.keys() | OTHERS.keys() | {"critic_keys", "critic_encoder"}
    assert all(value != defaults[name] for name, value in arguments.items())
    env, policy_name = walks(observation="column", time_kind="timestamp", action_space=CONTINUOUS), "NCDEPolicy"
    if arguments is OTHERS:
        env, policy_name = make_vec_env(lambda: ActionMaskObservation(MaskedWalk()), n_envs=2), "MultiInputNCDEPolicy"
    kwargs = arguments | {"activation_fn": th.nn.ReLU, "share_features_extractor": False}
    policy = make(policy_name, env=env, policy_kwargs=kwargs).learn(32).policy
    policy.save(tmp_path / "policy")
    loaded = type(policy).load(str(tmp_path / "policy"), device="cpu")
    assert loaded.arguments == policy.arguments
    assert not loaded.share_features_extractor
    np.testing.assert_array_equal(act(loaded, env), act(policy, env))


def test_load_in_a_process_that_imports_recurrent_ppo_alone(tmp_path: Path) -> None:
    env = walks(observation="column", time_kind="timestamp")
    make(env=env, policy_kwargs=NON_DEFAULT).learn(32).save(tmp_path / "model")
    code = (
        "import sys; from sb3_contrib import RecurrentPPO; assert 'sb3_ncde' not in sys.modules; "
        "model = RecurrentPPO.load(sys.argv[1], device='cpu'); print(model.predict([0., 0., 0., 0.])[0])"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "model")], check=True, timeout=120)


def test_import_adds_three_aliases_and_nothing_else() -> None:
    code = """
import sb3_contrib, sb3_contrib.common.recurrent.policies as policies
from sb3_contrib import RecurrentPPO
before = {owner: dict(vars(owner)) for owner in (RecurrentPPO, policies, policies.RecurrentActorCriticPolicy)}
names = dict(RecurrentPPO.policy_aliases)
import importlib, sb3_ncde
importlib.reload(sb3_ncde)
assert all(dict(vars(owner)) == attributes for owner, attributes in before.items())
added = {n: p for n, p in RecurrentPPO.policy_aliases.items() if n not in names}
assert added == {p.__name__: p for p in (sb3_ncde.NCDEPolicy, sb3_ncde.CnnNCDEPolicy, sb3_ncde.MultiInputNCDEPolicy)}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


# --- acting ---


@pytest.mark.parametrize("kwargs", [{}, {"share_encoder": False}, {"share_features_extractor": False}], ids=str)
@pytest.mark.parametrize("images", [False, True])
def test_predicted_values_are_those_of_forward(kwargs: dict[str, Any], images: bool) -> None:
    policy = make(*("CnnNCDEPolicy", walks(observation="image")) if images else (), policy_kwargs=kwargs).policy
    zeros, starts = th.zeros(1, 2, policy.lstm_actor.hidden_size), th.zeros(2)
    states = sb3_states((zeros, zeros))
    with th.no_grad():
        for _ in range(6):
            observation = th.randint(0, 255, (2, 1, 36, 36), dtype=th.uint8) if images else th.randn(2, 3)
            _, values, _, after = policy(observation, states, starts)
            th.testing.assert_close(policy.predict_values(observation, states.vf, starts), values)
            states = after


def test_acting_with_gradients_is_the_same() -> None:
    policy = make().policy
    states = sb3_states((th.zeros(1, 2, policy.lstm_actor.hidden_size),) * 2)
    for _ in range(6):
        observation, starts = th.randn(2, 3), th.zeros(2)
        _, values, _, after = policy(observation, states, starts)
        assert values.requires_grad
        with th.no_grad():
            th.testing.assert_close(policy(observation, states, starts)[1], values)
        states = after


@pytest.mark.parametrize(
    ("policy", "observation"),
    [("NCDEPolicy", kind) for kind in ("scalar", "matrix", "discrete", "multi_discrete", "multi_binary")]
    + [("MultiInputNCDEPolicy", "dict_scalar")],
)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_all_spaces_learn_act_save_and_load(policy: str, observation: str, n_envs: int, tmp_path: Path) -> None:
    env = walks(n_envs, observation=observation, action_space=spaces.Box(-1, 1, (), np.float32))
    time = {"time_key": "time"} if policy != "NCDEPolicy" else {}
    model = make(policy, env, policy_kwargs=time).learn(40)
    check_save_load(model, env, tmp_path)


@pytest.mark.parametrize(
    ("policy", "lstm", "space"),
    [
        ("NCDEPolicy", "MlpLstmPolicy", spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))),
        ("MultiInputNCDEPolicy", "MultiInputLstmPolicy", spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})})),
    ],
    ids=["Tuple", "nested Dict"],
)
def test_other_spaces_are_refused_as_by_sb3(policy: str, lstm: str, space: spaces.Space[Any]) -> None:
    messages = []
    for name in (policy, lstm):
        env = RandomWalk()
        env.observation_space = space
        with pytest.raises(NotImplementedError) as error:  # as SB3 has it: a space that it does not support
            RecurrentPPO(name, env)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_both_gradients_flow_into_a_shared_encoder() -> None:
    policy = make().policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    arguments = (th.randn(8, 3), th.ones(8), sb3_states((zeros, zeros)), th.zeros(8))
    for part in range(2):  # values, log-probabilities
        policy.zero_grad()
        policy.evaluate_actions(*arguments)[part].sum().backward()
        for name, parameter in policy.lstm_actor.named_parameters():
            assert parameter.grad.any(), name


def test_one_solve_per_minibatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sequences and windows it has."""
    model = make(env=walks(3, longest=7), n_steps=32, batch_size=48, n_epochs=1)
    model.learn(96)
    solves: list[int] = []
    solve = NeuralCDE._solve

    def counted(self: NeuralCDE, start: th.Tensor, *args: Any) -> th.Tensor:
        solves.append(len(start))
        return solve(self, start, *args)

    monkeypatch.setattr(NeuralCDE, "_solve", counted)
    model.train()
    assert len(solves) == 2
    assert all(windows > 8 for windows in solves)


def test_numpy_numbers_are_numbers() -> None:
    arguments = {"history_length": np.int64(4), "dt": np.float32(0.5), "rates": np.bool_(False)}
    assert make(policy_kwargs=arguments).policy.arguments == NCDEArguments(history_length=4, dt=0.5, rates=False)


def test_multi_discrete_observations() -> None:
    NCDEPolicy(spaces.MultiDiscrete([2, 5]), spaces.Discrete(2), lambda _: 1e-3)


@pytest.mark.parametrize("dt", [1.0, 1e-4])
def test_dt_enters_the_channel_of_time_alone(dt: float) -> None:
    """Without an observed time, a small unit must not make the path small."""
    policy = make(policy_kwargs={"dt": dt}).policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    rows = th.arange(12.0).view(4, 3)
    appended, _ = policy.lstm_actor.append(th.cat((rows, th.ones(4, 1)), dim=1), (zeros, zeros), th.zeros(4))
    windows = appended.windows()
    increments = policy.lstm_actor.path(windows.features, windows.elapsed).increments
    assert (increments[..., 0] == dt).all()
    assert (increments[..., 1:4] == 3.0).all()


@pytest.mark.parametrize(("history_length", "hop"), [(1, 1), (2, 1), (9, 4), (16, 8)])
def test_a_full_window_drops_half_by_default(history_length: int, hop: int) -> None:
    assert NCDEArguments(history_length=history_length).hop == hop


def test_acting_is_the_same_whatever_happened_to_the_carried_solutions() -> None:
    """Solutions are carried for the sake of speed alone: other weights or histories must not meet old ones."""
    model = make(env=walks(2, longest=40))
    policy, fresh = model.policy, make(env=walks(2, longest=40), seed=1).policy
    state = policy.lstm_hidden_state_shape
    states: tuple[th.Tensor, ...] = (th.zeros(state[0], 2, state[2]), th.zeros(state[0], 2, state[2]))
    starts, others = th.zeros(2), []
    with th.no_grad():
        for step in range(14):
            observation = th.randn(2, 3)
            if step == 4:
                policy.load_state_dict(fresh.state_dict())
            elif step == 6:
                policy.load_from_vector(0.9 * policy.parameters_to_vector())
            elif step == 8:
                policy.optimizer.zero_grad()
                with th.enable_grad():
                    policy.evaluate_actions(observation, th.zeros(2), sb3_states(states), starts)[0].sum().backward()
                policy.optimizer.step()
            elif step == 10:
                states = tuple(part.flip(1) for part in states)
            elif step == 11:
                next(policy.lstm_actor.parameters()).data.mul_(1.1)
            elif step == 13:
                policy.double()
                states = tuple(part.double() for part in states)
            elif step == 12:  # in place, as a caller may do to what predict() returned
                for part in states:
                    part[:, 0] = part[:, 1]
            distribution, after = policy.get_distribution(observation, states, starts)
            _, log_prob, _ = policy.evaluate_actions(observation, th.ones(2), sb3_states(states), starts)
            others.append((distribution.log_prob(th.ones(2)) - log_prob).abs().max().item())
            states = after
    assert max(others) < 1e-6


def sb3_states(states: Any) -> Any:
    return RNNStates(states, states)


@pytest.mark.parametrize("hop_length", [None, 8])
def test_work_of_a_step_does_not_grow_with_the_history(hop_length: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the evaluations of the field at rollout: one interval per step, however long the history is."""
    rows: list[int] = []

    def counted(z: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(z))
        return solver.field(z, *args, **kwargs)

    monkeypatch.setattr(stepper, "field", counted)
    per_length = []
    for history_length in (8, 64):
        model = make(env=walks(2, longest=200), policy_kwargs={"history_length": history_length})
        act(model, model.env, 100)
        rows.clear()
        act(model, model.env, 100)
        per_length.append(sum(rows))
    assert per_length == [2 * 2 * 100] * 2  # environments, open windows, steps


def test_predict_refuses_a_state_of_other_environments() -> None:
    model = make()
    _, state = model.predict(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="Observations of 3 environments, but a state of 2"):
        model.predict(np.zeros((3, 3), np.float32), state)
    with pytest.raises(ValueError, match="a size of 4, but this policy's has 17"):
        model.predict(np.zeros((2, 3), np.float32), (np.zeros((1, 2, 4)),) * 2)
    with pytest.raises(ValueError, match="episode_start has 1 values for 2 environments"):
        model.predict(np.zeros((2, 3), np.float32), None, np.array([True]))


def test_predict_for_one_environment_without_a_vector() -> None:
    model = make()
    action, state = model.predict(np.zeros(3, np.float32), deterministic=True)
    assert action.shape == ()
    assert state is not None
    assert state[0].shape == model.policy.lstm_hidden_state_shape
    for start in (False, np.False_, np.array(False), np.array([False])):
        model.predict(np.zeros(3, np.float32), state, start)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    shown = re.escape(f"{value:g}")
    observation: dict[str, np.ndarray] = {
        "walk": np.zeros((2, 3), np.float32),
        "flag": np.zeros((2, 1), np.int64),
        "time": np.zeros((2, 1), np.float32),
    }
    model = make("MultiInputNCDEPolicy", walks(observation="dict"), policy_kwargs={"time_key": "time"})
    _, state = model.predict(observation)
    observation["walk"][1, 2] = value
    with pytest.raises(
        ValueError,
        match=rf"Environment 1 of 2, step 1 of its episode: the observation 'walk' is {shown} at index \[2\]",
    ):
        model.predict(observation, state)
    observation["walk"][1, 2], observation["time"][0] = 0.0, value
    with pytest.raises(
        ValueError, match=rf"Environment 0 of 2, step 1 of its episode: the observation 'time' is {shown}"
    ):
        model.predict(observation, state)
    with pytest.raises(ValueError, match=r"Environment 0 of 2, step 0 of its episode"):
        model.predict(observation, state, episode_start=np.array([True, False]))
    model = make()
    with pytest.raises(
        ValueError, match=rf"Environment 0 of 1, step 0 of its episode: the observation is {shown} at index \[1\]"
    ):
        model.predict(np.array([0, value, 0], np.float32))


def test_features_that_are_not_finite_are_refused() -> None:
    model = make("CnnNCDEPolicy", walks(observation="image"))
    with th.no_grad():
        next(model.policy.features_extractor.parameters()).fill_(th.inf)
    with pytest.raises(ValueError, match="features extractor overflows"):
        model.predict(np.ones((2, 1, 36, 36), np.uint8))


def test_time_that_runs_backwards_is_refused() -> None:
    model = make(env=walks(observation="column"), policy_kwargs={"time_key": -3})
    with pytest.raises(
        ValueError, match=r"Environment 1 of 2, step 0 of its episode: the elapsed time .* is -0.5.*norm_obs_keys"
    ):
        model.predict(np.array([[0, 0, 0, 0], [0, -0.5, 0, 0]], np.float32))

    model = make(env=walks(observation="column"), policy_kwargs={"time_key": 1, "time_kind": "timestamp"})
    _, state = model.predict(np.array([[0, 5, 0, 0], [0, 7, 0, 0]], np.float32))
    earlier = np.array([[0, 5, 0, 0], [0, 6.5, 0, 0]], np.float32)
    with pytest.raises(
        ValueError, match=r"Environment 1 of 2, step 1 of its episode: the timestamp is 6.5 after 7.*norm_obs_keys"
    ):
        model.predict(earlier, state)
    model.predict(earlier, state, episode_start=np.array([False, True]))
    with pytest.raises(ValueError, match=r"around the timestamp 1.7e\+09, float32 counts in steps of 128"):
        model.predict(np.array([0, 1.7e9, 0, 0], np.float32))


def test_a_normalized_time_stops_training_and_loses_nothing() -> None:
    env = VecNormalize(walks(observation="dict", longest=30), norm_obs_keys=["walk", "time"])
    model = make("MultiInputNCDEPolicy", env, policy_kwargs={"time_key": "time"})
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(ValueError, match=r"time cannot run backwards.*VecNormalize"):
        model.learn(64)
    assert all(map(th.equal, model.policy.parameters(), before))
    model.set_env(VecNormalize(walks(observation="dict", longest=30), norm_obs_keys=["walk"]))
    model.learn(64)


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("longest", [30, 10**9])
def test_other_normalized_times_are_found_before_an_update(steady: bool, longest: int) -> None:
    """Normalised timestamps begin below 0 or hardly move; normalised, an elapsed time that is always the same is 0."""

    class Walk(RandomWalk):
        def _observe(self) -> Any:
            observation = super()._observe()
            return {**observation, "time": np.ones(1, np.float32)} if steady else observation

    kwargs = {"observation": "dict", "longest": longest, "time_kind": "elapsed" if steady else "timestamp"}
    for keys, fails in ((["walk", "time"], True), (["walk"], False)):
        env = VecNormalize(make_vec_env(Walk, 2, seed=0, env_kwargs=kwargs), norm_obs_keys=keys)
        policy_kwargs = {"time_key": "time", "time_kind": kwargs["time_kind"]}
        model = RecurrentPPO(
            "MultiInputNCDEPolicy", env, n_steps=128, seed=0, device="cpu", policy_kwargs=policy_kwargs
        )
        before = [parameter.clone() for parameter in model.policy.parameters()]
        if not fails:
            model.learn(1_000)
            continue
        # Warnings are errors here: where time hardly passes, it is a warning to a user.
        with pytest.raises((ValueError, UserWarning), match=r"(the timestamp is -|passes on average).*VecNormalizeObs"):
            model.learn(10_000)
        assert all(map(th.equal, model.policy.parameters(), before))


def test_acting_without_memory_warns_once() -> None:
    model = make()
    observation = np.zeros((2, 3), np.float32)
    model.predict(observation)
    model.predict(observation)
    with pytest.warns(UserWarning, match="without memory"):
        model.predict(observation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            model.predict(observation)
        model = make()
        for _ in range(3):  # episodes of one step, as evaluate_policy begins them
            model.predict(observation, None, np.ones(2, dtype=bool))
            _, state = model.predict(observation)
            model.predict(observation, state)


# --- arguments ---


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        (
            {"latent_sise": 3},
            TypeError,
            "NCDEPolicy got an unexpected argument 'latent_sise'. Did you mean 'latent_size'",
        ),
        ({"net_arc": []}, TypeError, "Did you mean 'net_arch'"),
        ({"zzz": 3}, TypeError, "It takes .*latent_size"),
        ({"lstm_hidden_size": 64}, TypeError, "no LSTM, so no lstm_hidden_size; use latent_size"),
        ({"n_lstm_layers": 2}, TypeError, "use field_depth"),
        ({"lstm_kwargs": {}}, TypeError, "use latent_size, field_width"),
        ({"shared_lstm": True}, TypeError, "use share_encoder=True"),
        ({"enable_critic_lstm": True}, TypeError, "use share_encoder=False"),
        ({"latent_size": 0}, ValueError, "latent_size=0: expected at least 1"),
        ({"field_depth": -1}, ValueError, "field_depth=-1: expected at least 0"),
        ({"field_width": 3.0}, TypeError, "field_width must be an integer, not 3.0"),
        ({"solver_steps": True}, TypeError, "solver_steps must be an integer, not True"),
        ({"hop_length": 9}, ValueError, "hop_length=9 is more than history_length=8"),
        ({"hop_length": 0}, ValueError, "hop_length=0: expected at least 1"),
        ({"control_size": 0}, ValueError, "control_size=0"),
        ({"dt": "1e-4"}, TypeError, r"dt must be a number, .*YAML.*write 0.0001\), not '1e-4'"),
        ({"dt": "one"}, TypeError, r"dt must be a number, the time between two observations, not 'one'"),
        ({"dt": 0.0}, ValueError, "dt=0.0"),
        ({"latent_size": 2}, ValueError, "latent_size=2 with feature_norm='layer_norm'"),
        ({"dt": float("nan")}, ValueError, "dt=nan"),
        ({"rates": 1}, TypeError, "rates must be true or false, not 1"),
        ({"share_encoder": 1}, TypeError, "share_encoder must be true, false or null, not 1"),
        ({"share_encoder": True, "share_features_extractor": False}, ValueError, "two extractors"),
        ({"solver": "dopri"}, ValueError, "solver='dopri' is not one of euler, midpoint, heun, rk4"),
        ({"time_kind": "delta"}, ValueError, "is not one of elapsed, timestamp"),
        ({"feature_norm": "batch"}, ValueError, "is not one of tanh, layer_norm, unit, none"),
        ({"time_key": 1.5}, TypeError, "time_key must be a key of a Dict or a column"),
        ({"time_key": "time"}, TypeError, "names a key of a Dict observation"),
        ({"time_key": 3}, ValueError, "out of range for an observation of 3 columns"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(kwargs: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make(policy_kwargs=kwargs)


TIME = spaces.Box(0, 1, (1,), np.float32)


@pytest.mark.parametrize(
    ("space", "time_key", "error", "match"),
    [
        (spaces.Dict({"a": TIME, "b": TIME}), "t", ValueError, r"not a key of the observation, which has \['a', 'b'\]"),
        (spaces.Dict({"a": TIME, "t": spaces.Discrete(2)}), "t", ValueError, "must name a single time"),
        (spaces.Dict({"a": TIME, "t": spaces.Box(0, 1, (2,))}), "t", ValueError, "must name a single time"),
        (spaces.Dict({"t": TIME}), "t", ValueError, "nothing to encode"),
        (spaces.Dict({"t": TIME}), 0, TypeError, "names a column of a Box"),
        (spaces.Box(0, 1, (1,)), 0, ValueError, "nothing to encode"),
        (spaces.Box(0, 1, (2, 2)), 0, ValueError, r"its shape is \(2, 2\)"),
    ],
    ids=str,
)
def test_time_that_is_not_there_is_refused(
    space: spaces.Space[Any], time_key: str | int, error: type[Exception], match: str
) -> None:
    policy = MultiInputNCDEPolicy if isinstance(space, spaces.Dict) else NCDEPolicy
    with pytest.raises(error, match=match):
        policy(space, spaces.Discrete(2), lambda _: 1e-3, time_key=time_key)


def test_a_dict_needs_the_policy_for_dicts() -> None:
    with pytest.raises(ValueError, match="use MultiInputNCDEPolicy"):
        make(env=walks(observation="dict"))
    with pytest.raises(ValueError, match="use NCDEPolicy or CnnNCDEPolicy"):
        make("MultiInputNCDEPolicy", env=walks())


def test_unit_of_time_scales_time() -> None:
    """Elapsed time counts in units of dt: twice the time in twice the unit is the same."""
    model = make(env=walks(observation="column"), policy_kwargs={"time_key": 1, "dt": 0.5})
    other = make(env=walks(observation="column"), policy_kwargs={"time_key": 1, "dt": 1.0})
    with pytest.warns(UserWarning, match=r"dt=1.0 \(saved: 0.5\)"):
        other.policy.load_state_dict(model.policy.state_dict())
    values = []
    for policy, scale in ((model.policy, 1.0), (other.policy, 2.0), (other.policy, 1.0)):
        rows = th.tensor([[0.3, 0.0, 0.1, 0.2], [0.5, 0.7, 0.2, 0.1], [0.1, 1.1, 0.7, 0.3]])
        rows[:, 1] *= scale
        zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
        with th.no_grad():
            values.append(policy.evaluate_actions(rows, th.zeros(3), sb3_states((zeros, zeros)), th.zeros(3))[0])
    th.testing.assert_close(values[0], values[1])
    assert (values[0] - values[2]).abs().max() > 1e-4


def test_every_class_is_importable_by_its_promised_path() -> None:
    """Saved models name these paths."""
    for policy in (NCDEPolicy, CnnNCDEPolicy, MultiInputNCDEPolicy):
        assert f"{policy.__module__}.{policy.__name__}" == f"sb3_ncde.policies.{policy.__name__}"
        assert issubclass(policy, ActorCriticPolicy)
