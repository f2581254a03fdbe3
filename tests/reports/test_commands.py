"""Reports of people who use the RL Zoo's commands with environments, files and mistakes of their own."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState  # noqa: E402

from sb3_ncde import NCDEPolicy, cli  # noqa: E402
from sb3_ncde.hyperparams import hyperparams  # noqa: E402
from sb3_ncde.normalize import VecNormalizeObserved  # noqa: E402
from sb3_ncde.zoo import PPONCDE  # noqa: E402
from sb3_ncde.zoo.confirmation import FIRST_SEED, RUN, best_trials, confirm, frame_of, table_of  # noqa: E402
from sb3_ncde.zoo.mistakes import sentence_of  # noqa: E402
from sb3_ncde.zoo.run_folder import RunFolder  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of rl_zoo3 and what it imports
ENV = "CartPoleNoVel-v1"
CONFIG = Path(__file__).parents[2] / "configs" / "ppo_ncde.yml"
SMALL = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1}
ENTRY: dict[str, Any] = {"policy": "sb3_ncde.NCDEPolicy", "n_timesteps": 32, **SMALL}
CRANE = """
import gymnasium as gym
from gymnasium.envs.classic_control import PendulumEnv

gym.register("Crane-v0", PendulumEnv, max_episode_steps=20)
"""


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """The command, in an empty folder; it changes the process that it runs in, which here is the tests' own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("rl_zoo3.exp_manager.VecNormalize", VecNormalize)
    before = set(sys.modules)
    yield lambda line: cli.main(line.split())
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def mistake(main: Callable[[str], None], line: str) -> str:
    """Return what a command says that fails by a mistake of the user."""
    with pytest.raises(SystemExit) as end:
        main(line)
    message = end.value.code
    assert isinstance(message, str)  # sys.exit prints it to stderr and returns 1
    assert message.startswith(f"sb3-ncde {line.split()[0]}: ")
    return message


def write(entry: Any, env_id: str = "CartPole-v1", name: str = "entry.yml") -> None:
    Path(name).write_text(yaml.safe_dump({env_id: entry}))


