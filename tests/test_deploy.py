"""Exported agents act as the models that they were made of, in NumPy and ONNX Runtime, and refuse what they cannot."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import ndonnx as ndx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import QRDQN, TQC, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from torch import nn

import sb3_ncde.deploy
from sb3_ncde import with_memory
from sb3_ncde.acting.observation_history import append as append_in_numpy
from sb3_ncde.acting.observation_history import unpack
from sb3_ncde.deploy import Agent, export_numpy, export_onnx
from sb3_ncde.deploy.contents import OtherFormatError
from sb3_ncde.deploy.layers import CannotExportError, layers_of
from sb3_ncde.deploy.networks import run
from sb3_ncde.deploy.numpy_arrays import NUMPY
from sb3_ncde.deploy.onnx_arrays import ONNX
from sb3_ncde.deploy.parity import ParityError
from sb3_ncde.deploy.solution import encode
from sb3_ncde.deploy.window import append
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import Traces
from sb3_ncde.history.window_rule import WindowRule
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.wrappers import ActionMaskObservation
from tests.envs import MaskedWalk, RandomWalk
from tests.test_acting import encoders, observed

BOX = spaces.Box(np.array([-2, -1], np.float32), np.array([1, 3], np.float32))
DISCRETE, MULTI, BINARY = spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)
N = 3


class Lossy(gym.ObservationWrapper[Any, Any, Any]):
    """Takes a third of the values of a walk away."""

    def observation(self, observation: Any) -> Any:
        walk = observation["walk"] if isinstance(observation, dict) else observation
        lost = np.where(self.np_random.random(walk.shape) < 0.3, np.float32(np.nan), walk)
        return observation | {"walk": lost} if isinstance(observation, dict) else lost


class ChannelsLast(gym.ObservationWrapper[Any, Any, Any]):
    """Shows images as cameras give them."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)

    def observation(self, observation: Any) -> Any:
        return np.moveaxis(observation, 0, -1)


def walks(*wrappers: Any, of: type[RandomWalk] = RandomWalk, **kwargs: Any) -> DummyVecEnv:
    """Return N walks, which show the same with the same seed, whatever is done in them."""

    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = of(longest=13, **kwargs)
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return DummyVecEnv([make] * N)


def recurrent(policy: str, env: Any, **kwargs: Any) -> RecurrentPPO:
    arguments: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "device": "cpu", "seed": 0}
    ppo = {name: kwargs.pop(name) for name in ("use_sde",) if name in kwargs}
    return RecurrentPPO(policy, env, policy_kwargs={"history_length": 3, **kwargs}, **arguments, **ppo)


