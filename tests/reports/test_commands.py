"""Reports of people who use the RL Zoo's commands with environments, files and mistakes of their own."""

import gc
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import rl_zoo3.import_envs  # noqa: F401  (registers the RL Zoo's environments, once)
import yaml
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState  # noqa: E402

from sb3_ncde import NCDEPolicy, cli  # noqa: E402
from sb3_ncde.hyperparams import hyperparams  # noqa: E402
from sb3_ncde.normalize import VecNormalizeObserved  # noqa: E402
from sb3_ncde.zoo import PPONCDE, confirmation  # noqa: E402
from sb3_ncde.zoo.confirmation import (  # noqa: E402
    FIRST_SEED,
    RUN,
    best_trials,
    claim,
    confirm,
    frame_of,
    table_of,
)
from sb3_ncde.zoo.experiment import NCDEExperimentManager  # noqa: E402
from sb3_ncde.zoo.mistakes import sentence_of  # noqa: E402
from sb3_ncde.zoo.run_folder import RunFolder  # noqa: E402
from sb3_ncde.zoo.study import NotNeededError, open_storage  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of rl_zoo3 and what it imports
ENV = "CartPoleNoVel-v1"
CONFIG = Path(__file__).parents[2] / "configs" / "ppo_ncde.yml"
SMALL = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 1}
ENTRY: dict[str, Any] = {"policy": "sb3_ncde.NCDEPolicy", "n_timesteps": 32, **SMALL}
TRAIN = "train --env CartPole-v1 --conf-file entry.yml --eval-freq -1 --no-progress"
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
    modules, environments = set(sys.modules), set(gym.registry)
    yield lambda line: cli.main(line.split())
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for name in set(gym.registry) - environments:
        del gym.registry[name]
    with warnings.catch_warnings():  # a command that fails leaves its files to the end of the process
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


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
    gym.register("Camera-v0", lambda **kwargs: Camera(), max_episode_steps=10)
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


def test_statistics_that_lie_about_are_not_an_agent_s(main: Any, tmp_path: Path) -> None:
    """R+, its kind: a folder of the environment's name, without ``-i``, lent its statistics to a new agent."""
    write(ENTRY | {"normalize": True})
    main(TRAIN)
    shutil.copytree(tmp_path / "logs/ppo_ncde/CartPole-v1_1/CartPole-v1", tmp_path / "CartPole-v1")
    shutil.rmtree(tmp_path / "logs")
    main(TRAIN)
    assert statistics_of(tmp_path, "ppo_ncde").count == pytest.approx([34] * 4, abs=0.1)  # 2 resets and 32 steps


@pytest.mark.parametrize("env_id", STOCK)
def test_entries_with_time_or_missing_values_train_in_the_stock_zoo(env_id: str, main: Any, tmp_path: Path) -> None:
    """U11: NaN for up to 5,000 observations, or "time cannot run backwards"; ``ppo_lstm`` is the stock RL Zoo's."""
    main(f"train --algo ppo_lstm --env {env_id} --conf-file {CONFIG} --no-progress {BRIEFLY}")
    main(f"train --env {env_id} --conf-file {CONFIG} --no-progress {BRIEFLY}")
    for algo in ("ppo_lstm", "ppo_ncde"):
        found = statistics_of(tmp_path, algo)
        if "Irregular" in env_id:
            assert list(found) == hyperparams[env_id]["normalize"]["norm_obs_keys"]
            assert "time" not in found
            assert all(np.isfinite(statistics.mean).all() for statistics in found.values())
        else:
            assert np.isfinite(found.mean).all()
            assert (found.count < 60).all()  # of 66, half of which are missing
    main(f"enjoy --algo ppo_lstm --env {env_id} --no-render -n 30 --no-progress")


