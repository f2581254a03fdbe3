"""What is computed in NumPy, for acting and in an update, is what PyTorch computes."""

import copy
import pickle
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import parametrizations

from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.cde import fixed_solve
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.cde.interpolation import INTERPOLATIONS
from sb3_ncde.cde.path import control_path
from sb3_ncde.history.observation_history import ObservationHistory, State

D = 3


def in_pytorch() -> Any:
    """Return a context in which windows are solved by PyTorch alone."""
    return patch.object(fixed_solve, "MOST_NUMBERS", 0)


@st.composite
def encoders(draw: Any, dtype: th.dtype, smooth: bool = False) -> NeuralCDE:
    """An encoder with any of the arguments that a step in NumPy knows, or one that is smooth in its features."""
    th.manual_seed(draw(st.integers(0, 2**32 - 1)))
    history_length = draw(st.integers(1, 9))
    interpolation = draw(st.sampled_from(list(INTERPOLATIONS)))
    able = [name for name, tableau in SOLVERS.items() if tableau.order >= INTERPOLATIONS[interpolation].least_order]
    arguments = EncoderArguments(
        latent_size=draw(st.integers(3, 6)),
        field_width=draw(st.integers(1, 8)),
        field_depth=draw(st.integers(0, 2)),
        initial_width=draw(st.integers(1, 8)),
        initial_depth=draw(st.integers(0, 2)),
        solver=draw(st.sampled_from(able)),
        solver_steps=draw(st.integers(1, 2)),
        interpolation=interpolation,
        time_channel=True if interpolation == "rectilinear" else draw(st.booleans()),
        rates=draw(st.booleans()),
        path_in_field=draw(st.booleans()),
        feature_size=draw(st.sampled_from([None, 4])),
        # Of windows of one point a layer norm is too steep for finite differences.
        feature_norm=draw(st.sampled_from(["tanh", "none"] if smooth else ["layer_norm", "unit", "tanh", "none"])),
        skip=draw(st.booleans()),
        control_size=draw(st.sampled_from([None, 2])),
    )
    history = ObservationHistory(
        history_length,
        draw(st.integers(1, history_length)),
        D,
        unit=draw(st.sampled_from([1.0, 0.3])),
        timestamps=draw(st.booleans()),
        missing_values=draw(st.booleans()),
        # Through summaries goes no gradient.
        time_constants=None if smooth else draw(st.sampled_from([None, (), (2.0, 16.0)])),
    )
    encoder = NeuralCDE(history, arguments, draw(st.sampled_from([1.0, 0.05]))).to(dtype)
    encoder.increment_scale.scale.uniform_(0.5, 2.0)
    if encoder.summary is not None:
        encoder.summary.scale.scale.uniform_(0.5, 20.0)  # so that some numbers are bounded
    return encoder


def observed(encoder: NeuralCDE, n_seq: int, n_steps: int, missing: float) -> tuple[th.Tensor, State, th.Tensor]:
    """Return sequences with gaps and standing clocks, (N, T, D + 1), empty histories, and where episodes begin."""
    dtype = encoder.increment_scale.scale.dtype
    features = th.randn(n_seq, n_steps, D, dtype=dtype)
    if encoder.history.missing_values:
        features[th.rand(features.shape) < missing] = th.nan
    time = th.tensor([0.0, 0.05, 1.0, 2.5], dtype=dtype)[th.randint(4, (n_seq, n_steps, 1))]
    if encoder.history.timestamps:
        time = time.cumsum(1)
    zeros = th.zeros(1, n_seq, encoder.hidden_size, dtype=dtype)
    return th.cat((features, time), dim=-1), (zeros, zeros), (th.rand(n_seq, n_steps) < 0.15).to(dtype)


@given(encoders(th.float32), st.integers(1, 3), st.integers(1, 24), st.floats(0, 1))
def test_a_step_is_that_of_pytorch(encoder: NeuralCDE, n_seq: int, n_steps: int, missing: float) -> None:
    """In float32: to 1e-5, or where the equation magnifies what is rounded, of PyTorch's own distance from float64."""
    sequences, state, starts = observed(encoder, n_seq, n_steps, missing)
    exactly = copy.deepcopy(encoder).double()
    results = []
    for unrolling, double in ((encoder, False), (exactly, True)):
        empty = tuple(part.double() if double else part for part in state)
        with th.no_grad(), in_pytorch():
            results.append(unrolling.unroll(sequences.flatten(0, 1), empty, starts.flatten()))
    (unrolled, after), (exact, _) = results
    steps = []
    for t in range(n_steps):
        seen, state = encoder.step(sequences[:, t], state, starts[:, t])
        steps.append(seen)
    step = th.stack(steps, dim=1).flatten(0, 1)
    assert step.dtype == th.float32
    rounding = (unrolled - exact).abs().max()
    assert (step - exact).abs().max() <= 1e-5 * exact.abs().max().clamp(min=1.0) + 50 * rounding
    if encoder.history.layout.traces is None:
        assert all(map(th.equal, state, after))
    else:  # whose filters are rounded to float32 at each step, and once in a sequence
        for stepped, at_once in zip(state, after, strict=True):
            th.testing.assert_close(stepped, at_once, rtol=1e-5, atol=1e-5)


