"""What the pages of SB3's and sb3-contrib's documentation (2.9) say that users may call, override, load or set.

Each is tried on NCDEPolicy, and a docstring names the page and the section. What a page says of MlpLstmPolicy's
arguments, and what other tests of this folder try, is not repeated.
"""

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction
from matplotlib.figure import Figure as Plot
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from sb3_contrib.ppo_recurrent import MlpLstmPolicy
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Figure, HParam, Image, KVWriter, Logger, TensorBoardOutputFormat, configure
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.common.utils import get_parameters_by_name, polyak_update, update_learning_rate
from stable_baselines3.common.vec_env import VecCheckNan, VecEnv, VecExtractDictObs, VecFrameStack, VecMonitor
from torch import nn

from sb3_ncde import CnnNCDEPolicy, MultiInputNCDEPolicy, NCDEPolicy
from sb3_ncde.normalize import VecNormalizeObserved
from tests.envs import RandomWalk

BOX = spaces.Box(-2, 1, (2,), np.float32)
OBSERVATIONS = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
STARTS = np.ones(2, bool)


def walks(n_envs: int = 2, **kwargs: Any) -> VecEnv:
    return make_vec_env(RandomWalk, n_envs, seed=0, env_kwargs={"longest": 20} | kwargs)


def make(policy: Any = "NCDEPolicy", env: Any = None, **kwargs: Any) -> Any:
    defaults: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu", "seed": 0}
    return RecurrentPPO(policy, walks() if env is None else env, **(defaults | kwargs))


def load(path: Any, env: Any = None, **kwargs: Any) -> Any:
    return RecurrentPPO.load(path, env, device="cpu", **kwargs)


def states_of(policy: Any, n_seq: int) -> RNNStates:
    zeros = th.zeros(1, n_seq, policy.lstm_actor.hidden_size)
    return RNNStates((zeros, zeros), (zeros, zeros))


def values_of(policy: Any, observations: Any = OBSERVATIONS) -> np.ndarray:
    """Return values at the beginning of an episode, which show the weights more finely than actions do."""
    rows, _ = policy.obs_to_tensor(observations)
    with th.no_grad():
        return policy.predict_values(rows, states_of(policy, 2).vf, th.ones(2)).numpy()  # type: ignore[no-any-return]


def check_same(first: Any, second: Any, observations: Any = OBSERVATIONS) -> None:
    np.testing.assert_array_equal(values_of(first, observations), values_of(second, observations))


# --- SB3, Policy Networks ---


def test_the_architecture_is_printed() -> None:
    """Policy Networks, Default Network Architecture: print(model.policy)."""
    printed = str(make().policy)
    for part in (
        "(features_extractor): FlattenExtractor",
        "(lstm_actor): NeuralCDE",
        "(mlp_extractor)",
        "(action_net)",
    ):
        assert part in printed


def test_the_default_architecture() -> None:
    """Policy Networks, Default Network Architecture: two layers of 64 units; behind a CNN a linear layer alone."""
    policy = make().policy
    assert policy.net_arch == {"pi": [64, 64], "vf": [64, 64]}
    assert policy.activation_fn is nn.Tanh
    image = make("CnnNCDEPolicy", walks(observation="image")).policy
    assert isinstance(image.features_extractor, NatureCNN)
    assert image.net_arch == []


@pytest.mark.parametrize("net_arch", [{"pi": [32, 16], "vf": [8]}, [12, 12], []])
def test_net_arch_and_activation_are_loaded_again(net_arch: Any, tmp_path: Path) -> None:
    """Policy Networks, Custom Network Architecture: "the policy_kwargs are automatically loaded"."""
    model = make(policy_kwargs={"activation_fn": nn.ReLU, "net_arch": net_arch}).learn(32)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", model.get_env())
    assert loaded.policy.net_arch == net_arch
    assert all(not isinstance(module, nn.Tanh) for module in loaded.policy.mlp_extractor.modules())
    check_same(loaded.policy, model.policy)


def test_net_arch_of_before_1_8() -> None:
    """Changelog 1.8.0: a list with a dict is taken with a warning."""
    with pytest.warns(UserWarning, match="pass directly a dictionary"):
        policy = make(policy_kwargs={"net_arch": [{"pi": [8], "vf": [4]}]}).policy
    assert (policy.mlp_extractor.latent_dim_pi, policy.mlp_extractor.latent_dim_vf) == (8, 4)


class OwnCNN(BaseFeaturesExtractor):
    def __init__(self, observation_space: Any, features_dim: int = 256) -> None:
        super().__init__(observation_space, features_dim)
        self.cnn = nn.Sequential(nn.Conv2d(observation_space.shape[0], 4, 8, 4), nn.ReLU(), nn.Flatten())
        with th.no_grad():
            flat = self.cnn(th.as_tensor(observation_space.sample()[None]).float()).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat, features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.linear(self.cnn(observations))  # type: ignore[no-any-return]


@pytest.mark.parametrize("share", [True, False])
def test_an_own_cnn(share: bool, tmp_path: Path) -> None:
    """Policy Networks, Custom Feature Extractor; with a note on share_features_extractor."""
    kwargs = {"features_extractor_class": OwnCNN, "features_extractor_kwargs": {"features_dim": 12}}
    env = walks(observation="image")
    model = make("CnnNCDEPolicy", env, policy_kwargs=kwargs | {"share_features_extractor": share}).learn(32)
    assert model.policy.features_extractor.features_dim == 12
    assert (model.policy.pi_features_extractor is model.policy.vf_features_extractor) == share
    model.policy.save(tmp_path / "policy")
    check_same(CnnNCDEPolicy.load(str(tmp_path / "policy"), device="cpu"), model.policy, env.reset())


