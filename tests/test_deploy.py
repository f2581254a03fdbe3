"""Exported agents act as the models that they were made of, in NumPy and ONNX Runtime, or there is no file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize
from torch import nn

from sb3_ncde import with_memory
from sb3_ncde.acting.observation_history import append as append_in_numpy
from sb3_ncde.acting.observation_history import unpack
from sb3_ncde.deploy import Agent, export_numpy, export_onnx
from sb3_ncde.deploy.heads import Heads
from sb3_ncde.deploy.layers import CannotExportError
from sb3_ncde.deploy.numpy_arrays import NUMPY
from sb3_ncde.deploy.parity import ParityError
from sb3_ncde.deploy.solution import encode
from sb3_ncde.deploy.window import append
from sb3_ncde.history.layout import Layout
from sb3_ncde.history.traces import Traces
from sb3_ncde.history.window_rule import WindowRule
from tests.agents import CASES, N, normalized, recurrent, shaken, walks
from tests.envs import MaskedWalk
from tests.test_acting import encoders, observed

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


@pytest.mark.filterwarnings("ignore:The observation has a key")
@pytest.mark.parametrize("name", CASES)
def test_exported_agents_act_as_their_model(name: str, tmp_path: Path) -> None:
    """On raw observations, over episodes that begin at different times in three environments."""
    make_env, make_model = CASES[name]
    model = shaken(make_model(make_env()))
    formats = [export_numpy, export_onnx] if name in IN_ONNX else [export_numpy]
    told = [export(model, tmp_path / f"agent.{export.__name__[7:]}") for export in formats]
    agent = Agent.load(tmp_path / "agent.numpy")
    said = {"action", agent.metadata["heads"]["parameters"]}
    said |= {name for name in ("log_std", "value") if agent.metadata["heads"][name] is not None}
    for each in told:
        compared = {key.rpartition(" ")[2] for key in each["parity"]["largest_difference"]}
        assert said <= compared, "an output is in the file, and was not compared"
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


@settings(max_examples=50)
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


class Clamped(Squarer):
    """It differs from its layers where observations are large alone."""

    def forward(self, rows: th.Tensor) -> th.Tensor:
        return super().forward(rows.clamp(-10, 10))


def test_what_shows_on_large_observations_alone_is_found(tmp_path: Path) -> None:
    kwargs = {"features_extractor_class": Clamped, "features_extractor_kwargs": {"power": 1}}
    with pytest.raises(ParityError, match="large observations"):
        export_numpy(shaken(recurrent("NCDEPolicy", walks(), **kwargs)), tmp_path / "agent.npz")


@pytest.mark.parametrize(("name", "output"), [("SAC", "log_std"), ("box", "log_std"), ("QRDQN", "q_values")])
def test_what_no_action_depends_on_is_compared_too(
    name: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_env, make_model = CASES[name]
    act = Heads.act

    def wrong(heads: Heads, *args: Any) -> dict[str, Any]:
        outputs = act(heads, *args)
        return outputs | {output: outputs[output] + 1e-3}

    monkeypatch.setattr(Heads, "act", wrong)
    with pytest.raises(ParityError, match=output):
        export_numpy(shaken(make_model(make_env())), tmp_path / "agent.npz")


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"n_episodes": 0}, ValueError, "n_episodes=0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance=nan"),
        ({"vec_normalize": "agent.pkl"}, TypeError, "vec_normalize is a str"),
        ({"path": "nowhere/agent.npz"}, FileNotFoundError, "no folder nowhere"),
    ],
)
def test_arguments_are_looked_at_first(arguments: Any, error: type[Exception], reason: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=reason):
        export_numpy(recurrent("NCDEPolicy", walks()), **{"path": tmp_path / "agent.npz", **arguments})


def test_statistics_have_to_be_those_of_the_training(tmp_path: Path) -> None:
    """Neither left out, where a trained agent is loaded with raw environments, nor of another one."""
    env = normalized(walks())
    recurrent("NCDEPolicy", env).learn(8).save(tmp_path / "model")
    model = RecurrentPPO.load(tmp_path / "model", env=walks(), device="cpu")
    with pytest.raises(ValueError, match="whose statistics it needs"):
        export_numpy(model, tmp_path / "agent.npz")
    other = VecNormalize(make_vec_env("sb3_ncde/PendulumNoVel-v1"))
    with pytest.raises(CannotExportError, match=r"statistics of the shape \(2,\).*has the shape \(3,\)"):
        export_numpy(model, tmp_path / "agent.npz", other)
    export_numpy(model, tmp_path / "agent.npz", env)


class OfDict(Squarer):
    """An extractor that reads a Dict in a way of its own."""

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__(space["walk"], 1)  # type: ignore[arg-type]

    def forward(self, rows: Any) -> th.Tensor:
        return super().forward(rows["walk"])


def renamed(env: Any, name: str) -> Any:
    """Return an environment whose walk is called otherwise."""
    space = spaces.Dict({name: env.observation_space["walk"], "flag": spaces.Discrete(3)})
    return gym.wrappers.TransformObservation(
        env, lambda observation: {name: observation["walk"], "flag": observation["flag"]}, space
    )


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
        lambda: recurrent("MultiInputNCDEPolicy", walks(partial(renamed, name="history"), observation="dict")),
        "'history'.*rename",
    ),
    "key with the name of an output": (
        lambda: recurrent("MultiInputNCDEPolicy", walks(partial(renamed, name="action"), observation="dict")),
        "'action'.*rename",
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
