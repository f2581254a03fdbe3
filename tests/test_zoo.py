"""The RL Zoo's commands, stock and by ``sb3-ncde``, against the installed rl_zoo3.

A process of its own takes seconds to import what it needs. Here it is for what needs one: the stock RL Zoo, which is to
know nothing of this package but its names, and Ctrl-C. All other commands run in the process of the tests; as a user
types them in, they run in ``test_docs.py``.
"""

import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import pytest
import yaml
from gymnasium import spaces
from huggingface_hub import ModelCard
from sb3_contrib import RecurrentPPO

optuna = pytest.importorskip("optuna")

import matplotlib as mpl  # noqa: E402
import rl_zoo3.train  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER  # noqa: E402
from rl_zoo3.utils import ALGOS  # noqa: E402

from sb3_ncde import NCDEPolicy, cli  # noqa: E402
from sb3_ncde.arguments import NCDEArguments  # noqa: E402
from sb3_ncde.cde import solvers  # noqa: E402
from sb3_ncde.deploy import Agent  # noqa: E402
from sb3_ncde.hyperparams import hyperparams  # noqa: E402
from sb3_ncde.normalize import VecNormalizeObserved  # noqa: E402
from sb3_ncde.zoo import benchmark  # noqa: E402
from sb3_ncde.zoo.experiment import NCDEExperimentManager  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of rl_zoo3 and what it imports
ENV = "CartPoleNoVel-v1"
SHORT = "-n 1024 --eval-freq 512 --eval-episodes 2 --save-freq 512"
ONE_EPOCH = ("-params", "n_epochs:1")
SHORT_TRIALS = "--seed 45"  # whose first trials are short
FEW_STEPS = ("-params", "n_steps:8", "n_envs:4", "batch_size:16", "n_epochs:1")
CONFIG = Path(__file__).parents[1] / "configs" / "ppo_ncde.yml"
Zoo = Callable[..., str]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Zoo]:
    """Run a subcommand in this process and an empty folder, and return what it prints; all is as before in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setitem(vars(rl_zoo3.train), "ExperimentManager", vars(rl_zoo3.train)["ExperimentManager"])
    monkeypatch.setattr(NCDEExperimentManager, "heartbeat_interval", NCDEExperimentManager.heartbeat_interval)

    def call(command: str, options: str, *more: str, fails: bool = False) -> str:
        capsys.readouterr()
        failure: object = None
        try:
            cli.main([command, *options.split(), *more])
        except SystemExit as error:
            failure = error.code
        except Exception as error:
            failure = error
        printed = "".join(capsys.readouterr())
        assert bool(failure) == fails, f"{printed}{failure!r}"
        return f"{printed}{failure or ''}"

    with patch.dict(ALGOS), patch.dict(HYPERPARAMS_SAMPLER), patch.dict(HYPERPARAMS_CONVERTER), mpl.rc_context():
        yield call
    plt.close("all")
    gc.collect()  # a study's connections and what draws a progress bar


def run(module: str, options: str, folder: Path, *more: str) -> str:
    """Run a module in a folder, as a process of its own, and return what it prints."""
    command = [sys.executable, "-m", module, *options.split(), *more]
    environment = os.environ | {"MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def interrupt(command: str, when: str, folder: Path, ready: Callable[[], bool] = lambda: True) -> str:
    """Run a subcommand, press Ctrl-C once it has printed something and is ready, and return what it prints then.

    Ready: with a network that has learned. PyTorch's first update imports much, and a Ctrl-C in ``exec`` of a text,
    which dataclasses use, ends Python by the signal, whoever catches it.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "sb3_ncde.cli", *command.split()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        # A suite that runs in the background of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if when in line:
            break
    while process.poll() is None and not ready():
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    try:
        output = process.communicate(timeout=60)[0]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it prints where all threads are
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    return output


def config(folder: Path, **policy_kwargs: Any) -> str:
    """Write a configuration with an entry for ENV, and return the option that names it."""
    entry = hyperparams[ENV] | {"n_envs": 1, "n_timesteps": 256, "policy_kwargs": policy_kwargs}
    (folder / "config.yml").write_text(yaml.safe_dump({ENV: entry}))
    return "--conf-file config.yml"


