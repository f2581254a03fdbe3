"""NCDEExtractor: the encoder of NCDEPolicy, in any policy of any algorithm."""

import copy
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn

from sb3_ncde import HistoryReplayBuffer, NCDEExtractor, VecHistory, with_memory
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.torch_layers import WITHOUT_SIZE
from tests.envs import MaskedWalk, RandomWalk
from tests.histories import KINDS, Chance, Run

BOX = spaces.Box(-1, 1, (1,), np.float32)
OFF_POLICY = {SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN}
CONTINUOUS = {SAC, TD3, DDPG, TQC, CrossQ}
ALGORITHMS = [SAC, TD3, DDPG, TQC, CrossQ, DQN, QRDQN, PPO, A2C, TRPO, MaskablePPO]


def walk(n_envs: int = 2, seed: int = 0, env: Any = RandomWalk, **kwargs: Any) -> Any:
    return make_vec_env(env, n_envs, seed=seed, env_kwargs=kwargs)


class FloatImage(gym.ObservationWrapper[Any, Any, Any]):
    """Images from 0 to 1."""

    def __init__(self) -> None:
        env = RandomWalk(observation="image", action_space=BOX)
        super().__init__(env)
        self.observation_space = spaces.Box(0, 1, env.observation_space.shape, np.float32)

    def observation(self, observation: Any) -> Any:
        return np.float32(observation) / 255


def make(algorithm: Any = SAC, env: Any = None, **kwargs: Any) -> Any:
    """Return a small agent."""
    if env is None:
        env_class: Any = MaskedWalk if algorithm is MaskablePPO else RandomWalk
        env = walk(env=env_class, action_space=BOX if algorithm in CONTINUOUS else spaces.Discrete(3))
    if algorithm in OFF_POLICY:
        kwargs = {"learning_starts": 8, "batch_size": 8, "buffer_size": 200} | kwargs
    elif algorithm in (PPO, MaskablePPO, TRPO):
        kwargs = {"n_steps": 8, "batch_size": 16} | kwargs
    if not isinstance(env, VecHistory):
        kwargs = {"history_length": 3} | kwargs
    kwargs["policy_kwargs"] = {"net_arch": [16]} | kwargs.get("policy_kwargs", {})
    return with_memory(algorithm, env, seed=0, device="cpu", **kwargs)


def extractors(model: Any) -> list[NCDEExtractor]:
    """Return all extractors of a policy, each once."""
    return [module for module in model.policy.modules() if isinstance(module, NCDEExtractor)]


def wake(model: Any) -> None:
    """Give all weights sizes that tell them apart."""
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for weight in model.policy.parameters():
            weight.copy_(0.3 * th.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("traces", [None, [2.0, 30.0]])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "image"])
@pytest.mark.parametrize("solver", ["euler", "rk4"])
def test_features_are_those_of_the_encoder(kind: str, missing: float, solver: str, traces: Any) -> None:
    """In a minibatch, one by one, and step by step with the solutions carried along: all the same."""
    if kind not in ("box", "column"):
        missing = 0.0
    history = {"history_length": 4, "hop_length": 2, **KINDS[kind]} | ({"missing_values": True} if missing else {})
    history["traces"] = traces
    run = Run(kind, 3, 40, 7, 0, missing, **history)
    extractor = NCDEExtractor(run.env.observation_space, solver=solver)
    extractor.encoder.increment_scale.scale = th.rand(extractor.encoder.increment_scale.scale.shape) + 0.5
    seen, stepped = [], []
    for _ in range(25):
        extractor.train(False)
        with th.no_grad():
            stepped.append(extractor(th.from_numpy(run.last)))
        seen.append(run.last)
        run.step()
    extractor.train(True)
    together = extractor(th.from_numpy(np.concatenate(seen)))
    np.testing.assert_allclose(th.cat(stepped).numpy(), together.numpy(force=True), atol=1e-5)
    for rows, alone in zip(seen, together.split(3), strict=True):
        np.testing.assert_allclose(
            extractor(th.from_numpy(rows[:1])).numpy(force=True), alone[:1].numpy(force=True), atol=1e-5
        )
    # As NCDEPolicy's encoder has it, from the states before.
    encoder = extractor.encoder
    state: Any = tuple(th.zeros(1, 3, encoder.hidden_size) for _ in range(2))
    layout = run.env.observation_space.layout
    if not missing and not layout.timestamps:
        size = layout.features_dim
        for rows, expected in zip(seen, stepped, strict=True):
            newest = np.delete(rows[:, layout.newest], np.s_[size:-1], axis=1)
            newest[:, -1] *= layout.unit
            starts = th.from_numpy((rows[:, 0] == 1).astype(np.float32))
            features, state = encoder.unroll(th.from_numpy(newest), state, starts)
            np.testing.assert_allclose(features.numpy(force=True), expected.numpy(), atol=1e-5)