@pytest.mark.parametrize("env_id", ["sb3_ncde/SensorLossPendulumNoVel-v1", "sb3_ncde/IrregularPendulumNoVel-v1"])
def test_the_stock_zoo_needs_nothing_else(env_id: str, tmp_path: Path) -> None:
    """U11: as a process of its own, as typed in."""
    common = f"--algo ppo_lstm --env {env_id} --gym-packages sb3_ncde"
    call("rl_zoo3.train", f"{common} --conf-file {CONFIG} {BRIEFLY} --num-threads 1", tmp_path)
    found = statistics_of(tmp_path, "ppo_lstm")
    assert np.isfinite((found["observation"] if "Irregular" in env_id else found).mean).all()
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


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "train --env CartPol-v1",
            r"CartPol-v1 not found.*maybe meant CartPole-v1\?.*by its module: --gym-packages MODULE",
        ),
        ("train --env CartPole-v1 --gym-packages crane", "No module named 'crane'.*modules that Python can import"),
        ("enjoy --env CartPole-v1 --gym-packages crane", "No module named 'crane'.*modules that Python can import"),
        ("record-video --env CartPole-v1 --gym-packages crane", "No module named 'crane'.*modules that Python can"),
        ("benchmark --env CartPole-v1 --gym-packages crane", "No module named 'crane'.*modules that Python can import"),
        (
            "train --env CartPole-v1 --conf-file none.yml",
            "No such file or directory: 'none.yml'.*--conf-file names a YAML",
        ),
        ("train --env CartPole-v1 --conf-file none", "No module named 'none'.*--conf-file names a YAML"),
        ("train --env CartPole-v1 --conf-file json", "module 'json' has no attribute 'hyperparams'.*--conf-file names"),
        (
            "train --env Acrobot-v1 --conf-file entry.yml",
            "not found for ppo_ncde-Acrobot-v1 in entry.yml. Give the file an",
        ),
        ("train --env CartPole-v1 -i none.zip", r"must be a valid path to a \.zip file"),
        (f"{TRAIN} -params foo:1", "Neither the RL Zoo nor RecurrentPPO knows a setting 'foo'. It takes batch_size, "),
        (f"{TRAIN} -params learning_rat:1", "knows a setting 'learning_rat'. Did you mean 'learning_rate'"),
        (f"{TRAIN} -params seed:1", "seed is no setting of an entry: give it as the option --seed"),
        (
            f"{TRAIN} -params learning_rate:lin_0.1",
            "invalid syntax.*a text needs quotes that the shell leaves",
        ),
        (f"{TRAIN} -params n_steps:0", "n_steps=0: expected at least 1"),
        (f"{TRAIN} -params n_steps:2.5", "n_steps must be an integer, not 2.5"),
        (f"{TRAIN} -params n_envs:1 n_steps:1 batch_size:1", "batch_size"),
        (
            f"{TRAIN} -params policy_kwargs:dict(latent_sise=4)",
            "NCDEPolicy got an unexpected argument 'latent_sise'. Did",
        ),
        (f"{TRAIN} -params policy_kwargs:dict(latent_size=0)", "latent_size=0: expected at least 1"),
        (
            f"{TRAIN} -params policy:'sb3_ncde.NCDEPolcy'",
            "has no attribute 'NCDEPolcy'.*policy and callback are written",
        ),
        (f"{TRAIN} -params policy:'NCDEPolcy'", "There is no policy 'NCDEPolcy'. Say policy: sb3_ncde.NCDEPolicy"),
        (f"{TRAIN} -params policy:'sb3_ncde.CnnNCDEPolicy'", "You should use NatureCNN only with images"),
        (
            f"{TRAIN} -params callback:'none.None'",
            "No module named 'none'.*policy and callback are written module.Class",
        ),
        (
            f"{TRAIN} -params env_wrapper:'none.None'",
            "No module named 'none'.*env_wrapper and vec_env_wrapper are written",
        ),
        (
            f"{TRAIN} -params env_wrapper:'sb3_ncde.sensors.None_'",
            "has no attribute 'None_'.*env_wrapper and vec_env_wrapper",
        ),
        (
            f"{TRAIN} -params env_wrapper:{{'sb3_ncde.sensors.SensorDropout':{{'p':1}}}}",
            "unexpected keyword argument 'p'.*with arguments as a mapping",
        ),
        (
            f"{TRAIN} -params env_wrapper:{{'sb3_ncde.sensors.SensorDropout':{{'probability':1}}}}",
            "probability=1: it must be at least 0 and below 1",
        ),
        (
            f"{TRAIN} -params normalize:{{'clip':1}}",
            "unexpected keyword argument 'clip'.*arguments of VecNormalizeObserved",
        ),
        (f"{TRAIN} -params normalize:'dict('", "was never closed.*normalize is true, false, a mapping"),
        (f"{TRAIN} -params policy_kwargs:'dict('", "was never closed.*policy_kwargs is a mapping"),
        (f"{TRAIN} --env-kwargs foo:1", "unexpected keyword argument 'foo' was raised from the environment creator"),
        (f"{TRAIN} --trial-id 3", "--trial-id 3: there is no logs/ppo_ncde/studies.db with studies. Say by --storage"),
        (f"{TRAIN} --trial-id 3 --storage a.log", "--trial-id 3: there is no a.log with studies. Say by --storage"),
        (
            "enjoy --env CartPole-v1 --no-render",
            "folder was not found. Train first, or say by -f in which folder",
        ),
        ("enjoy --env CartPole-v1 --no-render --exp-id 4", "folder was not found"),
        ("record-video --env CartPole-v1", "folder was not found. Train first, or say by -f"),
        (
            "plot --env CartPole-v1",
            "No such file or directory: 'logs/ppo_ncde'.*-f is the folder with the logs of a training",
        ),
        ("benchmark --env CartPol-v1", "Environment `CartPol` doesn't exist. Did you mean: `CartPole`"),
        ("tune --env CartPole-v1 --conf-file entry.yml --n-jobs 2", "start the same command several times instead"),
        ("tune --env CartPole-v1 --conf-file entry.yml --confirm -1", "--confirm=-1: expected at least 0"),
        (
            "tune --env CartPole-v1 --conf-file entry.yml --confirm 1 --confirm-seeds 0",
            "--confirm-seeds=0: expected at",
        ),
        ("tune --env CartPole-v1 --conf-file entry.yml --storage studies", "'studies' is no URL of a storage"),
        (
            "tune --env CartPole-v1 --conf-file entry.yml --storage postgresql://me:secret@127.0.0.1:1/none",
            r"postgresql\S*//me:\*\*\*@127.0.0.1:1/none cannot be used: .*refused",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(line: str, sentence: str, main: Any, tmp_path: Path) -> None:
    """U20: 40 lines of traceback, and a folder in which ``enjoy`` then found no agent."""
    write(ENTRY)
    message = mistake(main, line)
    assert re.search(sentence, message, re.DOTALL), message
    assert len(message) < 1000
    assert [path.name for path in tmp_path.rglob("*")] == ["entry.yml"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'NoneType' object has no attribute 'keys'.*environment ids with a mapping of settings"),
        ("CartPole-v1: 3", "type 'int' is not iterable.*environment ids with a mapping of settings"),
        ("CartPole-v1: {policy: ", "while parsing a flow.*entry.yml"),
        (
            "CartPole-v1: {policy: sb3_ncde.NCDEPolicy}",
            "The settings of CartPole-v1 in entry.yml lack n_timesteps. An entry",
        ),
        ("CartPole-v1: {n_steps: 8}", "lack policy and n_timesteps"),
        ("CartPole-v1: {policy: sb3_ncde.NCDEPolicy, n_timesteps: many}", "n_timesteps must be an integer, not 'many'"),
        (
            "CartPole-v1: {policy: sb3_ncde.NCDEPolicy, n_timesteps: 9, learning_rate: cos_1e-3}",
            "learning_rate: cos_1e-3 is no number, and no schedule.*lin_0.001 falls linearly to 0",
        ),
        (
            "CartPole-v1: {policy: sb3_ncde.NCDEPolicy, n_timesteps: 9, clip_range: lin_many}",
            "clip_range: lin_many is no number, and no schedule",
        ),
    ],
)
def test_a_configuration_that_says_too_little_or_too_much_is_one_sentence(
    text: str, sentence: str, main: Any, tmp_path: Path
) -> None:
    """U7, U20: "not enough values to unpack", KeyErrors, and cos_1e-3 was a linear schedule without a word."""
    Path("entry.yml").write_text(text)
    message = mistake(main, TRAIN)
    assert re.search(sentence, message, re.DOTALL), message
    assert not (tmp_path / "logs").exists()