def shaken(model: Any) -> Any:
    """Return a model whose actions depend on all that it observes."""
    generator = th.Generator().manual_seed(0)
    for name, tensor in model.policy.named_parameters():
        if "log_std" not in name:
            inputs = max(1, tensor.numel() // len(tensor))
            tensor.data += 0.5 / inputs**0.5 * th.randn(tensor.shape, generator=generator)
    for name, tensor in model.policy.named_buffers():
        if name.endswith(("scale.scale", "scale.mean_square")):
            tensor.data.uniform_(0.5, 2.0, generator=generator)
    return model


def normalized(env: Any, **kwargs: Any) -> VecNormalize:
    """Return environments normalised by statistics of some steps."""
    wrapped = VecNormalizeObserved(env, **kwargs)
    wrapped.reset()
    for _ in range(20):
        wrapped.step(np.stack([env.action_space.sample() for _ in range(N)]))
    wrapped.training = False
    return wrapped


MIXED = dict(time_key="time", dt=0.7, missing_values=True, traces=[2.0, 8.0])
CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "box": (partial(walks, action_space=BOX), lambda env: recurrent("NCDEPolicy", env, hop_length=1)),
    "normalized, missing values, elapsed, traces": (
        partial(walks, Lossy, observation="dict", action_space=DISCRETE),
        lambda env: recurrent("MultiInputNCDEPolicy", normalized(env, skip=["time"]), **MIXED),
    ),
    "timestamps in a column, hermite, rk4, projection": (
        partial(walks, observation="column", time_kind="timestamp", action_space=MULTI),
        lambda env: recurrent(
            "NCDEPolicy",
            normalized(env, skip=[1]),
            time_key=1,
            time_kind="timestamp",
            interpolation="hermite",
            solver="rk4",
            control_size=2,
            traces=True,
            history_length=5,
            hop_length=2,
        ),
    ),
    "timestamps under a key, rectilinear, two encoders": (
        partial(walks, observation="dict_scalar", time_kind="timestamp", action_space=BINARY),
        lambda env: recurrent(
            "MultiInputNCDEPolicy",
            env,
            time_key="time",
            time_kind="timestamp",
            interpolation="rectilinear",
            solver_steps=2,
            share_encoder=False,
            feature_norm="tanh",
            skip=False,
        ),
    ),
    "image, channels last": (
        partial(walks, ChannelsLast, observation="image", action_space=DISCRETE),
        lambda env: recurrent("CnnNCDEPolicy", env, feature_size=5, feature_norm="none"),
    ),
    "dict with an image": (
        partial(walks, observation="dict_image", action_space=BOX),
        lambda env: recurrent(
            "MultiInputNCDEPolicy", normalized(env), share_features_extractor=False, squash_output=True, use_sde=True
        ),
    ),
    "mask": (
        partial(walks, ActionMaskObservation, of=MaskedWalk, observation="dict", action_space=MULTI),
        lambda env: recurrent("MultiInputNCDEPolicy", env, action_mask_key="action_mask", history_length=1),
    ),
    "mask of bits": (
        partial(walks, ActionMaskObservation, of=MaskedWalk, action_space=BINARY),
        lambda env: recurrent("MultiInputNCDEPolicy", env, action_mask_key="action_mask"),
    ),
    "discrete observations": (
        partial(walks, observation="discrete", action_space=BOX),
        lambda env: recurrent("NCDEPolicy", env, field_depth=0, path_in_field=False, time_channel=False, rates=False),
    ),
    "critic that sees more": (
        partial(walks, observation="dict", action_space=DISCRETE),
        lambda env: recurrent("MultiInputNCDEPolicy", env, time_key="time", critic_keys=["flag"]),
    ),
    "PPO, several discrete observations": (
        partial(walks, observation="multi_discrete", action_space=DISCRETE),
        lambda env: with_memory(PPO, env, history_length=4, n_steps=8, batch_size=8, device="cpu"),
    ),
    "PPO, two encoders": (
        partial(walks, Lossy, action_space=BOX),
        lambda env: with_memory(
            PPO,
            normalized(env),
            history_length=4,
            missing_values=True,
            n_steps=8,
            batch_size=8,
            policy_kwargs={"share_features_extractor": False},
            device="cpu",
        ),
    ),
    "PPO, image": (
        partial(walks, observation="image", action_space=DISCRETE),
        lambda env: with_memory(PPO, env, policy="CnnPolicy", history_length=3, n_steps=8, batch_size=8, device="cpu"),
    ),
    "SAC": (
        partial(walks, observation="dict", action_space=BOX),
        lambda env: with_memory(
            SAC, normalized(env, skip=["time"]), history_length=4, time_key="time", buffer_size=99, device="cpu"
        ),
    ),
    "SAC with gSDE": (
        partial(walks, action_space=BOX),
        lambda env: with_memory(SAC, env, history_length=2, use_sde=True, buffer_size=99, device="cpu"),
    ),
    "TD3": (
        partial(walks, observation="matrix", action_space=BOX),
        lambda env: with_memory(TD3, env, history_length=4, buffer_size=99, device="cpu"),
    ),
    "DQN": (
        partial(walks, observation="multi_binary", action_space=DISCRETE),
        lambda env: with_memory(DQN, env, history_length=4, traces=True, buffer_size=99, device="cpu"),
    ),
    "QRDQN": (
        partial(walks, action_space=DISCRETE),
        lambda env: with_memory(QRDQN, env, history_length=2, buffer_size=99, device="cpu"),
    ),
    "TQC": (
        partial(walks, action_space=BOX),
        lambda env: with_memory(TQC, env, history_length=2, buffer_size=99, device="cpu"),
    ),
    "CrossQ": (
        partial(walks, action_space=BOX),
        lambda env: with_memory(CrossQ, env, history_length=2, buffer_size=99, device="cpu"),
    ),
}
"""By name: environments, and what makes an agent for them."""
IN_ONNX = (
    "box",
    "normalized, missing values, elapsed, traces",
    "timestamps in a column, hermite, rk4, projection",
    "timestamps under a key, rectilinear, two encoders",
    "image, channels last",
    "dict with an image",
    "mask",
    "SAC",
)
"""Cases of which a graph is made as well; the others have nothing new for one."""


