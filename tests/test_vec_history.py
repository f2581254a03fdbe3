"""VecHistory: its histories are those of NCDEPolicy, and SB3 finds in it what it looks for in environments."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    sync_envs_normalization,
)

from sb3_ncde import NCDEExtractor, VecHistory, with_memory
from sb3_ncde.history.flattening import Flattening
from sb3_ncde.normalize import VecNormalizeObserved
from tests.envs import RandomWalk
from tests.histories import KINDS, Chance, Run, by_hand, split

BOX = spaces.Box(-1, 1, (1,), np.float32)


def walk(n_envs: int = 2, seed: int = 0, **kwargs: Any) -> Any:
    return make_vec_env(RandomWalk, n_envs, seed=seed, env_kwargs={"action_space": BOX} | kwargs)


def steps(env: Any, count: int) -> None:
    env.reset()
    for _ in range(count):
        env.step(np.stack([env.action_space.sample() for _ in range(env.num_envs)]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "image"])  # of which NCDEPolicy keeps features
@settings(max_examples=30)
@given(length=st.integers(1, 6), hop=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_histories_are_those_of_ncde_policy(kind: str, length: int, hop: int, seed: int) -> None:
    """Bit for bit, of the same observations."""
    history = {"history_length": length, "hop_length": min(hop, length), **KINDS[kind]}
    run = Run(kind, 2, 40, 6, seed, **history)
    name = "MultiInputNCDEPolicy" if kind == "dict" else "NCDEPolicy"
    venv = DummyVecEnv([lambda: Chance(observation=kind)])
    policy: Any = RecurrentPPO(name, venv, n_steps=2, batch_size=2, policy_kwargs=history, device="cpu").policy
    encoder = policy.lstm_actor
    state: Any = tuple(th.zeros(1, 2, encoder.hidden_size) for _ in range(2))
    starts = np.ones(2, np.float32)
    for _ in range(12):
        newest = [env.episodes[-1][-1] for env in run.recorders]
        obs: Any = (
            np.stack(newest) if kind != "dict" else {key: np.stack([o[key] for o in newest]) for key in newest[0]}
        )
        before = [len(env.episodes) for env in run.recorders]
        with th.no_grad():
            tensors, _ = policy.obs_to_tensor(obs)
            _, state = encoder.step(policy.extract_features(tensors), state, th.from_numpy(starts))
        packed = th.cat(state, dim=-1)[0, :, : run.last.shape[1]].numpy()
        assert packed.tobytes() == run.last.tobytes()
        run.step()
        starts = np.array([len(env.episodes) > n for env, n in zip(run.recorders, before, strict=True)], np.float32)


def test_the_terminal_observation_is_the_history_that_ends_with_it() -> None:
    run = Run("dict", 3, 40, 5, 0, history_length=3, hop_length=2, time_key="time", dt=0.5)
    seen = 0
    for _ in range(20):
        lengths = [len(env.episodes) for env in run.recorders]
        run.step()
        for number, env in enumerate(run.recorders):
            if len(env.episodes) > lengths[number]:
                seen += 1
                last = [split(obs, "dict") for obs in env.episodes[-2]]
                np.testing.assert_array_equal(run.stored[-1][2][number], by_hand(last, run.env.observation_space))
    assert seen > 10


def test_ppo_bootstraps_at_time_limits_with_the_terminal_history() -> None:
    """SB3 asks the policy for the value of ``terminal_observation``."""
    env = VecHistory(walk(longest=4, truncates=True), history_length=3)
    kwargs: Any = {"policy_kwargs": {"features_extractor_class": NCDEExtractor}, "n_steps": 16, "batch_size": 16}
    model = PPO("MlpPolicy", env, device="cpu", **kwargs)
    asked: list[Any] = []
    told: list[Any] = []
    predict_values = model.policy.predict_values

    def noting(obs: Any) -> Any:
        asked.append(obs.numpy())
        return predict_values(obs)

    class Told(BaseCallback):
        def _on_step(self) -> bool:
            told.extend(info["terminal_observation"] for info in self.locals["infos"] if "terminal_observation" in info)
            return True

    model.policy.predict_values = noting  # type: ignore[method-assign]
    model.learn(64, Told())
    alone = [rows[0] for rows in asked if len(rows) == 1]  # the others are of the ends of rollouts
    assert len(told) == len(alone) > 10
    np.testing.assert_array_equal(alone, told)


@pytest.mark.parametrize("normalize", [VecNormalize, VecNormalizeObserved])
@pytest.mark.parametrize("observation", ["box", "dict_image", "image"])
def test_normalised_environments(normalize: Any, observation: str, tmp_path: Path) -> None:
    """To SB3, VecHistory stands for the VecNormalize inside: original observations, rewards, saving, synchronising."""

    def make() -> Any:
        kwargs: dict[str, Any] = {"norm_obs_keys": ["walk"]} if observation == "dict_image" else {}
        if observation == "image":
            kwargs = {"norm_obs": False}
        return VecHistory(normalize(walk(observation=observation), **kwargs), history_length=2)

    env = make()
    assert isinstance(env, VecNormalize)
    agent = with_memory(SAC, env, learning_starts=10, batch_size=8, buffer_size=100, device="cpu", seed=0)
    assert agent.get_vec_normalize_env() is env
    checkpoints = CheckpointCallback(10, str(tmp_path), save_vecnormalize=True, save_replay_buffer=True)
    other = make()
    other.training = False
    evaluation = EvalCallback(other, eval_freq=10, n_eval_episodes=2, verbose=0)
    agent.learn(40, [checkpoints, evaluation])
    assert np.isfinite(evaluation.last_mean_reward)
    loaded = normalize.load(str(tmp_path / "rl_model_vecnormalize_20_steps.pkl"), walk(observation=observation))
    assert loaded.ret_rms.count > 1
    sync_envs_normalization(env, other)
    assert other.normalize.ret_rms.mean == env.normalize.ret_rms.mean
    env.training = env.norm_reward = False
    assert not env.normalize.training
    assert not env.normalize.norm_reward
    rewards = np.array([0.5, 2.0])
    np.testing.assert_array_equal(env.normalize_reward(rewards), env.normalize.normalize_reward(rewards))
    np.testing.assert_array_equal(env.unnormalize_reward(rewards), env.normalize.unnormalize_reward(rewards))


def test_what_was_observed_before_normalisation() -> None:
    """Is what VecHistory around the environments alone shows, Dict and column of time included."""
    for observation, arguments in (("box", {}), ("column", {"time_key": 1}), ("dict", {"time_key": "time"})):
        plain = VecHistory(walk(observation=observation), history_length=3, **arguments)
        kwargs: Any = {"norm_obs_keys": ["walk"]} if observation == "dict" else {}
        normalize = VecNormalizeObserved(walk(observation=observation), **(kwargs or {"skip": [1]}))
        env: Any = VecHistory(normalize, history_length=3, **arguments)
        env.reset()
        np.testing.assert_array_equal(plain.reset(), env.get_original_obs())
        action = np.zeros((2, 1), np.float32)
        for _ in range(12):
            expected: Any = plain.step(action)
            found = env.step(action)
            np.testing.assert_array_equal(expected[0], env.get_original_obs())
            np.testing.assert_array_equal(expected[1], env.get_original_reward())
            np.testing.assert_array_equal(env.normalize_obs(env.get_original_obs())[:, :2], found[0][:, :2])
            newest = env.observation_space.layout.newest  # the others were normalised by statistics of their time
            np.testing.assert_allclose(env.unnormalize_obs(found[0])[:, newest], expected[0][:, newest], atol=1e-4)
            one = env.get_original_obs()[0]
            assert env.normalize_obs(one).shape == one.shape


@pytest.mark.parametrize("traces", [None, [2.0, 9.0]])
def test_missing_values_and_traces_of_normalised_observations(traces: Any) -> None:
    """What was never observed is 0 before and after; summaries are means of observations, and so are theirs."""
    for missing in (0.0, 0.6):
        normalize = VecNormalizeObserved(make_vec_env(lambda: Chance(missing=missing, longest=8), 2, seed=0))  # noqa: B023
        env: Any = VecHistory(normalize, history_length=3, missing_values=missing > 0, traces=traces)
        obs = env.reset()
        for _ in range(20):
            env.step(np.zeros(2, np.int64))
        normalize.training = False
        obs = env.reset()
        for _ in range(20):
            if traces is None:
                np.testing.assert_array_equal(env.normalize_obs(env.get_original_obs()), obs)
            np.testing.assert_allclose(env.normalize_obs(env.get_original_obs()), obs, atol=1e-4)
            np.testing.assert_allclose(env.unnormalize_obs(obs), env.get_original_obs(), atol=1e-4)
            obs, *_ = env.step(np.zeros(2, np.int64))


@pytest.mark.filterwarnings("ignore:The observation has a key")
@pytest.mark.parametrize(
    "observation", ["multi_discrete", "multi_binary", "discrete", "scalar", "matrix", "dict_scalar", "dict_image"]
)
def test_features_are_those_that_sb3_makes_of_observations(observation: str) -> None:
    """Of any space, flat and one-hot, in the order of SB3's CombinedExtractor; pixels as they are."""
    plain, env = walk(observation=observation), VecHistory(walk(observation=observation), history_length=2)
    seen: Any = plain.reset()
    space = plain.observation_space
    tensors: Any = {key: th.as_tensor(value) for key, value in seen.items()} if isinstance(seen, dict) else None
    flat: Any = preprocess_obs(th.as_tensor(seen) if tensors is None else tensors, space, normalize_images=False)
    parts = [flat] if tensors is None else list(flat.values())
    expected = np.concatenate([part.reshape(2, -1).numpy() for part in parts], axis=1)
    np.testing.assert_array_equal(env.reset()[:, env.observation_space.layout.newest][:, :-1], expected)