@given(seed=st.integers(0, 2**16), length=st.integers(1, 6), hop=st.integers(1, 6))
def test_carried_solutions_are_never_stale(seed: int, length: int, hop: int) -> None:
    """Steps that are left out, rows of others between, weights and scale that change: each is noticed."""
    run = Run("box", 2, 40, 6, seed, history_length=length, hop_length=min(hop, length))
    extractor = NCDEExtractor(run.env.observation_space).train(False)
    generator = np.random.default_rng(seed)
    with th.no_grad():
        for _ in range(12):
            event = generator.integers(8)
            if event == 0:
                next(extractor.parameters()).data.add_(0.1)
            elif event == 1:
                scale = extractor.encoder.increment_scale
                scale.scale = scale.scale * 1.5
            elif event == 2:
                extractor(th.from_numpy(np.flip(run.last, 0).copy()))
            elif event == 3:
                extractor(th.from_numpy(np.repeat(run.last, 2, 0)))
            rows = th.from_numpy(run.last)
            if event != 4:
                np.testing.assert_allclose(extractor(rows).numpy(), anew(extractor, rows), atol=1e-5)
            run.step()


def anew(extractor: NCDEExtractor, rows: th.Tensor) -> Any:
    """Return what an extractor makes of histories, with nothing that it has kept."""
    encoder = extractor.encoder
    return encoder.encode(encoder.prepare(extractor._sequences(rows))).numpy(force=True)


def test_what_is_prepared_for_a_minibatch_is_never_stale() -> None:
    """Rows that are changed in place, and a scale that is, or becomes another: each is noticed."""
    run = Run("box", 2, 40, 6, 0, history_length=3)
    for _ in range(4):
        run.step()
    extractor = NCDEExtractor(run.env.observation_space)
    rows, scale = th.from_numpy(run.last), extractor.encoder.increment_scale

    def check() -> None:
        for _ in range(2):
            np.testing.assert_array_equal(extractor(rows).detach().numpy(), anew(extractor, rows))

    check()
    rows[:, -3] += 1.0
    check()
    run.last[:, -3] += 1.0  # whose memory it shares
    check()
    rows = rows.clone()
    check()
    rows[:, -3] += 1.0
    check()
    for _ in range(3):  # of new tensors, which all have the same version
        scale.scale = scale.scale * 2
        check()
    scale.scale.mul_(2)
    check()


def test_gradients_reach_observations() -> None:
    """Of data as well, for whoever asks what an agent looks at."""
    env = VecHistory(walk(), history_length=3)
    extractor = NCDEExtractor(env.observation_space).double()
    rows = th.from_numpy(env.reset()).double().requires_grad_()
    extractor(rows).square().sum().backward()
    assert rows.grad is not None
    assert bool(rows.grad[:, env.observation_space.layout.newest].any())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_algorithm_trains_saves_loads_and_goes_on(algorithm: Any, tmp_path: Path) -> None:
    model = make(algorithm)
    model.learn(50)
    env = model.get_env()
    model.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", env, device="cpu")
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, loaded.policy.state_dict()[name]), name
    loaded.learn(24, reset_num_timesteps=False)


