"""Traces: summaries of the whole episode, beside sums and integrals in float64 that are written out."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import RecurrentPPO
from scipy.integrate import quad
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_ncde import VecHistory
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.envs.memory_tasks import TMaze
from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.observation_history import ObservationHistory
from sb3_ncde.history.traces import Traces
from tests.envs import RandomWalk

CONSTANTS = (1.5, 20.0)


def episode(seed: int, steps: int, missing: float = 0.0) -> tuple[Any, Any, Any]:
    """Return values (T, D), what is observed of them, and elapsed times (T,)."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(steps, 2)).cumsum(axis=0)
    observed = generator.random((steps, 2)) >= missing
    elapsed = generator.exponential(size=steps) * (generator.random(steps) > 0.1)
    return values, observed, elapsed


def summarize(values: Any, elapsed: Any, observed: Any = None, starts: Any = None, before: Any = None) -> Any:
    """Return the summaries of one sequence, (T, values), by Traces, in the types of its arguments."""
    traces = Traces(CONSTANTS, values.shape[1], observed is not None)
    starts = np.arange(len(values)) == 0 if starts is None else starts
    began = np.maximum.accumulate(np.where(starts, np.arange(len(values)), 0))
    line = np.zeros((1, 1 + len(values), values.shape[1]), values.dtype)
    counts = (np.arange(len(values)) - began + 1)[:, None].astype(values.dtype)
    line[0, 1:] = values
    if observed is not None:
        counts = np.zeros_like(values)
        for step in range(len(values)):
            fresh = starts[step]
            held = 0.0 if fresh else line[0, step]
            line[0, step + 1] = np.where(observed[step], values[step], held)
            counts[step] = observed[step] + (0 if fresh else counts[step - 1])
    before = np.zeros((1, traces.size), values.dtype) if before is None else before
    columns = traces.unroll(
        before,
        line,
        counts[None],
        None if observed is None else observed[None],
        elapsed[None, :, None],
        starts[None, :, None],
    )
    return traces.values(columns[0], None if observed is None else counts)


def by_integral(values: Any, elapsed: Any, constant: float) -> Any:
    """Return the filter of a linear path at its end, by numerical integration of its solution's formula."""
    time = np.concatenate(([0.0], np.cumsum(elapsed[1:])))

    def share(at: float) -> float:
        return float(np.exp(-(time[-1] - at) / constant) * np.interp(at, time, values) / constant)

    begun = np.exp(-time[-1] / constant) * values[0]
    return begun + sum(quad(share, *ends, epsabs=1e-11)[0] for ends in pairwise(time))


@given(seed=st.integers(0, 2**16), steps=st.integers(1, 12))
def test_filters_solve_their_equation(seed: int, steps: int) -> None:
    values, _, elapsed = episode(seed, steps)
    elapsed = elapsed + 0.01
    found = summarize(values, elapsed)[-1]
    np.testing.assert_allclose(found[:2], values[0], atol=1e-12)
    np.testing.assert_allclose(found[2:4], values.mean(axis=0), atol=1e-10)
    for number, constant in enumerate(CONSTANTS):
        for feature in range(2):
            expected = by_integral(values[:, feature], elapsed, constant)
            np.testing.assert_allclose(found[4 + 2 * number + feature], expected, atol=1e-8)
    np.testing.assert_allclose(found[-3:-1], values.sum(axis=0), atol=1e-9)
    assert found[-1] == pytest.approx(np.log(steps))


@given(seed=st.integers(0, 2**16), steps=st.integers(2, 20), share=st.floats(0.05, 0.95), place=st.integers(1, 19))
def test_splitting_an_interval_changes_no_filter(seed: int, steps: int, share: float, place: int) -> None:
    """At a point of the linear path; mean, sum and count are of observations, and so do change."""
    values, _, elapsed = episode(seed, steps)
    place = min(place, steps - 1)
    between = values[place - 1] + share * (values[place] - values[place - 1])
    more = np.insert(values, place, between, axis=0)
    times = np.insert(elapsed, place, share * elapsed[place])
    times[place + 1] = (1 - share) * elapsed[place]
    np.testing.assert_allclose(summarize(more, times)[-1, 4:-3], summarize(values, elapsed)[-1, 4:-3], atol=1e-9)


