"""The RL Zoo's SAC, TD3, TQC, DQN and QR-DQN with memory, by its own commands and by ``sb3-ncde``, from configs/.

One algorithm runs in processes of its own, as a user types it in; the others in this one, which is faster.
"""

import gc
import inspect
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import pytest
import yaml
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

optuna = pytest.importorskip("optuna")

import rl_zoo3.train  # noqa: E402
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER  # noqa: E402
from rl_zoo3.utils import ALGOS  # noqa: E402

from sb3_ncde import HistoryReplayBuffer, NCDEExtractor, cli  # noqa: E402
from sb3_ncde.history.arguments import HistoryArguments  # noqa: E402
from sb3_ncde.history.space import HistorySpace  # noqa: E402
from sb3_ncde.zoo.config_entry import as_mapping, in_numbers  # noqa: E402
from sb3_ncde.zoo.memory import convert_memory_params, has_memory, sample_memory_params  # noqa: E402
from sb3_ncde.zoo.sampler import ENCODER  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of rl_zoo3 and what it imports
CONFIGS = Path(__file__).parents[1] / "configs"
FILES = {algo: CONFIGS / f"{algo}.yml" for algo in ("sac", "td3", "tqc", "dqn", "qrdqn")}
ALL_ENTRIES = {
    (algo, env_id): entry for algo, file in FILES.items() for env_id, entry in yaml.safe_load(file.read_text()).items()
}
ENTRIES = {(algo, env_id): entry for (algo, env_id), entry in ALL_ENTRIES.items() if env_id.startswith("sb3_ncde/")}
PENDULUM = "sb3_ncde/PendulumNoVel-v1"
FEW_UPDATES = ("-params", "learning_starts:16", "train_freq:8", "gradient_steps:2", "buffer_size:1000")
WITHOUT_MEMORY = {"policy": "MlpPolicy", "n_timesteps": 32, "learning_starts": 16, "buffer_size": 1000}
Command = Callable[..., str]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command in this process and an empty folder, and return what it prints; all is as before in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setitem(vars(rl_zoo3.train), "ExperimentManager", vars(rl_zoo3.train)["ExperimentManager"])

    def run(command: str, options: str, *more: str) -> str:
        capsys.readouterr()
        if command.startswith("rl_zoo3."):
            sys.argv = [command, *options.split(), *more]
            runpy.run_module(command, run_name="__main__")
        else:
            cli.main([command, "--no-progress", *options.split(), *more])
        return "".join(capsys.readouterr())

    with patch.dict(ALGOS), patch.dict(HYPERPARAMS_SAMPLER), patch.dict(HYPERPARAMS_CONVERTER):
        yield run
    gc.collect()  # a study's connections


