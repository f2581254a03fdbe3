"""The command behind `make train`, the settings that it takes, and the environments that the package registers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule

import sb3_ncde
from sb3_ncde import quickstart
from sb3_ncde.hyperparams import hyperparams, settings, with_schedules
from sb3_ncde.wrappers import PreviousAction


def test_it_trains_and_leaves_a_model_a_table_and_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quickstart.main(["--steps", "512", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    for row in ("return, mean of 100 episodes", "standard deviation", "steps per second", "parameters"):
        assert row in printed
    # A yardstick beside the score, and what to do next.
    assert "PPO without memory" in printed
    assert "43 (benchmarks/yardstick.py)" in printed
    assert "500, the time limit" in printed
    for line in (
        "--watch",
        f'RecurrentPPO.load("{tmp_path / "model.zip"}"',
        "--env sb3_ncde/PendulumNoVel-v1",
        "docs/",
    ):
        assert line in printed
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    model = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    model.predict(np.zeros(2, np.float32))
    assert (tmp_path / "vecnormalize.pkl").exists()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # where there is a display, no window
    quickstart.main(["--watch", "--episodes", "1", "--output", str(tmp_path)])
    assert "episode 1 of 1: return " in capsys.readouterr().out
    # A second run must not mix its episodes with the first one's.
    (tmp_path / "99.monitor.csv").write_text("of an earlier run")
    quickstart.main(["--steps", "512", "--output", str(tmp_path)])
    assert not (tmp_path / "99.monitor.csv").exists()


def test_ctrl_c_leaves_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = RecurrentPPO.learn

    class Interrupt(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps > 60:  # before the end of the first episode
                raise KeyboardInterrupt
            return True

    monkeypatch.setattr(RecurrentPPO, "learn", lambda self, steps, **kwargs: learn(self, steps, Interrupt(), **kwargs))
    quickstart.train(quickstart.DEFAULT_ENV, seed=0, n_timesteps=None, output=tmp_path)
    assert RecurrentPPO.load(tmp_path / "model.zip", device="cpu").num_timesteps > 60
    assert quickstart.plot_learning_curve(tmp_path, quickstart.DEFAULT_ENV, [9.0]).exists()


def test_an_environment_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No settings for 'Acrobot-v1'"):
        quickstart.train("Acrobot-v1", seed=0, n_timesteps=1, output=tmp_path)
    with pytest.raises(SystemExit):
        quickstart.main(["--env", "sb3_ncde/AcrobotNoVel-v1"])


def test_another_environment_is_next_than_the_one_that_was_trained(tmp_path: Path) -> None:
    for env_id in quickstart.YARDSTICKS:
        after = quickstart.next_steps(env_id, tmp_path)
        (another,) = [line for line in after.splitlines() if line.startswith("another task")]
        assert env_id not in another.split()
        assert another.split()[-1] in quickstart.YARDSTICKS


def test_time_is_not_normalised() -> None:
    env_id = "sb3_ncde/IrregularPendulumNoVel-v1"
    env = quickstart.normalize(make_vec_env(env_id, n_envs=1), settings(env_id))
    assert env.norm_obs_keys == ["observation"]
    assert env.gamma == 0.98


NOT_THE_MODELS = {"n_envs", "n_timesteps", "normalize", "env_wrapper"}


@pytest.mark.parametrize("env_id", list(hyperparams))
def test_settings_are_ready_for_recurrent_ppo(env_id: str) -> None:
    tuned, entry = settings(env_id), hyperparams[env_id]
    assert (tuned.n_envs, tuned.n_timesteps) == (entry["n_envs"], entry["n_timesteps"])
    assert tuned.normalize is True  # whatever the RL Zoo needs to be told
    assert tuned.model["policy"] in RecurrentPPO.policy_aliases
    assert (tuned.wrapper_class is None) == ("env_wrapper" not in entry)
    assert tuned.model.keys() == entry.keys() - NOT_THE_MODELS
    if str(entry["learning_rate"]).startswith("lin_"):
        assert isinstance(tuned.model["learning_rate"], LinearSchedule)
    # What the caller changes is the caller's own.
    tuned.model.setdefault("policy_kwargs", {})["history_length"] = 99
    assert settings(env_id).model.get("policy_kwargs", {}).get("history_length") != 99
    if env_id in gym.registry:
        assert settings(f"sb3_ncde:{env_id}").model.keys() == entry.keys() - NOT_THE_MODELS


def test_settings_make_a_model() -> None:
    tuned = settings("sb3_ncde/IrregularPendulumNoVel-v1")
    env = make_vec_env("sb3_ncde/IrregularPendulumNoVel-v1", n_envs=1)
    model = RecurrentPPO(env=env, device="cpu", **tuned.model | {"n_steps": 8, "batch_size": 8, "n_epochs": 1}).learn(8)
    assert isinstance(model.policy, sb3_ncde.MultiInputNCDEPolicy)
    assert model.policy.arguments.history_length == 3


def test_settings_name_the_wrapper_of_an_entry() -> None:
    tuned = settings("sb3_ncde/IrregularCartPoleNoVel-v1")
    assert tuned.wrapper_class is PreviousAction
    env = make_vec_env("sb3_ncde/IrregularCartPoleNoVel-v1", wrapper_class=tuned.wrapper_class)
    RecurrentPPO(env=env, device="cpu", **tuned.model | {"n_steps": 8, "batch_size": 8, "n_epochs": 1}).learn(8)


def test_an_unknown_environment_has_nearest_ones_and_a_start() -> None:
    with pytest.raises(
        ValueError, match=r"nearest are .*sb3_ncde/CartPoleNoVel-v1.*settings\(\"default\"\) is a start"
    ):
        settings("sb3_ncde/CartpoleNoVel-v1")
    with pytest.raises(ValueError, match=r"No settings for 'Humanoid-v5'\. settings\(\"default\"\)"):
        settings("Humanoid-v5")


def test_texts_of_yaml_that_are_numbers_are_numbers() -> None:
    """YAML reads ``1e-3`` as a text, as it has no dot."""
    text = """
        learning_rate: 1e-3
        ent_coef: -1.5E-2
        clip_range: lin_2e-1
        n_steps: 1e3
        gamma: .99e0
        env_wrapper: [1e3.Wrapper]
        policy_kwargs: {rtol: 1e-2, latent_size: 8, solver: rk4, time_key: e3}
    """
    before: dict[str, Any] = yaml.safe_load(text)
    after = with_schedules(before)
    assert before == yaml.safe_load(text)
    assert isinstance(before["learning_rate"], str)
    assert after.pop("clip_range")(1.0) == 0.2
    assert after == {
        "learning_rate": 0.001,
        "ent_coef": -0.015,
        "n_steps": 1000,
        "gamma": 0.99,
        "env_wrapper": ["1e3.Wrapper"],
        "policy_kwargs": {"rtol": 0.01, "latent_size": 8, "solver": "rk4", "time_key": "e3"},
    }
    assert isinstance(after["n_steps"], int)


@pytest.mark.filterwarnings("ignore:.*recommend using a symmetric", "ignore:.*-?infinity. This is probably")
@pytest.mark.parametrize(("env_id", "size"), [("sb3_ncde/CartPoleNoVel-v1", 2), ("sb3_ncde/PendulumNoVel-v1", 2)])
def test_environments_show_positions_only(env_id: str, size: int) -> None:
    env = gym.make(env_id)
    assert env.observation_space.shape == (size,)
    check_env(env.unwrapped, skip_render_check=True)
    full = gym.make(env_id.split("/")[1].replace("NoVel", ""))
    positions = [0, 2] if "CartPole" in env_id else [0, 1]
    observation, _ = env.reset(seed=3)
    expected, _ = full.reset(seed=3)
    np.testing.assert_array_equal(observation, expected[positions])
    action = full.action_space.sample()
    assert env.spec is not None
    assert full.spec is not None
    assert env.spec.max_episode_steps == full.spec.max_episode_steps
    np.testing.assert_array_equal(env.step(action)[0], full.step(action)[0][positions])


@pytest.mark.parametrize(
    ("module", "sentence"), [("matplotlib", True), ("yaml", True), ("sb3_ncde.hyperparams", False)]
)
def test_without_the_extra_one_sentence_says_what_to_install(module: str, sentence: bool) -> None:
    """U12: "No module named 'matplotlib'" and no more."""
    code = f"import sys; sys.modules[{module!r}] = None; import sb3_ncde.quickstart"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert ("pip install '.[train]'" in done.stderr) == sentence
    assert ("Traceback" in done.stderr) != sentence
