"""The encoder against the reference, and the invariants of its window, batch, padding and time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_ncde.acting.path import SHORTEST
from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.cde.interpolation import INTERPOLATIONS
from sb3_ncde.cde.path import control_path
from sb3_ncde.cde.trajectory import between
from sb3_ncde.history.observation_history import ObservationHistory, State
from tests.reference import SUB_STEPS, ReferenceHistory, reference_path, reference_z

D = 2


def make_encoder(history_length: int = 4, hop_length: int = 2, *, timestamps: bool = False, **kwargs: Any) -> NeuralCDE:
    defaults: dict[str, Any] = {
        "solver": "midpoint",
        "latent_size": 5,
        "field_width": 7,
        "initial_width": 6,
        "feature_norm": "none",
        "skip": False,
        "control_size": None,
    }
    history = ObservationHistory(history_length, hop_length, D, timestamps=timestamps)
    encoder = NeuralCDE(history, EncoderArguments(**(defaults | kwargs))).double()
    encoder.increment_scale.scale.uniform_(0.5, 2.0)
    return encoder


def empty(encoder: NeuralCDE, n_seq: int) -> State:
    zeros = th.zeros(1, n_seq, encoder.hidden_size, dtype=th.float64)
    return zeros, zeros


def random_sequences(n_seq: int, n_steps: int) -> th.Tensor:
    """Features and elapsed time, (N, T, D + 1)."""
    return th.cat((th.randn(n_seq, n_steps, D), 0.2 + th.rand(n_seq, n_steps, 1)), dim=-1).double()


def encode(encoder: NeuralCDE, sequences: th.Tensor, starts: th.Tensor | None = None) -> th.Tensor:
    """Encode sequences from empty histories, (N, T, D + 1) -> (N, T, output)."""
    n_seq, n_steps = sequences.shape[:2]
    starts = th.zeros(n_seq, n_steps) if starts is None else starts
    with th.no_grad():
        output, _ = encoder(sequences.flatten(0, 1), empty(encoder, n_seq), starts.flatten())
    assert isinstance(output, th.Tensor)
    return output.view(n_seq, n_steps, -1)


def step_by_step(encoder: NeuralCDE, sequences: th.Tensor, starts: th.Tensor) -> th.Tensor:
    """Encode as at rollout, with the solutions carried from step to step."""
    state = empty(encoder, sequences.shape[0])
    outputs = []
    for t in range(sequences.shape[1]):
        output, state = encoder.step(sequences[:, t], state, starts[:, t])
        outputs.append(output)
    return th.stack(outputs, dim=1)


@pytest.mark.parametrize("rates", [True, False])
@pytest.mark.parametrize("path_in_field", [True, False])
@pytest.mark.parametrize("field_depth", [0, 1, 2])
@pytest.mark.parametrize(("history_length", "hop_length"), [(1, 1), (4, 1), (4, 2), (4, 4)])
def test_z_is_that_of_cdeint_on_each_window(
    history_length: int, hop_length: int, field_depth: int, rates: bool, path_in_field: bool
) -> None:
    encoder = make_encoder(
        history_length,
        hop_length,
        field_depth=field_depth,
        rates=rates,
        path_in_field=path_in_field,
        solver_steps=SUB_STEPS,
    )
    sequences = random_sequences(2, 11)
    starts = th.zeros(2, 11)
    starts[0, 6] = starts[1, 2] = starts[1, 3] = 1.0
    sequences[0, 8, -1] = 0.0  # two observations at the same time
    z = encode(encoder, sequences, starts)
    with th.no_grad():
        for i in range(2):
            history = ReferenceHistory(history_length, hop_length)
            for t in range(11):
                window = history.step(sequences[i, t, :-1], sequences[i, t, -1].item(), bool(starts[i, t]))
                # Where rates are large, rounding grows along the window.
                th.testing.assert_close(z[i, t], reference_z(encoder, window), rtol=1e-8, atol=1e-8)


NORMS: dict[str, Callable[[th.Tensor], th.Tensor]] = {
    "none": lambda z: z,
    "tanh": th.tanh,
    "layer_norm": lambda z: (z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt(),
    "unit": lambda z: (z - z.mean()) / (z.var(correction=0) + 1e-5).sqrt() / len(z) ** 0.5,
}


@pytest.mark.parametrize("feature_norm", NORMS)
@pytest.mark.parametrize("rates", [True, False])
@pytest.mark.parametrize("control_size", [None, 1])
def test_the_heads_see_z_normed_and_what_skips_it(feature_norm: str, rates: bool, control_size: int | None) -> None:
    encoder = make_encoder(
        skip=True, feature_norm=feature_norm, rates=rates, control_size=control_size, solver_steps=SUB_STEPS
    )
    control = encoder.control or th.nn.Identity()
    sequences = random_sequences(1, 9)
    output = encode(encoder, sequences)
    history = ReferenceHistory(4, 2)
    with th.no_grad():
        for t in range(9):
            window = history.step(sequences[0, t, :-1], sequences[0, t, -1].item(), False)
            controls = [(control(features), elapsed) for features, elapsed in window]
            z = reference_z(encoder, controls)
            expected = [NORMS[feature_norm](z), window[-1][0], th.tensor([window[-1][1]], dtype=th.float64)]
            if rates:
                knots = reference_path(controls, encoder.increment_scale.scale, rates)
                expected.append(knots[-1, 1 + encoder.control_dim :])
            # Both solve to an error of 1e-10 or so of the values, which are not bounded.
            th.testing.assert_close(output[0, t], th.cat(expected), rtol=1e-8, atol=1e-8)


@st.composite
def batches(draw: Any) -> tuple[NeuralCDE, th.Tensor, th.Tensor]:
    """An encoder of any shape, and sequences whose episodes start anywhere."""
    th.manual_seed(draw(st.integers(0, 2**32 - 1)))
    history_length = draw(st.integers(1, 6))
    encoder = make_encoder(
        history_length,
        draw(st.integers(1, history_length)),
        rates=draw(st.booleans()),
        path_in_field=draw(st.booleans()),
        skip=draw(st.booleans()),
        solver=draw(st.sampled_from(list(SOLVERS))),
        solver_steps=draw(st.integers(1, 2)),
        field_depth=draw(st.integers(0, 2)),
        initial_depth=draw(st.integers(0, 2)),
        feature_norm=draw(st.sampled_from(["none", "tanh", "layer_norm", "unit"])),
        control_size=draw(st.sampled_from([None, 1])),
        timestamps=draw(st.booleans()),
    )
    n_seq, n_steps = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    starts = np.array([[draw(st.integers(0, 5)) == 0 for _ in range(n_steps)] for _ in range(n_seq)], dtype=float)
    sequences = random_sequences(n_seq, n_steps)
    if encoder.history.timestamps:
        sequences[..., -1] = sequences[..., -1].cumsum(1)
    return encoder, sequences, th.from_numpy(starts)


@given(batches())
def test_stepping_equals_unrolling(batch: tuple[NeuralCDE, th.Tensor, th.Tensor]) -> None:
    encoder, sequences, starts = batch
    th.testing.assert_close(
        step_by_step(encoder, sequences, starts), encode(encoder, sequences, starts), rtol=0, atol=1e-12
    )


@given(batches())
def test_a_batch_is_its_rows(batch: tuple[NeuralCDE, th.Tensor, th.Tensor]) -> None:
    encoder, sequences, starts = batch
    rows = [encode(encoder, sequences[i : i + 1], starts[i : i + 1])[0] for i in range(len(sequences))]
    th.testing.assert_close(encode(encoder, sequences, starts), th.stack(rows), rtol=0, atol=1e-12)


@given(batches(), st.randoms())
def test_permuting_environments_permutes_results(batch: tuple[NeuralCDE, th.Tensor, th.Tensor], random: Any) -> None:
    encoder, sequences, starts = batch
    order = list(range(len(sequences)))
    random.shuffle(order)
    permuted = encode(encoder, sequences[order], starts[order])
    th.testing.assert_close(permuted, encode(encoder, sequences, starts)[order], rtol=0, atol=1e-12)


@given(batches())
def test_padding_behind_a_sequence_changes_nothing_and_is_finite(batch: tuple[NeuralCDE, th.Tensor, th.Tensor]) -> None:
    """RecurrentRolloutBuffer pads sequences with zeros in every entry, time included."""
    encoder, sequences, starts = batch
    padded = encode(
        encoder,
        th.cat((sequences, th.zeros(len(sequences), 9, D + 1, dtype=th.float64)), dim=1),
        th.cat((starts, th.zeros(len(sequences), 9)), dim=1),
    )
    n_steps = sequences.shape[1]
    th.testing.assert_close(padded[:, :n_steps], encode(encoder, sequences, starts), rtol=0, atol=1e-12)
    assert padded.isfinite().all()


@given(batches())
def test_gradients_are_finite_and_reach_every_parameter_that_matters(
    batch: tuple[NeuralCDE, th.Tensor, th.Tensor],
) -> None:
    encoder, sequences, starts = batch
    output, _ = encoder(sequences.flatten(0, 1), empty(encoder, len(sequences)), starts.flatten())
    (output**2).sum().backward()
    appended, _ = encoder.append(sequences.flatten(0, 1), empty(encoder, len(sequences)), starts.flatten())
    intervals = appended.points.max() - 1
    for name, parameter in encoder.named_parameters():
        # Windows of one point have no interval, and so no field.
        assert (parameter.grad is None) == (name.startswith("field") and intervals == 0), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("hop_length", [1, 2, 4])
def test_the_window_is_what_matters(hop_length: int) -> None:
    """Outside the window nothing matters; inside, the oldest does."""
    encoder = make_encoder(4, hop_length, initial_width=64)  # wide: no input meets dead units only
    sequences = random_sequences(1, 14)
    z = encode(encoder, sequences)
    history = ReferenceHistory(4, hop_length)
    for t in range(14):
        points = len(history.step(sequences[0, t], 1.0, False))
        for changed in range(t + 1):
            other = sequences.clone()
            other[0, changed] += 0.5
            difference = (encode(encoder, other)[0, t] - z[0, t]).abs().max()
            inside = changed > t - points
            assert (difference > 1e-6) if inside else (difference == 0), (t, changed)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_newest_observation_matters(solver: str) -> None:
    encoder = make_encoder(solver=solver)
    sequences = random_sequences(1, 9)
    other = sequences.clone()
    other[0, -1, 0] += 0.5
    assert (encode(encoder, other)[0, -1] - encode(encoder, sequences)[0, -1]).abs().max() > 1e-4


def test_a_repeated_observation_is_padding_bit_for_bit() -> None:
    """No time and no change: every channel's increment is exactly zero, so z is the same to the bit."""
    encoder = make_encoder(9, 9)
    sequences = random_sequences(1, 4)
    repeat = sequences[:, -1:].repeat(1, 5, 1)
    repeat[..., -1] = 0.0
    z = encode(encoder, th.cat((sequences, repeat), dim=1))
    assert (z[0, 4:] == z[0, 3]).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.1, 0.9), st.booleans())
