"""The study tool: grids of sampling periods and drop rates, and pictures of the latent state."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch as th
from gymnasium import spaces
from matplotlib.figure import Figure
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from sb3_ncde import VecHistory, with_memory
from sb3_ncde.evaluation import evaluate_grid, over_agents, plot_grid, plot_latents
from sb3_ncde.normalize import VecNormalizeObserved
from tests.envs import RandomWalk

ENV = "sb3_ncde/IrregularPendulumNoVel-v1"


def make_env(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    return gym.make(ENV, sampling={"low": period, "high": period}, dropout={"probability": drop_rate})


@pytest.fixture(scope="module")
def model() -> RecurrentPPO:
    env = make_vec_env(ENV, 2, seed=0, env_kwargs={"dropout": {"probability": 0.3}})
    kwargs = {"time_key": "time", "dt": 0.15, "missing_values": True}
    normalized = VecNormalizeObserved(env, skip=["time"])
    model = RecurrentPPO("MultiInputNCDEPolicy", normalized, n_steps=64, policy_kwargs=kwargs, seed=0, device="cpu")
    return model.learn(128)


def test_a_grid_is_what_evaluate_policy_returns(model: RecurrentPPO, tmp_path: Path) -> None:
    normalize: Any = model.get_vec_normalize_env()
    before = normalize.obs_rms["observation"].mean.copy()
    table = evaluate_grid(model, make_env, [2, 5], [0.0, 0.5], n_episodes=6, n_envs=3, seed=7, progress_bar=True)
    assert table[["period", "drop_rate"]].to_numpy().tolist() == [[2, 0.0], [2, 0.5], [5, 0.0], [5, 0.5]]
    assert (table["low"] <= table["mean"]).all()
    assert (table["mean"] <= table["high"]).all()
    assert (table["worst"] <= table["mean"]).all()
    assert (normalize.obs_rms["observation"].mean == before).all()

    normalize.save(str(tmp_path / "vecnormalize.pkl"))
    env = make_vec_env(make_env, 3, seed=7, env_kwargs={"period": 5, "drop_rate": 0.5})
    env = VecNormalizeObserved.load(str(tmp_path / "vecnormalize.pkl"), env)
    env.training = env.norm_reward = False
    returns, _ = evaluate_policy(model, env, 6, return_episode_rewards=True)
    assert table["mean"].iloc[-1] == pytest.approx(np.mean(returns))
    assert table["std"].iloc[-1] == pytest.approx(np.std(returns))
    model.save(tmp_path / "model")
    loaded = RecurrentPPO.load(tmp_path / "model", device="cpu")
    again = evaluate_grid(loaded, make_env, [5], [0.5], n_episodes=6, n_envs=3, seed=7, vec_normalize=env)
    assert again.iloc[0].to_dict() == table.iloc[-1].to_dict()


def test_what_a_grid_takes_is_heeded(model: RecurrentPPO) -> None:
    tables = [
        evaluate_grid(model, make_env, n_episodes=8, n_envs=4, **kwargs)
        for kwargs in ({"confidence": 0.99}, {"confidence": 0.5}, {"deterministic": False})
    ]
    widths = [(table["high"] - table["low"]).item() for table in tables]
    assert widths[1] < 0.6 * widths[0]
    assert tables[0]["mean"].item() == tables[1]["mean"].item() != tables[2]["mean"].item()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"n_episodes": 0}, "n_episodes=0, n_envs=10: expected at least one"),
        ({"n_envs": 0}, "n_envs=0: expected at least one"),
        ({"confidence": 95}, "confidence=95: expected a share"),
    ]
    for kwargs, message in refused:
        with pytest.raises(ValueError, match=message):
            evaluate_grid(model, make_env, **kwargs)


class Image(gym.Env[Any, Any]):
    """Images with their channels last, which SB3 transposes."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 5
        return self.np_random.integers(0, 255, (36, 36, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self.np_random.integers(0, 255, (36, 36, 3), np.uint8), 1.0, False, self.left == 0, {}


@pytest.mark.parametrize("normalized", [False, True])
def test_agents_of_other_algorithms(normalized: bool) -> None:
    """Whose environments are wrapped for them as they were in the training."""
    remembered: dict[str, Any] = {"history_length": 3, "time_key": "time", "dt": 0.15, "missing_values": True}

    def wrapped(env: Any) -> VecEnv:
        return VecNormalizeObserved(env, skip=["time"], norm_reward=False) if normalized else env

    trained = wrapped(make_vec_env(make_env, 1, env_kwargs={"period": 3, "drop_rate": 0.2}))
    model = with_memory(SAC, trained, **remembered, buffer_size=100, learning_starts=40, seed=0, device="cpu").learn(60)
    table = evaluate_grid(model, make_env, [4], [0.2], n_episodes=4, n_envs=2, seed=7)
    env = wrapped(make_vec_env(make_env, 2, seed=7, env_kwargs={"period": 4, "drop_rate": 0.2}))
    if isinstance(env, VecNormalizeObserved):
        assert isinstance(trained, VecNormalizeObserved)
        env.obs_rms, env.training = trained.obs_rms, False
    returns, _ = evaluate_policy(model, VecHistory(env, **remembered), 4, return_episode_rewards=True)
    assert table["mean"].item() == pytest.approx(np.mean(returns))
    if normalized:
        of_model: Any = model.get_env()
        again = evaluate_grid(model, make_env, [4], [0.2], n_episodes=4, n_envs=2, seed=7, vec_normalize=of_model)
        assert again.equals(table)


def test_rewards_that_were_normalised_around_histories_change_no_evaluation() -> None:
    remembered: dict[str, Any] = {"history_length": 3, "time_key": "time", "dt": 0.15}
    kwargs = {"period": 4, "drop_rate": 0.0}
    trained = VecNormalize(VecHistory(make_vec_env(make_env, 1, env_kwargs=kwargs), **remembered), norm_obs=False)
    model = with_memory(SAC, trained, buffer_size=100, learning_starts=40, seed=0, device="cpu").learn(60)
    table = evaluate_grid(model, make_env, [4], [0.0], n_episodes=4, n_envs=2, seed=7)
    env = VecHistory(make_vec_env(make_env, 2, seed=7, env_kwargs=kwargs), **remembered)
    returns, _ = evaluate_policy(model, env, 4, return_episode_rewards=True)
    assert table["mean"].item() == pytest.approx(np.mean(returns))


@pytest.mark.parametrize("normalized", [False, True])
def test_agents_that_see_images(normalized: bool) -> None:
    env: Any = DummyVecEnv([Image])
    if normalized:
        env = VecNormalizeObserved(env, norm_obs=False)
    model = RecurrentPPO("CnnNCDEPolicy", env, device="cpu")
    assert evaluate_grid(model, lambda period, drop_rate: Image(), n_episodes=2, n_envs=2)["mean"].item() == 5.0
    assert len(plot_latents(model, Image()).axes[2].lines[0].get_xdata()) == 5  # type: ignore[arg-type]


def test_other_environments_than_the_model_s_are_refused(model: RecurrentPPO) -> None:
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        evaluate_grid(model, lambda period, drop_rate: gym.make("Pendulum-v1"), n_episodes=1)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        plot_latents(model, DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    with pytest.raises(ValueError, match="n_points=1: expected at least 2"):
        plot_latents(model, gym.make(ENV), n_points=1)
    walks = make_vec_env(RandomWalk, 2)
    with pytest.raises(ValueError, match="but there are 2"):
        plot_latents(RecurrentPPO("NCDEPolicy", walks), walks)
    with pytest.raises(TypeError, match="that of an NCDEPolicy"):
        plot_latents(RecurrentPPO("MlpLstmPolicy", walks), walks)


def test_a_grid_is_drawn_with_a_line_and_a_band_for_each_drop_rate(model: RecurrentPPO) -> None:
    table = evaluate_grid(model, make_env, [3, 1], [0.0, 0.5], n_episodes=2, n_envs=2)
    axes = plot_grid(table, label="NCDE")
    assert [line.get_label() for line in axes.lines] == ["NCDE drop rate 0", "NCDE drop rate 0.5"]
    assert len(axes.collections) == 2
    for rate, line, band in zip((0.0, 0.5), axes.lines, axes.collections, strict=True):
        rows = table[table["drop_rate"] == rate].sort_values("period")
        assert line.get_xydata().tolist() == rows[["period", "mean"]].to_numpy().tolist()  # type: ignore[union-attr]
        corners = band.get_paths()[0].vertices
        for name in ("low", "high"):
            assert all((corners == point).all(1).any() for point in rows[["period", name]].to_numpy())
    assert axes.get_xlabel() == "period"
    axes = plot_grid(table[table["period"] == 3], Figure().subplots())
    assert len(axes.lines) == 1
    assert axes.get_xlabel() == "share of values that are missing"


def test_agents_are_summed_up_over_seeds() -> None:
    model = RecurrentPPO("MlpLstmPolicy", make_vec_env(RandomWalk, 1), seed=0, device="cpu")
    walk: Any = lambda period, drop_rate: RandomWalk()  # noqa: E731
    tables = [evaluate_grid(model, walk, n_episodes=n, n_envs=1, seed=n) for n in (1, 2, 3)]
    assert tables[0]["low"].item() == tables[0]["mean"].item() == tables[0]["high"].item()  # of one episode
    means = [table["mean"].item() for table in tables]
    summed = over_agents(pd.concat(tables))
    assert summed["mean"].item() == pytest.approx(np.mean(means))
    assert summed["worst"].item() == min(means) <= summed["low"].item() <= summed["high"].item() <= max(means)
    assert summed["agents"].item() == 3


def marks(axes: Any) -> Any:
    return np.concatenate([line.get_ydata() for line in axes.lines if line.get_linestyle() == "None"])


def test_latents_run_through_what_the_agent_acted_on(model: RecurrentPPO) -> None:
    figure = plot_latents(model, gym.make(ENV, dropout={"probability": 0.5}), n_points=5)
    observations, latents, values, actions = figure.axes
    x = np.asarray(values.lines[0].get_xdata())
    assert 40 <= len(x) <= 200
    assert x[0] == 0
    assert x[-1] == pytest.approx(200 * 0.05, abs=0.3)  # physical time of an episode, but for its last observation
    segments = [np.asarray(line.get_ydata()) for line in latents.lines if line.get_linestyle() == "-"]
    ends = np.array([segment[-1] for segment in segments]).reshape(16, len(x) - 1)
    assert (ends == marks(latents).reshape(16, len(x) - 1)).all()
    assert np.isnan(marks(observations)).mean() == pytest.approx(0.5, abs=0.15)
    assert np.shape(actions.lines[0].get_ydata()) == x.shape
    assert np.isfinite(values.lines[0].get_ydata()).all()


@pytest.mark.parametrize(
    "kwargs", [{"dt": 2.0}, {"time_key": 1, "time_kind": "timestamp"}, {"time_key": 1, "history_length": 1}]
)
def test_latents_with_any_time_and_action(kwargs: dict[str, Any]) -> None:
    env_kwargs = {"observation": "column", "time_kind": kwargs.get("time_kind", "elapsed"), "longest": 30}
    env = make_vec_env(RandomWalk, 1, seed=3, env_kwargs=env_kwargs)
    model = RecurrentPPO("NCDEPolicy", env, policy_kwargs={"share_features_extractor": False} | kwargs, device="cpu")
    figure = plot_latents(model, env, seed=5)
    x = np.asarray(figure.axes[2].lines[0].get_xdata())
    if "dt" in kwargs:
        assert np.diff(x) == pytest.approx(2.0)
    else:
        assert ((np.diff(x) > 0.5) & (np.diff(x) < 1.5)).all()
    plain = DummyVecEnv([lambda: RandomWalk(**env_kwargs)])
    plain.seed(5)
    observation: Any = plain.reset()
    assert len(x) == plain.envs[0].get_wrapper_attr("left")
    observations = [observation[0]]
    for _ in x[1:]:
        observation = plain.step(np.zeros(1, int))[0]
        observations.append(observation[0])
    policy: Any = model.policy
    zeros, start = th.zeros(policy.lstm_hidden_state_shape), th.zeros(len(x))
    states = RNNStates((zeros, zeros), (zeros, zeros))
    with th.no_grad():
        values = policy.evaluate_actions(th.as_tensor(np.array(observations)), start, states, start)[0]
    drawn: Any = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, values[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"solver": "dopri5"}, {"interpolation": "rectilinear"}])
def test_an_episode_of_one_step_has_no_latents_in_between(kwargs: dict[str, Any]) -> None:
    env = make_vec_env(RandomWalk, 1, env_kwargs={"longest": 1})
    figure = plot_latents(RecurrentPPO("NCDEPolicy", env, policy_kwargs=kwargs, device="cpu"), env)
    assert figure.axes[2].lines[0].get_xdata() == [0.0]
    assert not marks(figure.axes[1]).size