def call(module: str, line: str, folder: Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a module as a command of its own, in a folder."""
    command = [sys.executable, "-m", module, *line.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


# ---------------------------------------------------------------------------------------------- an own environment


def test_the_command_finds_an_environment_of_this_folder(tmp_path: Path) -> None:
    """U6: ``sb3-ncde --gym-packages crane`` said ModuleNotFoundError where ``python -m`` does not."""
    (tmp_path / "crane.py").write_text(CRANE)
    (tmp_path / "crane.yml").write_text(yaml.safe_dump({"Crane-v0": ENTRY}))
    script = shutil.which("sb3-ncde", path=str(Path(sys.executable).parent))
    assert script is not None
    options = ["--env", "Crane-v0", "--gym-packages", "crane"]
    training = [script, "train", *options, "--conf-file", "crane.yml", "--eval-freq", "-1"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (training, [script, "enjoy", *options, "--no-render", "-n", "50"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    safe = subprocess.run(
        training, cwd=tmp_path, capture_output=True, text=True, env=environment | {"PYTHONSAFEPATH": "1"}
    )
    assert (safe.returncode == 0) == (sys.version_info < (3, 11))


@pytest.mark.parametrize("is_known", [False, True])
def test_this_folder_is_looked_into_once_and_first(is_known: bool, main: Any, tmp_path: Path) -> None:
    """U6: as with ``python -m``, which puts it there itself."""
    if is_known:
        sys.path.append(str(tmp_path))
    (tmp_path / "crane.py").write_text(CRANE)
    (tmp_path / "crane.yml").write_text(yaml.safe_dump({"Crane-v0": ENTRY}))
    main("train --env Crane-v0 --gym-packages crane --conf-file crane.yml --eval-freq -1 --no-progress")
    assert sys.path.count(str(tmp_path)) == 1
    assert (sys.path[0] == str(tmp_path)) != is_known


def test_numbers_with_an_exponent_are_numbers_everywhere(main: Any, tmp_path: Path) -> None:
    """U7: ``learning_rate: 1e-3`` was "not enough values to unpack"; so was each other number of an entry."""
    Path("entry.yml").write_text(
        """
        Pendulum-v1:
          policy: sb3_ncde.NCDEPolicy
          n_timesteps: !!float 1e2
          n_envs: 2e0
          n_steps: 16
          batch_size: 1.6e1
          n_epochs: 1
          learning_rate: 1e-3
          clip_range: lin_2e-1
          gamma: 98e-2
          normalize: {clip_obs: 5e0}
          env_wrapper:
            - sb3_ncde.sensors.NoisyObservation: {std: 1e-3}
          policy_kwargs: {dt: 1e-1, history_length: 4}
        """
    )
    main("train --env Pendulum-v1 --conf-file entry.yml --eval-freq -1 --no-progress -params ent_coef:1e-3 n_steps:2e1")
    folder = tmp_path / "logs/ppo_ncde/Pendulum-v1_1"
    model = RecurrentPPO.load(folder / "Pendulum-v1.zip", device="cpu")
    assert model.lr_schedule(0.5) == 1e-3
    assert callable(model.clip_range)
    assert model.clip_range(0.5) == pytest.approx(0.1)
    assert (model.gamma, model.ent_coef, model.n_steps, model.batch_size, model.num_timesteps) == (
        0.98,
        1e-3,
        20,
        16,
        120,
    )
    assert isinstance(model.policy, NCDEPolicy)
    assert model.policy.arguments.dt == 0.1
    saved = yaml.safe_load((folder / "Pendulum-v1/config.yml").read_text())
    assert saved["learning_rate"] == 1e-3
    env = VecNormalizeObserved.load(str(folder / "Pendulum-v1/vecnormalize.pkl"), make_vec_env("Pendulum-v1"))
    assert env.clip_obs == 5


# ---------------------------------------------------------------------------------------------- normalisation


class Camera(gym.Env[Any, Any]):
    """A Dict of an image and a vector."""

    observation_space = gym.spaces.Dict(
        camera=gym.spaces.Box(0, 255, (36, 36, 3), np.uint8), walk=gym.spaces.Box(-9, 9, (3,), np.float32)
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def test_normalize_true_leaves_images_alone(main: Any, tmp_path: Path) -> None:
    """R5, https://github.com/DLR-RM/stable-baselines3/issues/1320: ``normalize: true`` took the CNN away."""
    before = str(Camera.observation_space)
    gym.register("Camera-v0", Camera, max_episode_steps=10)
    write(ENTRY | {"policy": "sb3_ncde.MultiInputNCDEPolicy", "normalize": True}, "Camera-v0")
    main("train --env Camera-v0 --conf-file entry.yml --eval-freq 16 --eval-episodes 1 --no-progress")
    model = RecurrentPPO.load(tmp_path / "logs/ppo_ncde/Camera-v0_1/Camera-v0.zip", device="cpu")
    assert sum(type(module).__name__ == "Conv2d" for module in model.policy.modules()) == 3
    assert str(Camera.observation_space) == before


def test_an_agent_of_the_stock_zoo_goes_on_with_its_statistics(main: Any, tmp_path: Path) -> None:
    """R+: the file of SB3's VecNormalize, which ``-i`` finds beside the agent, stayed SB3's."""
    write(ENTRY | {"normalize": True}, ENV)
    main(f"train --algo ppo_lstm --env {ENV} --conf-file entry.yml --eval-freq -1 --no-progress")
    agent = f"logs/ppo_lstm/{ENV}_1/{ENV}.zip"
    main(f"train --env {ENV} --conf-file entry.yml --eval-freq 16 --eval-episodes 1 --no-progress -i {agent}")
    env = VecNormalizeObserved.load(str(tmp_path / f"logs/ppo_ncde/{ENV}_1/{ENV}/vecnormalize.pkl"), make_vec_env(ENV))
    assert np.shape(env.obs_rms.count) == (4,)  # type: ignore[attr-defined]
    assert env.obs_rms.count == pytest.approx([68, 68, 68, 68], abs=0.1)  # type: ignore[attr-defined]


def statistics_of(folder: Path, algo: str) -> Any:
    """Return the statistics of the only agent of an algorithm."""
    (file,) = folder.glob(f"logs/{algo}/*/*/vecnormalize.pkl")
    return pickle.loads(file.read_bytes()).obs_rms


STOCK = [name for name in hyperparams if "SensorLoss" in name or "Irregular" in name]
BRIEFLY = "-n 64 --eval-freq 32 --eval-episodes 1 --device cpu -params n_envs:2 n_steps:32 batch_size:32 n_epochs:1"


@pytest.mark.parametrize("env_id", STOCK)
def test_entries_with_time_or_missing_values_train_in_the_stock_zoo(env_id: str, main: Any, tmp_path: Path) -> None:
    """U11: NaN for up to 5,000 observations, or "time cannot run backwards"; ``--algo ppo_lstm`` is the stock RL Zoo's."""
    main(f"train --algo ppo_lstm --env {env_id} --conf-file {CONFIG} --no-progress {BRIEFLY}")
    main(f"train --env {env_id} --conf-file {CONFIG} --no-progress {BRIEFLY}")
    for algo in ("ppo_lstm", "ppo_ncde"):
        found = statistics_of(tmp_path, algo)
        if "Irregular" in env_id:
            assert list(found) == ["observation"]
            assert np.isfinite(found["observation"].mean).all()
        else:
            assert np.isfinite(found.mean).all()
            assert (found.count < 60).all()  # of 66, half of which are missing
    main(f"enjoy --algo ppo_lstm --env {env_id} --no-render -n 30 --no-progress")


@pytest.mark.parametrize("env_id", ["sb3_ncde/SensorLossPendulumNoVel-v1", "sb3_ncde/IrregularPendulumNoVel-v1"])
def test_the_stock_zoo_needs_nothing_else(env_id: str, tmp_path: Path) -> None:
    """U11: as a process of its own, as typed in."""
    common = f"--algo ppo_lstm --env {env_id} --gym-packages sb3_ncde"
    call("rl_zoo3.train", f"{common} --conf-file {CONFIG} {BRIEFLY} --num-threads 1", tmp_path)
    assert "Mean reward" in call("rl_zoo3.enjoy", f"{common} -f logs --no-render -n 500", tmp_path).stdout


def test_an_own_entry_with_time_and_missing_values_trains_in_the_stock_zoo(main: Any, tmp_path: Path) -> None:
    """U11, its kind: what the shipped entries say, any may say."""
    entry = ENTRY | {
        "policy": "sb3_ncde.MultiInputNCDEPolicy",
        "normalize": "importlib.import_module('sb3_ncde.zoo').observed(skip=['time'])",
        "policy_kwargs": {"time_key": "time", "dt": 0.1, "missing_values": True},
        "env_wrapper": [
            {"sb3_ncde.sensors.IrregularSampling": {"low": 1, "high": 3, "dt": 0.05}},
            "sb3_ncde.sensors.SensorDropout",
        ],
    }
    write(entry, "Pendulum-v1")
    found = []
    for algo in ("ppo_lstm", "ppo_ncde"):
        main(f"train --algo {algo} --env Pendulum-v1 --conf-file entry.yml --eval-freq -1 --seed 1 --no-progress")
        found.append(statistics_of(tmp_path, algo))
        assert list(found[-1]) == ["observation"]
        assert (found[-1]["observation"].count < 30).all()  # of 34, half of which are missing
    assert np.array_equal(found[0]["observation"].mean, found[1]["observation"].mean)