class OwnCombined(BaseFeaturesExtractor):
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, features_dim=1)
        extractors: dict[str, nn.Module] = {}
        size = 0
        for key, subspace in observation_space.spaces.items():
            assert key in ("flag", "walk")  # the time goes another way
            extractors[key] = nn.Sequential(nn.Flatten(), nn.Linear(spaces.flatdim(subspace), 5))
            size += 5
        self.extractors = nn.ModuleDict(extractors)
        self._features_dim = size

    def forward(self, observations: Any) -> th.Tensor:
        return th.cat([extractor(observations[key]) for key, extractor in self.extractors.items()], dim=1)


def test_an_own_extractor_of_a_dict(tmp_path: Path) -> None:
    """Policy Networks, Multiple Inputs and Dictionary Observations: its size is known last."""
    env = walks(observation="dict")
    kwargs = {"features_extractor_class": OwnCombined, "time_key": "time"}
    model = make("MultiInputNCDEPolicy", env, policy_kwargs=kwargs).learn(32)
    assert model.policy.features_extractor.features_dim == 10
    model.save(tmp_path / "model")
    check_same(load(tmp_path / "model").policy, model.policy, env.reset())


def test_arguments_of_sb3_s_extractors() -> None:
    """Policy Networks, SB3 Policy: "by passing a features_extractor_kwargs parameter"."""
    kwargs = {"features_extractor_kwargs": {"cnn_output_dim": 16}}
    both = make("MultiInputNCDEPolicy", walks(observation="dict_image"), policy_kwargs=kwargs).learn(32)
    assert both.policy.features_extractor.features_dim == 16 + 3
    kwargs = {"features_extractor_kwargs": {"features_dim": 12}}
    image = make("CnnNCDEPolicy", walks(observation="image"), policy_kwargs=kwargs).learn(32)
    assert image.policy.features_extractor.features_dim == 12


class OwnNetwork(nn.Module):
    def __init__(self, feature_dim: int, last_layer_dim_pi: int = 24, last_layer_dim_vf: int = 16) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = last_layer_dim_pi, last_layer_dim_vf
        self.policy = nn.Sequential(nn.Linear(feature_dim, last_layer_dim_pi), nn.ReLU())
        self.value = nn.Sequential(nn.Linear(feature_dim, last_layer_dim_vf), nn.ReLU())

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.policy(features)  # type: ignore[no-any-return]

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.value(features)  # type: ignore[no-any-return]