@settings(max_examples=25)
def test_an_observation_on_the_line_between_its_neighbours_may_be_dropped(
    seed: int, dropped: int, place: float, path_in_field: bool
) -> None:
    """With rates off it lies on the path: in the limit of small steps z is the same without it."""

    def difference(steps: int) -> float:
        th.manual_seed(seed)
        encoder = make_encoder(9, 9, rates=False, path_in_field=path_in_field, solver="rk4", solver_steps=steps)
        without = random_sequences(1, 6)
        before, after = without[:, dropped - 1 : dropped], without[:, dropped : dropped + 1].clone()
        on_line = th.lerp(before, after, place)
        on_line[..., -1] = place * after[..., -1]
        after[..., -1] *= 1 - place
        having = th.cat((without[:, :dropped], on_line, after, without[:, dropped + 1 :]), dim=1)
        return (encode(encoder, having)[0, -1] - encode(encoder, without)[0, -1]).abs().max().item()

    assert difference(64) < 1e-5
    assert difference(64) < max(difference(8) / 100, 1e-11)  # rk4: fourth order, but for what is rounding


@given(st.integers(0, 2**32 - 1), st.integers(-4096, 4096), st.floats(1.2, 5.0))
@settings(max_examples=25)
def test_time_shift_changes_nothing_and_time_scale_does(seed: int, shift: int, factor: float) -> None:
    th.manual_seed(seed)
    encoder = make_encoder(timestamps=True, skip=True)
    sequences = random_sequences(2, 9)
    sequences[..., -1] = (sequences[..., -1].cumsum(1) * 64).round() / 64  # sums of these are exact
    z = encode(encoder, sequences)
    shifted, scaled = sequences.clone(), sequences.clone()
    shifted[..., -1] += shift
    scaled[..., -1] *= factor
    assert th.equal(encode(encoder, shifted), z)
    assert (encode(encoder, scaled)[:, 1:] - z[:, 1:]).abs().amax(-1).min() > 1e-4


