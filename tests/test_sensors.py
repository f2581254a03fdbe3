"""Irregular, missing, asynchronous and noisy observations: what the wrappers do to an environment that counts."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_ncde  # noqa: F401
from sb3_ncde.envs.spaces import BoxWithMissing
from sb3_ncde.sensors import AsynchronousSensors, IrregularSampling, NoisyObservation, SelectColumns, SensorDropout


class Counter(gym.Env[Any, Any]):
    """Observes (t, -t) from t = 1 on; each step is worth 1 and the episode is truncated after 20."""

    observation_space: Any = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def _observe(self) -> Any:
        return np.array([self.t, -self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 1
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._observe(), 1.0, False, self.t > 20, {}


class DictCounter(Counter):
    observation_space = spaces.Dict(observation=Counter.observation_space, flag=spaces.Discrete(2))

    def _observe(self) -> Any:
        return {"observation": super()._observe(), "flag": 1}


def episode(env: gym.Env[Any, Any], seed: int = 0) -> tuple[list[Any], list[float]]:
    """All observations of an episode, and its rewards."""
    observation, _ = env.reset(seed=seed)
    observations, rewards, done = [observation], [], False
    while not done:
        assert env.observation_space.contains(observation)
        observation, reward, terminated, truncated, _ = env.step(0)
        done = terminated or truncated
        observations.append(observation)
        rewards.append(float(reward))
    return observations, rewards


KWARGS: list[dict[str, Any]] = [
    {"low": 1, "high": 5},
    {"low": 2, "high": 6, "distribution": "exponential"},
    {"values": [1, 1, 4]},
    {"per_episode": True},
    {"low": 3, "high": 3},
]


@pytest.mark.parametrize("kwargs", KWARGS, ids=str)
@pytest.mark.parametrize("inner", [Counter, DictCounter])
def test_irregular_sampling_holds_actions_and_tells_the_time(kwargs: dict[str, Any], inner: type[Counter]) -> None:
    for seed in range(20):
        observations, rewards = episode(IrregularSampling(inner(), dt=0.5, **kwargs), seed)
        elapsed = [float(observation["time"][0]) for observation in observations]
        assert elapsed[0] == 0
        assert np.array_equal(np.diff([o["observation"][0] for o in observations]), np.array(elapsed[1:]) / 0.5)
        assert rewards == [time / 0.5 for time in elapsed[1:]]
        assert sum(rewards) == 20  # the time limit is one of physical time
        held = rewards[:-1]  # the last may be cut
        low, high = (min(kwargs["values"]), 4) if "values" in kwargs else (kwargs.get("low", 1), kwargs.get("high", 5))
        assert all(low <= steps <= high for steps in held)
        assert not kwargs.get("per_episode") or len(set(held)) <= 1


def test_an_episode_s_period_is_not_that_of_the_one_before() -> None:
    env = IrregularSampling(Counter(), per_episode=True)
    env.reset(seed=0)
    gaps = set()
    for _ in range(40):
        env.reset()
        gaps.add(float(env.step(0)[0]["time"][0]))
    assert gaps == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_the_distributions_are_what_they_are_called() -> None:
    env = IrregularSampling(Counter(), low=1, high=50, distribution="exponential")
    env.reset(seed=1)
    drawn = np.array([env._draw() for _ in range(4000)])
    mean = 25.5
    for k in (5, 20, 40):
        assert np.mean(drawn > k) == pytest.approx(np.exp(-k / mean), abs=0.03)
    env = IrregularSampling(Counter())
    env.reset(seed=1)
    counts = np.bincount([env._draw() for _ in range(5000)], minlength=6)
    assert counts[0] == 0
    assert np.allclose(counts[1:], 1000, atol=120)


def test_time_as_a_column() -> None:
    env = IrregularSampling(Counter(), time_key=None, dt=0.1)
    assert env.observation_space.shape == (3,)
    observations, rewards = episode(env)
    assert np.allclose([o[2] for o in observations[1:]], 0.1 * np.array(rewards))


@given(
    seed=st.integers(0, 1000), fill=st.sampled_from(["nan", "hold"]), inner=st.sampled_from([Counter, DictCounter]),
    kind=st.sampled_from(["dropout", "bursts", "asynchronous"]), grouped=st.booleans(),
)  # fmt: skip
def test_missing_values_are_those_of_a_plain_loop(
    seed: int, fill: str, inner: type[Counter], kind: str, grouped: bool
) -> None:
    groups = [[1, 0]] if grouped else [[0], [1]]
    kwargs: dict[str, Any] = {"groups": groups, "fill": fill}
    env: Any
    if kind == "asynchronous":
        periods, offsets = ([3], [1]) if grouped else ([1, 4], [0, 2])
        env = AsynchronousSensors(inner(), periods, offsets, **kwargs)
    else:
        env = SensorDropout(inner(), 0.6, burst=4.0 if kind == "bursts" else None, **kwargs)
    observations, _ = episode(env, seed)
    last, age = np.zeros(2, np.float32), np.zeros(len(groups))
    for t, observation in enumerate(observations):
        assert inner is Counter or observation["flag"] == 1
        values = observation["observation"] if inner is DictCounter else observation[:2]
        truth = np.array([t + 1, -t - 1], np.float32)
        for sensor, group in enumerate(groups):
            if fill == "nan":
                has_value = not np.isnan(values[group[0]])
                assert np.array_equal(values[group], truth[group] if has_value else np.full(len(group), np.nan), True)
            else:
                extra = (
                    np.concatenate((observation["age"], observation["observed"]))
                    if inner is DictCounter
                    else observation[2:]
                )
                has_value = extra[len(groups) + sensor] == 1
                last[group] = truth[group] if has_value else last[group]
                age[sensor] = 0 if has_value else age[sensor] + 1
                assert extra[sensor] == age[sensor]
                assert np.array_equal(values[group], last[group])
            if kind == "asynchronous":
                assert has_value == (t >= offsets[sensor] and (t - offsets[sensor]) % periods[sensor] == 0)


@pytest.mark.parametrize(("probability", "burst"), [(0.5, None), (0.2, 5.0), (0.0, None)])
def test_failures_are_as_frequent_and_as_long_as_asked(probability: float, burst: float | None) -> None:
    env = SensorDropout(Counter(), probability, burst)
    env.reset(seed=3)
    failed = np.array([~env.observed() for env.n_observed in range(20_000)])
    assert failed.mean() == pytest.approx(probability, abs=0.03)
    begins = (failed[1:] & ~failed[:-1]).sum()
    if probability:
        assert failed.sum() / begins == pytest.approx(burst or 1 / (1 - probability), rel=0.1)
        both = (failed[:, 0] & failed[:, 1]).mean()
        assert both == pytest.approx(probability**2, abs=0.03)  # each sensor by itself


def test_noise_is_normal_and_of_the_given_size() -> None:
    env = NoisyObservation(Counter(), [0.0, 2.0])
    errors = np.array([env.reset(seed=seed)[0] - [1, -1] for seed in range(2000)])
    assert not errors[:, 0].any()
    assert errors[:, 1].std() == pytest.approx(2.0, rel=0.1)
    assert env.observation_space.contains(np.array([0.0, 1e3], np.float32))


WRAPPED: dict[str, Any] = {
    "irregular": lambda env: IrregularSampling(env),
    "column": lambda env: IrregularSampling(env, time_key=None),
    "dropout": lambda env: SensorDropout(env),
    "hold": lambda env: SensorDropout(env, fill="hold"),
    "asynchronous": lambda env: AsynchronousSensors(env, [1, 2]),
    "noise": lambda env: NoisyObservation(env, 0.1),
    "columns": lambda env: SelectColumns(env, [1]),
    "hold over gaps": lambda env: SensorDropout(AsynchronousSensors(env, [1, 3]), fill="hold"),
    "column over gaps": lambda env: IrregularSampling(NoisyObservation(SensorDropout(env), 0.1), time_key=None),
    "stacked": lambda env: SensorDropout(IrregularSampling(NoisyObservation(env, 0.1)), fill="hold"),
}


@pytest.mark.filterwarnings("ignore:.*recommend using a symmetric", "ignore:.*not within the observation space")
@pytest.mark.filterwarnings("ignore:.*infinity. This is probably too", "ignore:.*different from the unwrapped version")
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_stack_repeat_and_pass_the_checker(name: str) -> None:
    wrap = WRAPPED[name]
    first, again = (episode(wrap(Counter()), seed=5) for _ in range(2))
    for one, other in zip(first[0], again[0], strict=True):
        for values, same in zip(*(list(o.values()) if isinstance(o, dict) else [o] for o in (one, other)), strict=True):
            assert np.array_equal(values, same, equal_nan=True)
    if name not in ("dropout", "asynchronous", "column over gaps"):  # the checker has no notion of NaN
        check_env(wrap(Counter()), skip_render_check=True)


@pytest.mark.parametrize("inner", [Counter, DictCounter])
def test_what_has_failed_beneath_is_held_above(inner: type[Counter]) -> None:
    groups = [[0, 1]]
    env = SensorDropout(AsynchronousSensors(inner(), [1, 3]), 0.0, fill="hold", groups=groups)
    observations, _ = episode(env)
    for t, observation in enumerate(observations):
        parts = list(observation.values()) if inner is DictCounter else np.split(observation, [2, 3])
        if inner is DictCounter:
            parts = [observation[key] for key in ("observation", "age", "observed")]
        values, age, observed = parts
        assert values.tolist() == [t + 1, -(t - t % 3) - 1]
        assert age == t % 3
        assert observed == (t % 3 == 0)


def test_time_in_a_column_is_no_sensor_s() -> None:
    timed = IrregularSampling(Counter(), low=2, high=2, time_key=None)
    for make in (SensorDropout, lambda env: AsynchronousSensors(env, [1, 1, 1]), lambda env: NoisyObservation(env, 1)):
        with pytest.raises(ValueError, match="a column of the observation the time, which is no sensor's"):
            make(timed)
    env = NoisyObservation(SensorDropout(timed, 0.9, groups=[[0], [1]]), [1.0, 0.0, 0.0])
    observations, _ = episode(env)
    assert [observation[2] for observation in observations[1:-1]] == [2.0] * (len(observations) - 2)
    assert np.isnan(observations).any()


def test_a_box_with_missing_values() -> None:
    box = BoxWithMissing(1.0, 2.0, (2,), np.float32)
    assert box.contains(np.array([np.nan, 1.5], np.float32))
    assert not box.contains(np.array([np.nan, 3.0], np.float32))
    assert not box.contains(np.array([np.nan], np.float32))
    assert not box.contains(np.ones(3, np.float32))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: IrregularSampling(Counter(), low=0), ValueError, "at least one step"),
        (lambda: IrregularSampling(Counter(), low=3, high=2), ValueError, "low is not above high"),
        (lambda: IrregularSampling(Counter(), values=[]), ValueError, "at least one step"),
        (lambda: IrregularSampling(Counter(), distribution="normal"), ValueError, "not one of uniform, exponential"),
        (lambda: IrregularSampling(DictCounter(), time_key="flag"), ValueError, "has a key 'flag' already"),
        (lambda: IrregularSampling(DictCounter(), time_key=None), TypeError, "Expected a Box observation"),
        (lambda: IrregularSampling(Counter(), values=[1, 1.5]), ValueError, "for whole ones"),  # type: ignore[list-item]
        (lambda: IrregularSampling(Counter(), dt=0.0), ValueError, "dt=0.0: a step .* positive, finite"),
        (lambda: IrregularSampling(Counter(), dt=float("nan")), ValueError, "dt=nan"),
        (lambda: SensorDropout(Counter(), burst=0.0), ValueError, "burst=0.0 .* at least one observation"),
        (lambda: SensorDropout(Counter(), burst=float("nan")), ValueError, "burst=nan"),
        (lambda: SensorDropout(DictCounter(), key="nope"), TypeError, "got None as 'nope' of Dict"),
        (lambda: SensorDropout(WRAPPED["hold"](DictCounter()), fill="hold"), ValueError, "let only the outer one hold"),
        (lambda: NoisyObservation(Counter(), -1.0), ValueError, "std=-1.0: one standard deviation of at least 0"),
        (lambda: NoisyObservation(Counter(), float("nan")), ValueError, "std=nan"),
        (lambda: NoisyObservation(Counter(), [1.0]), ValueError, "for each of the 2 columns"),
        (lambda: SelectColumns(Counter(), [0, 2]), ValueError, "some of the columns 0 to 1"),
        (lambda: SelectColumns(Counter(), []), ValueError, "some of the columns 0 to 1"),
        (lambda: SelectColumns(DictCounter(), [0]), TypeError, "Expected a Box observation"),
        (lambda: SensorDropout(Counter(), 1.0), ValueError, "at least 0 and below 1"),
        (lambda: SensorDropout(Counter(), 0.9, burst=1.0), ValueError, "at least 9 on average"),
        (lambda: SensorDropout(Counter(), fill="zero"), ValueError, "not one of nan, hold"),
        (lambda: SensorDropout(Counter(), groups=[[0], [0, 1]]), ValueError, "one sensor at most"),
        (lambda: SensorDropout(Counter(), groups=[[2]]), ValueError, "counted from 0 to 1"),
        (lambda: SensorDropout(DictCounter(), key="flag"), TypeError, "Expected a Box observation"),
        (lambda: AsynchronousSensors(Counter(), [1]), ValueError, "each of the 2 sensors"),
        (lambda: AsynchronousSensors(Counter(), [1, 0]), ValueError, "one of at least 1"),
        (lambda: AsynchronousSensors(Counter(), [1, 1.5]), ValueError, "whole observations"),  # type: ignore[list-item]
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


TASKS = {
    "CartPole": ("CartPole-v1", [0, 2], 0.02),
    "Pendulum": ("Pendulum-v1", [0, 1], 0.05),
    "Acrobot": ("Acrobot-v1", [0, 1, 2, 3], 0.2),
    "MountainCarContinuous": ("MountainCarContinuous-v0", [0], 1.0),
}


@pytest.mark.filterwarnings("ignore:.*recommend you to use a symmetric", "ignore:.*found nan in observations")
@pytest.mark.filterwarnings("ignore:.*recommend using a symmetric", "ignore:.*infinity. This is probably too")
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("variant", ["", "Irregular", "SensorLoss"])
def test_registered_tasks_are_gymnasium_s_without_velocities(task: str, variant: str) -> None:
    env_id, positions, dt = TASKS[task]
    env, full = gym.make(f"sb3_ncde/{variant}{task}NoVel-v1"), gym.make(env_id)
    sb3_check_env(env)
    # Gymnasium's checker compares observations, and NaN is not equal to itself: there without NaN.
    checked: dict[str, Any] = {"dropout": {"fill": "hold"}} if variant == "SensorLoss" else {}
    check_env(gym.make(f"sb3_ncde/{variant}{task}NoVel-v1", **checked), skip_render_check=True)
    observation, _ = env.reset(seed=1)
    expected, _ = full.reset(seed=1)
    full.action_space.seed(1)
    steps, missing = 0, []
    for _ in range(4):
        values = observation["observation"] if variant == "Irregular" else observation
        missing.extend(np.isnan(values))
        np.testing.assert_array_equal(values, np.where(np.isnan(values), np.nan, expected[positions]))
        action = full.action_space.sample()
        observation = env.step(action)[0]
        held = round(float(observation["time"][0]) / dt) if variant == "Irregular" else 1
        assert 1 <= held <= 5
        steps += held
        for _ in range(held):
            expected = full.step(action)[0]
    assert (steps > 4) == (variant == "Irregular")
    assert any(missing) == (variant == "SensorLoss")
    assert not all(missing)


def test_noise_and_delay_of_registered_tasks() -> None:
    plain, late, noisy = (
        gym.make("sb3_ncde/PendulumNoVel-v1", **kwargs) for kwargs in ({}, {"delay": 2}, {"noise": 0.1})
    )
    shown = []
    for env in (plain, late, noisy):
        observations = [env.reset(seed=0)[0], *(env.step(np.ones(1, np.float32))[0] for _ in range(100))]
        shown.append(np.array(observations))
    np.testing.assert_array_equal(shown[1][2:], shown[0][:-2])
    assert not shown[1][:2].any()
    assert (shown[2] - shown[0]).std() == pytest.approx(0.1, rel=0.2)


def test_registered_tasks_take_all_kinds_of_sensors_at_once() -> None:
    env = gym.make(
        "sb3_ncde/IrregularPendulumNoVel-v1",
        noise=0.1,
        delay=2,
        asynchronous={"periods": [1, 2], "fill": "nan"},
        dropout={"probability": 0.3, "groups": [[0, 1]]},
    )
    observation, _ = env.reset(seed=0)
    observations, done = [observation], False
    while not done:
        observation, _, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        done = terminated or truncated
        observations.append(observation)
    assert sum(float(observation["time"][0]) for observation in observations) == pytest.approx(10.0)  # 200 x 0.05 s
    assert np.isnan([observation["observation"] for observation in observations]).any()
    assert len(observations) < 200