def test_choices_are_counted_from_where_they_start() -> None:
    discrete = Flattening(spaces.Discrete(3, start=5), None)
    np.testing.assert_array_equal(discrete.flatten(np.array([5, 7]))[0], [[1, 0, 0], [0, 0, 1]])
    several = Flattening(spaces.MultiDiscrete([2, 3], start=[1, -1]), None)
    np.testing.assert_array_equal(several.flatten(np.array([[2, -1]]))[0], [[0, 1, 1, 0, 0]])
    for flattening, outside in ((discrete, [5, 4]), (discrete, [8, 5]), (several, [[1, 2]]), (several, [[0, 0]])):
        with pytest.raises(ValueError, match=r"Discrete.*none may be outside of it"):
            flattening.flatten(np.array(outside))


def test_environments_that_do_not_tell_their_terminal_observation() -> None:
    class Silent(DummyVecEnv):
        def step_wait(self) -> Any:
            observations, rewards, dones, infos = super().step_wait()
            for info in infos:
                info.pop("terminal_observation", None)
            return observations, rewards, dones, infos

    env = VecHistory(Silent([lambda: RandomWalk(longest=1)]))
    env.reset()
    histories: Any = env.step(np.zeros(1, np.int64))[0]
    assert histories[0, 0] == 1