@given(st.integers(1, 8), st.integers(1, 4), st.booleans(), st.data())
@settings(max_examples=50)
def test_the_path_is_that_of_the_plain_loop(points: int, batch: int, rates: bool, data: st.DataObject) -> None:
    th.manual_seed(data.draw(st.integers(0, 2**32 - 1)))
    features, scale = th.randn(points, batch, D, dtype=th.float64), th.rand(2 * D, dtype=th.float64)
    steps = st.sampled_from([0.0, 1e-9, SHORTEST, 0.3, 1.0, 1e6])
    elapsed = th.tensor([[data.draw(steps) for _ in range(batch)] for _ in range(points)], dtype=th.float64)
    path = control_path(features, elapsed, scale, rates)
    for b in range(batch):
        window = [(features[i, b], elapsed[i, b].item()) for i in range(points)]
        knots = reference_path(window, scale, rates)
        th.testing.assert_close(path.increments[:, b], knots.diff(dim=0))
        th.testing.assert_close(path.values[:, b, :D], features[:, b])
        th.testing.assert_close(path.values[:, b, D:], knots[:, 1 + D :])


def test_a_short_interval_does_not_drown_the_others() -> None:
    """Moving the two newest observations still moves z when an interval before them took almost no time."""

    def response(elapsed: float) -> float:
        th.manual_seed(0)
        encoder = make_encoder(8, 4, feature_norm="layer_norm")
        sequences = random_sequences(1, 6)
        sequences[0, :, -1] = 1.0
        sequences[0, 2, -1] = elapsed
        moved = sequences.clone()
        moved[0, 4:, :-1] += 0.5
        return (encode(encoder, moved)[0, -1] - encode(encoder, sequences)[0, -1]).abs().max().item()

    assert all(response(elapsed) > response(1.0) / 20 for elapsed in (1e-1, 1e-3, 1e-6, 0.0))