class OwnPolicy(NCDEPolicy):
    def __init__(self, observation_space: Any, action_space: Any, lr_schedule: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["ortho_init"] = False
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor: Any = OwnNetwork(self.lstm_output_dim)


@pytest.mark.parametrize("share_encoder", [True, False])
def test_an_own_policy_with_own_heads(share_encoder: bool, tmp_path: Path) -> None:
    """Policy Networks, Advanced Example; of a recurrent policy the heads see lstm_output_dim features."""
    model = make(OwnPolicy, policy_kwargs={"share_encoder": share_encoder}).learn(32)
    assert not model.policy.ortho_init
    assert model.policy.action_net.in_features == 24
    model.policy.save(tmp_path / "policy")
    check_same(OwnPolicy.load(str(tmp_path / "policy"), device="cpu"), model.policy)


def test_what_a_subclass_overrides_is_called(tmp_path: Path) -> None:
    """Developer Guide, Policy Structure, and the methods on the page of RecurrentPPO: as often as MlpLstmPolicy's."""
    names = [
        "make_features_extractor", "_build", "extract_features", "_get_action_dist_from_latent", "get_distribution",
        "predict_values", "evaluate_actions", "forward", "_predict", "predict", "reset_noise", "set_training_mode",
    ]  # fmt: skip
    counts = []
    for base in (MlpLstmPolicy, NCDEPolicy):
        calls: list[str] = []

        def noting(name: str, overridden: Any, calls: list[str] = calls) -> Callable[..., Any]:
            def method(self: Any, *args: Any, **kwargs: Any) -> Any:
                calls.append(name)
                return overridden(self, *args, **kwargs)

            return method

        own: Any = type("Own", (base,), {name: noting(name, getattr(base, name)) for name in names})
        model = make(own, walks(action_space=BOX), use_sde=True).learn(32)
        model.predict(OBSERVATIONS)
        counts.append({name: calls.count(name) for name in names})
    assert counts[0] == counts[1]
    assert all(counts[0].values())


def test_orthogonal_initialization() -> None:
    """Migrating, Breaking Changes: "Orthogonal initialization is only used by A2C/PPO", and ortho_init=False."""
    for ortho_init in (True, False):
        policy = make(policy_kwargs={"ortho_init": ortho_init}).policy
        assert (policy.action_net.weight.norm(dim=1) < 0.011).all() == ortho_init
        assert (policy.value_net.bias == 0).all() == ortho_init


# --- SB3, Callbacks ---


class Events(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.names: set[str] = set()

    def _on_training_start(self) -> None:
        self.events.append("training starts")

    def _on_rollout_start(self) -> None:
        self.events.append("rollout starts")

    def _on_step(self) -> bool:
        assert self.training_env is self.model.get_env()
        assert self.num_timesteps == 2 * self.n_calls
        self.names = set(self.locals)
        self.logger.record("own/value", float(self.locals["values"].mean()))
        assert self.locals["lstm_states"].pi[0].shape[:2] == (1, 2)
        return True

    def _on_rollout_end(self) -> None:
        self.events.append("rollout ends")
        assert self.model.rollout_buffer.full  # type: ignore[attr-defined]

    def _on_training_end(self) -> None:
        self.events.append("training ends")


def test_events_and_variables_of_a_callback() -> None:
    """Callbacks, Custom Callback: its events, and what it has access to."""
    callbacks = [Events(), Events()]
    for policy, callback in zip(("MlpLstmPolicy", "NCDEPolicy"), callbacks, strict=True):
        make(policy).learn(64, callback)
    assert callbacks[0].events == callbacks[1].events
    assert len(callbacks[1].events) == 6
    assert callbacks[0].names == callbacks[1].names


def test_sb3_s_callbacks(tmp_path: Path) -> None:
    """Callbacks, Callback Collection, all but those that stop; Examples, Monitoring Training: a model saved in one."""
    env, evaluation = VecNormalizeObserved(walks()), VecNormalizeObserved(walks(), training=False, norm_reward=False)
    folder = str(tmp_path)
    callbacks: list[BaseCallback] = [
        CheckpointCallback(10, folder, "rollout", save_replay_buffer=True, save_vecnormalize=True),
        EveryNTimesteps(40, CheckpointCallback(1, folder, "event")),
        LogEveryNTimesteps(32),
        EvalCallback(
            evaluation,
            callback_on_new_best=StopTrainingOnRewardThreshold(1e9, verbose=0),
            callback_after_eval=StopTrainingOnNoModelImprovement(9, min_evals=9),
            eval_freq=16, n_eval_episodes=2, log_path=folder, best_model_save_path=folder, verbose=0,
        ),
    ]  # fmt: skip
    make(env=env).learn(64, callbacks, log_interval=None)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"best_model.zip", "evaluations.npz", "event_40_steps.zip", "rollout_vecnormalize_20_steps.pkl"} <= names
    statistics = VecNormalizeObserved.load(str(tmp_path / "rollout_vecnormalize_20_steps.pkl"), walks())
    model = load(tmp_path / "rollout_20_steps", statistics)  # of the middle of a rollout
    model.learn(32, reset_num_timesteps=False, callback=lambda local, world: True)
    assert model.num_timesteps == 20 + 32


class FromZero(RandomWalk):
    def reset(self, **kwargs: Any) -> Any:
        _, info = super().reset(**kwargs)
        self.now = 0.0
        return self._observe(), info


@pytest.mark.parametrize("time_kind", ["elapsed", "timestamp"])
def test_training_that_a_callback_has_stopped_goes_on(time_kind: str) -> None:
    """Callbacks, StopTrainingOnMaxEpisodes, and Tensorboard, Basic Usage: reset_num_timesteps=False.

    A callback that returns False leaves RecurrentPPO with the observation of before the last step, which may be of an
    episode that is over: set_env() tells it so.
    """
    env_kwargs = {"observation": "column", "time_kind": time_kind, "longest": 20}
    env = make_vec_env(FromZero, 2, seed=0, env_kwargs=env_kwargs)
    model = make(env=env, policy_kwargs={"time_key": 1, "time_kind": time_kind})
    for episodes in (1, 2, 3):
        model.learn(10**6, StopTrainingOnMaxEpisodes(episodes))
        model.set_env(env)
        steps = model.num_timesteps
        model.learn(32, reset_num_timesteps=False)
        assert model.num_timesteps == steps + 32


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """Callbacks, ProgressBarCallback."""
    make().learn(32, progress_bar=True)
    assert "32/32" in capsys.readouterr().out


def test_a_callback_changes_the_model() -> None:
    """Callbacks: "model manipulation"; weights set in mid-rollout, by each documented way, are acted on at once."""

    class Change(BaseCallback):
        def _on_step(self) -> bool:
            model: Any = self.model
            if self.n_calls in (4, 8, 12):
                vector = 1.01 * model.policy.parameters_to_vector()
                model.policy.load_from_vector(vector)
                if self.n_calls == 8:
                    model.set_parameters(copy.deepcopy(model.get_parameters()))
                if self.n_calls == 12:
                    model.policy.load_state_dict(copy.deepcopy(model.policy.state_dict()))
                np.testing.assert_array_equal(model.policy.parameters_to_vector(), vector)
            if self.n_calls in (5, 9, 13):
                with th.no_grad():
                    _, log_prob, _ = model.policy.evaluate_actions(
                        self.locals["obs_tensor"],
                        th.as_tensor(self.locals["actions"]),
                        model._last_lstm_states,
                        self.locals["episode_starts"],
                    )
                th.testing.assert_close(log_prob, self.locals["log_probs"])
            return True

    make().learn(32, Change())


# --- SB3, Examples ---


def test_a_loaded_agent_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Examples, Basic Usage: load with an environment; print_system_info=True."""
    model = make().learn(32)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", model.get_env(), print_system_info=True)
    assert "SAVED MODEL SYSTEM INFO" in capsys.readouterr().out
    check_same(loaded.policy, model.policy)
    assert loaded.learn(32, reset_num_timesteps=False).num_timesteps == 64


def test_a_policy_is_used_without_its_model(tmp_path: Path) -> None:
    """Examples, Advanced Saving and Loading: save, load and evaluate a policy alone."""
    model = make().learn(32)
    policy = model.policy
    policy.save(str(tmp_path / "policy"))
    saved = NCDEPolicy.load(str(tmp_path / "policy"), device="cpu")
    assert saved.device == th.device("cpu")
    results = [evaluate_policy(agent, walks(), 4) for agent in (model, policy, saved)]
    assert results[0] == results[1] == results[2]


def test_an_environment_by_its_name_and_one_of_dicts() -> None:
    """Getting Started: a model by one line, an environment's name; Examples, Dict Observations: SimpleMultiObsEnv."""
    assert make(env="CartPole-v1").learn(16).num_timesteps == 16
    make("MultiInputNCDEPolicy", SimpleMultiObsEnv(random_start=False)).learn(16)


def test_schedules(tmp_path: Path) -> None:
    """Examples, Learning Rate Schedule: learning_rate and clip_range as functions; they begin anew with learn()."""
    rate, clip = (lambda progress: 1e-3 * (1 + progress)), (lambda progress: 0.1 + 0.1 * progress)
    model = make(learning_rate=rate, clip_range=clip, clip_range_vf=0.2).learn(64)
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-3
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", walks())
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 1e-3
    loaded.learn(128)
    assert loaded.logger.name_to_value["train/clip_range"] == pytest.approx(0.1)


def test_parameters_of_one_agent_in_another(tmp_path: Path) -> None:
    """Examples, Accessing and modifying model parameters; Base RL Class, set_parameters: a dict, a file, a part."""
    model = make().learn(32)
    model.save(tmp_path / "model")
    parameters = model.get_parameters()
    assert set(parameters) == {"policy", "policy.optimizer"}
    for given in (parameters, str(tmp_path / "model")):
        other = make(seed=1)
        other.set_parameters(given, device="cpu")
        check_same(other.policy, model.policy)
        assert len(other.policy.optimizer.state) == len(model.policy.optimizer.state) > 0
        other.learn(32)
    part = {name: value for name, value in model.policy.state_dict().items() if "action" in name}
    other.set_parameters({"policy": part}, exact_match=False)
    assert th.equal(other.policy.action_net.weight, model.policy.action_net.weight)
    for wrong, error in (
        ({"policy": parameters["policy"]}, ValueError),
        ({"nothing": {}}, ValueError),
        ({**parameters, "policy": part}, RuntimeError),
    ):
        with pytest.raises(error, match=r"do not match|invalid object|Missing key"):
            other.set_parameters(wrong)


def test_an_evolution_strategy() -> None:
    """Examples, Accessing and modifying model parameters: a part of the state dict, with noise, evaluated, averaged."""
    model = make(policy_kwargs={"net_arch": [8]}).learn(32)
    means = {
        name: value
        for name, value in model.policy.state_dict().items()
        if ("policy" in name or "shared_net" in name or "action" in name)
    }
    population = []
    for _ in range(2):
        candidate = {name: value + th.randn_like(value) for name, value in means.items()}
        found = model.policy.load_state_dict(candidate, strict=False)
        assert not found.unexpected_keys
        population.append((candidate, evaluate_policy(model, model.get_env(), 1)[0]))
    means = {name: th.stack([candidate[name] for candidate, _ in population]).mean(dim=0) for name in means}
    model.policy.load_state_dict(means, strict=False)
    assert th.equal(model.policy.action_net.bias, means["action_net.bias"])
    model.learn(32)


def test_parameters_as_a_vector() -> None:
    """Examples, Accessing and modifying model parameters: parameters_to_vector and load_from_vector."""
    first, second = make().policy, make(seed=1).policy
    vector = first.parameters_to_vector()
    assert vector.shape == (sum(parameter.numel() for parameter in first.parameters()),)
    second.load_from_vector(vector)
    np.testing.assert_array_equal(second.parameters_to_vector(), vector)
    np.testing.assert_allclose(values_of(second), values_of(first), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, where its compiler is first imported
def test_a_compiled_policy(tmp_path: Path) -> None:
    """Examples, Compiling models: it learns through the wrapper, is saved without it, and loads.

    The compiler itself is left out, as it takes longer than all the other tests here.
    """
    plain, compiled = make(), make()
    compiled.policy = th.compile(compiled.policy, backend="eager")
    with th.compiler.set_stance("force_eager"):
        for model in (plain, compiled):
            model.set_random_seed(0)
            model.learn(64)
    assert compiled.get_parameters()["policy"].keys() == plain.policy.state_dict().keys()
    compiled.save(tmp_path / "model")
    check_same(load(tmp_path / "model").policy, plain.policy)


# --- SB3, On saving and loading ---


def test_the_contents_of_a_file(tmp_path: Path) -> None:
    """On saving and loading, Zip-archive: JSON, and state dicts that load with weights_only."""
    model = make(policy_kwargs={"history_length": 5}).learn(32)
    model.save(tmp_path / "model")
    archive = zipfile.ZipFile(tmp_path / "model.zip")
    assert {"data", "policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"} <= set(archive.namelist())
    assert json.loads(archive.read("data"))["policy_kwargs"]["history_length"] == 5
    state_dict = th.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    assert state_dict.keys() == model.policy.state_dict().keys()
    other = make(seed=1, policy_kwargs={"history_length": 5})
    other.policy.load_state_dict(state_dict)
    check_same(other.policy, model.policy)
    th.load(io.BytesIO(archive.read("policy.optimizer.pth")), weights_only=True)


def test_custom_objects(tmp_path: Path) -> None:
    """On saving and loading, Zip-archive: objects of a file that are replaced when it is loaded."""
    model = make(learning_rate=lambda progress: progress, policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "model")
    custom_objects = {
        "learning_rate": 1e-4,
        "lr_schedule": lambda _: 1e-4,
        "clip_range": lambda _: 0.1,
        "policy_class": NCDEPolicy,
        "observation_space": model.observation_space,
        "action_space": model.action_space,
    }
    loaded = load(tmp_path / "model", walks(), custom_objects=custom_objects)
    check_same(loaded.policy, model.policy)
    loaded.learn(32)
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 1e-4


def test_arguments_of_load(tmp_path: Path) -> None:
    """Base RL Class, load: "extra arguments to change the model when loading"; the same policy_kwargs, no others."""
    model = make(policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model", walks(), policy_kwargs={"net_arch": [8]}, ent_coef=0.1, learning_rate=1e-5)
    loaded.learn(32)
    assert loaded.ent_coef == 0.1
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 1e-5
    with pytest.raises(ValueError, match="do not equal the stored policy kwargs"):
        load(tmp_path / "model", policy_kwargs={"net_arch": [9]})


def test_what_is_left_out_of_a_file() -> None:
    """Base RL Class, save: exclude, include, and a file-like object; a policy without its policy_kwargs knows them."""
    model = make(policy_kwargs={"rates": False, "latent_size": 9}).learn(32)
    file = io.BytesIO()
    model.save(file, exclude=["policy_kwargs", "ep_info_buffer"], include=["rollout_buffer", "_last_lstm_states"])
    file.seek(0)
    loaded = load(file, walks())
    assert loaded.policy.arguments.latent_size == 9
    check_same(loaded.policy, model.policy)
    loaded.learn(32)


def test_an_agent_that_was_loaded_without_an_environment(tmp_path: Path) -> None:
    """Base RL Class, load and set_env: None for prediction alone; then one of as many environments."""
    make().save(tmp_path / "model")
    model = load(tmp_path / "model")
    assert model.get_env() is None
    model.predict(OBSERVATIONS)
    with pytest.raises(AssertionError, match="number of environments to be set is different"):
        model.set_env(walks(3))
    model.set_env(VecNormalizeObserved(walks()))
    assert model.get_vec_normalize_env() is model.get_env()
    model.learn(32)
    model.set_env(walks())
    model.learn(32, reset_num_timesteps=False)
    assert model.num_timesteps == 64


def by_pickle(policy: Any) -> Any:
    return pickle.loads(pickle.dumps(policy))


def by_cloudpickle(policy: Any) -> Any:
    return cloudpickle.loads(cloudpickle.dumps(policy))


@pytest.mark.parametrize("copied", [copy.deepcopy, by_pickle, by_cloudpickle])
def test_a_policy_is_copied_and_pickled(copied: Callable[[Any], Any]) -> None:
    """Base policy class: a dummy schedule is "useful for pickling policy"; it goes on from the same state."""
    policy = make(learning_rate=lambda progress: 1e-3 * progress).learn(32).policy
    _, state = policy.predict(OBSERVATIONS, None, STARTS)
    other = copied(policy)
    first, second = (agent.predict(OBSERVATIONS, state, ~STARTS, deterministic=True) for agent in (policy, other))
    np.testing.assert_array_equal(first[0], second[0])
    check_same(policy, other)
    other.optimizer.zero_grad()
    other.evaluate_actions(th.randn(4, 3), th.zeros(4), states_of(other, 2), th.zeros(4))[0].sum().backward()
    other.optimizer.step()


# --- SB3, Imitation Learning, and Exporting models ---


def test_pretraining_as_in_sb3_s_notebook() -> None:
    """Imitation Learning, and the notebook on pretraining: an own optimizer between train() and eval()."""
    student = make()
    model = student.policy.to("cpu")
    optimizer, criterion = th.optim.Adadelta(model.parameters(), lr=1.0), nn.CrossEntropyLoss()
    scheduler = th.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    model.train()
    losses = []
    data, target = th.randn(16, 3), th.arange(16) % 2
    for _ in range(4):
        optimizer.zero_grad()
        distribution, _ = model.get_distribution(data, states_of(model, 4).pi, th.zeros(16))
        loss = criterion(distribution.distribution.logits, target)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    assert losses[-1] < losses[0]
    student.policy = model
    student.learn(32)


def test_export_without_a_state_is_refused_in_a_sentence() -> None:
    """Exporting models, Export to ONNX: the page's wrapper calls the policy with an observation alone."""
    with pytest.raises(TypeError, match="called without recurrent states"):
        make().policy(th.zeros(1, 3), deterministic=True)


def test_manual_export() -> None:
    """Exporting models, Manual export: the heads in NumPy, from get_parameters()."""
    policy = make().policy
    weights = {name: value.numpy() for name, value in policy.state_dict().items()}
    rows, states = th.as_tensor(OBSERVATIONS), states_of(policy, 2)
    with th.no_grad():
        latent, _ = policy.lstm_actor(policy.extract_features(rows), states.pi, th.ones(2))
    hidden = latent.numpy()
    for layer in ("mlp_extractor.value_net.0", "mlp_extractor.value_net.2"):
        hidden = np.tanh(hidden @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"])
    exported = hidden @ weights["value_net.weight"].T + weights["value_net.bias"]
    np.testing.assert_allclose(exported, values_of(policy), rtol=1e-4, atol=1e-5)


# --- SB3, Tensorboard Integration, and Logger ---


class Log(BaseCallback):
    def _on_training_start(self) -> None:
        hyperparameters = {"algorithm": type(self.model).__name__, "gamma": self.model.gamma}  # type: ignore[attr-defined]
        metrics: dict[str, float] = {"rollout/ep_len_mean": 0, "train/value_loss": 0.0}
        self.record("hparams", HParam(hyperparameters, metrics))

    def _on_step(self) -> bool:
        if self.n_calls == 16:
            plot = Plot()
            plot.add_subplot().plot([1.0, 2.0])
            self.record("figure", Figure(plot, close=True))
            self.record("image", Image(np.zeros((4, 4, 3), np.uint8), "HWC"))
            self.logger.dump(self.num_timesteps)
            formats = self.logger.output_formats
            writer = next(each for each in formats if isinstance(each, TensorBoardOutputFormat)).writer
            for name, value in self.model.policy.named_parameters():
                writer.add_histogram(name, value, self.num_timesteps)
        return True

    def record(self, name: str, value: Any) -> None:
        self.logger.record(name, value, exclude=("stdout", "log", "json", "csv"))


def test_tensorboard(tmp_path: Path) -> None:
    """Tensorboard Integration, all sections but videos: one curve for runs that go on."""
    model = make(tensorboard_log=str(tmp_path)).learn(32, Log(), tb_log_name="run")
    model.learn(32, tb_log_name="run", reset_num_timesteps=False)
    model.logger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run_1"]


@pytest.mark.parametrize("action_space", [BOX, spaces.Discrete(2)], ids=["Box", "Discrete"])
def test_the_logger(action_space: spaces.Space[Any], tmp_path: Path) -> None:
    """Logger: set_logger with formats; the logged values are those of MlpLstmPolicy."""
    columns = []
    for policy in ("MlpLstmPolicy", "NCDEPolicy"):
        model = make(policy, walks(action_space=action_space), stats_window_size=5)
        model.set_logger(configure(str(tmp_path / policy), ["csv", "json", "log"]))
        model.learn(96)
        model.logger.close()
        columns.append(set((tmp_path / policy / "progress.csv").read_text().splitlines()[0].split(",")))
    assert columns[0] == columns[1]
    assert ("train/std" in columns[1]) == isinstance(action_space, spaces.Box)


def test_an_own_output_format() -> None:
    """Integrations, MLFLow: a logger of one's own."""
    written: list[set[str]] = []

    class Keep(KVWriter):
        def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
            written.append(set(key_values))

    model = make()
    model.set_logger(Logger(folder=None, output_formats=[Keep()]))
    model.learn(64)
    assert "train/value_loss" in written[-1]


def test_gradients_and_outputs_are_watched() -> None:
    """Integrations, Weights & Biases: gradients="all" hooks every parameter; every attribute is written as a string."""
    model, seen = make(), set()
    for name, parameter in model.policy.named_parameters():
        parameter.register_hook(lambda gradient, name=name: seen.add(name))
    outputs: list[str] = []
    parts = ("features_extractor", "lstm_actor", "mlp_extractor.policy_net", "mlp_extractor.value_net", "value_net")
    for name in parts:
        model.policy.get_submodule(name).register_forward_hook(lambda *args, name=name: outputs.append(name))
    model.learn(32)
    assert seen == {name for name, _ in model.policy.named_parameters()}
    assert all(outputs.count(name) >= 16 for name in parts)
    assert all(str(value) is not None for value in vars(model).values())


# --- SB3, Vectorized Environments, Dealing with NaNs, Custom Environments ---


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda: VecExtractDictObs(walks(observation="dict"), "walk"),
        lambda: VecFrameStack(walks(), 3),
        lambda: VecCheckNan(walks(), raise_exception=True),
        lambda: VecMonitor(walks()),
        lambda: make_vec_env(lambda: TimeFeatureWrapper(RandomWalk(), max_steps=20), 2),
        lambda: make_vec_env(
            RandomWalk,
            2,
            env_kwargs={"action_space": BOX},
            wrapper_class=RescaleAction,  # type: ignore[arg-type]
            wrapper_kwargs={"min_action": np.float32(-1), "max_action": np.float32(1)},
        ),
    ],
    ids=["VecExtractDictObs", "VecFrameStack", "VecCheckNan", "VecMonitor", "TimeFeatureWrapper", "RescaleAction"],
)
def test_wrappers(wrap: Callable[[], VecEnv]) -> None:
    """Vectorized Environments, Wrappers; Dealing with NaNs, VecCheckNan; sb3-contrib, Gym Wrappers."""
    make(env=wrap()).learn(32)


def test_stacked_images() -> None:
    """Examples, Atari Games: VecFrameStack of images; of a Dict as well, but not of the time."""
    make("CnnNCDEPolicy", VecFrameStack(walks(observation="image"), 4)).learn(32)
    make("MultiInputNCDEPolicy", VecFrameStack(walks(observation="dict_image"), 2)).learn(32)
    with pytest.raises(ValueError, match=r"its shape is \(3, 2\)"):
        make(env=VecFrameStack(walks(observation="matrix"), 2), policy_kwargs={"time_key": 3})


def test_channels_last() -> None:
    """Custom Environments: channel-last images are transposed, in predict() as well."""

    class ChannelsLast(RandomWalk):
        def __init__(self) -> None:
            super().__init__("image")
            self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

        def _observe(self) -> Any:
            return super()._observe().transpose(1, 2, 0)

    model = make("CnnNCDEPolicy", make_vec_env(ChannelsLast, 2)).learn(32)
    one, _ = model.predict(np.zeros((36, 36, 1), np.uint8))
    two, _ = model.predict(np.zeros((2, 36, 36, 1), np.uint8))
    assert (one.shape, two.shape) == ((), (2,))


def test_images_that_are_normalised_already(tmp_path: Path) -> None:
    """Custom Environments: normalize_images=False in policy_kwargs."""

    class Normalised(RandomWalk):
        def __init__(self) -> None:
            super().__init__("image")
            self.observation_space = spaces.Box(0, 1, (1, 36, 36), np.float32)

        def _observe(self) -> Any:
            return (super()._observe() / 255).astype(np.float32)

    env = make_vec_env(Normalised, 2)
    model = make("CnnNCDEPolicy", env, policy_kwargs={"normalize_images": False}).learn(32)
    model.policy.save(str(tmp_path / "policy"))
    loaded = CnnNCDEPolicy.load(str(tmp_path / "policy"), device="cpu")
    assert not loaded.normalize_images
    check_same(loaded, model.policy, env.reset())


def test_attributes_of_the_environments_are_set_while_training() -> None:
    """Vectorized Environments, Modifying Vectorized Environments Attributes."""

    class Change(BaseCallback):
        def _on_step(self) -> bool:
            self.training_env.env_method("set_wrapper_attr", "scale", 2.0)
            self.training_env.set_attr("longest", 5)
            return True

    env = walks()
    make(env=env).learn(64, Change())
    assert env.env_method("get_wrapper_attr", "scale") == [2.0, 2.0]


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    "kwargs", [{}, {"missing_values": True}, {"time_key": 1}, {"time_key": 1, "time_kind": "timestamp"}], ids=str
)
def test_nothing_is_divided_by_zero(kwargs: dict[str, Any]) -> None:
    """Dealing with NaNs: anomaly detection with PyTorch, and np.seterr(all="raise")."""
    env = walks(observation="column", time_kind=kwargs.get("time_kind", "elapsed"))
    with th.autograd.set_detect_anomaly(True), np.errstate(all="raise"):
        model = make(env=env, policy_kwargs=kwargs).learn(32)
        evaluate_policy(model, env, 2)


# --- The pages of the algorithms, of policies, distributions, evaluation and utilities ---


def test_the_example_of_recurrent_ppo(tmp_path: Path) -> None:
    """sb3-contrib, Recurrent PPO, Example: lstm_states and episode_starts."""
    model = make().learn(32)
    evaluate_policy(model, model.get_env(), n_eval_episodes=2, warn=False)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    env = walks()
    observation, states, starts = env.reset(), None, np.ones((2,), dtype=bool)
    for _ in range(10):
        action, states = loaded.predict(observation, state=states, episode_start=starts, deterministic=True)
        observation, _, starts, _ = env.step(action)


def test_the_first_state_is_zeros_of_the_policy_s_shape() -> None:
    """sb3-contrib, Recurrent PPO, Policies: lstm_hidden_state_shape, by which predict() makes the first state."""
    policy = make().policy
    zeros = np.zeros(policy.lstm_hidden_state_shape)
    first, second = (policy.predict(OBSERVATIONS[0], state)[1] for state in (None, (zeros, zeros)))
    np.testing.assert_array_equal(first, second)


def test_arguments_of_recurrent_ppo(capsys: pytest.CaptureFixture[str]) -> None:
    """sb3-contrib, Recurrent PPO, Parameters."""
    model = make(
        gamma=0.9, gae_lambda=0.8, clip_range_vf=0.1, normalize_advantage=False, ent_coef=0.01, vf_coef=0.3,
        max_grad_norm=0.1, target_kl=1e-9, n_epochs=50, stats_window_size=3, verbose=1,
    )  # fmt: skip
    model.learn(64)
    assert model._n_updates < 50  # the limit of the divergence ends an update
    assert "Early stopping" in capsys.readouterr().out


def test_methods_have_the_parameters_of_mlp_lstm_policy() -> None:
    """sb3-contrib, Recurrent PPO, Policies: every public method takes the same arguments by the same names."""
    for name in dir(MlpLstmPolicy):
        theirs, ours = getattr(MlpLstmPolicy, name), getattr(NCDEPolicy, name)
        if name.startswith("_") or not callable(theirs) or name in vars(nn.Module):
            continue
        expected = list(signature(theirs).parameters)
        assert list(signature(ours).parameters)[: len(expected)] == expected, name


def test_attributes_are_those_of_mlp_lstm_policy() -> None:
    """sb3-contrib, Recurrent PPO, Policies: whatever MlpLstmPolicy has is there."""
    theirs, ours = (make(policy).policy for policy in ("MlpLstmPolicy", "NCDEPolicy"))
    assert {name for name in dir(theirs) if not hasattr(ours, name)} == set()
    assert ours.features_extractor is ours.pi_features_extractor is ours.vf_features_extractor
    assert ours.features_extractor.features_dim == theirs.features_extractor.features_dim == 3
    assert ours.features_dim == 3 + 1  # with the time, as extract_features() returns them
    assert ours.extract_features(th.zeros(5, 3)).shape == (5, 4)


def test_the_methods_of_a_policy() -> None:
    """SB3, PPO Policies, and sb3-contrib, Recurrent PPO, Policies: each called by its documented names."""
    policy = make(env=walks(action_space=BOX)).policy
    rows, vectorized = policy.obs_to_tensor(OBSERVATIONS[0])
    assert not vectorized
    assert policy.is_vectorized_observation(OBSERVATIONS)
    np.testing.assert_allclose(policy.unscale_action(policy.scale_action(np.zeros(2))), np.zeros(2))
    assert not policy.squash_output
    states, starts = states_of(policy, 1), th.ones(1)
    arguments = {"lstm_states": states, "episode_starts": starts}
    actions, values, log_prob, after = policy.forward(obs=rows, **arguments, deterministic=True)
    again, _ = policy._predict(rows, lstm_states=states.pi, episode_starts=starts, deterministic=True)
    th.testing.assert_close(again, actions)
    th.testing.assert_close(policy.predict_values(rows, lstm_states=states.vf, episode_starts=starts), values)
    evaluated = policy.evaluate_actions(obs=rows, actions=actions, **arguments)
    th.testing.assert_close(evaluated[1], log_prob)
    assert after.pi[0].shape == policy.lstm_hidden_state_shape
    policy.init_weights(policy.action_net, gain=0.5)
    np.testing.assert_allclose(policy.action_net.weight.detach().norm(dim=1), 0.5, rtol=1e-5)


def test_features_of_one_of_two_extractors() -> None:
    """SB3, PPO Policies, extract_features: both where actor and critic have their own, one where it is named."""
    policy = make(policy_kwargs={"share_features_extractor": False}).policy
    actor, critic = policy.extract_features(th.zeros(2, 3))
    th.testing.assert_close(policy.extract_features(th.zeros(2, 3), policy.pi_features_extractor), actor)
    th.testing.assert_close(policy.extract_features(th.zeros(2, 3), policy.vf_features_extractor), critic)


def test_distributions() -> None:
    """SB3, Probability Distributions."""
    policy = make(env=walks(action_space=BOX), policy_kwargs={"log_std_init": -1.0}).policy
    assert (policy.log_std == -1.0).all()
    states, starts = states_of(policy, 2).pi, th.ones(2)
    distribution, _ = policy.get_distribution(th.as_tensor(OBSERVATIONS), states, starts)
    first = copy.copy(distribution)
    other, _ = policy.get_distribution(th.as_tensor(OBSERVATIONS) + 1, states, starts)
    assert first.entropy().shape == first.log_prob(first.sample()).shape == (2,)
    th.testing.assert_close(first.get_actions(deterministic=True), first.mode())
    assert (kl_divergence(first, other) >= 0).all()
    assert type(policy.action_dist) is type(distribution)


@pytest.mark.parametrize("kwargs", [{"full_std": False}, {"use_expln": True}, {"squash_output": True}], ids=str)
def test_the_noise_of_gsde(kwargs: dict[str, Any], tmp_path: Path) -> None:
    """SB3, PPO, "Using gSDE during inference": it stays until reset_noise(); and gSDE's arguments of the policy."""
    model = make(env=walks(action_space=BOX), use_sde=True, sde_sample_freq=4, policy_kwargs=kwargs).learn(32)
    model.save(tmp_path / "model")
    for agent in (model, load(tmp_path / "model")):
        agent.policy.reset_noise(2)
        first, same = (agent.predict(OBSERVATIONS, None, STARTS)[0] for _ in range(2))
        agent.policy.reset_noise(2)
        other = agent.predict(OBSERVATIONS, None, STARTS)[0]
        np.testing.assert_array_equal(first, same)
        assert not np.array_equal(first, other)


def test_noise_without_gsde_is_refused() -> None:
    """SB3, PPO Policies, reset_noise."""
    with pytest.raises(AssertionError, match="only available when using gSDE"):
        make().policy.reset_noise()


@pytest.mark.parametrize(
    ("optimizer", "kwargs"),
    [
        (RMSpropTFLike, {"alpha": 0.99, "eps": 1e-5}),
        (th.optim.AdamW, {"weight_decay": 0.1}),
        (th.optim.SGD, None),
        (th.optim.Adam, {"betas": (0.9, 0.99)}),
    ],
)
def test_another_optimizer(optimizer: Any, kwargs: Any, tmp_path: Path) -> None:
    """Migrating, A2C and New Features: optimizer_class and optimizer_kwargs, in files of model and policy."""
    given = {"optimizer_class": optimizer} | ({} if kwargs is None else {"optimizer_kwargs": kwargs})
    model = make(policy_kwargs=given).learn(32)
    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    loaded = load(tmp_path / "model", walks()).learn(32).policy
    for policy in (loaded, NCDEPolicy.load(str(tmp_path / "policy"), device="cpu")):
        assert type(policy.optimizer) is optimizer
        assert policy.optimizer_kwargs == (kwargs or {})


def test_seeds() -> None:
    """RL Algorithms, Reproducibility; Base RL Class, set_random_seed: before set_env() seed the environment."""
    model = make()
    actions = []
    for _ in range(2):
        model.set_random_seed(3)
        actions.append([model.predict(OBSERVATIONS, None, STARTS)[0].tolist() for _ in range(2)])
    assert actions[0] == actions[1]
    vectors = []
    for _ in range(2):
        env, model = walks(), make(seed=4)
        env.seed(5)
        model.set_env(env)
        vectors.append(model.learn(32).policy.parameters_to_vector())
    np.testing.assert_array_equal(*vectors)


class Normalising(BaseFeaturesExtractor):
    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 4)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.net(observations)  # type: ignore[no-any-return]