def test_the_steps_of_training_may_stand_on_the_command_line_alone(main: Any, tmp_path: Path) -> None:
    """U20: an entry without n_timesteps was a KeyError, with ``-n`` beside it too."""
    write({name: value for name, value in ENTRY.items() if name != "n_timesteps"})
    main(f"{TRAIN} -n 32")
    assert list(tmp_path.glob("logs/ppo_ncde/*/CartPole-v1.zip"))


def test_a_mistake_goes_to_stderr_with_an_exit_code(tmp_path: Path) -> None:
    """U20: as a process of its own."""
    done = call("sb3_ncde.cli", "train --env CartPol-v1", tmp_path, fails=True)
    assert done.returncode == 1
    assert re.fullmatch(r"sb3-ncde train: CartPol-v1 not found .*\n", done.stderr)
    done = call("sb3_ncde.cli", "train --no-such-option", tmp_path, fails=True)
    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-option" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "policy", ["MlpLstmPolicy", "sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy"]
)
def test_ppo_ncde_trains_no_lstm(policy: str, main: Any) -> None:
    """R14, https://github.com/Stable-Baselines-Team/stable-baselines3-contrib/issues/257: it did, silently."""
    write(ENTRY | {"policy": policy})
    message = mistake(main, TRAIN)
    assert "The policy is MlpLstmPolicy, but ppo_ncde trains NCDEPolicy. Say policy: sb3_ncde.NCDEPolicy for" in message
    assert "with --algo ppo_lstm" in message