def in_a_process(command: str, options: str, *more: str) -> str:
    """Run a command in a process of its own and the current folder, and return what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    typed = [sys.executable, "-m", command, *options.split(), *more]
    done = subprocess.run(typed, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def agent_of(algo: str, env_id: str, run: int) -> OffPolicyAlgorithm:
    """Return the agent that a run of the current folder has saved."""
    name = env_id.replace("/", "-")
    agent = ALGOS[algo].load(f"logs/{algo}/{name}_{run}/{name}.zip", device="cpu", buffer_size=100)
    assert isinstance(agent, OffPolicyAlgorithm)
    return agent


def encoders_of(agent: OffPolicyAlgorithm) -> list[NCDEExtractor]:
    return [module for module in agent.policy.modules() if isinstance(module, NCDEExtractor)]


@pytest.mark.parametrize("algo", FILES)
def test_the_stock_zoo_trains_plays_back_and_goes_on(algo: str, call: Command) -> None:
    stock = in_a_process if algo == "sac" else call
    env_id = next(env_id for of, env_id in ENTRIES if of == algo)
    common = f"--algo {algo} --env {env_id} --gym-packages sb3_ncde --device cpu"
    training = f"--conf-file {FILES[algo]} -n 64 --eval-freq 32 --eval-episodes 1 --seed 1 --save-replay-buffer"
    stock("rl_zoo3.train", f"{common} {training}", *FEW_UPDATES)
    agent = agent_of(algo, env_id, 1)
    assert encoders_of(agent)
    assert isinstance(agent.replay_buffer, HistoryReplayBuffer)
    assert agent._n_updates > 0
    # QR-DQN has settings of its own for Adam, and takes no others.
    assert agent.policy.optimizer_kwargs == ({"eps": 0.01 / 256} if algo == "qrdqn" else {"fused": True})
    assert "Mean reward" in stock("rl_zoo3.enjoy", f"{common} -f logs --no-render -n 250")
    name = env_id.replace("/", "-")
    going_on = f"{training} -i logs/{algo}/{name}_1/{name}.zip"
    assert "Loading replay buffer" in call("rl_zoo3.train", f"{common} {going_on}", *FEW_UPDATES)
    assert encoders_of(agent_of(algo, env_id, 2))


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_every_entry_trains_by_its_name_alone(algo: str, env_id: str, call: Command) -> None:
    """``sb3-ncde`` finds the file itself. What an entry says of the memory is what the agent has."""
    entry = ENTRIES[algo, env_id]
    gym.spec(env_id)
    assert "normalize" not in entry
    assert has_memory(entry)
    call("train", f"--algo {algo} --env {env_id} -n 32 --eval-freq -1", *FEW_UPDATES)
    agent = agent_of(algo, env_id, 1)
    space = agent.observation_space
    assert isinstance(space, HistorySpace)
    ((wrapper, arguments),) = entry["vec_env_wrapper"].items()
    assert wrapper == "sb3_ncde.VecHistory"
    assert space.arguments == HistoryArguments(**arguments)
    rate = str(entry["learning_rate"])
    assert agent.lr_schedule(1) == float(rate.removeprefix("lin_"))
    assert agent.lr_schedule(0) == (0 if rate.startswith("lin_") else agent.lr_schedule(1))
    for name in entry.keys() & {"gamma", "tau", "batch_size", "ent_coef", "target_update_interval", "use_sde"}:
        assert getattr(agent, name) == entry[name]


def test_tasks_of_the_zoo_s_names_have_the_same_entries(call: Command) -> None:
    """As in ``ppo_ncde.yml``."""
    for (algo, env_id), entry in ENTRIES.items():
        zoo_id = env_id.removeprefix("sb3_ncde/").replace(
            "MountainCarContinuousNoVel-v1", "MountainCarContinuousNoVel-v0"
        )
        if "Irregular" not in env_id:
            gym.spec(zoo_id)
            assert ALL_ENTRIES[algo, zoo_id] == entry
    call("train", "--algo sac --env PendulumNoVel-v1 -n 32 --eval-freq -1", *FEW_UPDATES)
    assert encoders_of(agent_of("sac", "PendulumNoVel-v1", 1))


def test_histories_are_not_to_be_normalised(call: Command, tmp_path: Path) -> None:
    """The RL Zoo's ``normalize`` is said to be the cause; rewards alone may be."""
    file = tmp_path / "own.yml"
    options = f"--algo sac --env {PENDULUM} -n 32 --eval-freq -1 --conf-file {file}"
    file.write_text(yaml.safe_dump({PENDULUM: ENTRIES["sac", PENDULUM] | {"normalize": True}}))
    with pytest.raises(SystemExit, match=r"VecNormalize is wrapped around VecHistory.*leave out normalize"):
        call("train", options)
    file.write_text(yaml.safe_dump({PENDULUM: ENTRIES["sac", PENDULUM] | {"normalize": "{'norm_obs': False}"}}))
    call("train", options, *FEW_UPDATES)
    assert encoders_of(agent_of("sac", PENDULUM, 2))
    cli.main(["export", *f"--algo sac --env {PENDULUM} --format numpy -o {tmp_path / 'agent.npz'}".split()])


def test_what_is_for_ppo_ncde_is_not_ignored(call: Command) -> None:
    with pytest.raises(SystemExit, match="--confirm is for ppo_ncde, but --algo is sac"):
        call("tune", f"--algo sac --env {PENDULUM} --confirm 5")