def test_batch_normalisation_and_dropout() -> None:
    """PPO Policies, set_training_mode: "This affects certain modules, such as batch normalisation and dropout"."""
    model = make(policy_kwargs={"features_extractor_class": Normalising}).learn(64)
    statistics = model.policy.features_extractor.net[2].running_mean
    assert statistics.any()
    before = statistics.clone()
    model.policy.set_training_mode(True)
    first, second = (model.predict(OBSERVATIONS, None, STARTS, deterministic=True)[1] for _ in range(2))
    assert not model.policy.training
    assert th.equal(statistics, before)
    np.testing.assert_array_equal(first, second)


def test_utilities() -> None:
    """Utils: polyak_update, get_parameters_by_name, update_learning_rate."""
    policy, target = make().policy, make(seed=1).policy
    mean = (policy.parameters_to_vector() + target.parameters_to_vector()) / 2
    polyak_update(policy.parameters(), target.parameters(), 0.5)
    np.testing.assert_allclose(target.parameters_to_vector(), mean, atol=1e-6)
    assert len(get_parameters_by_name(policy, ["action_net"])) == 2
    update_learning_rate(policy.optimizer, 0.1)
    assert policy.optimizer.param_groups[0]["lr"] == 0.1


def test_the_evaluation_helper() -> None:
    """Evaluation Helper: a callback, results of episodes, a threshold, one environment, fewer episodes than these."""
    model, shapes = make(), set()
    note = lambda local, world: shapes.add(local["states"][0].shape)  # noqa: E731
    returns, lengths = evaluate_policy(model, walks(), 4, callback=note, return_episode_rewards=True)
    assert len(returns) == len(lengths) == 4  # type: ignore[arg-type]
    assert shapes == {(1, 2, model.policy.lstm_actor.hidden_size)}
    evaluate_policy(model, RandomWalk(), 2, deterministic=False, warn=False)
    with pytest.raises(AssertionError, match="Mean reward below threshold"):
        evaluate_policy(model, walks(), 2, reward_threshold=1e9)
    kwargs: dict[str, Any] = {"observation": "column", "time_kind": "timestamp"}
    timed = make(env=walks(**kwargs), policy_kwargs={"time_key": 1, "time_kind": "timestamp"})
    evaluate_policy(timed, walks(5, **kwargs), 7)


@pytest.mark.filterwarnings("ignore:The observation has a key")
def test_an_own_name_for_a_policy() -> None:
    """Developer Guide, Policy Structure, and changelog 1.5.0: names of policies are in policy_aliases."""
    own: Any = type("Own", (MultiInputNCDEPolicy,), {})
    try:
        RecurrentPPO.policy_aliases["OwnPolicy"] = own
        assert type(make("OwnPolicy", walks(observation="dict")).policy) is own
    finally:
        del RecurrentPPO.policy_aliases["OwnPolicy"]
