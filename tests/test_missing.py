"""Missing values: NaN in an observation is what the held path makes of it, computed in plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.acting.path import SHORTEST
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.history.observation_history import ObservationHistory
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.sensors import IrregularSampling, SensorDropout
from tests.envs import RandomWalk
from tests.test_ratio import worst_difference

D = 3


def random_gaps(rng: np.random.Generator, n_seq: int, n_steps: int, missing: float) -> th.Tensor:
    """Features, some of them NaN, and elapsed time, some of it 0: (N, T, D + 1)."""
    sequences = rng.normal(size=(n_seq, n_steps, D + 1))
    sequences[..., :D][rng.random((n_seq, n_steps, D)) < missing] = np.nan
    sequences[..., D] = rng.choice([0.0, 0.05, 1.0, 2.5], size=(n_seq, n_steps))
    return th.from_numpy(sequences)


def held_and_counts(sequence: Any, starts: Any) -> list[tuple[Any, ...]]:
    """Return what is known of each feature, step by step.

    These are the last value of the episode, how often it has been observed, the time since it was (or since the episode
    began), its rate, and the step at which that was taken.
    """
    results = []
    held, counts, ages, rates, taken = np.zeros((5, D))
    for step, (observation, start) in enumerate(zip(sequence, starts, strict=True)):
        begins = start or step == 0
        if begins:
            held, counts, ages, rates, taken = np.zeros((5, D))
        held, counts, ages, rates, taken = (part.copy() for part in (held, counts, ages, rates, taken))
        for feature in range(D):
            since = 0.0 if begins else ages[feature] + observation[D]
            ages[feature] = since
            if not np.isnan(observation[feature]):
                if since > 0 and counts[feature] > 0:  # a first value has no rate
                    rates[feature] = (observation[feature] - held[feature]) / max(since, SHORTEST)
                    taken[feature] = step
                held[feature] = observation[feature]
                counts[feature] += 1
                ages[feature] = 0.0
        results.append((held, counts, ages, rates, taken))
    return results


gaps = {
    "seed": st.integers(0, 2**32 - 1),
    "missing": st.floats(0.0, 1.0),
    "history_length": st.integers(1, 6),
    "hop_length": st.integers(1, 6),
    "n_steps": st.integers(1, 14),
}


@given(**gaps, split=st.integers(1, 14))
def test_history_holds_and_counts_as_a_loop_does(
    seed: int, missing: float, history_length: int, hop_length: int, n_steps: int, split: int
) -> None:
    rng = np.random.default_rng(seed)
    sequences = random_gaps(rng, 2, n_steps, missing)
    starts = rng.random((2, n_steps)) < 0.2
    expected = [held_and_counts(*pair) for pair in zip(sequences.numpy(), starts, strict=True)]
    history = ObservationHistory(history_length, min(hop_length, history_length), D, missing_values=True)
    zeros = th.zeros(1, 2, history.size, dtype=th.float64)
    state: tuple[th.Tensor, ...] = (zeros, zeros)
    found = []
    for part in range(0, n_steps, split):
        chunk = slice(part, part + split)
        appended, state = history.append(
            sequences[:, chunk, :D], sequences[:, chunk, D], state, th.from_numpy(starts[:, chunk].astype(float))
        )
        found.append(th.from_numpy(appended.line[:, history_length:, :-1]))
    for row, steps in zip(th.cat(found, dim=1).numpy(), expected, strict=True):
        for t, (held, counts, ages, *_) in enumerate(steps):
            np.testing.assert_array_equal(row[t, :D], held)
            np.testing.assert_array_equal(row[t, D : 2 * D], counts)
            np.testing.assert_allclose(row[t, 2 * D :], ages, atol=1e-12)
    # What the slots hold, the windows of later steps hold as well.
    slots = history.unpack(state)[2].numpy()
    for row, steps in zip(slots, expected, strict=True):
        np.testing.assert_allclose(row[-1, : 3 * D], np.concatenate(steps[-1][:3]), atol=1e-12)


@given(**gaps)
def test_rates_and_ages_are_those_of_a_loop_wherever_a_window_begins(
    seed: int, missing: float, history_length: int, hop_length: int, n_steps: int
) -> None:
    """A value that was held when a window began keeps its age. A rate is exact, or 0 if older than the window."""
    rng = np.random.default_rng(seed)
    sequences = random_gaps(rng, 1, n_steps, missing)
    steps = held_and_counts(sequences[0].numpy(), np.zeros(n_steps))
    encoder = make_encoder(rng, history_length, min(hop_length, history_length))
    zeros = th.zeros(1, 1, encoder.hidden_size, dtype=th.float64)
    prepared = encoder.prepare(encoder.append(sequences[0], (zeros, zeros), th.zeros(n_steps))[0])
    _, windows, path = prepared
    scale = encoder.increment_scale.scale[D:].numpy()
    for t, (knot, window) in enumerate(zip(windows.knot, windows.window, strict=True)):
        values, (held, counts, ages, rates, taken) = path.values[knot, window].numpy(), steps[t]
        np.testing.assert_allclose(values[:D], held)
        np.testing.assert_allclose(values[2 * D :], np.log1p(ages), atol=1e-9)
        within = taken > t - int(knot)
        np.testing.assert_allclose(values[D : 2 * D], np.where(within, rates * scale, 0.0), rtol=1e-9, atol=1e-9)
        if knot:
            gained = counts - steps[t - 1][1]
            np.testing.assert_allclose(path.increments[knot - 1, window, -D:].numpy(), gained)


def test_scaled_rates_of_a_steady_change_are_1_whatever_is_missing() -> None:
    """A value that grows by 0.1 in a step, observed now and then, has a rate of 0.1, and changes since it was seen."""
    for missing in (0.0, 0.5, 0.8):
        rng = np.random.default_rng(3)
        history = ObservationHistory(64, 16, D, missing_values=True)
        encoder = NeuralCDE(history, EncoderArguments())
        zeros = th.zeros(1, 50, encoder.hidden_size)
        values = (th.tensor([0.1, 0.1, 0.0]) * th.arange(100).view(-1, 1) + 5.0).expand(50, 100, D).clone()
        values[th.from_numpy(rng.random((50, 100, D)) < missing)] = th.nan
        rows = th.cat((values, th.ones(50, 100, 1)), dim=2).flatten(0, 1)
        encoder(rows, (zeros, zeros), th.zeros(5000))[0].square().sum().backward()
        th.optim.SGD(encoder.parameters(), lr=1e-3).step()
        np.testing.assert_allclose(encoder.increment_scale.scale[D:-1], 10.0, rtol=1e-3)
        # The time since is geometric, with a mean square of (1 + p) / (1 - p)^2 steps.
        usual = 0.1 * np.sqrt(1 + missing) / (1 - missing)
        np.testing.assert_allclose(encoder.increment_scale.scale[:2], 1 / usual, rtol=0.1)


def make_encoder(rng: np.random.Generator, history_length: int, hop_length: int, **kwargs: Any) -> NeuralCDE:
    th.manual_seed(int(rng.integers(2**31)))
    history = ObservationHistory(history_length, hop_length, D, missing_values=True)
    encoder = NeuralCDE(history, EncoderArguments(latent_size=5, **kwargs)).double()
    encoder.increment_scale.scale.uniform_(0.5, 2.0)
    return encoder


@given(**gaps, kind=st.sampled_from(["linear", "rectilinear", "hermite", "projected", "without rates"]))
def test_invariants_with_gaps(
    seed: int, missing: float, history_length: int, hop_length: int, n_steps: int, kind: str
) -> None:
    """Stepping equals unrolling, rows do not depend on each other, gradients are finite."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, dict[str, Any]] = {
        "rectilinear": {"interpolation": "rectilinear"},
        "hermite": {"interpolation": "hermite", "solver": "rk4"},
        "projected": {"control_size": 2},
        "without rates": {"rates": False},
    }
    encoder = make_encoder(rng, history_length, min(hop_length, history_length), **kinds.get(kind, {}))
    sequences = random_gaps(rng, 3, n_steps, missing)
    starts = th.from_numpy((rng.random((3, n_steps)) < 0.2).astype(float))
    zeros = th.zeros(1, 3, encoder.hidden_size, dtype=th.float64)
    output, after = encoder(sequences.flatten(0, 1), (zeros, zeros), starts.flatten())
    output.pow(2).sum().backward()
    assert output.isfinite().all()
    gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    unrolled = output.detach().view(3, n_steps, -1)
    state: Any = (zeros, zeros)
    for t in range(n_steps):
        step, state = encoder.step(sequences[:, t], state, starts[:, t])
        th.testing.assert_close(step, unrolled[:, t], rtol=0, atol=1e-10)
    for stepped, at_once in zip(state, after, strict=True):  # ages are sums
        th.testing.assert_close(stepped, at_once, rtol=0, atol=1e-12)
    order = [2, 0, 1]
    permuted, _ = encoder(sequences[order].flatten(0, 1), (zeros, zeros), starts[order].flatten())
    th.testing.assert_close(permuted.detach().view(3, n_steps, -1), unrolled[order], rtol=0, atol=1e-10)