def test_time_that_is_normalised_is_refused() -> None:
    for observation, key in (("dict", "time"), ("column", 1), ("column", -3)):
        kwargs: dict[str, Any] = {"norm_obs_keys": ["walk", "time"]} if observation == "dict" else {}
        with pytest.raises(ValueError, match=r"The time, .*, is normalised.*VecNormalizeObserved\(env, skip="):
            VecHistory(VecNormalize(walk(observation=observation), **kwargs), time_key=key)
        right = VecNormalizeObserved(walk(observation=observation), skip=[key])
        VecHistory(right, time_key=key).reset()
        VecHistory(VecNormalize(walk(observation=observation), norm_obs=False), time_key=key).reset()


def test_a_wrapper_between_that_changes_observations_is_refused() -> None:
    watched: Any = VecHistory(VecMonitor(VecNormalize(DummyVecEnv([RandomWalk] * 2))))
    assert watched.reset().shape == (2, 34)
    assert len(watched.envs) == 2
    with pytest.raises(ValueError, match=r"VecFrameStack stands between.*VecHistory\(VecNormalize\(VecFrameStack\("):
        VecHistory(VecFrameStack(VecNormalize(walk()), 2))


class Photo(gym.Env[Any, Any]):
    """An image whose channels come last, beside a vector."""

    observation_space = spaces.Dict({"camera": spaces.Box(0, 255, (40, 36, 3), np.uint8), "speed": BOX})
    action_space = BOX

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, bool(self.np_random.random() < 0.2), False, {}


@pytest.mark.parametrize("transposed", ["by VecHistory", "inside", "above the normalisation"])
def test_images_are_transposed_as_sb3_does(transposed: str) -> None:
    venv: Any = make_vec_env(Photo, 2)
    if transposed == "inside":
        venv = VecNormalize(VecTransposeImage(venv), norm_obs_keys=["speed"])
    elif transposed == "above the normalisation":
        venv = VecTransposeImage(VecNormalize(venv, norm_obs_keys=["speed"]))
    env = VecHistory(venv, history_length=2)
    observed: Any = env.observation_space.observed
    assert observed["camera"].shape == (3, 40, 36)
    model = with_memory(SAC, env, learning_starts=4, batch_size=4, buffer_size=50, device="cpu")
    extractor: Any = model.actor.features_extractor
    assert sum(isinstance(module, th.nn.Conv2d) for module in extractor.modules()) == 3
    model.learn(20)