def test_a_default_that_changes_changes_no_saved_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded has the arguments that it was saved with, whatever the defaults are by then."""
    model = make(SAC)
    model.learn(24)
    model.save(tmp_path / "agent")
    obs = model.get_env().reset()
    expected, _ = model.predict(obs, deterministic=True)
    defaults: Any = EncoderArguments.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "solver", "midpoint")
    monkeypatch.setitem(defaults, "feature_norm", "tanh")
    assert extractors(make(SAC))[0].encoder.arguments.solver == "midpoint"
    loaded = SAC.load(tmp_path / "agent", device="cpu")
    assert all(each.encoder.arguments.solver == "euler" for each in extractors(loaded))
    np.testing.assert_allclose(loaded.predict(obs, deterministic=True)[0], expected, atol=1e-5)
    given = SAC.load(
        tmp_path / "agent",
        device="cpu",
        custom_objects={"policy_kwargs": model.policy_kwargs | {"features_extractor_kwargs": {"solver": "rk4"}}},
    )
    assert extractors(given)[0].encoder.arguments.solver == "rk4"


@pytest.mark.parametrize("name", [field.name for field in fields(EncoderArguments)])
def test_an_argument_sets_the_size_of_a_weight_or_is_kept_with_the_agent(name: str) -> None:
    """So that of no default that changes the agents act otherwise which were saved before."""
    other: dict[str, Any] = {
        "solver": "midpoint",
        "interpolation": "rectilinear",
        "feature_norm": "none",
        "feature_size": 7,
        "control_size": 2,
    }
    default = getattr(EncoderArguments(), name)
    value = other.get(name, not default if isinstance(default, bool) else 2 * default if default is not None else None)
    solver: dict[str, Any] = {"solver": "dopri5"} if name == "adjoint" else {}
    space = VecHistory(walk(), history_length=3).observation_space
    shapes = []
    for arguments in ({}, {name: value}):
        extractor = NCDEExtractor(space, **solver, **arguments)
        of_weights = {key: tensor.shape for key, tensor in extractor.state_dict().items()}
        shapes.append((of_weights, extractor.features_dim))  # the heads' first layers are as wide as this
    assert value != default
    assert (name in WITHOUT_SIZE) == (shapes[0] == shapes[1])


def test_adaptive_solvers_and_weights_from_elsewhere() -> None:
    """Which have no step in NumPy; and a state dict that was put together says nothing of arguments."""
    model = make(SAC, features_extractor_kwargs={"solver": "dopri5"})
    model.learn(20)
    weights = dict(model.policy.state_dict())
    other = make(SAC)
    other.policy.load_state_dict(weights)
    assert extractors(other)[0].encoder.arguments.solver == "euler"


def test_agents_act_alike_in_a_fresh_process(tmp_path: Path) -> None:
    """Which knows nothing but the files."""
    lines = ["import numpy as np, torch", "torch.set_num_threads(1)"]
    for algorithm in ALGORITHMS:
        name = algorithm.__name__
        model = make(algorithm)
        model.learn(40)
        obs = model.get_env().reset()
        masks: Any = {}
        if algorithm is MaskablePPO:
            masks = {"action_masks": np.array(model.get_env().env_method("action_masks"))}
        model.save(tmp_path / name)
        action, _ = model.predict(obs, deterministic=True, **masks)
        np.savez(tmp_path / f"{name}.npz", obs=obs, action=action, **masks)
        lines += [
            f"from {algorithm.__module__} import {name}",
            f"given = dict(np.load('{name}.npz'))",
            "action, obs = given.pop('action'), given.pop('obs')",
            f"found, _ = {name}.load('{name}', device='cpu').predict(obs, deterministic=True, **given)",
            f"np.testing.assert_allclose(found, action, atol=1e-5, err_msg='{name}')",
        ]
    (tmp_path / "fresh.py").write_text("\n".join(lines))
    subprocess.run([sys.executable, "fresh.py"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("algorithm", [SAC, TD3, TQC, CrossQ, DQN, PPO, A2C])
def test_actor_critic_and_targets_have_one_scale(algorithm: Any, shared: bool) -> None:
    """At any time: compared at each step of a training, and after 1,000 updates; in a copy as well."""
    if algorithm is DQN and shared:
        return
    kwargs: Any = {} if algorithm is DQN else {"policy_kwargs": {"share_features_extractor": shared}}
    model = make(algorithm, traces=[5.0], **kwargs)
    scales = []

    class Compare(BaseCallback):
        def _on_step(self) -> bool:
            first, *others = [each.encoder.increment_scale.scale for each in extractors(self.model)]
            assert all(th.equal(first, other) for other in others)
            scales.append(first.clone())
            return True

    model.learn(160, Compare())
    if algorithm in (SAC, TD3, DQN) and not shared:
        model.train(1000, 8)
    expected = {SAC: 3 - shared, TD3: 4 - 2 * shared, TQC: 3 - shared, CrossQ: 2 - shared, DQN: 2}.get(
        algorithm, 2 - shared
    )
    assert len(extractors(model)) == expected
    assert not th.equal(scales[0], scales[-1])
    policies = [model.policy]
    if algorithm in OFF_POLICY:  # others of SB3 cannot be copied once they have learned
        policies.append(copy.deepcopy(model.policy))
    for policy in policies:
        encoders: list[Any] = [each.encoder for each in policy.modules() if isinstance(each, NCDEExtractor)]
        for found in (
            [encoder.increment_scale for encoder in encoders],
            [encoder.summary.scale for encoder in encoders],
        ):
            assert all(scale is found[0] for scale in found)
            assert bool((found[0].scale != 1).any())


def test_the_scale_is_the_same_throughout_an_update() -> None:
    """Of several gradient steps, in which actor and critic learn by turns."""
    model = make(SAC)
    model.learn(60)
    scales = []
    for each in extractors(model):
        each.register_forward_hook(lambda module, *_: scales.append(module.encoder.increment_scale.scale))
    model.train(5, 8)
    assert len(scales) >= 5 * 5
    assert all(scale is scales[0] for scale in scales)
    model.policy.set_training_mode(False)
    assert extractors(model)[0].encoder.increment_scale.scale is not scales[0]


def test_two_agents_on_the_same_environments_have_a_scale_each() -> None:
    env = VecHistory(walk(action_space=BOX), history_length=3)
    first, second = make(SAC, env), make(TD3, env)
    first.learn(60)
    scales = [extractors(model)[0].encoder.increment_scale.scale for model in (first, second)]
    assert not th.equal(*scales)
    assert bool((scales[1] == 1).all())


def test_an_extractor_of_another_agent_keeps_its_scale() -> None:
    """A pretrained one that is put into a policy; the policy's own share theirs."""
    donor, model = make(SAC), make(SAC)
    donor.learn(60)
    pretrained = donor.policy.actor.features_extractor
    scale = pretrained.encoder.increment_scale
    model.policy.actor.features_extractor = pretrained
    assert pretrained.encoder.increment_scale is scale
    assert model.policy.critic.features_extractor.encoder.increment_scale is not scale