def test_ppo_ncde_goes_on_with_no_lstm(main: Any, tmp_path: Path) -> None:
    """R14, its kind: an LSTM that is loaded (``-i``, ``enjoy``) rather than made."""
    write(ENTRY)
    RecurrentPPO("MlpLstmPolicy", "CartPole-v1", device="cpu").save(tmp_path / "lstm.zip")
    assert "ppo_ncde trains NCDEPolicy" in mistake(main, f"{TRAIN} -i lstm.zip")
    with pytest.raises(ValueError, match="The policy is MlpLstmPolicy, but ppo_ncde trains NCDEPolicy"):
        PPONCDE.load(tmp_path / "lstm.zip")
    RecurrentPPO("NCDEPolicy", "CartPole-v1", device="cpu").save(tmp_path / "ncde.zip")
    assert isinstance(PPONCDE.load(tmp_path / "ncde.zip", device="cpu").policy, NCDEPolicy)


BUGS = {
    "step": "def step(self, action):\n        raise ValueError('a bug')",
    "reset": "def reset(self, seed=None, options=None):\n        return {}['a bug']",
    "__init__": "def __init__(self, render_mode=None):\n        super().__init__('a bug' + 1)",
}


@pytest.mark.parametrize("where", BUGS)
def test_a_bug_of_the_user_s_environment_keeps_its_traceback(where: str, main: Any, tmp_path: Path) -> None:
    """U20, the other side: it says where."""
    name = f"crane_{where.strip('_')}"
    code = CRANE.replace("gym.register", f"class Crane(PendulumEnv):\n    {BUGS[where]}\n\n\ngym.register")
    Path(f"{name}.py").write_text(code.replace("PendulumEnv, max", "Crane, max"))
    write(ENTRY, "Crane-v0")
    with pytest.raises((ValueError, KeyError, TypeError)) as error:
        main(f"train --env Crane-v0 --gym-packages {name} --conf-file entry.yml --eval-freq -1 --no-progress")
    errors = (error.value, error.value.__cause__)
    traces = [
        str(entry.path) for each in errors if each for entry in pytest.ExceptionInfo.from_exception(each).traceback
    ]
    assert any(path.endswith(f"{name}.py") for path in traces)
    assert not (tmp_path / "logs").exists()


