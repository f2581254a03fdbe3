"""Missing values: NaN in an observation is what the held path makes of it, computed in plain loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.acting.path import SHORTEST
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.cde.encoder import NeuralCDE
from sb3_ncde.cde.path import control_path
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


def held_and_counts(sequence: Any, starts: Any) -> list[tuple[Any, Any]]:
    """Of each feature the last value of the episode, and how often it has been observed, step by step."""
    results = []
    held, counts = np.zeros(D), np.zeros(D)
    for observation, start in zip(sequence, starts, strict=True):
        if start:
            held, counts = np.zeros(D), np.zeros(D)
        held, counts = held.copy(), counts.copy()
        for feature in range(D):
            if not np.isnan(observation[feature]):
                held[feature] = observation[feature]
                counts[feature] += 1
        results.append((held, counts))
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
        for t, (held, counts) in enumerate(steps):
            np.testing.assert_array_equal(row[t, :D], held)
            np.testing.assert_array_equal(row[t, D:], counts)
    # What the slots hold, the windows of later steps hold as well.
    slots = history.unpack(state)[2].numpy()
    for row, steps in zip(slots, expected, strict=True):
        np.testing.assert_array_equal(row[-1, : 2 * D], np.concatenate(steps[-1]))


@given(**gaps)
def test_rates_and_ages_are_those_of_a_loop(
    seed: int, missing: float, history_length: int, hop_length: int, n_steps: int
) -> None:
    rng = np.random.default_rng(seed)
    (sequence,) = random_gaps(rng, 1, n_steps, missing).numpy()
    steps = held_and_counts(sequence, np.zeros(n_steps))
    held, counts = (th.tensor(np.array(part))[:, None] for part in zip(*steps, strict=True))  # (H, 1, D)
    elapsed = th.from_numpy(sequence[:, D:])
    scale = th.tensor([2.0, 1.0, 0.5, 3.0, 1.0, 0.1], dtype=th.float64)
    path = control_path(held, elapsed, scale, rates=True, counts=counts)
    slope, last, now = np.zeros(D), np.zeros(D), 0.0
    for knot in range(n_steps):
        if knot:
            now += sequence[knot, D]
            for feature in range(D):
                if not np.isnan(sequence[knot, feature]):
                    change = steps[knot][0][feature] - steps[knot - 1][0][feature]
                    if now > last[feature] and steps[knot - 1][1][feature] > 0:  # a first value has no rate
                        slope[feature] = change / max(now - last[feature], SHORTEST) * scale[D + feature]
                    last[feature] = now
        np.testing.assert_allclose(path.values[knot, 0, :D], steps[knot][0])
        np.testing.assert_allclose(path.values[knot, 0, D : 2 * D], slope, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(path.values[knot, 0, 2 * D :], now - last, atol=1e-9)
        if knot:
            np.testing.assert_allclose(path.increments[knot - 1, 0, -D:], steps[knot][1] - steps[knot - 1][1])


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
    assert all(map(th.equal, state, after))
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