def test_the_ratio_of_ppo_begins_at_1() -> None:
    """The scale is the same from the first step of a rollout to the last update on it, evaluations between or not."""
    model = make(PPO, n_steps=64, batch_size=32, n_epochs=3)
    other: Any = VecHistory(walk(5), history_length=3)
    worst: list[float] = []

    class Ratio(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls % 20 == 0:
                self.model.policy.set_training_mode(True)
                self.model.policy.set_training_mode(False)
                self.model.predict(other.reset())
            return True

        def _on_rollout_end(self) -> None:
            buffer = copy.deepcopy(self.model.rollout_buffer)  # type: ignore[attr-defined]
            for batch in buffer.get(None):
                with th.no_grad():
                    _, log_prob, _ = self.model.policy.evaluate_actions(batch.observations, batch.actions.flatten())  # type: ignore[operator]
                worst.append(float((log_prob - batch.old_log_prob).exp().sub(1).abs().max()))

    model.learn(5 * 128, Ratio())
    assert len(worst) == 5
    assert max(worst) < 1e-5
    assert bool((extractors(model)[0].encoder.increment_scale.scale != 1).all())


def test_acting_changes_nothing() -> None:
    model = make(SAC)
    model.learn(60)
    before = copy.deepcopy(model.policy.state_dict())
    obs = model.get_env().reset()
    expected = model.predict(obs, deterministic=True)[0]
    for _ in range(50):
        model.predict(model.get_env().step(np.zeros((2, 1), np.float32))[0])
    after = model.policy.state_dict()
    assert all(th.equal(before[name], after[name]) for name in before)
    np.testing.assert_allclose(model.predict(obs, deterministic=True)[0], expected, atol=1e-6)


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO, MaskablePPO, SAC])
def test_an_encoder_begins_as_pytorch_has_it(algorithm: Any) -> None:
    """SB3's orthogonal weights, with larger rows and no biases, are for heads."""
    model = make(algorithm)
    layers = [layer for each in extractors(model) for layer in each.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) >= 5
    for layer in layers:
        bound = layer.in_features**-0.5
        assert 0.0 < layer.weight.abs().max() <= bound
        assert layer.bias is None or 0.0 < layer.bias.abs().max() <= bound
    if algorithm is not SAC:
        first = model.policy.mlp_extractor.policy_net[0]
        th.testing.assert_close(first.weight @ first.weight.T, 2.0 * th.eye(16))
        assert not first.bias.any()


