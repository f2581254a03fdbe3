"""Reports of people who normalise observations with images, missing values or a critic's privileges among them."""

import copy
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from torch import nn

from sb3_ncde.normalize import ObservedMeanStd, VecNormalizeObserved
from tests.envs import RandomWalk


class Camera(gym.Env[Any, Any]):
    """A Dict of an image and a vector, whose space is one of the class, as in many environments."""

    observation_space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (36, 36, 1), np.uint8), "walk": spaces.Box(-9, 9, (3,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = 6
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self.observation_space.sample(), 1.0, False, self.left == 0, {}


def n_convolutions(env: VecEnv, **policy_kwargs: Any) -> int:
    model = RecurrentPPO(
        "MultiInputNCDEPolicy", env, n_steps=8, batch_size=8, policy_kwargs=policy_kwargs, device="cpu"
    )
    model.learn(8)
    return sum(isinstance(module, nn.Conv2d) for module in model.policy.modules())


def test_an_image_beside_a_vector_keeps_its_cnn() -> None:
    """R5, https://github.com/DLR-RM/stable-baselines3/issues/1320: 0 convolutions instead of 3, and no word."""
    env: Any = VecNormalizeObserved(DummyVecEnv([Camera]))
    assert env.norm_obs_keys == ["walk"]
    seen: Any = env.reset()
    assert seen["camera"].dtype == np.uint8
    assert env.observation_space["camera"] == Camera.observation_space["camera"]
    assert n_convolutions(env) == 3


def test_an_environment_s_space_is_its_own() -> None:
    """R5, and https://github.com/DLR-RM/stable-baselines3/pull/2286: a second, plain environment had no CNN either."""
    before = copy.deepcopy(Camera.observation_space)
    with pytest.warns(UserWarning, match=r"norm_obs_keys names images: \['camera'\].*normalize_images=False"):
        env: Any = VecNormalizeObserved(DummyVecEnv([Camera]), norm_obs_keys=["camera", "walk"])
    assert Camera.observation_space == before
    assert env.norm_obs_keys == ["camera", "walk"]
    assert env.observation_space["camera"].dtype == np.float32
    seen: Any = env.reset()
    assert np.abs(seen["camera"]).max() <= 10
    assert seen["camera"].dtype == np.float32
    assert n_convolutions(DummyVecEnv([Camera])) == 3


def test_an_image_that_is_to_be_normalised_has_a_cnn_where_the_policy_is_told() -> None:
    """R5: what the warning says to do is right."""
    env = make_vec_env(RandomWalk, 1, env_kwargs={"observation": "dict_image"})  # channels first
    with pytest.warns(UserWarning, match="norm_obs_keys names images"):
        env = VecNormalizeObserved(env, norm_obs_keys=["camera"])
    assert n_convolutions(env, normalize_images=False) == 3


def test_an_observation_that_is_an_image_passes() -> None:
    """R5, with a Box: the image was normalised, and CnnNCDEPolicy refused it."""
    env = VecNormalizeObserved(make_vec_env(RandomWalk, 2, env_kwargs={"observation": "image"}))
    assert not env.norm_obs
    assert env.norm_reward
    RecurrentPPO("CnnNCDEPolicy", env, n_steps=8, batch_size=8, device="cpu").learn(16)
    asked = VecNormalizeObserved(make_vec_env(RandomWalk, 2, env_kwargs={"observation": "image"}), norm_obs=True)
    assert asked.observation_space == spaces.Box(-10, 10, (1, 36, 36), np.float32)


def saved(path: Path, observation: str = "box", **kwargs: Any) -> str:
    """Save what SB3's VecNormalize has found in 50 steps, and return the file."""
    env = VecNormalize(make_vec_env(RandomWalk, 3, seed=0, env_kwargs={"observation": observation}), **kwargs)
    env.reset()
    for _ in range(50):
        env.step(np.zeros(3, int))
    env.save(str(path))
    return str(path)


@pytest.mark.parametrize("observation", ["box", "dict", "scalar"])
def test_statistics_of_sb3_s_vecnormalize_are_taken_over(observation: str, tmp_path: Path) -> None:
    """R+: ``load`` returned a VecNormalize, whose statistics became NaN with the first missing value."""
    keys = {"norm_obs_keys": ["walk"]} if observation == "dict" else {}
    file = saved(tmp_path / "stock.pkl", observation, **keys)

    def make() -> VecEnv:
        return make_vec_env(RandomWalk, 3, seed=1, env_kwargs={"observation": observation})

    stock, env = VecNormalize.load(file, make()), VecNormalizeObserved.load(file, make())
    assert isinstance(env, VecNormalizeObserved)
    for one, other in zip(*(arrays(e.reset()) for e in (stock, env)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    found = env.obs_rms["walk"] if observation == "dict" else env.obs_rms
    assert isinstance(found, ObservedMeanStd)
    statistics: Any = found
    before = statistics.count.copy()
    statistics.update(np.full((2, *statistics.mean.shape), np.nan))
    assert np.isfinite(statistics.mean).all()
    assert (statistics.count == before).all()
    assert before.shape == statistics.mean.shape
    env.save(str(tmp_path / "observed.pkl"))
    for load in (VecNormalize.load, VecNormalizeObserved.load):
        assert isinstance(load(str(tmp_path / "observed.pkl"), make()), VecNormalizeObserved)


def arrays(observation: Any) -> list[Any]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def test_rewards_alone_are_taken_over(tmp_path: Path) -> None:
    """R+, where only rewards were normalised: there are no statistics of observations in the file."""
    file = saved(tmp_path / "stock.pkl", norm_obs=False)
    env = VecNormalizeObserved.load(file, make_vec_env(RandomWalk, 3))
    assert isinstance(env, VecNormalizeObserved)
    assert env.ret_rms.count > 50


@pytest.mark.parametrize(
    ("observation", "where"), [("box", r"of columns \[0, 2\]"), ("dict", r"of 'walk', columns \[0, 2\]")]
)
def test_statistics_that_are_nan_are_refused(observation: str, where: str, tmp_path: Path) -> None:
    """R+: all of the buffer was NaN for 3,072 steps, and an error came at observation 4,998."""
    file = tmp_path / "stock.pkl"
    env: Any = VecNormalize(
        make_vec_env(RandomWalk, 3, env_kwargs={"observation": observation}),
        norm_obs_keys=["walk"] if observation == "dict" else None,
    )
    statistics: RunningMeanStd = env.obs_rms["walk"] if observation == "dict" else env.obs_rms
    statistics.update(np.array([[np.nan, 1.0, np.nan]]))
    env.save(str(file))
    with pytest.raises(ValueError, match=rf"{where} are NaN.*Train again in sb3_ncde.normalize.VecNormalizeObserved"):
        VecNormalizeObserved.load(str(file), make_vec_env(RandomWalk, 3, env_kwargs={"observation": observation}))


class Own(VecNormalize):
    """A user's own normalisation."""


def test_another_s_normalisation_is_not_taken_for_sb3_s(tmp_path: Path) -> None:
    """R+: what it would do beside SB3's normalisation would be lost without a word."""
    Own(make_vec_env(RandomWalk, 1)).save(str(tmp_path / "own.pkl"))
    with pytest.raises(TypeError, match=r"holds a Own, but expected what VecNormalizeObserved.save"):
        VecNormalizeObserved.load(str(tmp_path / "own.pkl"), make_vec_env(RandomWalk, 1))


def test_what_only_the_critic_sees_may_be_absent() -> None:
    """R13, https://github.com/DLR-RM/stable-baselines3/issues/1182: a KeyError, at deployment outside the simulator."""
    env: Any = VecNormalizeObserved(make_vec_env(RandomWalk, 2, env_kwargs={"observation": "dict"}))
    whole = env.reset()
    raw = env.get_original_obs()
    for absent in ("walk", "time", "flag"):
        sensors = {key: value for key, value in raw.items() if key != absent}
        normalized = env.normalize_obs(sensors)
        assert normalized.keys() == sensors.keys()
        for key, value in normalized.items():
            assert np.array_equal(value, whole[key])
        for key, value in env.unnormalize_obs(normalized).items():
            np.testing.assert_allclose(value, raw[key], rtol=1e-5)
    assert np.array_equal(env.normalize_obs(raw)["walk"], whole["walk"])


def test_keys_without_images_are_named_without_a_warning() -> None:
    """R5: the warning is for images alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VecNormalizeObserved(DummyVecEnv([Camera]), norm_obs_keys=["walk"])
        VecNormalizeObserved(DummyVecEnv([Camera]), skip=["walk"])