@given(encoders(th.float64), st.integers(1, 3), st.integers(1, 12), st.floats(0, 1), st.booleans())
def test_an_update_is_that_of_pytorch(
    encoder: NeuralCDE, n_seq: int, n_steps: int, missing: float, learned: bool
) -> None:
    """The gradients of all parameters, and those of features that a network has made."""
    sequences, state, starts = observed(encoder, n_seq, n_steps, missing)
    rows = sequences.flatten(0, 1).requires_grad_(learned)
    results = []
    for _ in range(2):
        seen, _ = encoder.unroll(rows, state, starts.flatten())
        weights = th.linspace(-1, 1, seen.numel(), dtype=seen.dtype).view_as(seen)
        wanted = [*encoder.parameters(), *[rows] * learned]
        if not seen.requires_grad:
            return
        gradients = th.autograd.grad((seen * weights).sum(), wanted, allow_unused=True, materialize_grads=True)
        results.append((seen.detach(), *gradients))
        context = in_pytorch()
        context.start()
    patch.stopall()
    for in_numpy, expected in zip(*results, strict=True):
        size = max(1.0, float(expected.nan_to_num().abs().max()))
        th.testing.assert_close(in_numpy, expected, rtol=1e-9, atol=1e-9 * size)


@given(encoders(th.float64, smooth=True), st.integers(1, 6), st.floats(0, 0.7))
def test_gradients_of_learned_features_are_those_of_finite_differences(
    encoder: NeuralCDE, n_steps: int, missing: float
) -> None:
    sequences, state, starts = observed(encoder, 2, n_steps, missing)
    values, time = sequences[..., :-1].flatten(0, 1), sequences[..., -1:].flatten(0, 1)
    gap = values.isnan()

    def encode(learned: th.Tensor) -> th.Tensor:
        rows = th.cat((learned.masked_fill(gap, th.nan), time), dim=1)
        return encoder.unroll(rows, state, starts.flatten())[0]

    inputs = values.nan_to_num().requires_grad_()
    # The activations of the initial network have kinks, which one of so many differences may meet.
    th.nn.init.constant_(dict(encoder.initial.named_parameters())["0.bias"], 5.0)
    assert th.autograd.gradcheck(encode, (inputs,), eps=1e-6, atol=1e-4, rtol=1e-3, check_undefined_grad=False)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 4), st.booleans(), st.booleans(), st.booleans())
def test_the_path_of_data_is_that_of_learned_features(
    seed: int, points: int, windows: int, rates: bool, counted: bool, timed: bool
) -> None:
    rng = np.random.default_rng(seed)
    controls = th.from_numpy(rng.normal(size=(points, windows, D)))
    elapsed = th.from_numpy(rng.choice([0.0, 0.05, 1.0], size=(points, windows)))
    scale = th.from_numpy(rng.uniform(0.5, 2.0, 2 * D))
    counts = th.from_numpy(rng.integers(0, 2, (points, windows, D)).cumsum(0).astype(float)) if counted else None
    arguments = (elapsed, scale, rates, 0.5 if timed else None, counts)
    data, learned = control_path(controls, *arguments), control_path(controls.clone().requires_grad_(), *arguments)
    for numbers, expected in zip(data, learned, strict=True):
        th.testing.assert_close(numbers, expected.detach(), rtol=1e-12, atol=1e-12)


CHANGES: dict[str, Callable[[Any], object]] = {
    "in place": lambda encoder: encoder.field.layers[0].weight.data.add_(0.5),
    "other data": lambda encoder: setattr(encoder.initial[0].weight, "data", encoder.initial[0].weight.data + 0.5),
    "another parameter": lambda encoder: setattr(
        encoder.field.layers[1], "bias", th.nn.Parameter(encoder.field.layers[1].bias + 0.5)
    ),
    "made of others": lambda encoder: parametrizations.weight_norm(encoder.field.layers[0]),
    "scale": lambda encoder: encoder.increment_scale.scale.mul_(2.0),
    "nothing": lambda encoder: None,
}