@given(**gaps)
def test_what_was_observed_before_the_window_and_again_since_is_forgotten(
    seed: int, missing: float, history_length: int, hop_length: int, n_steps: int
) -> None:
    rng = np.random.default_rng(seed)
    encoder = make_encoder(rng, history_length, min(hop_length, history_length))
    sequence = random_gaps(rng, 1, n_steps, missing)
    starts = th.from_numpy((rng.random(n_steps) < 0.1).astype(float))
    seen = n_steps - (int(starts.nonzero()[-1]) if starts.any() else 0)
    oldest = n_steps - int(encoder.history.rule.points(np.array([seen]))[0])  # step at which the last window begins
    other = sequence.clone()
    for step in range(oldest):
        again = ~th.isnan(sequence[0, step + 1 : oldest + 1, :D]).all(dim=0)
        other[0, step, :D] += 100.0 * again
    zeros = th.zeros(1, 1, encoder.hidden_size, dtype=th.float64)
    outputs = [encoder(rows[0], (zeros, zeros), starts)[0][-1] for rows in (sequence, other)]
    th.testing.assert_close(*outputs, rtol=0, atol=0)


def test_never_observed_missing_and_zero_are_three_different_things() -> None:
    encoder = make_encoder(np.random.default_rng(0), 4, 2)
    zeros = th.zeros(1, 1, encoder.hidden_size, dtype=th.float64)
    nan, zero = [th.nan] * D, [0.0] * D
    outputs = []
    for values in ([zero, zero], [zero, nan], [nan, nan], [nan, zero]):
        rows = th.tensor([[*row, 1.0] for row in values], dtype=th.float64)
        outputs.append(encoder(rows, (zeros, zeros), th.tensor([1.0, 0.0]))[0][-1].detach())
    for i, one in enumerate(outputs):
        assert all((one - other).abs().max() > 1e-6 for other in outputs[:i])


