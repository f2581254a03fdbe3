"""HistoryReplayBuffer: a history that is sampled is the one that was acted on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import SAC
from stable_baselines3.common import buffers
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.save_util import load_from_pkl, save_to_pkl
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde import HistoryReplayBuffer, VecHistory, with_memory
from sb3_ncde.acting.observation_history import Histories, append
from sb3_ncde.history import window_rule
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.space import HistorySpace
from sb3_ncde.normalize import VecNormalizeObserved
from tests.envs import RandomWalk
from tests.histories import KINDS, Chance, Run

BOX = spaces.Box(-1, 1, (1,), np.float32)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    n_envs=st.integers(1, 3),
    length=st.integers(1, 5),
    hop=st.integers(1, 5),
    room=st.integers(1, 20),
    steps=st.integers(1, 60),
    longest=st.integers(1, 12),
    timestamps=st.booleans(),
    missing=st.sampled_from([0.0, 0.4]),
    traces=st.sampled_from([None, [], [1.5, 12.0]]),
    seed=st.integers(0, 2**16),
)
def test_sampled_histories_are_those_acted_on(
    kind: str,
    n_envs: int,
    length: int,
    hop: int,
    room: int,
    steps: int,
    longest: int,
    timestamps: bool,
    missing: float,
    traces: Any,
    seed: int,
) -> None:
    history: dict[str, Any] = {"history_length": length, "hop_length": min(hop, length), **KINDS[kind]}
    if traces is not None and kind != "image":
        history["traces"] = traces
    if "time_key" in history and timestamps:
        history["time_kind"] = "timestamp"
    if missing and kind in ("box", "column"):
        history["missing_values"] = True
    else:
        missing = 0.0
    run = Run(kind, n_envs, length + room, longest, seed, missing, **history)
    np.random.seed(seed)  # noqa: NPY002  (the generator that SB3 uses)
    for _ in range(steps):
        run.check()
        run.step()
    run.check()
    first = max(0, steps - run.buffer.buffer_size)
    expected = {}  # by the reward, which no two steps have in common
    for reward, obs, following, done in run.stored[first:]:
        for env in range(n_envs):
            expected[reward[env]] = obs[env], following[env], done[env]
    batch = run.buffer.sample(64)
    arrays = (batch.rewards, batch.observations, batch.next_observations, batch.dones)
    for reward, obs, following, done in zip(*(array.numpy() for array in arrays), strict=True):
        acted, after, over = expected[reward[0]]
        assert (obs.tobytes(), following.tobytes(), done[0]) == (acted.tobytes(), after.tobytes(), over)
    # Of the ring, all rows can be sampled but those that reach across its seam.
    age = np.arange(len(run.stored) - first)
    rows = (age + (run.buffer.pos if run.buffer.full else 0)) % run.buffer.buffer_size
    whole = run.buffer._reach[rows] <= age + 1
    assert whole[length - 1 :].all()
    for place, (_, obs, following, _) in enumerate(run.stored[first:]):
        if whole[place]:
            every = np.arange(n_envs)
            row = np.full(n_envs, rows[place])
            np.testing.assert_array_equal(run.buffer.rebuild(row, every), obs)
            np.testing.assert_array_equal(run.buffer.rebuild(row, every, following=True), following)


def test_several_steps_are_those_of_sb3_s_buffer() -> None:
    """N-step returns, of which SB3's own buffer of the same histories is the measure, across the seam as well."""
    run = Run("box", 2, 25, 7, seed=3, history_length=3, hop_length=1)
    several: dict[str, Any] = {"n_steps": 3, "gamma": 0.9}
    space, actions = run.env.observation_space, run.env.action_space
    ours = run.buffer = HistoryReplayBuffer(50, space, actions, "cpu", 2, **several)
    stock = NStepReplayBuffer(50, space, actions, "cpu", 2, **several)

    for step in range(70):
        before, action = run.last, np.array([actions.sample() for _ in range(2)])
        obs, reward, done, infos = run.env.step(action)
        following = obs.copy()
        for env in np.flatnonzero(done):
            following[env] = infos[env]["terminal_observation"]
        for buffer in (ours, stock):
            buffer.add(before, following, action, reward, done, infos)
        run.last = obs
        if step in (20, 69):
            # Both draw environments by NumPy's generator, after the rows.
            rows = (np.arange(3, ours.size()) + (ours.pos if ours.full else 0)) % ours.buffer_size
            samples = []
            for buffer in (ours, stock):
                np.random.seed(0)  # noqa: NPY002  (the generator that SB3 uses)
                samples.append(buffer._get_samples(rows))
            for mine, theirs in zip(*samples, strict=True):
                np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_what_does_not_go_on_is_the_end_of_a_sequence() -> None:
    """The environments are reset between two calls of ``learn``: no history and no return reaches across."""
    run = Run("box", 2, 40, 1000, seed=1, history_length=4)
    run.buffer.n_steps, run.buffer.gamma = 5, 0.9
    for _ in range(6):
        run.step()
    last = run.stored[-1][2]
    run.last = run.env.reset()
    for _ in range(6):
        run.step()
    np.testing.assert_array_equal(run.buffer.rebuild(np.array([5, 5]), np.arange(2), following=True), last)
    np.testing.assert_array_equal(run.buffer.rebuild(np.array([6, 6]), np.arange(2))[:, 0], [1, 1])
    np.random.seed(0)  # noqa: NPY002
    sample = run.buffer._get_samples(np.full(20, 4))
    rewards = np.array([run.stored[4][0] + 0.9 * run.stored[5][0]])
    assert np.abs(sample.rewards.numpy() - rewards).min(axis=1).max() < 1e-6
    assert not sample.dones.any()