def test_environments_in_subprocesses() -> None:
    env = VecHistory(make_vec_env(RandomWalk, 2, vec_env_cls=SubprocVecEnv), history_length=2)
    assert env.reset().shape == (2, 2 + 2 * 4)
    env.step(np.zeros(2, np.int64))
    env.close()


def test_set_env_takes_histories_of_the_same_only() -> None:
    model = with_memory(SAC, walk(), history_length=3, device="cpu")
    model.set_env(VecHistory(walk(), history_length=3))
    for other in (VecHistory(walk(), history_length=2, hop_length=1), walk()):
        with pytest.raises(ValueError, match="Observation spaces do not match"):
            model.set_env(other)


def test_evaluation_and_rendering() -> None:
    model = with_memory(PPO, make_vec_env("sb3_ncde/CartPoleNoVel-v1", 2), history_length=3, device="cpu")
    model.learn(64)
    env = VecHistory(
        make_vec_env("sb3_ncde/CartPoleNoVel-v1", env_kwargs={"render_mode": "rgb_array"}), history_length=3
    )
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=3, return_episode_rewards=True)
    assert returns == lengths
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.ndim == 3
    assert env.get_attr("spec")[0].id == "sb3_ncde/CartPoleNoVel-v1"
    env.close()


def test_mistakes_are_named_with_environment_and_step() -> None:
    class Broken(RandomWalk):
        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = super().step(action)
            if terminated or truncated:
                observation["walk"] = observation["walk"] * np.float32(np.nan)
            return observation, reward, terminated, truncated, info

    class Backwards(RandomWalk):
        def __init__(self) -> None:
            super().__init__("dict", longest=50)

        def _observe(self) -> Any:
            return super()._observe() | {"time": np.array([99.0 - 9.0 * self.elapsed], np.float32)}

    env = VecHistory(make_vec_env(lambda: Broken("dict", longest=3), 2, seed=0), history_length=3, time_key="time")
    with pytest.raises(ValueError, match=r"Environment [01] of 2, step [12] of its episode: the observation"):
        steps(env, 4)
    backwards = VecHistory(make_vec_env(Backwards, 2, seed=0), time_key="time", time_kind="timestamp")
    with pytest.raises(ValueError, match=r"time cannot run backwards within an episode"):
        steps(backwards, 4)


def test_a_clock_far_from_dt_is_warned_of_once() -> None:
    env = VecHistory(walk(8, observation="dict", longest=50), time_key="time", dt=100.0)
    with pytest.warns(UserWarning, match=r"passes on average.*set dt=1"):
        steps(env, 200)


def test_a_sensor_that_is_silent_for_long_is_warned_of() -> None:
    class Silent(Chance):
        def _observe(self) -> Any:
            return super()._observe() * np.array([1.0, 1.0, np.nan], np.float32)

    env = VecHistory(make_vec_env(lambda: Silent(longest=50), 8, seed=0), missing_values=True)
    with pytest.warns(UserWarning, match="Feature 2 has been NaN"):
        steps(env, 200)


def test_arguments_that_are_refused_say_what_to_do() -> None:
    make: Any = VecHistory
    with pytest.raises(TypeError, match=r"takes vectorised environments.*VecHistory\(make_vec_env"):
        make(RandomWalk())
    with pytest.raises(ValueError, match="wrapped in VecHistory already"):
        make(VecHistory(walk()))
    with pytest.raises(TypeError, match=r"unexpected argument 'latent_size'. It takes history_length.*NCDEExtractor"):
        make(walk(), latent_size=4)
    with pytest.raises(ValueError, match="missing_values=True with images: a pixel cannot be NaN"):
        make(walk(observation="image"), missing_values=True)
    with pytest.raises(ValueError, match="time_key='tiem' is not a key"):
        make(walk(observation="dict"), time_key="tiem")

    class Odd(RandomWalk):
        def __init__(self, space: spaces.Space[Any]) -> None:
            super().__init__()
            self.observation_space = space

    with pytest.raises(NotImplementedError, match="Nested observation spaces"):  # SB3's own, of _wrap_env
        make(DummyVecEnv([lambda: Odd(spaces.Dict({"a": spaces.Dict({"b": BOX})}))]))
    with pytest.raises(TypeError, match="Expected observations that are Box, Discrete"):
        make(DummyVecEnv([lambda: Odd(spaces.Tuple((BOX, BOX)))]))


def test_a_policy_that_cannot_read_histories_is_refused() -> None:
    """It would train on packed numbers, silently; so would a study of the stock RL Zoo, which drops policy_kwargs."""
    for algorithm in (PPO, SAC):
        with pytest.raises(TypeError, match=r"nothing that reads them: pass policy_kwargs.*VecFrameStack in place"):
            algorithm("MlpPolicy", VecHistory(walk()), device="cpu")