TUNED = {
    ("qrdqn", "sb3_ncde/CartPoleNoVel-v1"): {
        *("learning_rate", "batch_size", "target_update_interval", "train_freq", "gradient_steps"),
        "replay_buffer_kwargs",
    },
    ("sac", "sb3_ncde/MountainCarContinuousNoVel-v1"): {"gamma"},
    ("sac", "sb3_ncde/IrregularPendulumNoVel-v1"): {"gamma", "n_timesteps"},
}
"""Settings of the algorithm that are not the RL Zoo's; the comments of the files and docs/algorithms.md say why."""
OF_THE_ZOO = {"Pendulum": "Pendulum-v1", "CartPole": "CartPole-v1", "MountainCar": "MountainCarContinuous-v0"}


@pytest.mark.parametrize(("algo", "env_id"), ENTRIES)
def test_entries_have_the_settings_of_the_zoo_but_for_what_was_tuned(algo: str, env_id: str) -> None:
    (zoo_id,) = (zoo_id for name, zoo_id in OF_THE_ZOO.items() if name in env_id)
    file = Path(rl_zoo3.train.__file__).with_name("hyperparams") / f"{algo}.yml"
    zoo = in_numbers(yaml.safe_load(file.read_text())[zoo_id])
    ours = in_numbers(ENTRIES[algo, env_id])
    of_both = (zoo.keys() | ours.keys()) - {"policy_kwargs", "vec_env_wrapper", "replay_buffer_class"}
    defaults = {name: parameter.default for name, parameter in inspect.signature(ALGOS[algo]).parameters.items()}
    differing = {name for name in of_both if (defaults | ours).get(name) != (defaults | zoo).get(name)}
    assert differing == TUNED.get((algo, env_id), set())
    of_policy = as_mapping(ours["policy_kwargs"])
    del of_policy["features_extractor_class"]
    of_policy.pop("optimizer_kwargs", None)
    assert of_policy == as_mapping(zoo.get("policy_kwargs"))


def test_trials_keep_the_memory_and_can_be_trained_again(call: Command) -> None:
    study = "--study-name pendulum --storage sqlite:///studies.db"
    options = f"--algo sac --env {PENDULUM} -n 32 {study}"
    stock = HYPERPARAMS_SAMPLER["sac"]
    tuning = "--max-total-trials 2 --eval-episodes 1 --n-evaluations 1 --no-optim-plots"
    call("tune", f"{options} {tuning}", "-params", "learning_starts:16", "buffer_size:1000")
    assert HYPERPARAMS_SAMPLER["sac"] is stock
    trials = optuna.load_study(study_name="pendulum", storage="sqlite:///studies.db").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 2
    for trial in trials:  # the first is number 0
        options_of_trial = f"{options} --eval-freq -1 --trial-id {trial.number}"
        output = call("train", options_of_trial, "-params", "learning_starts:16", "tau:0.5", "buffer_size:1000")
        assert f"With what trial {trial.number} changes of them" in output
        agent = agent_of("sac", PENDULUM, trial.number + 2)  # the study has the first folder
        assert agent.gamma == 1 - trial.params["one_minus_gamma"]
        assert agent.tau == 0.5
        assert encoders_of(agent)
        for extractor in encoders_of(agent):
            arguments = vars(extractor.encoder.arguments)
            assert {name: arguments[name] for name in ENCODER} == {name: trial.params[name] for name in ENCODER}
    common = f"--algo sac --env {PENDULUM} --gym-packages sb3_ncde -f logs"
    assert "Mean reward" in call("rl_zoo3.enjoy", f"{common} --no-render -n 250")


def test_entries_without_memory_are_the_zoo_s(call: Command, tmp_path: Path) -> None:
    (tmp_path / "plain.yml").write_text(yaml.safe_dump({"Pendulum-v1": WITHOUT_MEMORY}))
    options = "--algo sac --env Pendulum-v1 --conf-file plain.yml --study-name plain --storage sqlite:///studies.db"
    call("tune", f"{options} --max-total-trials 2 --eval-episodes 1 --n-evaluations 1 --no-optim-plots")
    trial = optuna.load_study(study_name="plain", storage="sqlite:///studies.db").trials[1]
    assert not trial.params.keys() & set(ENCODER)
    output = call("train", f"{options} --trial-id 1 --eval-freq -1")
    assert "Loading from Optuna study" in output
    agent = agent_of("sac", "Pendulum-v1", 2)
    assert not encoders_of(agent)
    assert agent.tau == trial.params["tau"]