def assert_same(expected: Any, found: Any) -> None:
    if np.asarray(expected).dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", CASES)
def test_exported_agents_act_as_their_model(name: str, tmp_path: Path) -> None:
    """On raw observations, over episodes that begin at different times in three environments."""
    make_env, make_model = CASES[name]
    model = shaken(make_model(make_env()))
    formats = [export_numpy, export_onnx] if name in IN_ONNX else [export_numpy]
    told = [export(model, tmp_path / f"agent.{export.__name__[7:]}") for export in formats]
    assert all(difference <= 1e-5 for each in told for difference in each["parity"]["largest_difference"].values())
    agent = Agent.load(tmp_path / "agent.numpy")
    session = None
    if export_onnx in formats:
        graph = onnx.load(tmp_path / "agent.onnx")
        onnx.checker.check_model(graph, full_check=True)
        assert not {node.op_type for node in graph.graph.node} & {"If", "Loop", "Scan"}
        assert {prop.key: prop.value for prop in graph.metadata_props}["sha256"] == told[0]["sha256"]
        session = ort.InferenceSession(tmp_path / "agent.onnx")
        history = np.zeros((N, session.get_inputs()[-1].shape[1]), np.float32)

    env, raw = model.get_env(), make_env()
    env.seed(7)
    raw.seed(7)
    observation, shown = env.reset(), raw.reset()
    state, starts = None, np.ones(N, bool)
    for _ in range(30):
        action, state = model.predict(observation, state, starts, deterministic=True)
        agent.reset(starts)
        assert_same(action, agent.act(shown))
        if session is not None:
            outputs = in_session(session, agent.metadata, shown, starts, history)
            assert_same(action, outputs["action"])
            history = outputs["next_history"]
            np.testing.assert_allclose(history, agent.state, rtol=1e-5, atol=1e-5)
        observation, _, starts, _ = env.step(action)
        shown, _, _, _ = raw.step(action)


def in_session(session: ort.InferenceSession, told: Any, shown: Any, starts: Any, history: Any) -> dict[str, Any]:
    """Return the outputs of a graph, given as docs/deployment.md says."""
    given = dict(shown) if isinstance(shown, dict) else {"observation": shown}
    clock = told["clock"]
    if isinstance(clock["key"], str):
        given[clock["kind"]] = given.pop(clock["key"]).reshape(-1)
    elif clock["key"] is None:
        given["elapsed"] = np.full(N, clock["unit"], np.float32)
    given |= {"episode_start": starts, "history": history}
    names = [output.name for output in session.get_outputs()]
    needed = {part.name for part in session.get_inputs()}
    return dict(zip(names, session.run(names, {name: given[name] for name in needed}), strict=True))