def test_what_sees_each_observation_begins_as_sb3_has_it() -> None:
    model = make(PPO, walk(observation="image", action_space=spaces.Discrete(3)))
    extractor: Any = model.policy.features_extractor
    last = extractor.extractor.linear[0]
    th.testing.assert_close(last.weight.T @ last.weight, 2.0 * th.eye(last.in_features))
    assert not last.bias.any()
    assert extractor.encoder.initial[0].bias.any()


def test_what_else_is_applied_reaches_the_encoder() -> None:
    policy = make(PPO).policy
    seen: list[nn.Module] = []
    policy.apply(partial(list.append, seen))
    assert set(seen) == set(policy.modules())


def test_images_go_through_their_extractor_observation_by_observation() -> None:
    """With gradients to it, of all observations in the window, pixels from 0 to 1."""
    run = Run("image", 2, 20, 2, 0, history_length=3)
    for _ in range(4):
        run.step()
    space = run.env.observation_space
    extractor = NCDEExtractor(space)
    cnn: Any = extractor.extractor
    together = extractor(th.from_numpy(run.last))
    for env, row in enumerate(th.from_numpy(run.last)):
        count = int(row[0])
        assert count <= 3  # the window is the whole episode
        slots = row[2:].reshape(3, -1)[-count:]
        alone = cnn(slots[:, :-1].reshape(count, *space.observed.shape) / 255.0)
        state: Any = tuple(th.zeros(1, 1, extractor.encoder.hidden_size) for _ in range(2))
        starts = th.tensor([1.0] + [0.0] * (count - 1))
        features, _ = extractor.encoder.unroll(th.cat((alone, slots[:, -1:]), dim=1), state, starts)
        np.testing.assert_allclose(features[-1].numpy(force=True), together[env].numpy(force=True), atol=1e-5)
    together.sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in list(cnn.parameters())[:2])


def test_an_image_beside_a_vector_trains() -> None:
    model = make(SAC, walk(observation="dict_image", action_space=BOX), buffer_size=100)
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(24)
    convolutions = [name for name in before if "cnn.0.weight" in name]
    assert convolutions
    assert not any(th.equal(before[name], model.policy.state_dict()[name]) for name in convolutions)


