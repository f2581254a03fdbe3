"""Agent, in NumPy alone: its state, its time, what it refuses, and the file that it is made of."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sb3_ncde.deploy
from sb3_ncde.deploy import Agent, export_numpy
from sb3_ncde.deploy.contents import OtherFormatError
from tests.agents import BOX, MIXED, Lossy, exported, recurrent, shaken, walks
from tests.envs import RandomWalk


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


@pytest.mark.parametrize(
    ("elapsed", "warning"),
    [
        (lambda step: 0.7, None),
        (lambda step: 700.0, "700 passes on average, but the nominal step of the training, dt, is 0.7"),
        (lambda step: 0.7 + 1e-3 * step, None),  # a loop that becomes slower
        (lambda step: 0.7 * step, "rises from each observation to the next, as the time since"),
    ],
)
def test_times_of_another_unit_are_warned_of_once(elapsed: Any, warning: str | None, timed: Path) -> None:
    agent, found = Agent.load(timed), []
    for step, (observation, _) in enumerate(log(600)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            agent.act(observation, elapsed(step % 200))
        if step % 200 == 199:
            agent.reset()
        found += [(str(each.message), Path(each.filename).name) for each in caught]
    assert len(found) == (warning is not None)
    for message, file in found:
        assert warning is not None
        assert warning in message
        assert file == "test_agent.py"  # where the user's line is


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
    "infinite beside null": ({"walk": [None, np.inf, 0], "flag": 1}, 1.0, "infinite"),
    "text": ({"walk": ["1", "2", "3"], "flag": 1}, 1.0, "expected numbers"),
    "no option": ({"walk": np.zeros(3), "flag": None}, 1.0, "its options are"),
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
    walk.act(np.ones(3))
    for place, wrong in ((0, np.nan), (0, 0.5), (0, -3.0), (0, 1e9), (2, 1.0), (-1, -1.0)):
        state = walk.state
        state[0, place] = wrong
        with pytest.raises(ValueError, match="no history of this agent is like this"):
            walk.state = state
    walk.reset(True)
    assert not walk.state.any()
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
    whole, rng = timed.read_bytes(), np.random.default_rng(0)
    for number, place in enumerate(rng.integers(len(whole), size=40)):
        bits = bytearray(whole)
        bits[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged.npz").write_bytes(bits if number % 2 else whole[:place])
        try:
            action = Agent.load(tmp_path / "damaged.npz").act(OBSERVATION)
        except OtherFormatError:
            continue
        np.testing.assert_array_equal(action, Agent.load(timed).act(OBSERVATION))  # what was hit does not matter
    (tmp_path / "text.npz").write_text("no agent")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("text.npz", "array.npy"):
        with pytest.raises(OtherFormatError, match="not a file"):
            Agent.load(tmp_path / name)


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