@settings(max_examples=20)
@given(encoder=encoders(th.float32), n_steps=st.integers(1, 25), missing=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_window_solved_as_a_whole_is_what_stepping_gives(encoder: Any, n_steps: int, missing: float) -> None:
    """With any arguments of the encoder, at any times, whatever is missing: what goes into a graph, here in NumPy."""
    description, weights = encoder.in_numpy()
    rows, state, starts = observed(encoder, 2, n_steps, missing)
    rows, starts = rows.view(2, n_steps, -1), starts.view(2, n_steps)
    history = np.zeros((2, description.layout.packed_size), np.float32)
    for step in range(n_steps):
        seen, state = encoder.step(rows[:, step], state, starts[:, step])
        features, time = rows[:, step, :-1].numpy(), rows[:, step, -1].numpy()
        window = append(NUMPY, description.layout, history, features, time, starts[:, step].numpy() > 0)
        history = window.packed
        expected = th.cat(state, dim=-1)[0, :, : history.shape[1]].numpy()
        np.testing.assert_allclose(history, expected, rtol=1e-6, atol=1e-6)
        found = encode(NUMPY, description, weights, window)
        np.testing.assert_allclose(found, seen.numpy(), rtol=1e-3, atol=1e-4)


def in_graph(network: list[dict[str, Any]], rows: Any) -> Any:
    """Return what layers make of rows in ONNX Runtime."""
    given = ndx.argument(shape=("N", *rows.shape[1:]), dtype=ndx.float32)
    graph = ndx.build({"rows": given}, {"out": run(ONNX, network, given)})
    return ort.InferenceSession(graph.SerializeToString()).run(["out"], {"rows": rows})[0]


def test_layers_are_those_of_pytorch() -> None:
    """Each activation and norm that is known, one after the other, for values that are large as well."""
    norm = nn.BatchNorm1d(6)
    norm(10 * th.randn(50, 6))
    activations = [nn.Tanh(), nn.ReLU(), nn.ELU(0.7), nn.LeakyReLU(0.3), nn.SiLU(), nn.Sigmoid(), nn.Softplus()]
    others = [nn.Hardtanh(-0.4, 0.6), nn.LayerNorm(6), norm, nn.LayerNorm(6, elementwise_affine=False), nn.Identity()]
    rows = 30 * th.randn(4, 6)
    for layer in [*activations, *others, nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3, bias=False)]:
        module = nn.Sequential(nn.Linear(6, 6), layer, nn.Dropout(0.5)).eval()
        layers = layers_of(module, "net")
        expected = module(rows).detach().numpy()
        np.testing.assert_allclose(run(NUMPY, layers, rows.numpy()), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(in_graph(layers, rows.numpy()), expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
)
def test_convolutions_are_those_of_pytorch(size: Any, kernel: Any, stride: Any, padding: Any, bias: bool) -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, kernel, stride, padding, bias=bias), nn.Flatten())
    images, layers = th.randn(2, 2, *size), layers_of(module, "net")
    expected = module(images).detach().numpy()
    np.testing.assert_allclose(run(NUMPY, layers, images.numpy()), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(in_graph(layers, images.numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.PReLU(), "net.0.*PReLU"),
        (nn.Conv2d(1, 1, 2, dilation=2), "dilation=1"),
        (nn.Conv2d(1, 1, 3, padding="same"), "padding"),
        (nn.LayerNorm((2, 3)), "one dimension"),
    ],
)
def test_layers_that_are_not_known_are_named(module: nn.Module, name: str) -> None:
    with pytest.raises(CannotExportError, match=name):
        layers_of(nn.Sequential(module), "net")


class Squarer(BaseFeaturesExtractor):
    """A network of a user's own: its layers are known, but what it does with them is not."""

    def __init__(self, space: spaces.Box, power: int) -> None:
        super().__init__(space, 4)
        self.net, self.power = nn.Linear(3, 4), power

    def forward(self, rows: th.Tensor) -> th.Tensor:
        out: th.Tensor = self.net(rows) ** self.power
        return out


