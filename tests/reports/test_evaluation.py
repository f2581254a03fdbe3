"""Reports of people who evaluate and draw agents that see images, or whose periods are no steps of physics."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_ncde.evaluation import evaluate_grid, plot_grid, plot_latents
from sb3_ncde.normalize import VecNormalizeObserved
from tests.envs import RandomWalk
from tests.reports.test_normalization import Camera


def walk(period: float, drop_rate: float) -> gym.Env[Any, Any]:
    return RandomWalk("dict_image", spaces.Box(-1, 1, (3,)))


@pytest.mark.parametrize("kwargs", [{}, {"norm_obs_keys": ["camera", "walk"]}, {"norm_obs": False}], ids=str)
@pytest.mark.filterwarnings("ignore:norm_obs_keys names images")
def test_an_agent_that_sees_an_image_and_a_vector_is_evaluated_and_drawn(kwargs: dict[str, Any]) -> None:
    """R5, https://github.com/DLR-RM/stable-baselines3/issues/1320: "Observation spaces do not match"."""
    env = VecNormalizeObserved(make_vec_env(walk, 2, env_kwargs={"period": 1, "drop_rate": 0.0}), **kwargs)
    model = RecurrentPPO("MultiInputNCDEPolicy", env, n_steps=8, batch_size=8, device="cpu").learn(16)
    assert len(evaluate_grid(model, walk, n_episodes=2, n_envs=2)) == 1
    assert len(plot_latents(model, walk(1, 0.0)).axes) == 4
    statistics = model.get_vec_normalize_env()
    again = evaluate_grid(model, walk, n_episodes=2, n_envs=2, vec_normalize=statistics)
    assert again.equals(evaluate_grid(model, walk, n_episodes=2, n_envs=2))


@pytest.mark.filterwarnings("ignore:norm_obs_keys names images")
def test_an_agent_whose_space_sb3_rewrote_is_evaluated_in_a_new_environment() -> None:
    """R5: SB3's VecNormalize writes the image's new space into the training's environment, and in no other."""

    class Fresh(Camera):
        def __init__(self) -> None:
            self.observation_space = spaces.Dict(Camera.observation_space.spaces)

    model = RecurrentPPO("MultiInputNCDEPolicy", VecNormalize(DummyVecEnv([Fresh])), device="cpu")
    assert evaluate_grid(model, lambda period, drop_rate: Fresh(), n_episodes=1, n_envs=1)["mean"].item() == 6.0
    assert len(plot_latents(model, Fresh()).axes) == 4


@pytest.mark.parametrize("normalized", [False, True])
def test_an_image_on_its_own_is_drawn_from_a_vectorised_environment(normalized: bool) -> None:
    """R5, its kind: the images of an environment that the user had vectorised were not turned for the CNN."""
    env: Any = DummyVecEnv([Camera])
    model = RecurrentPPO("MultiInputNCDEPolicy", VecNormalizeObserved(env) if normalized else env, device="cpu")
    fresh: Any = DummyVecEnv([Camera])
    assert len(plot_latents(model, VecNormalizeObserved(fresh) if normalized else fresh).axes) == 4


def test_an_image_that_is_normalised_is_evaluated() -> None:
    """R5, with a Box."""
    env = VecNormalizeObserved(make_vec_env(RandomWalk, 1, env_kwargs={"observation": "image"}), norm_obs=True)
    model = RecurrentPPO("CnnNCDEPolicy", env, policy_kwargs={"normalize_images": False}, device="cpu")
    assert len(evaluate_grid(model, lambda period, drop_rate: RandomWalk("image"), n_episodes=1, n_envs=1)) == 1


@pytest.mark.filterwarnings("ignore:The observation has a key")
@pytest.mark.parametrize("observation", ["box", "dict", "dict_image"])
def test_another_environment_is_refused_though_its_observations_are_normalised(observation: str) -> None:
    """R5, the other side: what is compared after normalising is still compared, bounds and all."""
    env = VecNormalizeObserved(make_vec_env(RandomWalk, 1, env_kwargs={"observation": observation}))
    policy = "NCDEPolicy" if observation == "box" else "MultiInputNCDEPolicy"
    model = RecurrentPPO(policy, env, device="cpu")

    class Bounded(RandomWalk):
        def __init__(self) -> None:
            super().__init__(observation)
            walk = spaces.Box(-5, 5, (3,), np.float32)
            space = self.observation_space
            self.observation_space = (
                spaces.Dict({**space.spaces, "walk": walk}) if isinstance(space, spaces.Dict) else walk
            )

    for other in (Bounded(), RandomWalk("column"), RandomWalk("dict_scalar")):
        make_other: Any = lambda period, drop_rate, other=other: other  # noqa: E731
        with pytest.raises(ValueError, match="Observation spaces do not match"):
            evaluate_grid(model, make_other, n_episodes=1, n_envs=1)


