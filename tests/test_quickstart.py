"""The command behind `make train`, and the environments that the package registers."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback

import sb3_ncde  # noqa: F401
from sb3_ncde import quickstart


def test_it_trains_and_leaves_a_model_a_table_and_a_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart.main(["--steps", "512", "--output", str(tmp_path)])
    table = capsys.readouterr().out
    for row in ("return, mean of 100 episodes", "standard deviation", "steps per second", "parameters"):
        assert row in table
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    model = RecurrentPPO.load(tmp_path / "model.zip", device="cpu")
    model.predict(np.zeros(2, np.float32))
    assert (tmp_path / "vecnormalize.pkl").exists()
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
    with pytest.raises(ValueError, match="No settings for Acrobot-v1; there are settings for sb3_ncde/CartPole"):
        quickstart.train("Acrobot-v1", seed=0, n_timesteps=1, output=tmp_path)


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