def test_observations_of_any_size_give_finite_results_and_gradients() -> None:
    encoder = make_encoder(skip=True, feature_norm="layer_norm").float()
    sequences = random_sequences(1, 12).float()
    for scale, dt in ((1e6, 1.0), (1e6, 1e-9), (1e6, 1e6), (0.0, 0.0), (1e6, SHORTEST)):
        rows = th.cat((sequences[..., :-1] * scale, sequences[..., -1:] * dt), dim=-1).flatten(0, 1)
        zeros = th.zeros(1, 1, encoder.hidden_size)
        output, _ = encoder(rows, (zeros, zeros), th.zeros(12))
        assert output.isfinite().all()
        encoder.zero_grad()
        th.autograd.backward(th.tanh(output).sum())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    ("solver", "interpolation"),
    [
        (solver, name)
        for name, kind in INTERPOLATIONS.items()
        for solver in (*SOLVERS, "dopri5")
        if solver == "dopri5" or SOLVERS[solver].order >= kind.least_order
    ],
)
@pytest.mark.parametrize(("history_length", "hop_length"), [(1, 1), (4, 1), (4, 2)])
def test_between_observations_z_runs_from_one_to_the_next(
    history_length: int, hop_length: int, solver: str, interpolation: str
) -> None:
    accuracy: dict[str, Any] = {"solver_steps": 2} if solver in SOLVERS else {"rtol": 1e-9, "atol": 1e-9}
    encoder = make_encoder(history_length, hop_length, solver=solver, interpolation=interpolation, **accuracy)
    sequences = random_sequences(1, 9)
    at_observations = encode(encoder, sequences)[0, 1:]
    fractions, z = between(encoder, sequences[0], 6)
    assert z.shape == (len(fractions), 8, 5)
    if history_length == 1:
        assert z.isnan().all()
        return
    th.testing.assert_close(z[-1], at_observations, rtol=1e-6, atol=1e-6)
    same_window = encoder.history.rule.points(np.arange(2, 10)) == encoder.history.rule.points(np.arange(1, 9)) + 1
    th.testing.assert_close(z[0][same_window][1:], at_observations[:-1][same_window[1:]], rtol=1e-6, atol=1e-6)
    assert (fractions.diff() >= 0).all()
    assert fractions[[0, -1]].tolist() == [0, 1]
    th.testing.assert_close(z[:, 0], between(encoder, sequences[0, :2], 6)[1][:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_between_observations_z_is_that_of_an_observation_there(solver: str) -> None:
    """On a linear path, a point of it in the middle is as good as an observation (rates would change, so without)."""
    accuracy: dict[str, Any] = {"solver_steps": 16} if solver in SOLVERS else {"rtol": 1e-9, "atol": 1e-9}
    encoder = make_encoder(solver=solver, rates=False, **accuracy)
    sequences = random_sequences(1, 2)
    middle = sequences[:, 1:].clone()
    middle[..., :D] = sequences.mean(dim=1, keepdim=True)[..., :D]
    middle[..., D] /= 2
    expected = encode(encoder, th.cat((sequences[:, :1], middle), dim=1))[0, 1]
    th.testing.assert_close(between(encoder, sequences[0], 3)[1][1, 0], expected, rtol=1e-6, atol=1e-6)