def test_an_extractor_of_one_s_own() -> None:
    """``features_extractor_class`` within ``features_extractor_kwargs``, with its arguments."""

    class Two(FlattenExtractor):
        def __init__(self, observation_space: Any, width: int) -> None:
            super().__init__(observation_space)
            self.layer = nn.Linear(self.features_dim, width)
            self._features_dim = width

        def forward(self, observations: th.Tensor) -> th.Tensor:
            result: th.Tensor = self.layer(super().forward(observations))
            return result

    space = VecHistory(walk(), history_length=2).observation_space

    class Same(FlattenExtractor):
        pass

    for flat in (FlattenExtractor, Same):
        assert NCDEExtractor(space, features_extractor_class=flat).extractor is None
    two = NCDEExtractor(space, features_extractor_class=Two, features_extractor_kwargs={"width": 5})
    assert isinstance(two.extractor, Two)
    assert two.encoder.history.features_dim == 5

    class Own(NCDEExtractor):
        pass

    class Linear(BaseFeaturesExtractor):
        def __init__(self, observation_space: Any, width: int) -> None:
            super().__init__(observation_space, width)
            self.layer = nn.Linear(observation_space.shape[0], width)

        def forward(self, observations: th.Tensor) -> th.Tensor:
            result: th.Tensor = self.layer(observations)
            return result

    own = Own(space, features_extractor_class=Linear, features_extractor_kwargs={"width": 5})
    assert own.encoder.history.features_dim == 5
    missing = VecHistory(walk(), history_length=2, missing_values=True).observation_space
    with pytest.raises(ValueError, match="missing_values=True with Linear"):
        NCDEExtractor(missing, features_extractor_class=Linear, features_extractor_kwargs={"width": 5})
    with pytest.raises(TypeError, match="but no features_extractor_class that takes them"):
        NCDEExtractor(space, features_extractor_kwargs={"width": 5})
    named: Any = "NatureCNN"
    with pytest.raises(TypeError, match=r"'NatureCNN': expected a class of SB3's features extractors"):
        NCDEExtractor(space, features_extractor_class=named)


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_traces_are_not_of_what_an_extractor_makes(kind: str) -> None:
    """Whether it has weights or not."""

    class Doubled(BaseFeaturesExtractor):
        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, observation_space.shape[0])

        def forward(self, observations: th.Tensor) -> th.Tensor:
            return 2 * observations

    extractor = Doubled if kind == "vector" else CombinedExtractor
    env = walk(observation="box" if kind == "vector" else kind, action_space=BOX)
    kwargs: Any = {"features_extractor_kwargs": {"features_extractor_class": extractor}}
    if kind == "dict":
        kwargs["time_key"] = "time"
    with pytest.raises(ValueError, match=f"traces with {extractor.__name__}: a history has the summary"):
        make(SAC, env, traces=[4.0], **kwargs)
    make(SAC, env, **kwargs).learn(20)


def test_mistakes_are_named() -> None:
    space = VecHistory(walk(), history_length=2).observation_space
    make_extractor: Any = NCDEExtractor
    with pytest.raises(TypeError, match=r"reads histories.*VecHistory\(venv, history_length.*use NCDEPolicy"):
        PPO("MlpPolicy", walk(), policy_kwargs={"features_extractor_class": NCDEExtractor}, device="cpu")
    with pytest.raises(TypeError, match="history_length says what is remembered: give it to VecHistory"):
        make_extractor(space, history_length=3)
    with pytest.raises(TypeError, match=r"unexpected argument 'latent'\. It takes latent_size"):
        make_extractor(space, latent=3)
    with pytest.raises(ValueError, match="latent_size=0: expected at least 1"):
        make_extractor(space, latent_size=0)
    normalized = VecNormalize(VecHistory(walk(action_space=BOX), history_length=2))
    model = SAC("MlpPolicy", normalized, policy_kwargs={"features_extractor_class": NCDEExtractor}, device="cpu")
    with pytest.raises(
        ValueError, match=r"normalised counts and times: put it inside, VecHistory\(VecNormalize\(venv\)\)"
    ):
        model.predict(normalized.reset())


def test_with_memory_is_the_long_form() -> None:
    """The same agent, bit for bit."""
    algorithm: Any = {"learning_rate": 1e-3, "learning_starts": 8, "batch_size": 8, "seed": 0, "device": "cpu"}
    sizes = {"latent_size": 5}
    env = walk(action_space=BOX)
    short = with_memory(
        SAC,
        env,
        history_length=3,
        policy_kwargs={"net_arch": [8]},
        features_extractor_kwargs=sizes,
        **algorithm,
    ).learn(60)
    kwargs: Any = {"features_extractor_class": NCDEExtractor, "features_extractor_kwargs": sizes, "net_arch": [8]}
    long = SAC(
        "MlpPolicy",
        VecHistory(walk(action_space=BOX), history_length=3),
        policy_kwargs=kwargs | {"optimizer_kwargs": {"fused": True}},
        replay_buffer_class=HistoryReplayBuffer,
        **algorithm,
    ).learn(60)
    for one, other in zip(short.policy.parameters(), long.policy.parameters(), strict=True):
        assert th.equal(one, other)