@given(seed=st.integers(0, 2**16), steps=st.integers(1, 40), missing=st.sampled_from([0.0, 0.5]))
def test_a_sequence_in_two_parts_is_the_whole(seed: int, steps: int, missing: float) -> None:
    """Steps one after the other, whatever episodes begin within, are what the scan returns."""
    values, observed, elapsed = episode(seed, steps, missing)
    generator = np.random.default_rng(seed)
    starts = generator.random(steps) < 0.15
    starts[0] = True
    traces = Traces(CONSTANTS, 2, missing > 0)
    whole = summarize(values, elapsed, observed if missing else None, starts)
    carried: Any = np.zeros((1, traces.size))
    held, counts = np.zeros(2), np.zeros(2 if missing else 1)
    for step in range(steps):
        if starts[step]:
            held, counts = held * 0, counts * 0
        seen = observed[step] if missing else np.ones(2, bool)
        new = np.where(seen, values[step], held)
        counts = counts + (seen if missing else 1)
        line = np.stack((held, new))[None]
        flags = seen[None, None] if missing else None
        carried = traces.unroll(
            carried, line, counts[None, None], flags, elapsed[step].reshape(1, 1, 1), starts[step].reshape(1, 1, 1)
        )[:, 0]
        found = traces.values(carried, counts[None] if missing else None)[0]
        np.testing.assert_allclose(found, whole[step], atol=1e-9)
        held = new


def test_a_missing_value_is_held() -> None:
    """Mean and count are of what is observed; a filter begins with the first value, and is 0 before it."""
    values = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 9.0], [8.0, 11.0]])
    observed = np.array([[True, False], [False, False], [True, True], [False, True]])
    elapsed = np.ones(4)
    found = summarize(values, elapsed, observed)
    np.testing.assert_allclose(found[:, 0], 1.0)
    np.testing.assert_allclose(found[:, 1], [0, 0, 9, 9])
    np.testing.assert_allclose(found[:, 2], [1, 1, 2.5, 2.5])
    np.testing.assert_allclose(found[:, 3], [0, 0, 9, 10])
    without = summarize(np.array([[1.0], [4.0]]), np.array([1.0, 2.0]))[-1, [2, 3]]
    decay = np.exp(-1 / np.array(CONSTANTS))
    expected = [[1, 1], [1, 1], without, without * decay + 4 * (1 - decay)]
    np.testing.assert_allclose(found[:, [4, 6]], expected, atol=1e-12)
    np.testing.assert_allclose(found[:, 5], [0, 0, 9, found[3, 5]])
    assert 9 < found[3, 5] < 11
    np.testing.assert_allclose(found[:, 8], [1, 1, 5, 5])
    np.testing.assert_allclose(found[:, 9], [0, 0, 9, 20])
    np.testing.assert_allclose(found[:, -1], np.log([1, 1, 1, 2]))
    everything = summarize(values, elapsed, np.ones_like(observed))
    plain = summarize(values, elapsed)
    np.testing.assert_allclose(everything[:, :10], plain[:, :10], atol=1e-12)


@given(
    seed=st.integers(0, 2**16), steps=st.integers(1, 20), missing=st.sampled_from([0.0, 0.5]), more=st.integers(1, 9)
)
def test_rows_without_a_feature_change_nothing_about_it(seed: int, steps: int, missing: float, more: int) -> None:
    """Neither empty rows nor those of other sensors, whenever they come."""
    values, observed, elapsed = episode(seed, steps, missing)
    elapsed[0] = 0.0
    time = elapsed.cumsum()
    generator = np.random.default_rng(seed)
    others = generator.uniform(0, time[-1], more)
    order = np.argsort(np.concatenate((time, others)), kind="stable")
    fresh = np.concatenate((observed[:, :1], np.zeros((more, 1), bool)))[order]
    kept = np.concatenate((values[:, :1], np.zeros((more, 1))))[order]
    times = np.diff(np.concatenate((time, others))[order], prepend=0.0)
    found = summarize(kept, times, fresh)[-1]
    np.testing.assert_allclose(found, summarize(values[:, :1], elapsed, observed[:, :1])[-1], atol=1e-9)


def test_what_comes_at_the_same_time_is_in_the_summary() -> None:
    """An event log: of two sensors one after the other at each time, without time between."""
    values = np.repeat(np.arange(100.0, 130.0)[:, None], 2, axis=1).repeat(2, axis=0)
    observed = np.tile([[True, False], [False, True]], (30, 1))
    elapsed = np.tile([1.0, 0.0], 30)
    found = summarize(values, elapsed, observed)
    assert found[1, 5] == 100.0
    both = summarize(values[::2], np.ones(30))
    np.testing.assert_allclose(found[-1, 4:8], both[-1, 4:8], atol=1e-9)