def test_a_network_of_ones_own_is_compared_before_a_file_is_written(tmp_path: Path) -> None:
    """One whose layers follow each other is written, one that does more is not, and what was there stays."""
    kwargs = {"features_extractor_class": Squarer, "features_extractor_kwargs": {"power": 1}}
    export_numpy(shaken(recurrent("NCDEPolicy", walks(), **kwargs)), tmp_path / "agent.npz")
    before = (tmp_path / "agent.npz").read_bytes()
    kwargs["features_extractor_kwargs"] = {"power": 2}
    with pytest.raises(ParityError, match="No file was written"):
        export_numpy(shaken(recurrent("NCDEPolicy", walks(), **kwargs)), tmp_path / "agent.npz")
    assert (tmp_path / "agent.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["agent.npz"]


class OfDict(Squarer):
    """An extractor that reads a Dict in a way of its own."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__(space["walk"], 1)  # type: ignore[arg-type]

    def forward(self, rows: Any) -> th.Tensor:
        return super().forward(rows["walk"])


def renamed(observation: Any) -> Any:
    return {"history": observation["walk"], "flag": observation["flag"]}


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "adaptive solver": (lambda: recurrent("NCDEPolicy", walks(), solver="dopri5"), "dopri5.*steps of fixed size"),
    "no memory": (lambda: PPO("MlpPolicy", walks(), n_steps=8, batch_size=8, device="cpu"), "no memory of this"),
    "LSTM": (lambda: RecurrentPPO("MlpLstmPolicy", walks(), n_steps=8, device="cpu"), "no memory of this"),
    "MaskablePPO": (
        lambda: with_memory(MaskablePPO, walks(of=MaskedWalk), history_length=2, n_steps=8, batch_size=8, device="cpu"),
        "action_mask_key",
    ),
    "Dict read in a way of its own": (
        lambda: recurrent(
            "MultiInputNCDEPolicy", walks(observation="dict"), time_key="time", features_extractor_class=OfDict
        ),
        "OfDict.*way of its own",
    ),
    "normalized time": (
        lambda: recurrent("NCDEPolicy", VecNormalize(walks(observation="column")), time_key=1),
        "time, 1, is normalised",
    ),
    "stacked frames": (
        lambda: recurrent("NCDEPolicy", VecFrameStack(VecNormalize(walks()), 2)),
        "VecFrameStack changes observations",
    ),
    "key with the name of an input": (
        lambda: recurrent(
            "MultiInputNCDEPolicy",
            walks(
                lambda env: gym.wrappers.TransformObservation(
                    env, renamed, spaces.Dict({"history": env.observation_space["walk"], "flag": spaces.Discrete(3)})
                ),
                observation="dict",
            ),
        ),
        "'history'.*rename",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_cannot_say_is_refused(name: str, tmp_path: Path) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(CannotExportError, match=reason):
        export_onnx(make(), tmp_path / "agent.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_without_environments_is_told_its_normalisation(tmp_path: Path) -> None:
    env = normalized(walks())
    model = shaken(recurrent("NCDEPolicy", env))
    expected = export_numpy(model, tmp_path / "agent.npz")
    model.save(tmp_path / "model")
    model = RecurrentPPO.load(tmp_path / "model", device="cpu")
    assert export_numpy(model, tmp_path / "agent.npz", env)["sha256"] == expected["sha256"]
    with pytest.warns(UserWarning, match="its normalisation is not known"):
        raw = export_numpy(model, tmp_path / "agent.npz")
    assert raw["inputs"][0]["mean"] is None


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent with times, missing values and traces, in a file."""
    path = tmp_path_factory.mktemp("timed") / "agent.npz"
    env = walks(Lossy, observation="dict", action_space=BOX)
    model = shaken(recurrent("MultiInputNCDEPolicy", env, **MIXED))
    export_numpy(model, path, env=Lossy(RandomWalk("dict", BOX)), n_episodes=2)
    return path


def log(n_steps: int) -> list[tuple[dict[str, Any], float]]:
    rng = np.random.default_rng(0)
    walk = [np.where(rng.random(3) < 0.3, np.nan, rng.normal(size=3)) for _ in range(n_steps)]
    return [({"walk": part, "flag": int(rng.integers(3))}, float(rng.exponential())) for part in walk]


def test_a_process_that_comes_back_goes_on_as_if_it_had_never_been_gone(timed: Path) -> None:
    """From its log or from its state, in the middle of an episode that is longer than its window."""
    steps = log(20)
    agent, other, third = (Agent.load(timed) for _ in range(3))
    actions = [agent.act(*step) for step in steps[:13]]
    np.testing.assert_array_equal(other.replay(steps[:13]), actions)
    third.state = agent.state
    np.testing.assert_array_equal(agent.state, other.state)
    for step in steps[13:]:
        action = agent.act(*step)
        np.testing.assert_array_equal(other.act(*step), action)
        np.testing.assert_allclose(third.act(*step), action, rtol=1e-6, atol=1e-6)


def test_a_batch_is_its_rows_and_a_reset_is_a_beginning(timed: Path) -> None:
    batch, alone = Agent.load(timed), [Agent.load(timed) for _ in range(2)]
    for step, ((first, elapsed), (second, _)) in enumerate(zip(log(12), log(14)[2:], strict=True)):
        done = np.array([step == 5, step in (3, 4)])
        batch.reset(done)
        both = {key: np.stack([first[key], second[key]]) for key in first}
        actions = batch.act(both, [elapsed, 2 * elapsed])
        for env, (agent, observation) in enumerate(zip(alone, (first, second), strict=True)):
            if done[env]:
                agent.reset()
            action = agent.act(observation, (env + 1) * elapsed)
            np.testing.assert_allclose(action, actions[env], rtol=1e-5, atol=1e-6)
    batch.reset([True, False])
    assert not batch.state[0].any()
    assert batch.state[1].any()
    batch.reset()
    assert batch.state.shape == (0, alone[0].state.shape[1])


def test_time_may_stand_in_the_observation_or_beside_it(timed: Path) -> None:
    beside, inside = Agent.load(timed), Agent.load(timed)
    beside.act(log(1)[0][0])  # of the first observation it is not read
    inside.act(log(1)[0][0], elapsed=np.nan)
    for observation, elapsed in log(5):
        action = beside.act(observation, elapsed)
        np.testing.assert_array_equal(inside.act(observation | {"time": np.array([elapsed])}), action)


def test_elapsed_time_counts_in_nominal_steps_where_training_had_none(tmp_path: Path) -> None:
    model = shaken(recurrent("NCDEPolicy", walks(action_space=BOX), dt=0.05))
    export_numpy(model, tmp_path / "agent.npz")
    nominal, told, late = (Agent.load(tmp_path / "agent.npz") for _ in range(3))
    rng = np.random.default_rng(0)
    for step in range(6):
        walk = rng.normal(size=3)
        action = nominal.act(walk)
        np.testing.assert_array_equal(told.act(walk, elapsed=0.05), action)
        assert (np.abs(late.act(walk, elapsed=0.15) - action).max() > 1e-4) == (step > 0)


OBSERVATION = {"walk": np.zeros(3), "flag": 1}
WRONG: dict[str, tuple[Any, Any, str]] = {
    "another shape": ({"walk": np.zeros(4), "flag": 1}, 1.0, r"'walk' has the shape \(4,\), but expected \(3,\)"),
    "no such option": ({"walk": np.zeros(3), "flag": 3}, 1.0, "'flag' is 3, but its options are"),
    "infinite": ({"walk": np.array([0, np.inf, 0]), "flag": 1}, 1.0, "infinite"),
    "too large": ({"walk": np.array([0, 1e20, 0]), "flag": 1}, 1.0, "feature 4 of the observation is 1e.20"),
    "a key too few": ({"walk": np.zeros(3)}, 1.0, r"keys \['flag', 'walk'\]"),
    "a key too many": (OBSERVATION | {"wlak": 1}, 1.0, "wlak"),
    "no Dict": (np.zeros(3), 1.0, "but got ndarray"),
    "different numbers": ({"walk": np.zeros((2, 3)), "flag": 1}, 1.0, "different numbers"),
    "other environments": ({"walk": np.zeros((2, 3)), "flag": [1, 1]}, 1.0, "2 environments, but the state is of 1"),
    "no time": (OBSERVATION, None, "no time: pass elapsed"),
    "time that runs back": (OBSERVATION, -0.1, "the time is -0.1"),
    "NaN as time": (OBSERVATION, np.nan, "the time is nan"),
    "two times": (OBSERVATION, [1.0, 1.0], "2 times for 1 environments"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_and_changes_nothing(name: str, timed: Path) -> None:
    agent = Agent.load(timed)
    agent.act(OBSERVATION, 1.0)
    before = agent.state
    observation, elapsed, reason = WRONG[name]
    with pytest.raises(ValueError, match=reason):
        agent.act(observation, elapsed)
    np.testing.assert_array_equal(agent.state, before)
    agent.act(OBSERVATION, 1.0)


def test_nan_timestamps_and_masks_are_looked_at(tmp_path: Path) -> None:
    walk = Agent.load(exported("box", tmp_path))
    with pytest.raises(ValueError, match=r"feature 1 of the observation is nan.*missing_values=True"):
        walk.act(np.array([0, np.nan, 0]))
    with pytest.raises(ValueError, match="Expected an array"):
        walk.act((np.zeros(3), {}))
    walk.state = walk.state
    with pytest.raises(ValueError, match=r"this agent's is \(N, "):
        walk.state = np.zeros((1, 3))
    walk.act(np.zeros(3))
    with pytest.raises(ValueError, match="done has the shape"):
        walk.reset([True, False])
    column = Agent.load(exported("timestamps in a column, hermite, rk4, projection", tmp_path))
    column.act(np.array([0, 5, 0, 0]))
    for time, reason in ((4, "the time is 4 after 5"), (1e9, "tell steps")):
        with pytest.raises(ValueError, match=reason):
            column.act(np.array([0, time, 0, 0]))
    with pytest.raises(ValueError, match="reads the time in the observation, as 1"):
        column.act(np.array([0, 6, 0, 0]), elapsed=1.0)
    masked = Agent.load(exported("mask of bits", tmp_path))
    for mask in ([0, 0, 1, 1, 1, 1], [2, 1, 1, 1, 1, 1]):
        with pytest.raises(ValueError, match="The action mask is"):
            masked.act({"observation": np.zeros(3), "action_mask": mask})


def exported(name: str, folder: Path) -> Path:
    make_env, make_model = CASES[name]
    export_numpy(shaken(make_model(make_env())), folder / "agent.npz")
    return folder / "agent.npz"


def test_timestamps_have_to_be_there(tmp_path: Path) -> None:
    agent = Agent.load(exported("timestamps under a key, rectilinear, two encoders", tmp_path))
    observation = {"scalar": 0.0, "bits": [0, 1, 1]}
    with pytest.raises(ValueError, match="'time' in the observation"):
        agent.act(observation)
    told = agent.step({"scalar": [0.0], "bits": [[0, 1, 1]], "time": [3.0]})
    assert {name: values.shape for name, values in told.items()} == {"action": (1, 3), "logits": (1, 3), "value": (1,)}


def test_a_file_of_another_version_is_refused_by_its_name(timed: Path, tmp_path: Path) -> None:
    with np.load(timed) as file:
        arrays = dict(file)
    metadata = json.loads(arrays["metadata.json"].tobytes())

    def written(metadata: dict[str, Any], **changed: Any) -> Path:
        text = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
        np.savez(tmp_path / "changed.npz", **arrays | changed | {"metadata.json": text})
        return tmp_path / "changed.npz"

    with pytest.raises(OtherFormatError, match=r"changed.npz has the format version 99 \(written by sb3-ncde 0"):
        Agent.load(written(metadata | {"format_version": 99}))
    with pytest.raises(OtherFormatError, match="'something else'"):
        Agent.load(written(metadata | {"format": "something else"}))
    weight = next(name for name in arrays if name.endswith("weight"))
    with pytest.raises(OtherFormatError, match="SHA-256"):
        Agent.load(written(metadata, **{weight: 1.001 * arrays[weight]}))
    (tmp_path / "text.npz").write_text("no agent")
    with pytest.raises(OtherFormatError, match="not a file"):
        Agent.load(tmp_path / "text.npz")


def test_exporting_changes_nothing_of_a_model_that_learns(tmp_path: Path) -> None:
    """Not its weights and scales, nor what it warns of, and learning goes on as if nothing had been exported."""

    def learned(export: bool) -> dict[str, th.Tensor]:
        model = recurrent("NCDEPolicy", make_vec_env("sb3_ncde/PendulumNoVel-v1", 2, seed=0), use_sde=True)
        model.learn(64)
        if export:
            export_numpy(model, tmp_path / "agent.npz", tolerance=1e-4)
            policy: Any = model.policy
            assert not policy._range_watch._warned
        return model.learn(64).policy.state_dict()

    expected, found = learned(False), learned(True)
    for name, tensor in expected.items():
        assert th.equal(tensor, found[name]), name


WITHOUT_PYTORCH = """
import sys
for name in ("torch", "stable_baselines3", "gymnasium", "sb3_contrib"):
    sys.modules[name] = None
import sb3_ncde, numpy as np
from sb3_ncde.deploy import Agent
agent = Agent.load(sys.argv[1])
print(sb3_ncde.__version__, agent.act({"walk": np.zeros(3), "flag": 1}).tolist())
for name in ("NCDEPolicy", "nothing"):
    try:
        getattr(sb3_ncde, name)
    except (ImportError, AttributeError) as error:
        print(type(error).__name__, error)
"""


def test_an_agent_acts_where_pytorch_is_not_installed(timed: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_PYTORCH, str(timed)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == f"{sb3_ncde.__version__} {Agent.load(timed).act(OBSERVATION).tolist()}"
    assert lines[1].startswith("ImportError sb3_ncde.NCDEPolicy needs PyTorch")
    assert lines[2] == "AttributeError module 'sb3_ncde' has no attribute 'nothing'"
    with pytest.raises(AttributeError, match="nothing"):
        _ = sb3_ncde.deploy.nothing


@pytest.mark.parametrize("rule", [WindowRule(4, 2), WindowRule(5, 3), WindowRule(1, 1)])
def test_a_long_episode_counts_on_as_in_a_rollout(rule: WindowRule) -> None:
    """Where the count starts over, since float32 counts no further."""
    layout = Layout(rule, 2, 1.0, False, False, Traces((4.0,), 2, False))
    rng, half = np.random.default_rng(0), (layout.packed_size + 1) // 2
    packed = np.zeros((2, 2 * half), np.float32)
    packed[:, : layout.packed_size] = rng.normal(size=(2, layout.packed_size))
    packed[:, 0] = packed[:, layout.packed_size - 2] = rule.most - np.arange(2, 4)
    stepped = unpack((packed[None, :, :half], packed[None, :, half:]), rule)
    history = packed[:, : layout.packed_size]
    for _ in range(6):
        features, step = rng.normal(size=(2, 2)).astype(np.float32), (np.ones(2, np.float32), np.zeros(2, bool))
        stepped = append_in_numpy(stepped, features, *step, layout)
        history = append(NUMPY, layout, history, features, *step).packed
        np.testing.assert_allclose(history, stepped.packed[:, : layout.packed_size], rtol=1e-5, atol=1e-5)
    assert (history[:, 0] < 20).all()