@pytest.mark.parametrize("copied", ["itself", "copy", "pickle"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_step_uses_the_weights_of_its_moment(change: str, copied: str) -> None:
    encoder: Any = NeuralCDE(ObservationHistory(4, 2, D), EncoderArguments()).double()
    sequences, state, starts = observed(encoder, 2, 6, 0.0)
    starts[:, 4] = 0.0  # a first observation has not been through the field
    for t in range(4):
        _, state = encoder.step(sequences[:, t], state, starts[:, t])
    before = encoder
    if copied == "copy":
        encoder = copy.deepcopy(encoder)
    elif copied == "pickle" and change != "made of others":
        encoder = pickle.loads(pickle.dumps(encoder))
    CHANGES[change](encoder)
    if change == "made of others":
        encoder.field.layers[0].parametrizations.weight.original0.data.mul_(2.0)
    found, _ = encoder.step(sequences[:, 4], state, starts[:, 4])
    with th.no_grad():
        expected, _ = encoder.unroll(sequences[:, 4], state, starts[:, 4])
    th.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    again, _ = before.step(sequences[:, 4], state, starts[:, 4])
    assert (before is encoder or change == "nothing") == th.allclose(again, found, atol=1e-5)


def test_weights_that_change_between_forward_and_backward_are_noticed() -> None:
    encoder = NeuralCDE(ObservationHistory(4, 2, D), EncoderArguments())
    sequences, state, starts = observed(encoder, 2, 6, 0.0)
    seen, _ = encoder.unroll(sequences.flatten(0, 1), state, starts.flatten())
    with th.no_grad():
        encoder.field.layers[0].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        th.autograd.backward(seen.sum())


@pytest.mark.parametrize("traces", [None, (5.0,)])
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize(
    "arguments",
    [
        EncoderArguments(),
        EncoderArguments(solver="rk4", feature_norm="tanh", skip=False),
        EncoderArguments(path_in_field=False, feature_norm="none", solver="midpoint", interpolation="rectilinear"),
    ],
)
def test_second_derivatives_are_those_of_pytorch(
    arguments: EncoderArguments, share: float, traces: tuple[float, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Hessian times a vector, as TRPO takes it; for learned features, and where the heads see z twice."""
    th.manual_seed(0)  # of other weights, in an order of tests of its own, rounding may be of the size of the bound
    history = ObservationHistory(4, 2, D, missing_values=share > 0, time_constants=traces)
    encoder = NeuralCDE(history, arguments).double()
    sequences, state, starts = observed(encoder, 2, 6, share)
    features_learned = share == 0 and traces is None
    rows = sequences.flatten(0, 1).requires_grad_(features_learned)
    learned = [*encoder.parameters(), *([rows] if features_learned else [])]
    found = []
    for always in (False, True):
        if always:
            monkeypatch.setattr("sb3_ncde.cde.encoder.suits", lambda *_: False)
        seen, _ = encoder.unroll(rows, state, starts.flatten())
        first = th.autograd.grad(seen.square().sum() + seen.sum(), learned, create_graph=True)
        product = sum((part * part.detach().sign()).sum() for part in first)
        assert isinstance(product, th.Tensor)
        found.append([*first, *th.autograd.grad(product, learned, allow_unused=True)])
    for ours, theirs in zip(*found, strict=True):
        if theirs is None:
            assert ours is None or not ours.any()
        else:
            th.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_counts_that_start_over_change_nothing() -> None:
    """float32 counts no further than 2**24."""
    encoder = NeuralCDE(ObservationHistory(4, 3, D), EncoderArguments()).double()
    sequences, state, starts = observed(encoder, 2, 40, 0.0)
    starts[:] = 0.0
    states = []
    for t in range(20):
        _, state = encoder.step(sequences[:, t], state, starts[:, t])
    long_ago = encoder.history.rule.most - 30
    for steps in (0, long_ago - long_ago % 6):  # by six steps the windows are used as before
        first, second = (part.clone() for part in state)
        first[..., 0] += steps
        episode: State = (first, second)
        for t in range(20, 40):
            seen, episode = encoder.step(sequences[:, t], episode, starts[:, t])
        states.append((seen, episode[0][..., 1:], episode[1]))
        assert episode[0][..., 0].max() <= encoder.history.rule.most
    assert all(map(th.equal, *states))


def test_large_windows_are_solved_by_pytorch() -> None:
    encoder = NeuralCDE(ObservationHistory(4, 2, D), EncoderArguments(field_width=2048))
    sequences, state, starts = observed(encoder, 100, 2, 0.0)
    seen, _ = encoder.unroll(sequences.flatten(0, 1), state, starts.flatten())
    names = set()
    nodes = [seen.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None:
            names.add(type(node).__name__)
            nodes += [following for following, _ in node.next_functions]
    assert "_SolveBackward" not in names
