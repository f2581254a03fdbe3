"""Interpolations against torchcde, what of them cannot be combined, and adaptive solvers."""

import copy
from typing import Any

import pytest
import torch as th
import torchcde
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde import presets
from sb3_ncde.cde import solvers
from sb3_ncde.cde.interpolation import INTERPOLATIONS, Hermite, Linear, Rectilinear
from sb3_ncde.cde.path import ControlPath
from sb3_ncde.cde.solvers import ADAPTIVE_SOLVERS, AdaptiveSolver, FixedSolver
from tests.envs import RandomWalk
from tests.test_encoder import encode, make_encoder, random_sequences, step_by_step
from tests.test_ratio import worst_difference


def make(**kwargs: Any) -> Any:
    env = make_vec_env(RandomWalk, 2, seed=0, env_kwargs={"longest": 20})
    return RecurrentPPO(
        "NCDEPolicy", env, n_steps=16, batch_size=16, n_epochs=1, policy_kwargs=kwargs, seed=0, device="cpu"
    )


def random_path(intervals: int = 4) -> tuple[th.Tensor, th.Tensor]:
    return th.rand(intervals, 3, 2, dtype=th.float64), th.randn(intervals + 1, 3, 5, dtype=th.float64)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 1.0])
def test_hermite_is_the_formula_of_backward_differences(place: float) -> None:
    """X' = s0 + (s1 - s0)(4u - 3u^2), s1 the increment of the interval, s0 of that before (the first: its own)."""
    increments, drive = random_path()
    before = th.cat((increments[:1], increments[:-1]))
    path = Hermite(increments, drive, th.ones(4, 3, 1))
    th.testing.assert_close(path.slope(place), before + (increments - before) * (4 * place - 3 * place**2))
    steps = drive.diff(dim=0)
    old = th.cat((steps[:1], steps[:-1]))
    expected = drive[:-1] + old * place + (steps - old) * (2 * place**2 - place**3)
    th.testing.assert_close(path.drive_at(place), expected)
    assert Hermite(increments, None, th.ones(4, 3, 1)).drive_at(place) is None


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 1.0])
def test_hermite_is_torchcde_s_with_uneven_times(place: float) -> None:
    """The same curve: by torchcde over time, here over u."""
    increments, drive = random_path()
    unit = 10.0 ** th.randint(-6, 7, ()).item()
    steps = unit * (0.3 + 2 * th.rand(4, 1, 1, dtype=th.float64))  # one for all windows, as torchcde asks for
    path = Hermite(increments, drive, steps.expand(4, 3, 1))
    times = th.cat((th.zeros(1), steps.flatten().cumsum(0)))
    values = th.cat((th.zeros(1, 3, 2), increments.cumsum(0)))
    drive_at = path.drive_at(place)
    assert drive_at is not None
    for knots, ours, by_time in ((values, path.slope(place), True), (drive, drive_at, False)):
        coefficients = torchcde.hermite_cubic_coefficients_with_backward_differences(knots.transpose(0, 1), times)
        spline = torchcde.CubicSpline(coefficients, times)
        # At the very end of an interval torchcde is on the next one, but the curve and its slope are continuous.
        for interval, step in enumerate(steps.flatten()):
            at = times[interval] + place * step
            expected = spline.derivative(at) * step if by_time else spline.evaluate(at)
            th.testing.assert_close(ours[interval], expected)
    th.testing.assert_close(path.slope(1.0), increments)


def test_hermite_where_no_time_passes() -> None:
    """Straight as long as none has; later it leaves with no speed, and the slope of before holds after it."""
    increments = th.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 0.0]).double().view(-1, 1, 1)
    steps = th.tensor([0.0, 2.0, 1.0, 0.0, 0.5, 0.0]).double().view(-1, 1, 1)
    leaving = Hermite(increments, None, steps).slope(0.0).flatten()
    assert leaving.tolist() == [0.0, 1.0, 0.5, 0.0, 1.0, 0.0]
    late = th.tensor([1e-8, 1e7, 1.0, 100.0]).view(-1, 1, 1)  # ratios above 10 count as 10
    th.testing.assert_close(
        Hermite(th.ones(4, 1, 1), None, late).slope(0.0).flatten(), th.tensor([1.0, 10.0, 1e-7, 10.0])
    )
    padding = Hermite(increments, None, steps)
    assert all(padding.slope(place)[-1].item() == 0.0 for place in (0.0, 0.3, 1.0))


def test_rectilinear_is_torchcde_s() -> None:
    increments, drive = random_path()
    knots = th.cat((th.zeros(1, 3, 2), increments.cumsum(0))).transpose(0, 1)
    expected = torchcde.linear_interpolation_coeffs(knots, rectilinear=0).transpose(0, 1)
    path = Rectilinear.through(ControlPath(increments, drive, increments[..., :1]), drive)
    assert isinstance(path, Linear)
    th.testing.assert_close(path.increments, expected.diff(dim=0))
    assert path.drive is not None
    assert th.equal(path.drive[::2], drive)
    assert th.equal(path.drive[1::2], drive[:-1])
    assert Rectilinear.through(ControlPath(increments, drive, increments[..., :1]), None).drive is None