def arguments_of(model: Path) -> NCDEArguments:
    policy = RecurrentPPO.load(model, device="cpu").policy
    assert isinstance(policy, NCDEPolicy)
    return policy.arguments


@pytest.mark.parametrize("conf_file", [str(CONFIG), "sb3_ncde.hyperparams"])
def test_the_stock_zoo_trains_goes_on_and_plays_back(conf_file: str, zoo: Zoo, tmp_path: Path) -> None:
    """With the file in processes of its own, with the module in this one, whose settings the RL Zoo changes."""

    def call(command: str, options: str, *more: str) -> str:
        if conf_file == str(CONFIG):
            return run(f"rl_zoo3.{command}", options, tmp_path, *more)
        with patch.dict(hyperparams, {ENV: hyperparams[ENV].copy()}):
            return str(zoo(command.replace("_", "-"), options, *more))

    common = f"--algo ppo_lstm --env {ENV} --gym-packages sb3_ncde"
    training = f"{common} --conf-file {conf_file} {SHORT} --tensorboard-log tb --device cpu --seed 1"
    call("train", training, *ONE_EPOCH)
    folder = tmp_path / f"logs/ppo_lstm/{ENV}_1"
    for name in ("best_model.zip", "rl_model_1024_steps.zip", "evaluations.npz", f"{ENV}/vecnormalize.pkl"):
        assert (folder / name).exists()
    assert list((tmp_path / "tb" / ENV).glob("*/events*"))
    output = call("train", f"{training} -i {folder}/{ENV}.zip", *ONE_EPOCH)
    assert "Loading pretrained agent" in output
    output = call("enjoy", f"{common} -f logs --exp-id 1 --no-render -n 600")
    assert "Mean reward" in output
    call("record_video", f"--algo ppo_lstm --env {ENV} -f logs --exp-id 1 -n 50")
    assert list(folder.glob("videos/*.mp4"))


def test_one_command_trains_watches_plots_and_records(zoo: Zoo, tmp_path: Path) -> None:
    output = zoo("train", f"--env {ENV} {SHORT} --tensorboard-log tb", *ONE_EPOCH)
    folder = tmp_path / f"logs/ppo_ncde/{ENV}_1"
    assert "1,024/1,024" in output  # the progress bar
    assert list((tmp_path / "tb" / ENV).glob("PPONCDE_1/events*"))
    assert (folder / "rl_model_vecnormalize_512_steps.pkl").exists()
    for options in ("", "--load-best", "--load-checkpoint 512"):
        assert "Mean reward" in zoo("enjoy", f"--env {ENV} --no-render -n 600 {options}")
    zoo("plot", f"--env {ENV} -w 2 -o pictures/curve.png")
    assert (tmp_path / "pictures/curve.png").read_bytes().startswith(b"\x89PNG")
    plt.close("all")
    assert "There is nothing to draw" in zoo("plot", "--env Pendulum-v1", fails=True)
    zoo("record-video", f"--env {ENV} -n 50 --gym-packages json")
    assert list(folder.glob("videos/*.mp4"))
    output = zoo("train", f"--env {ENV} {SHORT} -i {folder}/{ENV}.zip", *ONE_EPOCH)
    assert "Loading saved VecNormalize stats" in output
    output = zoo("train", f"--env {ENV} {SHORT} -i {folder}/rl_model_512_steps.zip --no-progress", *ONE_EPOCH)
    assert "1,024/1,024" not in output
    assert output.count("rl_model_vecnormalize_512_steps.pkl") == 2  # for training and for evaluation


def test_a_schedule_ends_at_zero_and_the_entries_end_with_a_rollout(zoo: Zoo, tmp_path: Path) -> None:
    """The RL Zoo's own goes on below 0 where a last rollout ends later: that update climbs the loss."""
    zoo("train", f"--env {ENV} -n 700 --eval-freq -1", *ONE_EPOCH)
    model = RecurrentPPO.load(tmp_path / f"logs/ppo_ncde/{ENV}_1/{ENV}.zip", device="cpu")
    assert model.num_timesteps == 1024
    assert model.lr_schedule(1 - 1024 / 700) == 0
    assert callable(model.clip_range)
    assert model.clip_range(1 - 1024 / 700) == 0
    for entry in hyperparams.values():
        if any(str(value).startswith("lin_") for value in entry.values()):
            assert entry["n_timesteps"] % (entry["n_envs"] * entry["n_steps"]) == 0


