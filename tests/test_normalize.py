"""Normalisation with time left alone, and statistics of what is observed."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

from sb3_ncde.normalize import ObservedMeanStd, VecNormalizeObserved
from tests.envs import RandomWalk


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_statistics_are_those_of_the_observed_values(seed: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal([1.0, -50.0, 0.0], [1.0, 7.0, 1e-3], size=(40, 3))
    values[rng.random(values.shape) < missing] = np.nan
    statistics = ObservedMeanStd(epsilon=1e-12, shape=(3,))
    for batch in np.split(values, [1, 8, 20]):
        statistics.update(batch)
    assert np.isfinite(statistics.mean).all()
    assert np.isfinite(statistics.var).all()
    for column in range(3):
        observed = values[~np.isnan(values[:, column]), column]
        if len(observed):
            assert statistics.mean[column] == pytest.approx(observed.mean(), rel=1e-6, abs=1e-6)
            assert statistics.var[column] == pytest.approx(observed.var(), rel=1e-4, abs=1e-6)
    same = statistics.copy()
    same.update(np.ones((5, 3)))
    assert not np.array_equal(same.count, statistics.count)


class Gaps(RandomWalk):
    """A RandomWalk whose first value is missing half of the time."""

    def _observe(self) -> Any:
        observation = super()._observe()
        if self.np_random.random() < 0.5:
            (observation["walk"] if isinstance(observation, dict) else observation)[0] = np.nan
        return observation


def test_without_gaps_it_is_sb3_s() -> None:
    own: Any = VecNormalizeObserved(make_vec_env(RandomWalk, 3, seed=1))
    stock: Any = VecNormalize(make_vec_env(RandomWalk, 3, seed=1))
    np.testing.assert_allclose(own.reset(), stock.reset(), rtol=1e-6)
    for _ in range(30):
        results = [env.step(np.zeros(3, int)) for env in (own, stock)]
        for mine, theirs in zip(*(result[:3] for result in results), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    raw = own.get_original_obs()
    np.testing.assert_allclose(own.unnormalize_obs(own.normalize_obs(raw)), raw, rtol=1e-5)


@pytest.mark.parametrize(("observation", "skip"), [("dict", ["time"]), ("column", [1]), ("column", [-3])])
def test_time_passes_and_gaps_stay_gaps(observation: str, skip: list[Any], tmp_path: Path) -> None:
    def make() -> VecEnv:
        return make_vec_env(Gaps, 4, seed=2, env_kwargs={"observation": observation})

    env: Any = VecNormalizeObserved(make(), skip=skip)
    env.reset()
    gaps = 0
    for _ in range(50):
        seen, raw = env.step(np.zeros(4, int))[0], env.get_original_obs()
        values, original = (o["walk"] if isinstance(o, dict) else o for o in (seen, raw))
        gaps += int(np.isnan(original).sum())
        assert np.array_equal(np.isnan(values), np.isnan(original))
        if isinstance(seen, dict) and isinstance(raw, dict):
            assert np.array_equal(seen["time"], raw["time"])
            assert np.array_equal(seen["flag"], raw["flag"])
        else:
            assert np.array_equal(values[:, 1], original[:, 1])
            back = env.unnormalize_obs(values)
            np.testing.assert_allclose(back[:, 1], original[:, 1])
    assert gaps
    env.save(str(tmp_path / "statistics.pkl"))
    loaded = VecNormalize.load(str(tmp_path / "statistics.pkl"), make())
    assert isinstance(loaded, VecNormalizeObserved)
    raw = env.get_original_obs()
    for one, other in zip(*(_arrays(e.normalize_obs(copy.deepcopy(raw))) for e in (env, loaded)), strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    evaluation = VecNormalizeObserved(make(), skip=skip, training=False)
    sync_envs_normalization(env, evaluation)
    for one, other in zip(*(_arrays(e.normalize_obs(copy.deepcopy(raw))) for e in (env, evaluation)), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def _arrays(observation: Any) -> list[Any]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def test_training_with_an_evaluation() -> None:
    def make() -> VecEnv:
        return VecNormalizeObserved(make_vec_env(RandomWalk, 2, env_kwargs={"observation": "dict"}), skip=["time"])

    model = RecurrentPPO(
        "MultiInputNCDEPolicy", make(), n_steps=16, batch_size=16, policy_kwargs={"time_key": "time"}, device="cpu"
    )
    evaluation: Any = make()
    evaluation.training = False
    model.learn(64, callback=EvalCallback(evaluation, eval_freq=16, n_eval_episodes=2, verbose=0))
    assert evaluation.obs_rms["walk"].count == pytest.approx(66, abs=0.1)  # of the training, the reset's included


@pytest.mark.filterwarnings("ignore:The observation has a key")
@pytest.mark.parametrize("observation", ["box", "dict"])
def test_an_infinite_value_stops_training_and_loses_nothing(observation: str) -> None:
    class Glitch(RandomWalk):
        def _observe(self) -> Any:
            values = super()._observe()
            if self.np_random.random() < 0.05:
                (values["walk"] if isinstance(values, dict) else values)[1] = -np.inf
            return values

    env: Any = VecNormalizeObserved(make_vec_env(Glitch, 2, seed=0, env_kwargs={"observation": observation}))
    policy = "NCDEPolicy" if observation == "box" else "MultiInputNCDEPolicy"
    model = RecurrentPPO(policy, env, device="cpu")
    with pytest.raises(ValueError, match=r"of shape \(2, 3\), is -inf at \([01], 1\).*where a sensor has no value"):
        model.learn(1_000)
    statistics = env.obs_rms["walk"] if observation == "dict" else env.obs_rms
    assert statistics.count[0] > 3
    assert np.isfinite([statistics.mean, statistics.var, statistics.count]).all()
    env.training = False  # nor is it clipped, where statistics are not updated
    values = np.full((2, 3), np.inf, np.float32)
    with pytest.raises(ValueError, match=r"is inf at \(0, 0\)"):
        env.normalize_obs(env.venv.reset() | {"walk": values} if observation == "dict" else values)


def test_one_key_to_skip_may_be_named_alone() -> None:
    env = make_vec_env(RandomWalk, 1, env_kwargs={"observation": "dict"})
    assert VecNormalizeObserved(env, skip="time").norm_obs_keys == VecNormalizeObserved(env, ["time"]).norm_obs_keys


def test_keys_to_normalize_are_those_named() -> None:
    env = make_vec_env(RandomWalk, env_kwargs={"observation": "dict"})
    assert VecNormalizeObserved(env, norm_obs_keys=[]).norm_obs_keys == []
    assert VecNormalizeObserved(env, norm_obs_keys=["walk"]).norm_obs_keys == ["walk"]
    with pytest.raises(ValueError, match=r"norm_obs_keys=\['wlak'\]: the observation has no \['wlak'\]"):
        VecNormalizeObserved(env, norm_obs_keys=["wlak"])


@pytest.mark.parametrize(
    ("observation", "skip", "message"),
    [
        ("dict", ["tiem"], r"has no \['tiem'\], but \['flag', 'time', 'walk'\]"),
        ("column", [4], "with columns 0 to 3"),
        ("column", np.array([4]), "with columns 0 to 3"),
        ("column", ["time"], "with columns 0 to 3"),
        ("discrete", [0], "with columns 0 to -1"),
    ],
)
def test_what_cannot_be_skipped_is_refused(observation: str, skip: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VecNormalizeObserved(make_vec_env(RandomWalk, env_kwargs={"observation": observation}), skip=skip)


def test_rewards_alone_can_be_normalized() -> None:
    env = VecNormalizeObserved(make_vec_env(RandomWalk, env_kwargs={"observation": "discrete"}), norm_obs=False)
    assert isinstance(env.observation_space, spaces.Discrete)