@pytest.mark.parametrize("path_in_field", [True, False])
@pytest.mark.parametrize("rates", [True, False])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_adaptive_and_fine_fixed_steps_agree(interpolation: str, rates: bool, path_in_field: bool) -> None:
    th.manual_seed(0)  # how steep a path is, and with it the error of rk4, depends on the numbers
    encoder = make_encoder(
        solver="rk4", solver_steps=32, interpolation=interpolation, rates=rates, path_in_field=path_in_field
    )
    sequences = random_sequences(2, 9)
    fixed = encode(encoder, sequences)
    encoder.solver = AdaptiveSolver("dopri5", rtol=1e-9, atol=1e-9)
    th.testing.assert_close(encode(encoder, sequences), fixed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["dopri5", "bosh3"])
@pytest.mark.parametrize("interpolation", ["linear", "rectilinear"])
def test_an_adaptive_step_that_ends_on_a_knot_does_not_pass_the_next(interpolation: str, solver: str) -> None:
    """Features that rest but for one change let the solver take its largest steps, which end on knots."""
    th.manual_seed(17)
    encoder = make_encoder(8, 8, solver=solver, interpolation=interpolation, path_in_field=False, rtol=1e-6, atol=1e-6)
    sequences = random_sequences(1, 8)
    sequences[..., :2] = sequences[:, :1, :2]
    sequences[:, 4:, :2] += 1.0
    sequences[..., 2] = 1.0
    adaptive = encode(encoder, sequences)
    encoder.solver = FixedSolver("rk4", 32)
    th.testing.assert_close(adaptive, encode(encoder, sequences), rtol=0, atol=1e-5)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_stepping_is_unrolling_and_longer_batches_change_nothing(solver: str, interpolation: str) -> None:
    """A window in a batch with longer ones is padded."""
    encoder = make_encoder(solver=solver, interpolation=interpolation, rtol=1e-9, atol=1e-9)
    sequences = random_sequences(3, 7)
    starts = th.zeros(3, 7)
    starts[0, 3] = starts[1, 1] = starts[1, 2] = 1
    unrolled = encode(encoder, sequences, starts)
    tolerance = 1e-12 if solver == "rk4" else 1e-6
    th.testing.assert_close(step_by_step(encoder, sequences, starts), unrolled, rtol=0, atol=tolerance)
    th.testing.assert_close(encode(encoder, sequences[:, :2], starts[:, :2]), unrolled[:, :2], rtol=0, atol=tolerance)