@pytest.mark.parametrize("algo", FILES)
def test_a_trial_is_what_is_trained_again(algo: str, seed: int) -> None:
    """What a trial tries is what its values are converted to, and NCDEExtractor takes it."""
    entry: dict[str, dict[str, Any]] = {
        "policy_kwargs": {
            "features_extractor_class": NCDEExtractor,
            "features_extractor_kwargs": {"solver": "midpoint", "latent_size": 5},
            "activation_fn": nn.Tanh,
        },
        "replay_buffer_kwargs": {"n_steps": 3, "gamma": 0.98},
    }
    before = deepcopy(entry)
    space = HistorySpace(spaces.Box(-1, 1, (3,)), HistoryArguments())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    for _ in range(30):
        trial = study.ask()
        asked = (trial, 1, 1, {"using_her_replay_buffer": False, "her_kwargs": {}})
        sampled = sample_memory_params(HYPERPARAMS_SAMPLER[algo], entry, *asked)
        converted = convert_memory_params(HYPERPARAMS_CONVERTER[algo], entry, trial.params)
        noise = sampled.pop("action_noise", None)
        assert (noise is None) == (converted.pop("noise_type", None) is None)
        assert isinstance(noise, ActionNoise) == ("noise_std" in converted)
        converted.pop("noise_std", None)
        assert sampled == converted
        assert not sampled.keys() & set(ENCODER)
        assert sampled["replay_buffer_kwargs"] == {"n_steps": 3, "gamma": sampled["gamma"]}
        policy_kwargs = sampled["policy_kwargs"]
        assert policy_kwargs["activation_fn"] is nn.Tanh
        assert "net_arch" in policy_kwargs
        arguments = NCDEExtractor(space, **policy_kwargs["features_extractor_kwargs"]).encoder.arguments
        assert (arguments.solver, arguments.latent_size) == ("midpoint", trial.params["latent_size"])
    assert entry == before


def test_what_alone_shows_the_time_is_not_sampled() -> None:
    """Without a channel of time, ``rates`` and ``skip`` stay as they are."""
    kwargs = "dict(features_extractor_class=importlib.import_module('sb3_ncde').NCDEExtractor, "
    entry = {"policy_kwargs": kwargs + "features_extractor_kwargs=dict(time_channel=False))"}
    trial = optuna.create_study().ask()
    asked = (trial, 1, 1, {"using_her_replay_buffer": False, "her_kwargs": {}})
    sampled = sample_memory_params(HYPERPARAMS_SAMPLER["sac"], entry, *asked)
    assert not trial.params.keys() & {"rates", "skip"}
    assert sampled["policy_kwargs"]["features_extractor_kwargs"]["time_channel"] is False


@pytest.mark.parametrize("policy_kwargs", [None, {}, "dict(net_arch=[8])", {"features_extractor_class": nn.Flatten}])
def test_other_entries_have_no_memory(policy_kwargs: Any) -> None:
    assert not has_memory({"policy_kwargs": policy_kwargs})


def test_statistics_that_nothing_would_save_are_refused(call: Command, tmp_path: Path) -> None:
    """In training, and where an agent is exported that was trained by the stock RL Zoo."""
    entry = {
        PENDULUM: {
            "policy": "MlpPolicy",
            "n_timesteps": 64,
            "vec_env_wrapper": [
                {"sb3_ncde.normalize.VecNormalizeObserved": {"norm_reward": False}},
                {"sb3_ncde.VecHistory": {"history_length": 4}},
            ],
            "replay_buffer_class": "importlib.import_module('sb3_ncde').HistoryReplayBuffer",
            "policy_kwargs": "dict(features_extractor_class=importlib.import_module('sb3_ncde').NCDEExtractor)",
        }
    }
    (tmp_path / "own.yml").write_text(yaml.safe_dump(entry))
    options = f"--algo sac --env {PENDULUM} -n 32 --conf-file {tmp_path / 'own.yml'}"
    with pytest.raises(SystemExit, match="neither saves nor loads the statistics"):
        call("train", options)
    call("rl_zoo3.train", f"{options} --gym-packages sb3_ncde --eval-freq -1", "-params", "buffer_size:100")
    with pytest.raises(SystemExit, match="neither saves nor loads the statistics"):
        cli.main(["export", *f"--algo sac --env {PENDULUM} --format numpy -o {tmp_path / 'agent.npz'}".split()])