def test_n_steps_of_the_algorithm_reach_the_buffer() -> None:
    """Which SB3 hands to its own alone."""
    buffer = make(SAC, n_steps=3).learn(40).replay_buffer
    assert (buffer.n_steps, buffer.gamma) == (3, 0.99)
    buffer = make(SAC, n_steps=2, gamma=0.9).learn(40).replay_buffer
    assert (buffer.n_steps, buffer.gamma) == (2, 0.9)
    buffer = make(SAC, replay_buffer_kwargs={"n_steps": 2}, gamma=0.9).learn(40).replay_buffer
    assert (buffer.n_steps, buffer.gamma) == (2, 0.9)
    with pytest.raises(ValueError, match=r"replay_buffer_kwargs discount by gamma=0\.5, the algorithm by 0\.99"):
        make(SAC, n_steps=2, replay_buffer_kwargs={"gamma": 0.5})

    class Own(SAC):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    own = walk(action_space=BOX)
    for kwargs, expected in ({}, (1, 0.0)), ({"n_steps": 3}, (3, 0.99)), ({"n_steps": 3, "gamma": 0.9}, (3, 0.9)):
        buffer = with_memory(Own, own, buffer_size=50, device="cpu", **kwargs).replay_buffer
        assert isinstance(buffer, HistoryReplayBuffer)
        assert (buffer.n_steps, buffer.gamma) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit itself