def test_a_buffer_that_begins_within_an_episode_samples_whole_histories() -> None:
    """A new buffer for environments that go on (``model.replay_buffer.reset()``)."""
    run = Run("box", 1, 40, 1000, seed=1, history_length=4, hop_length=1)
    for _ in range(10):
        run.step()
    run.buffer.reset()
    run.step()
    with pytest.raises(RuntimeError, match="hardly one has its whole history"):
        run.buffer.sample(4)
    for _ in range(6):
        run.step()
    batch = run.buffer.sample(100)
    acted = {obs[0].tobytes() for _, obs, *_ in run.stored[10:]}
    assert {obs.tobytes() for obs in batch.observations.numpy()} <= acted
    assert len({obs.tobytes() for obs in batch.observations.numpy()}) == 4  # of 7, those whose window is stored


def test_a_reset_that_the_algorithm_does_not_know_of_mixes_no_episodes() -> None:
    """An evaluation on the environments of the training, or two agents on the same."""
    run = Run("box", 2, 60, 30, seed=0, history_length=3)
    for step in range(40):
        before = run.last
        run.step()
        if step % 7 == 3:  # between a step and its storing, as a callback does
            run.env.reset()
        acted = run.stored[-1]
        assert acted[1] is before
    known = {(obs[env].tobytes(), after[env].tobytes()) for _, obs, after, _ in run.stored for env in range(2)}
    batch = run.buffer.sample(400)
    for obs, after in zip(batch.observations.numpy(), batch.next_observations.numpy(), strict=True):
        assert (obs.tobytes(), after.tobytes()) in known
    run.buffer.n_steps = 3
    batch = run.buffer.sample(400)
    place = {obs[env].tobytes(): (number, env) for number, (_, obs, *_) in enumerate(run.stored) for env in range(2)}
    for obs, after in zip(batch.observations.numpy(), batch.next_observations.numpy(), strict=True):
        number, env = place[obs.tobytes()]
        while not np.array_equal(run.stored[number][2][env], after):  # each step of the return follows the one before
            np.testing.assert_array_equal(run.stored[number + 1][1][env], run.stored[number][2][env])
            number += 1