def test_other_algorithms_remain_the_zoo_s(zoo: Zoo, tmp_path: Path) -> None:
    zoo("train", "--algo ppo --env CartPole-v1 -n 64 --eval-freq -1")
    assert (tmp_path / "logs/ppo/CartPole-v1_1/CartPole-v1.zip").exists()


@pytest.mark.parametrize("env_id", hyperparams)
def test_every_entry_trains(env_id: str, zoo: Zoo, tmp_path: Path) -> None:
    if "LunarLander" in env_id:
        pytest.importorskip("Box2D")
    env_id = "Acrobot-v1" if env_id == "default" else env_id
    zoo("train", f"--env {env_id} --conf-file {CONFIG} -n 1 --eval-freq -1", *FEW_STEPS)
    assert list(tmp_path.glob("logs/ppo_ncde/*/*.zip"))


def test_wrappers_of_sensors_by_their_names_in_yaml(zoo: Zoo, tmp_path: Path) -> None:
    wrappers: list[dict[str, Any]] = [
        {"sb3_ncde.sensors.SelectColumns": {"columns": [0, 1]}},
        {"sb3_ncde.sensors.NoisyObservation": {"std": 0.01}},
        {"sb3_ncde.sensors.IrregularSampling": {"values": [1, 3], "dt": 0.05}},
        {"sb3_ncde.sensors.AsynchronousSensors": {"periods": [1, 2]}},
        {"sb3_ncde.sensors.SensorDropout": {"probability": 0.2, "burst": 3.0}},
    ]
    entry = hyperparams["sb3_ncde/SensorLossPendulumNoVel-v1"] | {
        "policy": "sb3_ncde.MultiInputNCDEPolicy",
        "policy_kwargs": {"missing_values": True, "time_key": "time", "dt": 0.1},
        "env_wrapper": wrappers,
    }
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry}))
    zoo("train", "--env Pendulum-v1 --conf-file config.yml -n 1 --eval-freq -1 --seed 1", *FEW_STEPS)
    statistics = pickle.loads(next(tmp_path.glob("logs/**/vecnormalize.pkl")).read_bytes())
    assert isinstance(statistics, VecNormalizeObserved)
    assert list(statistics.obs_rms) == ["observation"]
    counts: Any = statistics.obs_rms["observation"].count
    assert (counts < [36, 30]).all()  # of 4 resets and 4 x 8 steps


def test_settings_are_for_registered_environments() -> None:
    import rl_zoo3.import_envs  # noqa: F401

    for env_id, settings in hyperparams.items():
        assert settings["policy"].startswith("sb3_ncde.")
        if env_id != "default":
            gym.spec(env_id)


@pytest.mark.parametrize("as_code", [False, True])
def test_policy_kwargs_of_command_line_and_configuration_add_up(as_code: bool, zoo: Zoo, tmp_path: Path) -> None:
    options = f"--env {ENV} {config(tmp_path, history_length=6, solver='rk4')} -n 1 --eval-freq -1"
    if as_code:
        entry = hyperparams[ENV] | {"policy_kwargs": "dict(history_length=int(np.sqrt(36)), solver='rk4')"}
        (tmp_path / "config.yml").write_text(yaml.safe_dump({ENV: entry}))
    zoo("train", options, *FEW_STEPS, "policy_kwargs:dict(history_length=5, field_depth=2)")
    arguments = arguments_of(tmp_path / f"logs/ppo_ncde/{ENV}_1/{ENV}.zip")
    assert (arguments.history_length, arguments.field_depth, arguments.solver) == (5, 2, "rk4")
    saved = yaml.safe_load((tmp_path / f"logs/ppo_ncde/{ENV}_1/{ENV}/config.yml").read_text())
    assert saved["policy_kwargs"] == {"history_length": 5, "field_depth": 2, "solver": "rk4"}