def test_the_space_says_what_it_is_of() -> None:
    space = VecHistory(walk(), history_length=3).observation_space
    assert "history_length=3" in repr(space)
    assert copy.deepcopy(space) == space
    assert space != spaces.Box(-np.inf, np.inf, space.shape, np.float32)
    assert space.contains(np.zeros(space.shape, np.float32))


@pytest.mark.parametrize("wrap", [VecHistory, lambda env: RecurrentPPO("MultiInputNCDEPolicy", env, device="cpu")])
def test_a_time_that_nobody_named_is_warned_of(wrap: Any) -> None:
    with pytest.warns(UserWarning, match="has a key 'time', but there is no time_key"):
        wrap(walk(2, observation="dict"))


def test_episodes_may_end_by_numbers() -> None:
    """Stock algorithms take ``dones`` of any type."""

    class Numbers(VecEnvWrapper):
        def __init__(self, venv: Any, kind: type[Any]) -> None:
            super().__init__(venv)
            self.kind = kind

        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            observations, rewards, dones, infos = self.venv.step_wait()
            return observations, rewards, dones.astype(self.kind), infos

    seen: list[list[Any]] = []
    for kind in (bool, np.int64, np.float32):
        env = VecHistory(Numbers(walk(3, longest=4), kind), history_length=3)
        seen.append([env.reset()])
        for _ in range(12):
            histories, _, dones, infos = env.step(np.zeros((3, 1), np.float32))
            seen[-1] += [histories, *(infos[number]["terminal_observation"] for number in np.flatnonzero(dones))]
    for others in seen[1:]:
        for mine, theirs in zip(seen[0], others, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("observation", ["box", "dict"])
def test_a_single_observation_is_no_history(observation: str) -> None:
    """Not even where as many of them as a history has numbers would make one."""
    env: Any = VecHistory(
        VecNormalizeObserved(walk(observation=observation), skip=["time"] if observation == "dict" else ()),
        history_length=4,
        **({"time_key": "time"} if observation == "dict" else {}),
    )
    single = env.observation_space.observed.sample()
    many = env.venv.reset() if observation == "dict" else np.zeros((6, 3), np.float32)
    for wrong in (single, many):
        with pytest.raises(ValueError, match=r"normalises histories, of \d+ numbers.*env\.normalize\.normalize_obs"):
            env.normalize_obs(wrong)
    with pytest.raises(ValueError, match=r"but got the shape \(2,\)"):
        env.normalize_obs([0.0, 1.0])
    env.training = False
    histories = env.reset()
    np.testing.assert_allclose(env.normalize_obs(env.get_original_obs()), histories, rtol=1e-6)


def test_arguments_that_mean_the_same_make_one_space() -> None:
    """A default written out, or a column counted from the end."""
    column = walk(observation="column")
    spaces_of_one = [
        VecHistory(column, history_length=4, time_key=key, hop_length=hop).observation_space
        for key in (1, -3)
        for hop in (None, 2)
    ]
    assert all(space == spaces_of_one[0] for space in spaces_of_one)
    assert VecHistory(column, history_length=4, time_key=1, hop_length=3).observation_space != spaces_of_one[0]
    assert VecHistory(column, history_length=4, time_key=2).observation_space != spaces_of_one[0]


@pytest.mark.parametrize("normalize", [VecNormalize, VecNormalizeObserved])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_histories_are_normalised_again_as_they_were_acted_on(offset: float, normalize: Any) -> None:
    """As samples of a replay buffer are; of a barometer or a position on a map too."""

    class Barometer(RandomWalk):
        def _observe(self) -> Any:
            return (super()._observe() + offset).astype(np.float32)

    venv = normalize(make_vec_env(lambda: Barometer(longest=400, action_space=BOX), 1, seed=0), clip_obs=1e6)
    env: Any = VecHistory(venv, history_length=3, traces=[4.0, 256.0])
    steps(env, 500)
    env.training = False
    acted = env.reset()
    for _ in range(200):
        acted = env.step(np.zeros((1, 1), np.float32))[0]
    np.testing.assert_allclose(env.normalize_obs(env.get_original_obs()), acted, rtol=1e-6, atol=1e-6)
    original = env.get_original_obs()
    filters = slice(-3 * 2 - 2, -2)  # of the newest observation, less its first value
    np.testing.assert_allclose(env.unnormalize_obs(acted)[:, filters], original[:, filters], rtol=1e-4, atol=1e-4)