def test_a_bug_of_the_user_s_module_keeps_its_traceback(main: Any) -> None:
    """U20, the other side."""
    Path("crane_import.py").write_text("import no_such_module_of_theirs")
    with pytest.raises(ModuleNotFoundError):
        main("train --env Crane-v0 --gym-packages crane_import")


def test_a_bug_of_ours_keeps_its_traceback(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """U20, the other side: what nobody raised on purpose, and an assertion of this package."""
    write(ENTRY)

    def broken(entry: dict[str, Any], *args: Any) -> None:
        del [][len(entry)]

    monkeypatch.setattr("sb3_ncde.zoo.experiment.check_entry", broken)
    with pytest.raises(IndexError):
        main(TRAIN)
    for error in (ValueError(), RuntimeError("never raised")):
        assert sentence_of(error) is None
    monkeypatch.setattr("sb3_ncde.zoo.experiment.check_entry", impossible())
    with pytest.raises(AssertionError, match="impossible"):
        main(TRAIN)


def impossible() -> Any:
    """Return a function of this package whose assertion fails."""
    namespace: dict[str, Any] = {}
    file = Path(sentence_of.__code__.co_filename).with_name("impossible.py")
    exec(compile("def fail(*args):\n    assert not args, 'impossible'", str(file), "exec"), namespace)
    fail: Any = namespace["fail"]
    return fail


def test_without_the_extra_the_true_command_is_said(main: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """U12: ``pip install 'sb3-ncde[zoo]'`` finds nothing, as the package is on no index."""
    monkeypatch.setitem(sys.modules, "rl_zoo3.train", None)
    message = mistake(main, "train --env CartPole-v1")
    assert message.endswith("in a clone of this package: pip install '.[zoo]'")
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"in a clone of this package: pip install '\.\[zoo\]'"):
        main("train --env CartPole-v1")


def test_a_run_without_an_agent_or_an_episode_leaves_nothing(main: Any, tmp_path: Path) -> None:
    """U20: the latest folder, in which ``enjoy`` looks, was an empty one; what has worth stays."""
    write(ENTRY)
    main(TRAIN)
    mistake(main, f"{TRAIN} --env-kwargs foo:1")
    folder = tmp_path / "logs/ppo_ncde"
    assert [path.name for path in folder.iterdir()] == ["CartPole-v1_1"]
    main("enjoy --env CartPole-v1 --no-render -n 20 --no-progress")

    for content, stays in (("", False), ("{}\nr,l,t\n", False), ("{}\nr,l,t\n9.0,9,1.0\n", True)):
        run = tmp_path / f"new/{len(content)}"
        fail_in(run, content)
        assert run.exists() == stays == run.parent.exists()
    fail_in(run, "")
    assert run.exists()  # another run, or the user, has made it
    fail_in(tmp_path / "logs/none", None)
    assert (tmp_path / "logs").exists()


def fail_in(run: Path, monitored: str | None) -> None:
    """Fail, or be interrupted, after a configuration and a Monitor's file were written to a run's folder."""
    with pytest.raises(KeyboardInterrupt), RunFolder(run).removed_if_worthless():
        _write_and_fail(run, monitored)


def _write_and_fail(run: Path, monitored: str | None) -> None:
    if monitored is not None:
        (run / "CartPole-v1").mkdir(parents=True, exist_ok=True)
        (run / "CartPole-v1/config.yml").write_text("{}")
        (run / "0.monitor.csv").write_text(monitored)
    raise KeyboardInterrupt


# ---------------------------------------------------------------------------------------------- tuning


TUNE = f"tune --env {ENV} -n 64 --max-total-trials 2 --eval-episodes 2 --n-evaluations 1 --pruner none"
SHORT = "-params n_envs:1 n_timesteps:96"


@pytest.fixture
def short_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study whose trials take less than a second."""
    suggest = optuna.Trial.suggest_int
    highest = {"n_steps_pow": 5, "batch_size_pow": 5}
    monkeypatch.setattr(
        optuna.Trial, "suggest_int", lambda self, name, low, high: suggest(self, name, low, highest.get(name, high))
    )


@pytest.mark.usefixtures("short_rollouts")
def test_the_best_of_a_study_are_trained_again(
    main: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12, https://github.com/DLR-RM/rl-baselines3-zoo/issues/204: a trial was scored by one run.

    And U20: best_trial.yml had the study's short n_timesteps.
    """
    main(f"{TUNE} {SHORT}")
    folder = tmp_path / f"logs/ppo_ncde/studies/{ENV}"
    best = folder / "best_trial.yml"
    entry = yaml.safe_load(best.read_text())[ENV]
    assert entry["n_timesteps"] == 96
    assert re.search(
        r"# Trial \d, the best of 2 .*\n# return .*, mean of 2 episodes of one training run of 64 steps",
        best.read_text(),
    )
    assert not (folder / "confirmed.csv").exists()

    main(
        f"{TUNE} --confirm 2 --confirm-seeds 2 --env-kwargs sutton_barto_reward:False {SHORT}".replace(
            ENV, "CartPole-v1"
        )
    )
    folder = tmp_path / "logs/ppo_ncde/studies/CartPole-v1"
    table = pd.read_csv(folder / "confirmed.csv")
    assert sorted(zip(table["trial"], table["seed"], strict=True)) == [(0, 1000), (0, 1001), (1, 1000), (1, 1001)]
    means = table.groupby("trial")["return"].mean()
    text = (folder / "best_trial.yml").read_text()
    match = re.search(
        r"# Trial (\d) of 2 of study 'CartPole-v1', \S+, the best of those that were trained again:\n"
        r"# return (\S+) \+- (\S+), mean and standard deviation over 2 seeds, worst (\S+); each 2 episodes after 96 "
        r"steps.\n"
        r"# In the study: return \S+, mean of 2 episodes of one training run of 64 steps.\n",
        text,
    )
    assert match is not None, text
    chosen = table[table["trial"] == int(match[1])]["return"]
    assert chosen.mean() == means.max()
    assert [float(number) for number in match.groups()[1:]] == pytest.approx(
        [chosen.mean(), chosen.std(), chosen.min()], abs=0.051
    )
    output = capsys.readouterr().out
    assert "the best of study CartPole-v1, trained again" in output
    entry = yaml.safe_load(text)["CartPole-v1"]
    assert entry["env_kwargs"] == {"sutton_barto_reward": False}

    # A seed reached what the command `train` reaches with the entry: the same weights, evaluated by the same episodes.
    main(f"train --env CartPole-v1 --conf-file {folder}/best_trial.yml --seed 1001 --eval-freq -1 --no-progress")
    agent = tmp_path / "logs/ppo_ncde/CartPole-v1_1/CartPole-v1"
    env = make_vec_env("CartPole-v1", seed=1_001_001)
    env = VecNormalizeObserved.load(str(agent / "vecnormalize.pkl"), env)
    env.training = env.norm_reward = False
    reached, _ = evaluate_policy(RecurrentPPO.load(f"{agent}.zip", device="cpu"), env, 2)
    assert reached == table[(table["trial"] == int(match[1])) & (table["seed"] == 1001)]["return"].item()

    # The same command has nothing to train, and says the same.
    monkeypatch.setattr(PPONCDE, "learn", lambda *args, **kwargs: pytest.fail("is trained once more"))
    main(
        f"{TUNE} --confirm 2 --confirm-seeds 2 --env-kwargs sutton_barto_reward:False {SHORT}".replace(
            ENV, "CartPole-v1"
        )
    )
    assert (folder / "best_trial.yml").read_text() == text


def test_help_says_how_long_a_confirmation_trains(main: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """R12: for the configuration's n_timesteps, as an entry is used, and not for the study's."""
    with pytest.raises(SystemExit):
        main("tune --help")
    output = capfd.readouterr().out
    assert "--confirm K" in output
    assert "--confirm-seeds N" in output
    assert "the configuration: -n is for trials alone, -params n_timesteps:N for both" in output


@pytest.mark.usefixtures("short_rollouts")
def test_ctrl_c_in_a_confirmation_leaves_the_study_s_best(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """R12: the same command goes on."""

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(NCDEExperimentManager, "_train_again", interrupted)
        main(f"{TUNE} --confirm 1 --confirm-seeds 1 {SHORT}")
    assert "Stopped. The same command goes on" in capsys.readouterr().out
    best = tmp_path / f"logs/ppo_ncde/studies/{ENV}/best_trial.yml"
    assert "the best of 2 of study" in best.read_text()

    learn = PPONCDE.learn

    def fail(self: PPONCDE, total_timesteps: int, *args: Any, **kwargs: Any) -> PPONCDE:
        if self.seed == 1000:
            raise ValueError("diverged")
        return learn(self, total_timesteps, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(PPONCDE, "learn", fail)
        main(f"{TUNE} --confirm 1 --confirm-seeds 2 {SHORT}")
    assert "the best of 2 of study" in best.read_text()
    assert "It failed: diverged" in capsys.readouterr().out
    assert len(pd.read_csv(best.with_name("confirmed.csv"))) == 1


class Study(NamedTuple):
    """A study of five finished trials, the last two of which have the same settings."""

    study: Any
    storage: Any
    trained: list[tuple[int, int]]

    def train(self, trial: Any, seed: int) -> float:
        """Return 0, 1, 2, ... by seed, less what the trial had by luck."""
        self.trained.append((trial.number, seed))
        return seed - FIRST_SEED - float(trial.value)

    def confirm(self, n_best: int, n_seeds: int) -> Any:
        heartbeat = None if isinstance(self.storage, optuna.storages.JournalStorage) else 1
        return confirm(self.study, self.storage, 100, n_best, n_seeds, self.train, heartbeat)


@pytest.fixture(params=["sqlite:///study.db", "study.log"])
def finished(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    storage = open_storage(request.param, 30)
    study = optuna.create_study(storage=storage, study_name="finished", direction="maximize")
    uniform = optuna.distributions.FloatDistribution(0, 9)
    for value in (1.0, 0.0, 3.0, 4.0, 5.0):
        settings = {"x": min(value, 4.0)}
        study.add_trial(optuna.create_trial(params=settings, distributions={"x": uniform}, value=value))
    study.add_trial(optuna.create_trial(state=TrialState.PRUNED))
    return Study(study, storage, [])


def test_a_confirmation_is_of_different_settings_and_ranks_them_anew(finished: Study) -> None:
    """R12."""
    assert [trial.number for trial in best_trials(finished.study, 9)] == [4, 2, 0, 1]
    results = finished.confirm(3, 2)
    assert finished.trained == [(number, seed) for seed in (1000, 1001) for number in (4, 2, 0)]
    assert [result.trial.number for result in results] == [0, 2, 4]
    assert [result.mean for result in results] == [-0.5, -2.5, -4.5]
    assert results[0].returns == {1000: -1.0, 1001: 0.0}  # a return of 0 is one
    assert results[0].spread == pytest.approx(0.7071, abs=1e-4)
    assert finished.confirm(1, 1)[0].spread == 0.0
    frame = frame_of(results)
    assert frame["return"].tolist() == [-1.0, 0.0, -3.0, -2.0, -5.0, -4.0]
    assert len(table_of(results, finished.study).rows) == 3


def test_a_confirmation_goes_on_and_grows(finished: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """R12: what has been trained is not trained again, with more settings or seeds."""
    finished.confirm(1, 2)
    del finished.trained[:]
    finished.confirm(2, 3)
    assert set(finished.trained) == {(4, 1002), (2, 1000), (2, 1001), (2, 1002)}
    assert len(finished.trained) == 4
    del finished.trained[:]
    finished.confirm(1, 1)
    assert finished.trained == []


def test_workers_share_a_confirmation(finished: Study) -> None:
    """R12: each run once, though all workers that are asked for it take part."""
    with ThreadPoolExecutor(2) as workers:
        results = list(workers.map(lambda _: finished.confirm(2, 3), range(2)))
    assert sorted(finished.trained) == sorted((number, seed) for number in (4, 2) for seed in (1000, 1001, 1002))
    assert any(all(result.is_complete for result in each) for each in results)


def test_a_killed_worker_s_run_is_done_by_another(finished: Study) -> None:
    """R12: with its seed."""
    finished.confirm(1, 1)
    (name,) = {summary.study_name for summary in optuna.get_all_study_summaries(finished.storage)} - {"finished"}
    runs = optuna.load_study(study_name=name, storage=finished.storage)
    lost = {"failed_trial": 7, "retry_history": [7]}
    runs.add_trial(optuna.create_trial(state=TrialState.WAITING, user_attrs={RUN: (4, 1002)}, system_attrs=lost))
    del finished.trained[:]
    assert finished.confirm(1, 3)[0].is_complete
    assert finished.trained == [(4, 1002), (4, 1001)]


def test_of_two_workers_with_one_run_the_second_gives_it_up(finished: Study) -> None:
    """R12: both had looked before either had said what it does."""
    finished.confirm(1, 1)
    (name,) = {summary.study_name for summary in optuna.get_all_study_summaries(finished.storage)} - {"finished"}
    runs = optuna.load_study(study_name=name, storage=finished.storage)
    runs.ask().set_user_attr(RUN, (4, 1001))
    second = runs.ask()
    second.set_user_attr(RUN, (4, 1001))
    with pytest.raises(NotNeededError, match=r"Run \(4, 1001\) is being done by another worker"):
        claim(runs, second, [(4, 1001)])
    with pytest.raises(NotNeededError, match="Each run is done or being done"):
        claim(runs, runs.ask(), [(4, 1000), (4, 1001)])


def test_two_workers_that_claim_the_same_at_once_do_not_both_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees the other's claim gives up its own; whoever claims again finds it free, or the next."""
    runs = optuna.create_study()
    first, second = runs.ask(), runs.ask()
    claims = iter([first])

    def taken(study: Any, trial: Any) -> set[Any]:
        found = real(study, trial)
        for other in claims:  # between the second's look and its claim
            other.set_user_attr(RUN, (4, 1000))
        return found

    real = confirmation._taken
    monkeypatch.setattr(confirmation, "_taken", taken)
    monkeypatch.setattr(confirmation, "LONGEST_PAUSE", 0.0)
    assert claim(runs, second, [(4, 1000), (4, 1001)]) == (4, 1001)


def test_a_run_that_fails_leaves_its_settings_incomplete(finished: Study) -> None:
    """R12: they are not the best, and nothing is tried for ever."""

    def train(trial: Any, seed: int) -> float:
        if trial.number == 4:
            raise optuna.TrialPruned
        return 1.0

    results = confirm(finished.study, finished.storage, 100, 2, 2, train, 30)
    assert [(result.trial.number, result.is_complete, result.mean) for result in results] == [
        (2, True, 1.0),
        (4, False, -np.inf),
    ]
    assert "incomplete" in str(list(table_of(results, finished.study).columns[2].cells))
    assert frame_of(results)["trial"].tolist() == [2, 2]