def test_ctrl_c_leaves_an_agent_that_loads(zoo: Zoo, tmp_path: Path) -> None:
    interrupt(f"train --env {ENV} -n 10000000 --eval-freq -1", "n_updates", tmp_path)
    assert "Mean reward" in zoo("enjoy", f"--env {ENV} --no-render -n 600")


def test_ctrl_c_leaves_a_study_that_goes_on(zoo: Zoo, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/logs/ppo_ncde/studies.db"

    def trains() -> bool:
        """Return whether the trial has been evaluated after 10,000 steps; no rollout has as many."""
        trials = optuna.load_study(study_name=ENV, storage=storage).trials
        return any(len(trial.intermediate_values) >= 10 for trial in trials)

    tuning = f"tune --env {ENV} -n 1000000 --n-evaluations 1000 --eval-episodes 1 --max-total-trials 1"
    output = interrupt(f"{tuning} {SHORT_TRIALS}", "A new study created", tmp_path, trains)
    assert "The same command goes on with the study." in output
    options = f"--env {ENV} -n 100 --n-trials 1 --eval-episodes 1 {SHORT_TRIALS} -params n_envs:1"
    assert "start the same command several times" in zoo("tune", f"{options} --n-jobs 2", fails=True)
    assert "the best of 1 of study" in zoo("tune", options)


def test_a_study_s_best_trial_is_an_entry_that_trains(zoo: Zoo, tmp_path: Path) -> None:
    conf_file = config(tmp_path, interpolation="rectilinear", dt=2.0)
    tuning = f"--env {ENV} {conf_file} -n 256 --max-total-trials 2 --eval-episodes 1 --n-evaluations 1"
    output = zoo("tune", f"{tuning} {SHORT_TRIALS}")
    assert "2/2" in output
    best = tmp_path / f"logs/ppo_ncde/studies/{ENV}/best_trial.yml"
    assert best.read_text() in output
    entry = yaml.safe_load(best.read_text())[ENV]
    assert entry["policy_kwargs"]["interpolation"] == "rectilinear"
    study = optuna.load_study(study_name=ENV, storage=f"sqlite:///{tmp_path}/logs/ppo_ncde/studies.db")
    assert entry["policy_kwargs"]["dt"] == pytest.approx(2.0 * study.best_params["time_scale"], rel=1e-3)
    assert (best.parent / "trials.csv").exists()

    zoo("train", f"--env {ENV} --conf-file {best} --eval-freq -1", *ONE_EPOCH)
    arguments = arguments_of(tmp_path / f"logs/ppo_ncde/{ENV}_1/{ENV}.zip")
    assert arguments.latent_size == study.best_params["latent_size"]
    assert arguments.interpolation == "rectilinear"

    trial = f"--env {ENV} {conf_file} -n 256 --eval-freq -1 --storage sqlite:///logs/ppo_ncde/studies.db --trial-id"
    zoo("train", f"{trial} 0", *ONE_EPOCH)
    arguments = arguments_of(tmp_path / f"logs/ppo_ncde/{ENV}_2/{ENV}.zip")
    assert arguments.latent_size == study.trials[0].params["latent_size"]
    assert arguments.interpolation == "rectilinear"
    assert f"--trial-id 7: study '{ENV}' has 2 trials, numbered from 0" in zoo("train", f"{trial} 7", fails=True)
    output = zoo("train", f"{trial} 0 --study-name other", fails=True)
    assert f"The storage has no study 'other'; it has: {ENV}. Use --study-name." in output


def test_failed_solves_prune_their_trial(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(solvers, "MAX_EVALUATIONS", 5)
    monkeypatch.setattr(logging.getLogger("optuna"), "propagate", True)
    options = f"--env {ENV} {config(tmp_path, solver='dopri5')} -n 512"
    output = zoo("tune", f"{options} --max-total-trials 1 --eval-episodes 1")
    assert "solver='dopri5' evaluated the field 5 times" in output
    assert "Trial 0 pruned" in caplog.text
    assert "No trial has been completed yet" in output


@pytest.mark.parametrize(
    "fixed",
    [
        {},
        {"interpolation": "hermite", "solver": "rk4"},
        {"interpolation": "hermite", "solver": "dopri5", "adjoint": True},
        {"solver": "bosh3", "feature_norm": "tanh"},
        {"interpolation": "rectilinear", "value_width": 32},
        {"time_key": 0, "time_channel": False},
        {"feature_size": 3, "hop_length": 8, "history_length": 8, "dt": 0.05},
    ],
    ids=str,
)
def test_nothing_is_sampled_that_the_policy_refuses(fixed: dict[str, Any], seed: int) -> None:
    from sb3_ncde.zoo.sampler import sample_ppo_ncde_params

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    space = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    for _ in range(60):
        sampled = sample_ppo_ncde_params(study.ask(), 0, 4, {}, fixed)
        policy = NCDEPolicy(*space, lambda _: 0.0, **sampled["policy_kwargs"])
        kept = {name: value for name, value in fixed.items() if name not in ("history_length", "hop_length", "dt")}
        assert {name: getattr(policy.arguments, name) for name in kept} == kept
        assert sampled["n_steps"] * 4 > 1
        assert 0.9 <= sampled["gamma"] < 1


def test_benchmark_keeps_what_is_finished_and_reports_the_worst_seed(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = benchmark.Benchmark(ENV, tmp_path, None, 1)
    runs.call(tmp_path / "overview.txt", "--help")
    assert "record-video" in (tmp_path / "overview.txt").read_text()
    with pytest.raises(RuntimeError, match=r"sb3-ncde train --algo none failed(.|\n)*invalid choice: 'none'"):
        runs.call(tmp_path / "none.txt", "train", "--algo", "none")
    assert not (tmp_path / "none.txt").exists()

    def call(self: benchmark.Benchmark, output: Path, command: str, *options: str) -> None:
        zoo(command, "--no-progress", *options)  # in this process, which does not wait for imports

    monkeypatch.setattr(benchmark.Benchmark, "call", call)
    monkeypatch.setitem(hyperparams, ENV, hyperparams[ENV] | {"n_steps": 64, "n_envs": 1, "n_epochs": 1})
    options = f"--env {ENV} -n 64 -f logs --eval-steps"
    output = zoo("benchmark", f"{options} 300 --seeds 3")
    assert "+- 0.0" in output
    before = {path: path.stat().st_mtime for path in tmp_path.rglob("seed_3/**/*.zip")}
    assert before
    output = zoo("benchmark", f"{options} 300 --seeds 3 4")
    assert before == {path: path.stat().st_mtime for path in tmp_path.rglob("seed_3/**/*.zip")}
    assert "worst seed" in output
    assert "has results of other settings" in zoo("benchmark", f"{options} 400 --seeds 3", fails=True)
    assert "No episode ended within 2 steps" in zoo("benchmark", f"{options} 2 --seeds 5", fails=True)
    config(tmp_path, solver="euler")
    own = f"--env {ENV} -n 64 -f own --eval-steps 300 --seeds 3 --conf-file config.yml --gym-packages sb3_ncde"
    zoo("benchmark", own)
    (model,) = (tmp_path / "own").rglob(f"{ENV}.zip")
    assert arguments_of(model).solver == "euler"
    (tmp_path / "config.yml").write_text(f"{ENV}: {{n_timesteps: 1000}}")
    assert "has results of other settings" in zoo("benchmark", own, fails=True)


def test_ctrl_c_ends_a_benchmark_and_finishes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(runs: Any, description: str) -> Any:
        while not list(tmp_path.rglob("*.monitor.csv")):  # the first seed trains, the second waits
            time.sleep(0.1)
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "track", interrupted)
    monkeypatch.setattr(
        sys, "argv", ["benchmark", "--env", ENV, "-n", "1000000", "--seeds", "0", "1", "-f", str(tmp_path)]
    )
    with pytest.raises(SystemExit, match="keeps the seeds that are finished"):
        benchmark.main()
    assert not list(tmp_path.rglob("*.zip"))
    assert not list(tmp_path.rglob("seed_1"))


def test_options_may_be_short_and_environments_may_have_slashes(zoo: Zoo, tmp_path: Path) -> None:
    options = f"--env sb3_ncde/CartPoleNoVel-v1 -n 512 --eval-freq -1 -f{tmp_path / 'short'}"
    zoo("train", options, *ONE_EPOCH)
    zoo("plot", f"--env sb3_ncde/CartPoleNoVel-v1 -w 1 -f {tmp_path / 'short'}")
    assert not (tmp_path / "logs").exists()


def test_errors_of_a_user_s_own_modules_are_their_own(zoo: Zoo) -> None:
    output = zoo("train", f"--env {ENV} --gym-packages no_such_module", fails=True)
    assert "No module named 'no_such_module'" in output
    assert "pip install" not in output


def test_a_study_over_policy_kwargs_that_are_code(zoo: Zoo, tmp_path: Path) -> None:
    entry = hyperparams[ENV] | {"policy_kwargs": "dict(activation_fn=nn.ReLU, feature_size=5)", "n_envs": 1}
    (tmp_path / "config.yml").write_text(yaml.safe_dump({ENV: entry}))
    options = f"--env {ENV} --conf-file config.yml -n 64 --max-total-trials 1 --eval-episodes 1"
    output = zoo("tune", f"{options} {SHORT_TRIALS}")
    assert "those of the configuration that are no plain values" in output
    best = yaml.safe_load((tmp_path / f"logs/ppo_ncde/studies/{ENV}/best_trial.yml").read_text())[ENV]
    assert best["policy_kwargs"]["feature_size"] == 5


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_shows_examples_defaults_and_options(command: str, zoo: Zoo) -> None:
    output = zoo(command, "--help")
    assert f"sb3-ncde {command} --env" in output
    assert "--env" in output.split("options:")[1]


def test_overview_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    assert "record-video" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'trian' is not one of train, enjoy"):
        cli.main(["trian"])


def test_ctrl_c_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setitem(cli.COMMANDS, "train", cli.COMMANDS["train"]._replace(run=interrupted))
    with pytest.raises(SystemExit, match="before there was anything to save"):
        cli.main(["train"])


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install '\.\[zoo\]'"):
        cli.main(["train"])
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setitem(sys.modules, "rl_zoo3.train", None)
    with pytest.raises(SystemExit, match=r"rl_zoo3.train(.|\n)*pip install '\.\[zoo\]'"):
        cli.main(["train"])


TRAINED = {
    "ppo_ncde": ("sb3_ncde/IrregularPendulumNoVel-v1", FEW_STEPS),
    "sac": ("sb3_ncde/PendulumNoVel-v1", ("-params", "n_timesteps:40", "learning_starts:10")),
}


@pytest.mark.parametrize("algo", TRAINED)
def test_trained_agents_are_exported_and_made_ready_for_the_hub(algo: str, zoo: Zoo) -> None:
    env, few = TRAINED[algo]
    named = f"--algo {algo} --env {env}"
    zoo("train", f"{named} -n 40 --eval-freq -1", *few)
    if algo == "ppo_ncde":
        printed = zoo("export", f"{named} --episodes 1 --format numpy -o agent.npz --gym-packages sb3_ncde")
        assert "NumPy: action" in printed
        assert "Saved to agent.npz" in printed
        told = Agent.load("agent.npz").metadata
        assert told["parity"]["observations"] > 200  # those of an episode are among them
        assert "No model found" in zoo("export", f"{named} --load-best", fails=True)
        assert "takes modules" in zoo("export", f"{named} --gym-packages no_such_module", fails=True)
    repo = f"{algo}-{env.replace('/', '-')}"
    assert f"hf upload me/{repo}" in zoo("hub", f"{named} -orga me --episodes 1")
    folder = Path("hub", repo)
    files = {path.name for path in folder.iterdir()}
    assert files >= {f"{repo}.zip", "README.md", "agent.npz", "agent.onnx", "args.yml", "config.yml"}
    assert files >= {"env_kwargs.yml", "results.json", "train_eval_metrics.zip"}
    assert ("vec_normalize.pkl" in files) == (algo == "ppo_ncde")
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results[0].dataset_type == env
    assert Agent.load(folder / "agent.npz").metadata["sha256"] in card.text
    ALGOS[algo].load(folder / repo, device="cpu")