def stepped(
    values: Any, elapsed: Any, observed: Any = None, chunk: int = 1, constants: tuple[float, ...] = CONSTANTS
) -> Any:
    """Return the last summary of one episode, kept in float32 after every so many steps."""
    traces = Traces(constants, 2, observed is not None)
    carried: Any = np.zeros((1, traces.size), np.float32)
    counts_of = np.cumsum(np.ones((len(values), 1)) if observed is None else observed, axis=0)
    line = np.zeros((1, 1 + len(values), 2), np.float32)
    line[0, 1:] = values
    for step in range(len(values) if observed is not None else 0):
        line[0, step + 1] = np.where(observed[step], values[step], line[0, step])
    for begin in range(0, len(values), chunk):
        now = slice(begin, begin + chunk)
        carried = traces.unroll(
            carried,
            line[:, begin : begin + chunk + 1],
            counts_of[None, now].astype(np.float32),
            None if observed is None else observed[None, now],
            elapsed[None, now, None].astype(np.float32),
            (np.arange(len(values))[now] == 0)[None, :, None],
        )[:, -1]
    return traces.values(carried, None if observed is None else counts_of[-1:])[0]


def test_a_hundred_thousand_steps_lose_no_accuracy() -> None:
    """A slow drift, kept in float32 after each, of which a step is less than float32 can tell of the mean."""
    drift = np.linspace([1.0, 300.0], [1.001, 302.0], 100_000).astype(np.float32)
    found = stepped(drift, np.ones(100_000), chunk=2)
    np.testing.assert_allclose(found[2:4], drift.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found[4:-3].reshape(2, 2), np.tile(drift[-1], (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[-3:-1], drift.sum(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found[-1], np.log(100_000), rtol=1e-6)


@pytest.mark.parametrize("missing", [False, True])
def test_an_offset_costs_no_accuracy(missing: bool) -> None:
    """A sensor that moves by 10 about a million: filters are to tell apart what float32 can tell apart."""
    generator = np.random.default_rng(0)
    values = (1e6 + 10 * generator.normal(size=(5_000, 2)).clip(-3, 3)).astype(np.float32)
    constants = (4.0, 256.0, 1e5)
    observed = np.ones(values.shape, bool) if missing else None
    found = stepped(values, np.full(5_000, 0.3), observed, constants=constants)
    departures = values.astype(np.float64) - values[0]
    for number, constant in enumerate(constants):
        level = np.zeros(2)
        for old, new in pairwise(departures):
            ratio = 0.3 / constant
            slope = (new - old) / ratio
            level = new - slope + (level - old + slope) * np.exp(-ratio)
        kept = found[4 + 2 * number : 6 + 2 * number].astype(np.float64) - values[0]
        np.testing.assert_allclose(kept, level, atol=0.04)  # half of what float32 tells apart at a million
    sums = slice(-4, -2) if missing else slice(-3, -1)
    np.testing.assert_allclose(found[sums], values.sum(axis=0, dtype=np.float64), rtol=1e-7)


def test_a_value_that_was_seen_long_ago_is_the_same_in_steps_and_at_once() -> None:
    """Seen once in an episode of thousands of steps: nothing decays to numbers that float32 cannot hold."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3000, 2))
    observed = np.ones((3000, 2), bool)
    observed[1:, 1] = False
    elapsed = generator.exponential(size=3000) * 5
    at_once = stepped(values, elapsed, observed, chunk=3000)
    np.testing.assert_allclose(stepped(values, elapsed, observed), at_once, atol=1e-5)
    np.testing.assert_allclose(at_once[[1, 3, 5, 7]], values[0, 1], rtol=1e-6)


def test_arguments_are_plain_values() -> None:
    """True for the default, a list of time constants, perhaps of none; false and null for no traces."""
    assert HistoryArguments(traces=True) == HistoryArguments(traces=[4, 16, 64, 256])
    assert HistoryArguments(traces=True).traces == (4.0, 16.0, 64.0, 256.0)
    assert HistoryArguments(traces=False) == HistoryArguments()
    assert hash(HistoryArguments(traces=[1, 2.5])) == hash(HistoryArguments(traces=(1.0, 2.5)))
    assert HistoryArguments(traces=[]).time_constants == ()
    for nothing in (False, None):
        assert HistoryArguments(traces=nothing).time_constants is None
    make: Any = HistoryArguments
    with pytest.raises(TypeError, match="traces='4': expected a list of time constants, true or null"):
        make(traces="4")
    with pytest.raises(TypeError, match="traces=4: expected a list"):
        make(traces=4)
    with pytest.raises(ValueError, match=r"traces\[1\]=0: a time constant must be finite and above 0"):
        make(traces=[4, 0])
    with pytest.raises(TypeError, match=r"traces\[0\] must be a number, a time constant"):
        make(traces=[[4]])


def test_the_scale_of_summaries_changes_between_an_update_and_the_next_rollout_only() -> None:
    """As that of increments: the ratio of PPO begins at 1 in each minibatch of the first epoch."""
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 20})
    settings: dict[str, Any] = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "seed": 0, "device": "cpu"}
    model: Any = RecurrentPPO("NCDEPolicy", env, policy_kwargs={"traces": [5.0]}, **settings)
    policy = model.policy
    seen: list[Any] = []

    def noting(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(policy.lstm_actor.summary.scale.scale.clone())
            return method(*args, **kwargs)

        return call

    policy.forward, policy.evaluate_actions = noting(policy.forward), noting(policy.evaluate_actions)
    model.learn(3 * 64)
    each = len(seen) // 3
    for number in range(3):
        assert all(torch.equal(scale, seen[number * each]) for scale in seen[number * each : (number + 1) * each])
    assert bool((seen[0] == 1).all())
    assert bool((seen[each] != 1).all())
    assert not torch.equal(seen[each], seen[-1])


def test_what_was_never_observed_counts_in_no_scale_of_summaries() -> None:
    """Of a feature that is always missing, nothing has been learned of its first value, mean, filter and sum."""

    class Lost(RandomWalk):
        def _observe(self) -> Any:
            return np.where([True, True, False], super()._observe(), np.float32(np.nan))

    env = make_vec_env(Lost, 2, seed=0, env_kwargs={"longest": 20})
    kwargs = {"traces": [5.0], "missing_values": True}
    model: Any = RecurrentPPO("NCDEPolicy", env, n_steps=32, batch_size=16, policy_kwargs=kwargs, seed=0, device="cpu")
    model.learn(3 * 64)
    encoder = model.policy.lstm_actor
    encoder.learning.take_in_all()
    counts = encoder.summary.scale.count.reshape(-1, 3)  # of first values, means, a filter, sums, counts
    assert len(counts) == 5
    assert bool((counts[:, :2] > 0).all())
    assert bool((counts[:4, 2] == 0).all())


def test_the_heads_also_see_z_of_a_window_that_begins_at_the_newest_observation() -> None:
    """As the same weights with windows of one observation have it; there, nothing stands twice."""
    size, n_seq, n_steps = 16, 2, 9
    windowed, alone = (
        NeuralCDE(ObservationHistory(length, 1, 3, time_constants=(5.0,)), EncoderArguments(latent_size=size)).double()
        for length in (4, 1)
    )
    alone.load_state_dict(windowed.state_dict())
    rows = torch.rand(n_seq * n_steps, 4, dtype=torch.float64)
    seen = []
    for encoder in (windowed, alone):
        empty = torch.zeros(1, n_seq, encoder.hidden_size, dtype=torch.float64)
        seen.append(encoder.unroll(rows, (empty, empty), torch.zeros(n_seq * n_steps))[0].view(n_seq, n_steps, -1))
        step, _ = encoder.step(rows.view(n_seq, n_steps, 4)[:, 0], (empty, empty), torch.zeros(n_seq))
        torch.testing.assert_close(step, seen[-1][:, 0])
    assert windowed.output_size == alone.output_size + size
    torch.testing.assert_close(seen[0][:, :, -size:], seen[1][:, :, :size])
    torch.testing.assert_close(seen[0][:, 0, -size:], seen[0][:, 0, :size])
    assert not torch.allclose(seen[0][:, 1:, -size:], seen[0][:, 1:, :size])


def test_learned_features_are_not_summarised() -> None:
    """What a CNN made of them is of weights that have changed since."""
    env = make_vec_env(RandomWalk, 2, env_kwargs={"observation": "image"})
    with pytest.raises(ValueError, match="traces with a features extractor that learns"):
        RecurrentPPO("CnnNCDEPolicy", env, policy_kwargs={"traces": True}, device="cpu")
    with pytest.raises(ValueError, match="traces with a features extractor that learns"):
        VecHistory(env, traces=True)


@pytest.mark.parametrize("control_size", [32, 2])
def test_an_agent_remembers_the_beginning_of_an_episode(control_size: int, tmp_path: Path) -> None:
    """A T-maze of 8 steps with a window of 2; features that are projected, and a summary that is, too."""
    env = make_vec_env(lambda: TMaze(length=8), 8, seed=0)
    kwargs = {"traces": [10.0], "history_length": 2, "control_size": control_size}
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 128, "n_epochs": 8, "learning_rate": 2e-3, "seed": 0}
    model = RecurrentPPO("NCDEPolicy", env, policy_kwargs=kwargs, ent_coef=0.01, device="cpu", **settings)
    for _ in range(8):  # once it is always right, advantages are noise, which may lead it astray again
        model.learn(1024, reset_num_timesteps=False)
        reached: Any = evaluate_policy(model, env, 30)[0]
        if reached == 1.0:
            break
    assert reached == 1.0
    model.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", env, device="cpu")
    assert evaluate_policy(loaded, env, 30)[0] == 1.0
