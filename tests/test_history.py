"""Windows and recurrent state against lists and loops."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_ncde.history.observation_history import ObservationHistory, State
from tests.reference import ReferenceHistory


@st.composite
def episodes(draw: Any) -> tuple[int, int, np.ndarray, list[int]]:
    """H, S, the episode starts of N sequences (N, T), and where the sequences are cut into chunks."""
    history_length = draw(st.integers(1, 7))
    hop_length = draw(st.integers(1, history_length))
    n_seq, n_steps = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    starts = np.array([[draw(st.integers(0, 4)) == 0 for _ in range(n_steps)] for _ in range(n_seq)])
    cuts = sorted(draw(st.sets(st.integers(1, n_steps), max_size=4)) - {n_steps})
    return history_length, hop_length, starts, [0, *cuts, n_steps]


def empty(history: ObservationHistory, n_seq: int, dtype: th.dtype = th.float64) -> State:
    return th.zeros(1, n_seq, history.size, dtype=dtype), th.zeros(1, n_seq, history.size, dtype=dtype)


@pytest.mark.parametrize("timestamps", [False, True])
@given(data=episodes())
def test_windows_are_those_of_the_plain_loop(timestamps: bool, data: tuple[int, int, np.ndarray, list[int]]) -> None:
    history_length, hop_length, starts, cuts = data
    n_seq, n_steps = starts.shape
    history = ObservationHistory(history_length, hop_length, features_dim=2, unit=0.5, timestamps=timestamps)
    features = th.randn(n_seq, n_steps, 2, dtype=th.float64)
    elapsed = th.randint(0, 5, (n_seq, n_steps)).double()
    time = elapsed.cumsum(1) + 100 if timestamps else elapsed

    reference = [ReferenceHistory(history_length, hop_length) for _ in range(n_seq)]
    state = empty(history, n_seq)
    for begin, end in pairwise(cuts):
        chunk = slice(begin, end)
        sequences, state = history.append(
            features[:, chunk], time[:, chunk], state, th.from_numpy(starts[:, chunk]).double()
        )
        windows = sequences.windows()
        row = 0
        for i in range(n_seq):
            for t in range(begin, end):
                expected = reference[i].step(features[i, t], elapsed[i, t].item() / 0.5, bool(starts[i, t]))
                knot, served_by = windows.knot[row], windows.window[row]
                assert knot + 1 == len(expected)
                assert th.equal(windows.features[: knot + 1, served_by], th.stack([x for x, _ in expected]))
                assert windows.elapsed[: knot + 1, served_by].tolist() == [e for _, e in expected]
                assert sequences.seen[i, t - begin] == reference[i].seen
                row += 1
        # One window for all the steps that share their oldest observation, no more.
        assert windows.features.shape[1] == len(set(windows.window.tolist()))
        # A window that is shorter than the longest repeats its newest observation, with no time elapsed.
        for window in range(windows.features.shape[1]):
            newest = int(windows.knot[windows.window == window].max())
            assert (windows.features[newest:, window] == windows.features[newest, window]).all()
            assert (windows.elapsed[newest + 1 :, window] == 0).all()
    for i in range(n_seq):
        assert_state(history, state, i, reference[i], time[i, -1].item() if timestamps else 0.0)


def assert_state(history: ObservationHistory, state: State, i: int, reference: ReferenceHistory, time: float) -> None:
    count, last_time, slots = history.unpack(state)
    assert count[i] == reference.seen
    assert last_time[i] == time
    used = len(reference.window)
    assert th.equal(slots[i, history.rule.history_length - used :, :-1], th.stack([x for x, _ in reference.window]))
    assert slots[i, history.rule.history_length - used :, -1].tolist() == [e for _, e in reference.window]
    assert (slots[i, : history.rule.history_length - used] == 0).all()


def test_a_state_is_never_changed_in_place() -> None:
    history = ObservationHistory(3, 1, 2)
    state = empty(history, 2, th.float32)
    for _ in range(5):
        before = (state[0].clone(), state[1].clone())
        _, after = history.append(th.randn(2, 1, 2), th.ones(2, 1), state, th.zeros(2, 1))
        assert th.equal(state[0], before[0])
        assert th.equal(state[1], before[1])
        assert after[0].is_contiguous()
        assert after[1].is_contiguous()
        state = after


def test_zero_observations_are_not_an_empty_history() -> None:
    history = ObservationHistory(3, 1, 2)
    _, state = history.append(th.zeros(1, 1, 2), th.zeros(1, 1), empty(history, 1, th.float32), th.zeros(1, 1))
    assert history.unpack(state)[0].item() == 1


def test_an_episode_may_be_longer_than_float32_counts() -> None:
    """float32 counts to 2**24; the window must go on hopping after it."""
    history = ObservationHistory(5, 3, 1)
    state = empty(history, 1, th.float32)
    _, state = history.append(th.zeros(1, 7, 1), th.ones(1, 7), state, th.zeros(1, 7))
    count = 2**24 - 4
    state[0][0, 0, 0] = count
    for seen in range(count + 1, count + 12):
        sequences, state = history.append(th.zeros(1, 1, 1), th.ones(1, 1), state, th.zeros(1, 1))
        assert sequences.points.item() == history.rule.points(np.array([seen]))[0]
        # The same window stands in the same row of the open ones.
        assert (sequences.seen.item() - seen) % (history.rule.hop_length * history.rule.n_open) == 0