class DroppedWalk(RandomWalk):
    """A RandomWalk whose values are missing half of the time, at the first step too."""

    def _observe(self) -> Any:
        observation = super()._observe()
        walk = observation["walk"] if isinstance(observation, dict) else observation
        walk[self.np_random.random(len(walk)) < 0.5] = np.nan
        return observation


@pytest.mark.parametrize(
    ("observation", "kwargs"),
    [("box", {}), ("box", {"hop_length": 1}), ("box", {"share_encoder": False}), ("dict", {"time_key": "time"})],
)
def test_ratio_is_one_and_training_goes_on_after_save_and_load(
    observation: str, kwargs: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    env = make_vec_env(DroppedWalk, 3, seed=seed, env_kwargs={"observation": observation})
    policy = "NCDEPolicy" if observation == "box" else "MultiInputNCDEPolicy"
    model = RecurrentPPO(
        policy, env, n_steps=24, batch_size=36, n_epochs=2, seed=seed, device="cpu",
        policy_kwargs={"missing_values": True, **kwargs},
    )  # fmt: skip
    assert worst_difference(model, 2) < 1e-5
    model.save(tmp_path / "model.zip")
    loaded = RecurrentPPO.load(tmp_path / "model.zip", env=env, device="cpu")
    observations: Any = env.reset()
    actions, state = model.predict(observations, deterministic=True)
    again, other = loaded.predict(observations, deterministic=True)
    assert np.array_equal(actions, again)
    assert all(np.array_equal(one, two) for one, two in zip(state or (), other or (), strict=True))
    loaded.learn(72)


def test_sensors_of_every_kind_train() -> None:
    env = make_vec_env(lambda: SensorDropout(IrregularSampling(RandomWalk(longest=20)), burst=3.0), 2)
    model = RecurrentPPO(
        "MultiInputNCDEPolicy", env, n_steps=16, batch_size=16, device="cpu",
        policy_kwargs={"missing_values": True, "time_key": "time"},
    )  # fmt: skip
    model.learn(64)


def test_statistics_that_nan_has_poisoned_are_found() -> None:
    """Of SB3's VecNormalize: the first column is missing now and then, and never again has a value."""

    class Flaky(RandomWalk):
        def _observe(self) -> Any:
            observation = super()._observe()
            observation[0] = np.nan if self.np_random.random() < 0.1 else observation[0]
            return observation

    for normalize, fails in ((VecNormalize, True), (VecNormalizeObserved, False)):
        env = normalize(make_vec_env(Flaky, 8, seed=0))
        model = RecurrentPPO(
            "NCDEPolicy", env, n_steps=64, n_epochs=1, device="cpu", policy_kwargs={"missing_values": True}
        )
        if not fails:
            model.learn(6_000)
            continue
        # Warnings are errors here; to a user it is one, as a sensor may be meant to be silent for long.
        with pytest.raises(UserWarning, match=r"Feature 0 has been NaN .*VecNormalizeObserved"):
            model.learn(6_000)
        assert model.num_timesteps < 1_100
        assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


@pytest.mark.parametrize(
    ("missing_values", "value", "column", "message"),
    [
        (False, np.nan, 0, r"the observation is nan at index \[0\].*missing_values=True"),
        (True, np.inf, 0, r"the observation is inf at index \[0\]"),
        (True, np.nan, 1, r"step 0 of its episode: the time is nan.*leave it out of what fails"),
    ],
)
def test_other_values_that_are_not_finite_are_refused(
    missing_values: bool, value: float, column: int, message: str
) -> None:
    env = make_vec_env(RandomWalk, env_kwargs={"observation": "column"})
    model = RecurrentPPO(
        "NCDEPolicy", env, device="cpu", policy_kwargs={"missing_values": missing_values, "time_key": 1}
    )
    observation = np.ones(4, np.float32)
    if missing_values:
        observation[2] = np.nan
    observation[column] = value
    with pytest.raises(ValueError, match=message):
        model.predict(observation)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), missing=st.floats(0.2, 0.9), timestamps=st.booleans(), n_steps=st.integers(1, 6))