@pytest.mark.parametrize("solver", ADAPTIVE_SOLVERS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_newest_observation_matters_with_every_solver(solver: str, interpolation: str) -> None:
    encoder = make_encoder(solver=solver, interpolation=interpolation)
    sequences = random_sequences(1, 9)
    other = sequences.clone()
    other[0, -1, 0] += 0.5
    assert (encode(encoder, other)[0, -1] - encode(encoder, sequences)[0, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("control_size", [None, 1])
def test_the_adjoint_s_gradients_are_those_through_the_steps(control_size: int | None) -> None:
    """Also those of what the path is made of: the projection and the drive."""
    encoder = make_encoder(solver="dopri5", rtol=1e-9, atol=1e-9, control_size=control_size)
    sequences = random_sequences(2, 6)
    empty = th.zeros(1, 2, encoder.hidden_size, dtype=th.float64)
    gradients = []
    for adjoint in (False, True):
        encoder.solver = AdaptiveSolver("dopri5", 1e-9, 1e-9, adjoint)
        encoder.zero_grad()
        output, _ = encoder(sequences.flatten(0, 1), (empty, empty), th.zeros(12))
        (output**2).sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for direct, adjoint in zip(*gradients, strict=True):  # some are of order 1,000, and so is the solver's error
        assert (adjoint - direct).abs().max() <= 1e-6 * direct.abs().max().clamp(min=1.0)


def test_gradients_are_finite_where_windows_of_one_point_and_full_ones_mix() -> None:
    for interpolation in ("linear", "hermite", "rectilinear"):
        for solver in ("rk4", "dopri5"):
            encoder = make_encoder(solver=solver, interpolation=interpolation)
            sequences, starts = random_sequences(2, 8), th.zeros(16)
            starts[7] = 1
            empty = th.zeros(1, 2, encoder.hidden_size, dtype=th.float64)
            encoder(sequences.flatten(0, 1), (empty, empty), starts)[0].sum().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize(
    "kwargs", [{"solver": "dopri5", "rtol": 1e-6}, presets.lerax(), {"interpolation": "rectilinear"}]
)
def test_ratio_is_one(kwargs: dict[str, Any]) -> None:
    assert worst_difference(make(**kwargs), 2) < (1e-4 if "rtol" in kwargs else 1e-5)


@pytest.mark.parametrize("interpolation", ["linear", "rectilinear"])
def test_ratio_is_one_where_features_rest(interpolation: str) -> None:
    """A one-hot observation changes in two features at once, or in none."""
    kwargs = {"solver": "dopri5", "rtol": 1e-6, "atol": 1e-6, "interpolation": interpolation, "rates": False}
    env = make_vec_env("FrozenLake-v1", 2, seed=0)
    model = RecurrentPPO("NCDEPolicy", env, n_steps=16, batch_size=10, policy_kwargs=kwargs, seed=0, device="cpu")
    assert worst_difference(model, 2) < 1e-4


@pytest.mark.parametrize("history_length", [1, 4])
@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_preset_learns(history_length: int, solver: str) -> None:
    kwargs = presets.lerax(history_length=history_length, solver=solver, feature_size=7)
    model = make(**kwargs).learn(32)
    assert model.policy.lstm_actor.output_size == 7
    assert model.policy.mlp_extractor.latent_dim_pi == 16


def test_dt_is_visible_with_the_time_channel_alone() -> None:
    sequences = random_sequences(1, 5)
    for time_channel in (True, False):
        encoder = make_encoder(time_channel=time_channel, rates=False)
        z = encode(encoder, sequences)
        encoder.time_scale = 0.5
        assert th.equal(encode(encoder, sequences), z) != time_channel


def test_bootstrap_values_are_those_that_are_trained() -> None:
    policy = make(**presets.lerax()).policy
    zeros = th.zeros(1, 1, policy.lstm_actor.hidden_size)
    states: Any = type("States", (), {"pi": (zeros, zeros), "vf": (zeros, zeros)})
    arguments = (th.randn(1, 3), th.zeros(1, dtype=th.long))
    trained = policy.evaluate_actions(*arguments, states, th.ones(1))[0]
    assert th.equal(policy.predict_values(arguments[0], (zeros, zeros), th.ones(1)), trained)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("failure", ["evaluations", "not finite"])
def test_a_solve_that_fails_loses_nothing(failure: str, adjoint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(solver="dopri5", adjoint=adjoint).learn(32)
    before = copy.deepcopy((model.policy.state_dict(), model.policy.optimizer.state_dict()))
    if failure == "evaluations":
        monkeypatch.setattr(solvers, "MAX_EVALUATIONS", 10)
        message = r"solver='dopri5' evaluated the field 10 times.*Use a fixed solver \(euler"
    else:
        monkeypatch.setattr(th, "tanh", lambda x: x * th.inf)
        message = r"solver='dopri5' reached values that are not finite.*Use a fixed solver"
    with pytest.raises(ValueError, match=message):
        model.train()
    after = (model.policy.state_dict(), model.policy.optimizer.state_dict())
    for name, value in before[0].items():
        if name != "lstm_actor.increment_scale.updated":
            assert th.equal(value, after[0][name]), name
    assert str(before[1]) == str(after[1])
    monkeypatch.undo()
    model.train()


def test_diverged_weights_are_not_called_a_stiff_equation() -> None:
    model = make(solver="dopri5")
    with th.no_grad():
        model.policy.lstm_actor.initial[0].weight.fill_(th.nan)
    with pytest.raises(ValueError, match=r"not finite at the first observation.*weights have diverged"):
        model.learn(16)


def test_an_adjoint_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(solver="dopri5", adjoint=True)
    empty = th.zeros(1, 2, encoder.hidden_size, dtype=th.float64)
    output, _ = encoder(random_sequences(2, 6).flatten(0, 1), (empty, empty), th.zeros(12))
    monkeypatch.setattr(solvers, "MAX_EVALUATIONS", 1)
    with pytest.raises(ValueError, match=r"solver='dopri5' evaluated the field 1 times.*Use a fixed solver"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"interpolation": "hermite"}, "solver='euler' with interpolation='hermite'.*act late.*rk4"),
        ({"interpolation": "hermite", "solver": "heun"}, "solver='heun' with interpolation='hermite'"),
        ({"interpolation": "rectilinear", "time_channel": False}, "time must be one of its channels"),
        ({"interpolation": "cubic"}, "interpolation='cubic' is not one of linear, hermite, rectilinear"),
        ({"adjoint": True}, "adjoint=True with solver='euler'"),
        ({"solver": "dopri5", "solver_steps": 2}, "chooses its steps itself"),
        ({"rtol": 0.0}, "rtol=0.0: the tolerance"),
        ({"feature_size": 2}, "feature_size=2 with feature_norm='layer_norm'"),
        ({"value_width": 8, "net_arch": [4]}, r"net_arch=\[4\] beside value_width"),
        ({"solver": "tsit5"}, "solver='tsit5' is not one of euler, midpoint, heun, rk4, dopri5"),
    ],
)
def test_what_does_not_go_together_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_the_preset_with_heads_and_time_of_the_user_s() -> None:
    assert make(**presets.lerax(net_arch=[5])).policy.net_arch == [5]
    with pytest.raises(ValueError, match=r"the agent would not see the time. Leave time_channel=True"):
        make(**presets.lerax(time_key=0))
    make(**presets.lerax(time_key=0, time_channel=True))


def test_heads_by_the_seed_s_names() -> None:
    arch = make(value_width=5, action_depth=1).policy.net_arch
    assert arch == {"pi": [64], "vf": [5, 5]}