def test_samples_are_normalised_by_the_environments_of_the_algorithm() -> None:
    env = VecNormalize(make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"action_space": spaces.Box(-1, 1, (1,))}))
    model: Any = with_memory(SAC, env, history_length=3, learning_starts=100, device="cpu", seed=0)
    model.learn(60)
    samples = []
    for by in (None, model.get_vec_normalize_env()):
        np.random.seed(0)  # noqa: NPY002
        samples.append(model.replay_buffer.sample(20, by))
    plain, normalized = samples
    np.testing.assert_array_equal(model.get_env().normalize_obs(plain.observations.numpy()), normalized.observations)
    assert not np.array_equal(plain.observations, normalized.observations)
    assert not np.array_equal(plain.rewards, normalized.rewards)


@pytest.mark.parametrize("kind", ["box", "image", "dict"])
def test_a_saved_buffer_is_the_same(kind: str, tmp_path: Path) -> None:
    run = Run(kind, 2, 10, 5, seed=0, history_length=3, **KINDS[kind])
    for _ in range(14):
        run.step()
    save_to_pkl(tmp_path / "buffer", run.buffer)
    loaded = load_from_pkl(tmp_path / "buffer")
    samples = []
    for buffer in (run.buffer, loaded):
        np.random.seed(0)  # noqa: NPY002
        samples.append(buffer.sample(30))
    for mine, theirs in zip(samples[0][:5], samples[1][:5], strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_an_algorithm_goes_on_with_a_saved_buffer(tmp_path: Path) -> None:
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"action_space": spaces.Box(-1, 1, (1,), np.float32)})
    model = with_memory(SAC, env, history_length=3, learning_starts=10, batch_size=16, device="cpu", seed=0)
    model.learn(40)
    model.save(tmp_path / "agent")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = SAC.load(tmp_path / "agent", model.get_env(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert isinstance(loaded.replay_buffer, HistoryReplayBuffer)
    assert loaded.replay_buffer.size() == 20
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.replay_buffer.size() == 30


@pytest.mark.parametrize(("n_envs", "length"), [(3, 3), (2, 5)])
def test_a_saved_buffer_of_other_environments_is_refused(n_envs: int, length: int, tmp_path: Path) -> None:
    """Of another number of them, or with histories of another length, which would be read as what they are not."""
    kwargs: dict[str, Any] = {"learning_starts": 10, "batch_size": 16, "device": "cpu", "seed": 0}
    box = {"action_space": spaces.Box(-1, 1, (1,), np.float32)}
    model = with_memory(SAC, make_vec_env(RandomWalk, 2, seed=0, env_kwargs=box), history_length=3, **kwargs)
    model.learn(40)
    model.save_replay_buffer(tmp_path / "buffer")
    other = with_memory(SAC, make_vec_env(RandomWalk, n_envs, seed=0, env_kwargs=box), history_length=length, **kwargs)
    other.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match=rf"stores 2 histories of 14 numbers .* was given {n_envs} x"):
        other.learn(40)
    with pytest.raises(ValueError, match=r"Histories of .* numbers"):
        other.actor.features_extractor(th.ones(1, 13))


@pytest.mark.parametrize("norm_obs", [True, False])
def test_observations_are_stored_before_normalisation(norm_obs: bool) -> None:
    """And normalised by the statistics of the moment when they are sampled; what is not in use stays 0."""
    stock = make_vec_env(lambda: Chance(longest=6), 2, seed=0)
    normalize = VecNormalize(stock, norm_obs=norm_obs)
    env: Any = VecHistory(normalize, history_length=3)
    buffer = HistoryReplayBuffer(20, env.observation_space, env.action_space, "cpu", 2)
    last = env.reset()
    last_original = env.get_original_obs()
    normalize.training = False
    acted = []
    for _ in range(8):
        action = np.array([env.action_space.sample() for _ in range(2)])
        obs, _, done, infos = env.step(action)
        original = env.get_original_obs()
        following = original.copy()
        for number in np.flatnonzero(done):  # as SB3's _store_transition
            following[number] = env.unnormalize_obs(infos[number]["terminal_observation"])
        buffer.add(last_original, following, action, env.get_original_reward(), done, infos)
        acted.append((last, env.normalize_obs(following)))
        last, last_original = obs, original
    for row, (obs, following) in enumerate(acted):
        rows, envs = np.full(2, row), np.arange(2)
        np.testing.assert_array_equal(env.normalize_obs(buffer.rebuild(rows, envs)), obs)
        np.testing.assert_allclose(env.normalize_obs(buffer.rebuild(rows, envs, following=True)), following, atol=1e-5)
    if norm_obs:
        statistics: Any = normalize.obs_rms
        statistics.mean = statistics.mean + 1.0
        moved = env.normalize_obs(buffer.rebuild(np.array([0]), np.array([0])))
        assert not np.array_equal(moved, acted[0][0][:1])


def test_time_limits_are_ends_where_that_is_asked_for() -> None:
    """And of hundreds of episodes of one step, each keeps its terminal observation apart."""
    run = Run("box", 2, 300, 1, seed=0, history_length=2)
    run.buffer.handle_timeout_termination = False
    for _ in range(500):
        run.step()
    assert run.buffer.dones.all()
    assert not run.buffer.timeouts.any()
    every = np.arange(2)
    for row in range(300):
        _, obs, following, _ = run.stored[200 + (row - 200) % 300]
        np.testing.assert_array_equal(run.buffer.rebuild(np.full(2, row), every), obs)
        np.testing.assert_array_equal(run.buffer.rebuild(np.full(2, row), every, following=True), following)


def test_ends_of_episodes_that_are_overwritten_make_room() -> None:
    run = Run("box", 2, 20, 1, seed=0, history_length=2)
    size = run.buffer.nbytes
    for _ in range(500):
        run.step()
    assert run.buffer.nbytes == size


def test_a_count_that_starts_over_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 counts no further than 2**24, so that the count of a long episode starts over; here after some steps."""
    monkeypatch.setattr(window_rule, "_COUNTED", 8)
    run = Run("box", 2, 200, 200, seed=2, history_length=3, hop_length=2)
    for _ in range(150):
        run.step()
    counts = np.array([obs[:, 0] for _, obs, *_ in run.stored])
    assert counts.max() < 30
    assert max(len(env.episodes[0]) for env in run.recorders) > 60
    rows, every = np.arange(150), np.zeros(150, np.int64)
    np.testing.assert_array_equal(run.buffer.rebuild(rows, every), [obs[0] for _, obs, *_ in run.stored])
    following = [after[0] for _, _, after, _ in run.stored]
    np.testing.assert_array_equal(run.buffer.rebuild(rows, every, following=True), following)
    assert all(run.buffer._reach[rows] <= rows + 1)


def test_resets_that_the_algorithm_does_not_know_of_mix_no_episodes() -> None:
    """Not even where the next step ends an episode."""
    run = Run("box", 2, 400, 6, seed=0, history_length=3, hop_length=1)
    for step in range(300):
        if step % 5 == 4:
            run.env.reset()
        run.step()
    reach = run.buffer._reach[:300]
    ends = 0
    for row in np.flatnonzero(reach <= np.arange(300) + 1):
        _, before, following, done = run.stored[row]
        for env in range(2):
            if done[env] and before[env, 0] == 1:
                continue  # a count of 2 is that of either episode
            ends += int(done[env])
            place = (np.array([row]), np.array([env]))
            np.testing.assert_array_equal(run.buffer.rebuild(*place)[0], before[env])
            np.testing.assert_array_equal(run.buffer.rebuild(*place, following=True)[0], following[env])
    assert ends > 10


def test_a_reward_that_is_not_finite_is_refused() -> None:
    """It would turn all weights to NaN, one update later."""
    run = Run("box", 2, 20, 9, seed=0)
    obs = run.last
    with pytest.raises(ValueError, match=r"The reward of environment 1 of 2 is nan"):
        run.buffer.add(obs, obs, np.zeros(2, np.int64), np.array([0.0, np.nan]), np.zeros(2, bool), [{}, {}])
    assert run.buffer.size() == 0


def test_memory_of_a_million_transitions() -> None:
    """At most 0.25 GB for 24 features and 8 observations, with missing values too; frames in SB3's buffer take 1.5."""
    observed = spaces.Box(-np.inf, np.inf, (24,), np.float32)
    action = spaces.Box(-1, 1, (6,), np.float32)
    for missing_values in (False, True):
        space = HistorySpace(observed, HistoryArguments(history_length=8, missing_values=missing_values))
        buffer = HistoryReplayBuffer(1_000_000, space, action, "cpu")
        assert buffer.nbytes < 0.25e9
        arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
        assert buffer.nbytes >= sum(array.nbytes for array in arrays if len(array) == 1_000_000)
    assert "1,000,000 transitions" in buffer.memory_report()
    assert "1.572 GB" in buffer.memory_report()
    image = HistorySpace(spaces.Box(0, 255, (1, 36, 36), np.uint8), HistoryArguments(history_length=4))
    pixels = HistoryReplayBuffer(1000, image, action, "cpu")
    assert pixels.nbytes < 1.15 * 1000 * 36 * 36


def test_what_a_buffer_cannot_do_is_refused_with_the_reason() -> None:
    space = HistorySpace(spaces.Box(-1, 1, (3,)), HistoryArguments(history_length=4))
    action = spaces.Box(-1, 1, (1,), np.float32)
    make: Any = HistoryReplayBuffer
    with pytest.raises(ValueError, match=r"stores each observation once already"):
        make(100, space, action, optimize_memory_usage=True)
    with pytest.raises(TypeError, match=r"'n_sampled_goal'.*has the goals of all its observations"):
        make(100, space, action, n_sampled_goal=4)
    with pytest.raises(TypeError, match=r"'steps'. It takes handle_timeout_termination, n_steps and gamma"):
        make(100, space, action, steps=4)
    with pytest.raises(TypeError, match=r"n_steps=3 without gamma: .*replay_buffer_kwargs=dict\(n_steps=3, gamma"):
        make(100, space, action, n_steps=3)
    with pytest.raises(TypeError, match=r"Wrap the environments, as the last wrapper: VecHistory"):
        make(100, spaces.Box(-1, 1, (3,)), action)
    with pytest.raises(ValueError, match=r"buffer_size=10 for 3 environments is 3 steps of each.*take 5: take more"):
        make(10, space, action, n_envs=3)


def test_a_buffer_that_does_not_fit_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SB3 warns of its own."""
    space = HistorySpace(spaces.Box(-1, 1, (3,)), HistoryArguments(history_length=4))
    action = spaces.Box(-1, 1, (1,), np.float32)
    HistoryReplayBuffer(100_000, space, action, "cpu")
    free = SimpleNamespace(available=1_000_000)
    monkeypatch.setattr(buffers, "psutil", SimpleNamespace(virtual_memory=lambda: free))
    with pytest.warns(UserWarning, match=r"will not fit into the memory that is free \(100,000 transitions"):
        HistoryReplayBuffer(100_000, space, action, "cpu")


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_summaries_at_ends_of_episodes_are_of_what_was_observed(missing: float) -> None:
    """Though SB3 undoes the normalisation of a terminal observation by statistics that have moved on since."""

    class Shifted(Chance):
        def _observe(self) -> Any:
            return super()._observe() + np.float32(5.0)

    venv = VecNormalizeObserved(make_vec_env(lambda: Shifted(missing=missing, longest=20, action_space=BOX), 2, seed=0))
    env: Any = VecHistory(venv, history_length=3, traces=[4.0], missing_values=missing > 0)
    model = with_memory(SAC, env, learning_starts=1000, buffer_size=400, seed=0, device="cpu").learn(300)
    buffer: Any = model.replay_buffer
    layout, at = env.observation_space.layout, env.observation_space.layout.newest
    ends = np.argwhere(buffer.dones[: buffer.size()])
    assert len(ends) > 10
    for row, number in ends:
        before, after = (
            buffer.rebuild(np.array([row]), np.array([number]), following=which) for which in (False, True)
        )
        features = after[:, at][:, : layout.features_dim]
        if missing:
            features = np.where(layout.counts(after[:, at]) > layout.counts(before[:, at]), features, np.nan)
        histories = Histories(before, layout.rule.phase(before[:, 0].astype(int)), empty=False, most=20)
        exact = append(histories, features, np.ones(1, np.float32), np.zeros(1, bool), layout).packed
        np.testing.assert_array_equal(after, exact)