def test_a_period_is_what_the_user_says_it_is() -> None:
    """U20: ``plot_grid`` said "steps of physics" of any period."""
    model = RecurrentPPO("NCDEPolicy", make_vec_env(RandomWalk, 1), device="cpu")
    asked: list[float] = []

    def at_period(seconds: float, drop_rate: float) -> gym.Env[Any, Any]:
        asked.append(seconds)
        return RandomWalk()

    table = evaluate_grid(model, at_period, periods=[0.05, 0.1], n_episodes=1, n_envs=1)
    assert asked == [0.05, 0.1]
    axes = plot_grid(table)
    assert axes.get_xlabel() == "period"
    assert plot_grid.__doc__ is not None
    assert 'labelled "period"' in plot_grid.__doc__
    rates = plot_grid(pd.concat([table.head(1), table.head(1).assign(drop_rate=0.5)]))
    assert rates.get_xlabel() == "share of values that are missing"


@pytest.mark.parametrize("action_space", [spaces.Discrete(2), spaces.Box(-1, 1, (3,))])
def test_a_picture_of_latents_says_what_is_drawn(action_space: spaces.Space[Any]) -> None:
    """U20: ``plot_latents`` had no legend."""
    env = make_vec_env(RandomWalk, 1, env_kwargs={"action_space": action_space, "longest": 30})
    figure = plot_latents(RecurrentPPO("NCDEPolicy", env, device="cpu"), env)
    legends = [axes.get_legend() for axes in figure.axes]
    texts = [[text.get_text() for text in legend.get_texts()] if legend else [] for legend in legends]
    assert texts[0] == ["feature 0", "feature 1", "feature 2"]
    assert texts[1] == ["between observations", "at an observation"]
    assert texts[3] == (["action 0", "action 1", "action 2"] if isinstance(action_space, spaces.Box) else [])
    colors = {line.get_color() for line in figure.axes[0].lines}
    assert len(colors) == 3


@pytest.mark.parametrize("module", ["matplotlib", "pandas", "rich", "scipy.stats"])
def test_without_the_extra_one_sentence_says_what_to_install(module: str) -> None:
    """U12: "No module named 'matplotlib'" and no more; the package is on no index, so the command is a clone's."""
    code = f"import sys; sys.modules[{module!r}] = None; import sb3_ncde.evaluation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert "sb3_ncde.evaluation needs " in last
    assert module in last
    assert "in a clone of this package: pip install '.[train]'" in last
    assert done.stderr.count("Traceback") == 1


def test_another_module_that_is_missing_is_named_as_it_is(tmp_path: Path) -> None:
    """U12: only what the extra brings is said to come with it."""
    code = "import sys; sys.modules['sb3_ncde.cde.trajectory'] = None; import sb3_ncde.evaluation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "import of sb3_ncde.cde.trajectory halted" in done.stderr.splitlines()[-1]
    assert "pip install" not in done.stderr


def test_an_agent_of_normalised_observations_is_not_evaluated_on_raw_ones(tmp_path: Path) -> None:
    """U1: a loaded agent was evaluated on raw observations, -0.92 instead of -0.38, without a word."""
    env = VecNormalizeObserved(make_vec_env(RandomWalk, 2, seed=0))
    model = RecurrentPPO("NCDEPolicy", env, n_steps=16, batch_size=16, device="cpu").learn(32)
    model.save(tmp_path / "agent")
    env.save(str(tmp_path / "agent.pkl"))
    loaded = RecurrentPPO.load(tmp_path / "agent", device="cpu")
    statistics = VecNormalizeObserved.load(str(tmp_path / "agent.pkl"), make_vec_env(RandomWalk))
    with pytest.raises(ValueError, match=r"trained in environments wrapped in VecNormalize.*pass vec_normalize="):
        evaluate_grid(loaded, lambda period, rate: RandomWalk(), n_episodes=1)
    for raw in (RandomWalk(), make_vec_env(RandomWalk)):
        with pytest.raises(ValueError, match="pass vec_normalize="):
            plot_latents(loaded, raw)
    evaluate_grid(loaded, lambda period, rate: RandomWalk(), n_episodes=1, vec_normalize=statistics)
    plot_latents(loaded, statistics)