def test_a_trace_is_refused() -> None:
    model = make(SAC)
    with pytest.raises(RuntimeError, match="NCDEExtractor cannot be traced"):
        th.jit.trace(model.actor.features_extractor, th.as_tensor(model.get_env().reset()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_optimizer_is_the_algorithm_s_own(algorithm: Any) -> None:
    """But for its being fused, where that is known to change nothing else."""
    short = make(algorithm)
    policy_kwargs: Any = {"features_extractor_class": NCDEExtractor, "net_arch": [16]}
    extra: Any = {"replay_buffer_class": HistoryReplayBuffer, "batch_size": 8} if algorithm in OFF_POLICY else {}
    long = algorithm("MlpPolicy", short.get_env(), policy_kwargs=policy_kwargs, device="cpu", **extra)
    settings = []
    for model in (short, long):
        optimizer = getattr(model.policy, "optimizer", None) or model.policy.actor.optimizer
        settings.append((type(optimizer), {**optimizer.defaults, "fused": None}))
    assert settings[0] == settings[1]


def test_acting_under_inference_mode_may_be_followed_by_learning() -> None:
    for algorithm in (SAC, PPO):
        model = make(algorithm)
        model.learn(40)
        with th.inference_mode():
            model.predict(model.get_env().reset())
        model.learn(40)


def test_with_memory_takes_what_sb3_takes() -> None:
    """An id, an environment, several; an algorithm's other arguments; a buffer of the user's."""
    small: Any = {"n_steps": 16, "batch_size": 16}
    by_id = with_memory(PPO, "sb3_ncde/CartPoleNoVel-v1", history_length=2, device="cpu", **small)
    single = with_memory(PPO, gym.make("sb3_ncde/CartPoleNoVel-v1"), history_length=2, device="cpu", **small)
    for model in (by_id, single):
        assert isinstance(model.get_env(), VecHistory)
        model.learn(16)
    both = make(
        SAC,
        features_extractor_kwargs={"latent_size": 5},
        policy_kwargs={"features_extractor_kwargs": {"solver": "rk4"}},
    )
    arguments = extractors(both)[0].encoder.arguments
    assert (arguments.latent_size, arguments.solver) == (5, "rk4")
    monitored: Any = with_memory(PPO, Monitor(gym.make("sb3_ncde/CartPoleNoVel-v1")), device="cpu", **small).get_env()
    assert not isinstance(monitored.unwrapped.envs[0].env, Monitor)
    assert type(make(SAC, replay_buffer_class=ReplayBuffer).learn(20).replay_buffer) is ReplayBuffer
    adam = {"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.1}}
    model = make(A2C, policy_kwargs=adam)
    assert type(model.policy.optimizer) is th.optim.AdamW


def test_with_memory_refuses_what_cannot_be() -> None:
    with pytest.raises(TypeError, match="HerReplayBuffer writes other goals into stored observations"):
        make(SAC, replay_buffer_class=HerReplayBuffer)
    with pytest.raises(TypeError, match=r"latent_size is an argument of NCDEExtractor: features_extractor_kwargs=dict"):
        make(SAC, latent_size=4)
    with pytest.raises(ValueError, match=r"VecNormalize is wrapped around VecHistory.*put it inside"):
        make(SAC, VecNormalize(VecHistory(walk(action_space=BOX))))
    with pytest.raises(TypeError, match="wrapped in VecHistory already: give it history_length"):
        make(SAC, VecHistory(walk(action_space=BOX)), history_length=3)
    with pytest.raises(TypeError, match="ARS has a policy of its own, which takes no features extractor"):
        make(ARS)
    with pytest.raises(TypeError, match="The policies of RecurrentPPO have their memory inside"):
        make(RecurrentPPO)
    with pytest.raises(TypeError, match="unexpected keyword argument 'foo'"):
        make(PPO, foo=1)
    assert isinstance(make(SAC, replay_buffer_class=None).replay_buffer, HistoryReplayBuffer)  # SB3's own default
    alone = DummyVecEnv([lambda: RandomWalk(action_space=BOX)])
    monitored = VecMonitor(VecNormalize(VecHistory(alone)))
    with pytest.raises(ValueError, match=r"VecNormalize is wrapped around VecHistory.*or leave observations alone"):
        make(SAC, monitored)
    small: Any = {"learning_starts": 8, "batch_size": 8, "buffer_size": 200, "device": "cpu"}
    with_memory(SAC, VecNormalize(VecHistory(walk(action_space=BOX)), norm_obs=False), **small).learn(20)
    with pytest.raises(TypeError, match=r"CombinedExtractor.* would be given histories in place of observations"):
        make(SAC, policy_kwargs={"features_extractor_class": CombinedExtractor})
    with pytest.raises(TypeError, match="HistoryReplayBuffer stores histories, but the observation space is Box"):
        with_memory(SAC, VecFrameStack(VecHistory(walk(action_space=BOX)), 2), **small)
    make(SAC, policy_kwargs={"features_extractor_kwargs": None}, features_extractor_kwargs={"latent_size": 4})


def test_images_are_seen_as_such_or_refused() -> None:
    """A CNN that was asked for is never left out."""
    floats = DummyVecEnv([FloatImage])
    with pytest.raises(ValueError, match=r"CnnPolicy, but .* is no image as SB3 knows them, uint8 from 0 to 255"):
        make(SAC, floats, policy="CnnPolicy")
    with pytest.raises(ValueError, match="CnnPolicy, but"):
        make(SAC, floats, policy=SAC.policy_aliases["CnnPolicy"])

    class Own(NCDEExtractor):
        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, NatureCNN, {"normalized_image": True})

    model = make(SAC, floats, policy="CnnPolicy", policy_kwargs={"features_extractor_class": Own}, buffer_size=100)
    assert any(isinstance(module, nn.Conv2d) for module in model.actor.modules())
    cnn = {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"normalized_image": True}}
    model = make(SAC, floats, policy="CnnPolicy", features_extractor_kwargs=cnn, buffer_size=100).learn(20)
    assert any(isinstance(module, nn.Conv2d) for module in model.actor.modules())
    images = walk(observation="image", action_space=BOX)
    with pytest.raises(ValueError, match=r"normalize_images=False, but pixels of .* are divided by 255"):
        make(SAC, images, policy_kwargs={"normalize_images": False})
    assert any(isinstance(module, nn.Conv2d) for module in make(SAC, images, policy="CnnPolicy").actor.modules())


def test_missing_values_and_time_of_a_dict() -> None:
    """Sensors that fail at irregular times, for SAC."""
    venv = DummyVecEnv([lambda: Chance(observation="column", missing=0.3, action_space=BOX)])
    model = make(SAC, VecHistory(venv, history_length=3, time_key=1, dt=0.7, missing_values=True))
    model.learn(60)
    assert all(bool(weight.isfinite().all()) for weight in model.policy.parameters())