def test_gradients_of_time_are_those_of_finite_differences(
    seed: int, missing: float, timestamps: bool, n_steps: int
) -> None:
    """Through elapsed times, rates and ages, those of a state before included."""
    rng = np.random.default_rng(seed)
    th.manual_seed(seed)
    history = ObservationHistory(3, 2, D, timestamps=timestamps, missing_values=True)
    encoder = NeuralCDE(history, EncoderArguments(latent_size=4, feature_norm="tanh")).double()
    th.nn.init.constant_(dict(encoder.initial.named_parameters())["0.bias"], 5.0)  # away from kinks
    sequences = random_gaps(rng, 1, 2 + n_steps, missing)[0]
    time = th.from_numpy(rng.uniform(0.3, 2.0, 2 + n_steps)).requires_grad_()

    def encode(time: th.Tensor) -> th.Tensor:
        shown = time.cumsum(0) if timestamps else time
        rows = th.cat((sequences[:, :D], shown[:, None]), dim=1)
        zeros = th.zeros(1, 1, encoder.hidden_size, dtype=th.float64)
        before, state = encoder.unroll(rows[:2], (zeros, zeros), th.tensor([1.0, 0.0]))
        return th.cat((before, encoder.unroll(rows[2:], state, th.zeros(n_steps))[0]))

    assert th.autograd.gradcheck(encode, (time,), eps=1e-6, atol=1e-6, rtol=1e-5, check_undefined_grad=False)
