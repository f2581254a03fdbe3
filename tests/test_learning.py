"""benchmarks/learning.py: what is compared is fair, runs are made once, and a report says what the files say."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch as th
import yaml
from claims import claim, claimed
from comparison import figures, intervals, plan, results
from comparison.agents import AGENTS, CEILING, FLOOR, first_evaluated, make, shown
from comparison.report import COMPARED, report
from comparison.results import OURS
from comparison.runs import POINTS, Run, read_about
from comparison.settings import choose
from comparison.tasks import BODIES, TASKS
from learning import main
from off_policy import AGENTS as OFF_POLICY_AGENTS
from off_policy import RUNS as OFF_POLICY
from off_policy import make as make_off_policy
from resumable import Evaluation
from rliable import metrics
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize
from zoo_settings import zoo_settings

from sb3_ncde.history.arguments import HistoryArguments
from sb3_ncde.history.observation_history import ObservationHistory
from sb3_ncde.history.space import HistorySpace

ROOT = Path(__file__).parents[1]
MUJOCO = {name for name, task in TASKS.items() if "v4" in task.zoo.get("ppo", "")}
POPGYM = {"RepeatFirstMedium", "CountRecallEasy"}
AS_INSTALLED = [name for name in TASKS if name not in MUJOCO | POPGYM]
"""Tasks whose environments come with Gymnasium and this package."""


def write(
    folder: Path, task: str, agent: str, seed: int, means: list[float], others: Mapping[float, float] = {}
) -> None:
    """Write the file of a run whose evaluations had these means, one per second and 10 steps."""
    about = {"task": task, "group": TASKS[task].group, "agent": agent, "seed": seed, "parameters": 1, "settings": "-"}
    versions = ("python", "sb3_ncde", "torch", "numpy", "stable_baselines3", "sb3_contrib", "rl_zoo3", "gymnasium")
    about |= dict.fromkeys((*versions, "mujoco", "popgym", "commit", "machine", "threads"), "-")
    rows: list[dict[str, float]] = [
        {"steps": 10 * n, "seconds": n, "cpu_seconds": n, "mean": mean} for n, mean in enumerate(means, start=1)
    ]
    rows += [{"steps": 10 * len(means), "other": number, "mean": mean} for number, mean in (others or {}).items()]
    columns = ["steps", "seconds", "cpu_seconds", "other", "mean", "std", "episodes"]
    table = pd.DataFrame(rows).reindex(columns=columns).assign(std=0.0, episodes=1)
    (folder / Run(task, agent, seed).file).write_text(f"# {json.dumps(about)}\n{table.to_csv(index=False)}")


# Scores


def test_a_score_is_0_without_memory_and_1_where_everything_is_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    low, high = np.sort(rng.normal(0, 1000, 2))
    for seed, noise in enumerate((-1.0, 0.0, 1.0)):
        for agent, mean in ((FLOOR, low), (CEILING, high), ("NCDEPolicy", (low + 3 * high) / 4)):
            write(tmp_path, "CartPole", agent, seed, [0.0, mean + noise * (high - low) / 10])
    _, evaluations = results.read(tmp_path)
    scores = results.final(results.scored(evaluations)).groupby("agent")["score"].mean()
    expected = {FLOOR: 0.0, CEILING: 1.0, "NCDEPolicy": 0.75, OURS: 0.75}
    assert scores.to_dict() == pytest.approx(expected, abs=1e-4)


def test_a_task_that_needs_no_memory_has_no_scores(tmp_path: Path) -> None:
    for seed, mean in enumerate((10.0, 20.0, 30.0)):
        write(tmp_path, "Acrobot", FLOOR, seed, [mean])
        write(tmp_path, "Acrobot", CEILING, seed, [mean + 5.0])
    _, evaluations = results.read(tmp_path)
    assert results.scales(evaluations).loc["Acrobot", ["low", "high", "apart"]].tolist() == [20.0, 25.0, False]
    assert results.scored(evaluations).empty


def test_where_the_greatest_return_is_known_it_is_1_and_ours_has_traces(tmp_path: Path) -> None:
    write(tmp_path, "cue within 64", FLOOR, 0, [-0.5])
    write(tmp_path, "cue within 64", "NCDEPolicy", 0, [-0.5])
    write(tmp_path, "cue within 64", "NCDEPolicy with traces", 0, [0.25])
    _, evaluations = results.read(tmp_path)
    scores = results.scored(evaluations).set_index("agent")["score"]
    assert scores[OURS] == pytest.approx(0.75 / 1.5)
    assert scores["NCDEPolicy"] == pytest.approx(0.0)


def test_a_control_is_no_task_that_counts(tmp_path: Path) -> None:
    for task in ("irregular CartPole", "irregular CartPole, actions hidden"):
        for agent, mean in ((FLOOR, 0.0), (CEILING, 100.0), ("NCDEPolicy", 50.0)):
            write(tmp_path, task, agent, 0, [mean])
    scores = results.scored(results.read(tmp_path)[1])
    assert set(scores["task"]) == {"irregular CartPole", "irregular CartPole, actions hidden"}
    assert results.complete(scores, ["NCDEPolicy"], 1) == ["irregular CartPole"]


def test_areas_and_times_are_those_of_the_lines(tmp_path: Path) -> None:
    task = "irregular Pendulum"
    for agent, mean in ((FLOOR, 0.0), (CEILING, 100.0)):
        write(tmp_path, task, agent, 0, [mean])
    write(tmp_path, task, "NCDEPolicy", 0, [0.0, 70.0, 90.0, 60.0], {1: 100.0, 2: 80.0, 5: 20.0})
    _, evaluations = results.read(tmp_path)
    scores = results.scored(evaluations)
    area = results.areas(scores).set_index("agent")["area"]
    assert area["NCDEPolicy"] == pytest.approx(((1.0 + 0.8) / 2 * 1 + (0.8 + 0.2) / 2 * 3) / 4)
    first = results.reached(scores, 0.8).set_index("agent")
    assert first.loc["NCDEPolicy", ["steps", "cpu_seconds"]].tolist() == [30, 3]
    assert np.isnan(first.loc[FLOOR, "steps"])
    assert set(results.final(scores)["score"]) == {0.0, 1.0, 0.6}  # those with other sensors are none of the ends
    # Its whole training takes 4 seconds; what has not been evaluated yet is 0, and what has ended stays.
    found = figures.at_times(scores, ["NCDEPolicy", FLOOR], [task], np.array([0.2, 0.5, 0.7, 1.0, 3.0]))
    np.testing.assert_allclose(found["NCDEPolicy"], [[[0.0, 0.7, 0.7, 0.6, 0.6]]])


def test_statistics_are_rliables() -> None:
    rng = np.random.default_rng()
    x, y = rng.normal(size=(7, 3, 2)).round(1), rng.normal(0.3, 1, size=(5, 3)).round(1)  # with ties
    expected = [metrics.aggregate_iqm(x[..., point]) for point in range(2)]
    np.testing.assert_allclose(intervals.interquartile_mean(x), expected, atol=1e-12)  # a mean may be 0
    wanted = metrics.probability_of_improvement(x[..., 0], y)
    assert intervals.probability_of_improvement(x[..., 0], y) == pytest.approx(wanted)
    estimate = intervals.iqm({"x": x}, repeats=50)["x"]
    assert (estimate.low <= estimate.point).all()
    assert (estimate.point <= estimate.high).all()


# Fairness


@pytest.mark.parametrize("name", AS_INSTALLED)
def test_every_agent_is_shown_the_same_episode(name: str) -> None:
    """With the same seed and actions, what the peers are shown is what NCDEPolicy's own history holds."""
    task = TASKS[name]
    agents = ["NCDEPolicy", "PPO, traces", FLOOR, *([CEILING] if AGENTS[CEILING].does(name, task) else [])]
    env = {agent: shown(task, AGENTS[agent], task.sensors) for agent in agents}
    for wrapped in env.values():
        wrapped.action_space.seed(0)
    seen = {agent: [wrapped.reset(seed=3)[0]] for agent, wrapped in env.items()}
    acted = []
    for _ in range(12):
        action = env["NCDEPolicy"].action_space.sample()
        choices = env["NCDEPolicy"].action_space
        acted.append(np.eye(choices.n)[action] if isinstance(choices, gym.spaces.Discrete) else action)
        steps = {agent: wrapped.step(action) for agent, wrapped in env.items()}
        for agent, step in steps.items():
            seen[agent].append(step[0])
        if any(step[2] or step[3] for step in steps.values()):
            break
    raw = [observation["observation"] if task.timed else observation for observation in seen["NCDEPolicy"]]
    values = np.stack(raw).astype(np.float64)
    elapsed = np.array([float(o["time"][0]) for o in seen["NCDEPolicy"]]) if task.timed else np.ones(len(values))
    held, rates, ages = hold(values, elapsed)
    shown_to_peers, newest = np.stack(seen["PPO, traces"]), np.stack(seen[FLOOR])
    n = values.shape[1]
    parts = [held, rates, *([elapsed[:, None]] if task.timed else [])]
    parts += [~np.isnan(values), ages] if task.missing else []
    expected = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(shown_to_peers[:, : expected.shape[1]], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(newest[:, :n], np.nan_to_num(values), rtol=1e-6)
    np.testing.assert_allclose(
        shown_to_peers[:, expected.shape[1] :], traces(values, elapsed, task.dt if task.timed else 1.0), atol=2e-3
    )
    if CEILING in env:
        everything, make_task = np.stack(seen[CEILING]), task.make
        assert isinstance(make_task, partial)
        positions = everything[:, BODIES[make_task.args[0]].positions]
        observed = values[:, : positions.shape[1]]
        np.testing.assert_allclose(positions[~np.isnan(observed)], observed[~np.isnan(observed)], rtol=1e-6)
        assert (values.shape[1] > positions.shape[1]) == ("irregular" in name and "hidden" not in name)
        if task.timed:
            np.testing.assert_allclose(everything[:, -1], elapsed, rtol=1e-6)
        if values.shape[1] > positions.shape[1]:  # none before the first observation, then the action that led to each
            expected = np.stack([np.zeros_like(acted[0]), *acted[: len(values) - 1]])
            np.testing.assert_allclose(values[:, positions.shape[1] :], expected, rtol=1e-6)


def test_evaluations_begin_alike() -> None:
    """Of a policy that does not learn, evaluations of as many episodes return the same."""
    env, other = (make_vec_env("Pendulum-v1", 2, seed=seed) for seed in (0, 1))
    evaluation = Evaluation(other, [16, 24, 32], 2, last_episodes=4, seed=7)
    PPO("MlpPolicy", env, 0.0, n_steps=8, batch_size=8, device="cpu", seed=0).learn(32, evaluation)
    first, second, last = evaluation.rows
    assert first["mean"] == second["mean"] != last["mean"]
    assert [row["episodes"] for row in evaluation.rows] == [2, 2, 4]


def test_an_evaluation_has_the_statistics_of_the_training() -> None:
    env, other = (VecNormalize(make_vec_env("Pendulum-v1", 2, seed=seed)) for seed in (0, 1))
    other.training = other.norm_reward = False
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0)
    model.learn(32, Evaluation(other, [16, 32], 1))
    trained, evaluated = (vec.obs_rms for vec in (env, other))
    assert isinstance(trained, RunningMeanStd)
    assert isinstance(evaluated, RunningMeanStd)
    assert trained.count > 30
    np.testing.assert_array_equal(evaluated.mean, trained.mean)


def hold(values: np.ndarray, elapsed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return held values, their rates and ages, by a plain loop over columns and steps."""
    held, rates, ages = np.zeros((3, *values.shape))
    times = np.concatenate(([0.0], elapsed[1:].cumsum()))
    for column in range(values.shape[1]):
        last: int | None = None
        value = rate = 0.0
        for step, new in enumerate(values[:, column]):
            if not np.isnan(new):
                rate = rate if last is None else (new - value) / (times[step] - times[last])
                value, last = float(new), step
            held[step, column], rates[step, column] = value, rate
            ages[step, column] = times[step] - (times[last] if last is not None else -elapsed[0])
    return held, rates, ages


def traces(values: np.ndarray, elapsed: np.ndarray, dt: float) -> np.ndarray:
    """Return the traces as NCDEPolicy's own history keeps them."""
    missing = bool(np.isnan(values).any())
    history = ObservationHistory(
        2, 1, values.shape[1], dt, missing_values=missing, time_constants=(4.0, 16.0, 64.0, 256.0)
    )
    state = (th.zeros(1, 1, history.size), th.zeros(1, 1, history.size))
    starts = th.zeros(1, len(values))
    starts[0, 0] = 1
    features = th.from_numpy(values.astype(np.float32))[None]
    sequences, _ = history.append(features, th.from_numpy(elapsed.astype(np.float32))[None], state, starts)
    kept = history.layout.traces
    assert kept is not None
    line = sequences.line[0, 2:]
    counts = (~np.isnan(values)).cumsum(axis=0) if missing else None
    return kept.values(line[:, history.layout.observed_size : -1], counts)


OF_THE_ZOO = {
    "CartPole": {"ppo": "CartPole-v1", "ppo_lstm": "CartPoleNoVel-v1"},
    "Pendulum": {"ppo": "Pendulum-v1", "ppo_lstm": "PendulumNoVel-v1", "sac": "Pendulum-v1"},
    "MountainCarContinuous": {
        "ppo": "MountainCarContinuous-v0",
        "ppo_lstm": "MountainCarContinuousNoVel-v0",
        "sac": "MountainCarContinuous-v0",
    },
    "Acrobot": {"ppo": "Acrobot-v1", "ppo_lstm": "Acrobot-v1"},
    "Hopper": {"ppo": "Hopper-v4", "ppo_lstm": "HopperBulletEnv-v0", "sac": "Hopper-v4"},
    "HalfCheetah": {"ppo": "HalfCheetah-v4", "ppo_lstm": "HalfCheetahBulletEnv-v0", "sac": "HalfCheetah-v4"},
    "Walker2d": {"ppo": "Walker2d-v4", "ppo_lstm": "Walker2DBulletEnv-v0", "sac": "Walker2d-v4"},
}
"""Whose settings the RL Zoo's agents are meant to have, as benchmarks/README.md says."""


FOUND_FOR = {"CountRecallEasy": 0.0}
"""Discount factors of long tasks whose settings were found by trainings on them."""


@pytest.mark.parametrize("name", TASKS)
def test_no_agent_has_settings_that_were_found_for_another(name: str) -> None:
    """The RL Zoo's for its own algorithm, unless its name says that it has NCDEPolicy's; on long tasks all the same."""
    for agent_name, agent in AGENTS.items():
        if agent.does(name, TASKS[name]):
            chosen = choose(TASKS[name], agent.algorithm, agent.ours)
            if TASKS[name].group == "long":
                assert chosen.source.endswith("tuned for no agent") == (name not in FOUND_FOR)
                assert chosen.model.get("gamma") == FOUND_FOR.get(name)
            elif TASKS[name].ours and ("NCDEPolicy" in agent_name or agent_name == "lerax preset"):
                assert chosen.source == f"configs/ppo_ncde.yml, {TASKS[name].ours}"
            else:
                env_id = OF_THE_ZOO[name.replace("irregular ", "").partition(",")[0]][agent.algorithm]
                assert chosen.source == f"RL Zoo, {agent.algorithm}.yml, {env_id}"
                found = zoo_settings(agent.algorithm, env_id)
                assert chosen.n_envs == found.n_envs
                for argument in ("learning_rate", "gamma", "n_steps", "batch_size"):
                    expected: Any = found.model.get(argument)
                    given: Any = chosen.model.get(argument)
                    assert (given(0.7) == expected(0.7)) if callable(expected) else (given == expected)


@pytest.mark.parametrize("name", ["Pendulum", "IrregularPendulum", "CartPole", "MountainCarContinuous"])
@pytest.mark.parametrize("agent", OFF_POLICY_AGENTS)
def test_agents_of_other_algorithms_have_the_settings_of_an_entry(name: str, agent: str) -> None:
    """For as many steps, and as many stacked frames as the history is long."""
    task = OFF_POLICY[name]
    file = ROOT / "configs" / f"{task.algorithm.__name__.lower()}.yml"
    entry = yaml.safe_load(file.read_text())[task.settings_of]
    assert task.evaluated[-1] == entry["n_timesteps"]
    model, env = make_off_policy(name, agent, 0)
    for argument in ("gamma", "batch_size", "train_freq", "use_sde"):
        if argument in entry:
            given = getattr(model, argument)
            assert getattr(given, "frequency", given) == entry[argument]
    buffer: Any = vars(model)["replay_buffer"]
    returns = entry.get("replay_buffer_kwargs", {"n_steps": 1})
    assert getattr(buffer, "n_steps", 1) == returns["n_steps"]
    if returns["n_steps"] > 1:
        assert buffer.gamma == returns["gamma"] == entry["gamma"]
    assert model.lr_schedule(1) == float(str(entry["learning_rate"]).removeprefix("lin_"))
    history = entry["vec_env_wrapper"]["sb3_ncde.VecHistory"]
    seen = model.observation_space
    if agent == "memory":
        assert isinstance(seen, HistorySpace)
        assert seen.arguments == HistoryArguments(**history)
    else:
        assert not isinstance(seen, HistorySpace)
        stacked = agent == "stacked frames"
        (size,) = ((task.frames or task.memory) if stacked else task.full)().observation_space.shape or ()
        assert seen.shape == (history["history_length"] * size if stacked else size,)
    env.close()


def test_ncde_policy_has_the_whole_of_its_entry() -> None:
    """Of its own entry what stands there of the memory; of another policy's what is said of exploration alone."""
    for name, expected in (("irregular Pendulum", {"history_length": 3, "log_std_init": -0.5}), ("Acrobot", {})):
        model, env, _ = make(TASKS[name], AGENTS["NCDEPolicy"], 0)
        env.close()
        given = model.policy_kwargs
        assert {key: given[key] for key in ("history_length", "log_std_init") if key in given} == expected
        assert model.policy.net_arch == {"pi": [64, 64], "vf": [64, 64]}


def test_ppo_with_memory_has_the_memory_of_an_entry() -> None:
    model, env, _ = make(TASKS["irregular Pendulum"], AGENTS["PPO, memory, NCDEPolicy's settings"], 0)
    policy: Any = model.policy
    ours: Any = make(TASKS["irregular Pendulum"], AGENTS["NCDEPolicy"], 0)[0].policy
    space = policy.observation_space
    assert isinstance(space, HistorySpace)
    assert env.observation_space == space
    for given in (space.arguments, policy.features_extractor.encoder.arguments):
        for field in fields(given):
            assert getattr(given, field.name) == getattr(ours.arguments, field.name)
    assert sum(map(th.numel, policy.parameters())) == sum(map(th.numel, ours.parameters()))
    assert (policy.use_sde, policy.log_std_init) == (ours.use_sde, ours.log_std_init) == (True, -0.5)


def test_no_two_runs_train_in_the_same_episodes() -> None:
    """Nor is an agent evaluated in those of a training."""
    begins = []
    for seed in (0, 1):
        model, evaluated, _ = make(TASKS["Pendulum"], AGENTS["PPO, rates"], seed)
        evaluated.seed(first_evaluated(seed))
        for env in (model.get_env(), evaluated):
            assert env is not None
            env.reset()
            raw: Any = env.unwrapped
            begins += [one.unwrapped.state.tobytes() for one in raw.envs]
            env.close()
    assert len(set(begins)) == len(begins)


def test_an_lstm_has_the_size_of_its_name() -> None:
    """Whatever the RL Zoo's entry says."""
    for name, agent in AGENTS.items():
        if name.startswith("MlpLstmPolicy"):
            model, env, _ = make(TASKS["CartPole"], agent, 0)
            env.close()
            assert model.policy.lstm_actor.hidden_size == int(name.split()[1].rstrip(","))  # type: ignore[union-attr]


# Runs


def test_headline_comes_first_and_each_run_has_a_file_of_its_own() -> None:
    runs = plan.comparison() + plan.ablations()
    assert len({run.file for run in runs}) == len(set(runs))
    order = plan.comparison()
    headline = [run for run in order if TASKS[run.task].headline and AGENTS[run.agent].rank == 0 and run.seed < 5]
    assert order[: len(headline)] == headline
    assert sum(run.task == "CartPole" and run.agent == "NCDEPolicy" for run in order) == 10
    groups = [TASKS[run.task].group for run in order[len(headline) :] if "Hopper" not in run.task]
    assert list(dict.fromkeys(groups)) == ["regular", "irregular", "missing", "long", "control"]


def test_hours_left_are_those_of_finished_runs(tmp_path: Path) -> None:
    run = Run("CartPole", "NCDEPolicy", 1)
    other = Run("Pendulum", "NCDEPolicy", 1)
    guess, guess_of_other = plan.seconds([run, other], tmp_path)
    about = {"task": "CartPole", "agent": "NCDEPolicy", "wall_seconds": 3 * guess}
    (tmp_path / Run("CartPole", "NCDEPolicy", 0).file).write_text(f"# {json.dumps(about)}\n")
    assert plan.seconds([run, other], tmp_path) == pytest.approx([3 * guess, 3 * guess_of_other])


def test_of_many_at_once_one_gets_the_claim(tmp_path: Path) -> None:
    """Processes that begin at one moment: one makes the file, and whoever comes later finds it."""
    code = (
        "import sys, time; from pathlib import Path; from claims import claim\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "with claim(Path(sys.argv[1])) as mine:\n"
        "    if mine: Path(sys.argv[1]).touch()\n"
        "    print(int(mine))"
    )
    wanted, begin = tmp_path / "wanted.csv", str(time.time() + 0.7)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-c", code, str(wanted), begin]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(6)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["0"] * 5 + ["1"]


def test_a_claim_lasts_as_long_as_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claims.PATIENCE", 0.1)
    wanted = tmp_path / "wanted.csv"
    with claim(wanted) as mine, claim(wanted) as second:
        assert (mine, second) == (True, False)
        assert claimed(wanted)
    assert not claimed(wanted)
    with claim(wanted) as again:
        assert again
        wanted.touch()
    with claim(wanted) as finished:
        assert not finished


def test_what_is_killed_begins_again_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    """The script, killed in the midst of a run and started again, makes what is left and a report of all."""
    options = ["--output", str(tmp_path), "--episodes", "1", "--tasks", "CartPole", "--seeds", "0"]
    write(tmp_path, "CartPole", FLOOR, 0, [9.0, 12.0])
    kept = (tmp_path / Run("CartPole", FLOOR, 0).file).read_bytes()
    script = str(ROOT / "benchmarks" / "learning.py")
    alone = ["--here", "--parent", str(os.getpid())]
    process = subprocess.Popen([sys.executable, script, *options, *alone, "--agents", CEILING])
    wanted = tmp_path / Run("CartPole", CEILING, 0).file
    while not claimed(wanted):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert not wanted.exists()
    assert not claimed(wanted)
    main([*options, "--here", "--steps", "64", "--agents", FLOOR, CEILING])
    assert (tmp_path / Run("CartPole", FLOOR, 0).file).read_bytes() == kept
    about = read_about(wanted)
    assert about["settings"] == "RL Zoo, ppo.yml, CartPole-v1"
    assert about["parameters"] == 9155
    assert {"python", "torch", "gymnasium", "mujoco", "commit", "machine", "arguments"} <= about.keys()
    runs, evaluations = results.read(tmp_path)
    assert set(runs["agent"]) == {FLOOR, CEILING}
    made = evaluations[evaluations["agent"] == CEILING]
    assert made["steps"].tolist() == [round(64 * share) for share in POINTS]
    assert made["cpu_seconds"].is_monotonic_increasing


def test_a_report_is_of_the_files_alone(tmp_path: Path) -> None:
    """Of files that were written by hand, whose statistics can be said beforehand."""
    rest = [name for name in COMPARED if name not in (OURS, FLOOR)] + ["NCDEPolicy"]
    means = dict.fromkeys(rest, 50.0) | {FLOOR: 0.0, CEILING: 100.0, "NCDEPolicy": 90.0, "MlpLstmPolicy 64": 30.0}
    for task in ("CartPole", "irregular Pendulum"):
        for agent, mean in means.items():
            for seed in (0, 1):
                write(tmp_path, task, agent, seed, [0.0, mean / 2, mean], dict.fromkeys(TASKS[task].others, mean / 2))
    report(tmp_path, tmp_path / "report", repeats=10)
    text = (tmp_path / "report" / "report.md").read_text()
    cell = {name: f"{value:.2f} ({value:.2f} to {value:.2f})" for name, value in (("NCDE", 0.9), ("LSTM", 0.3))}
    assert f"| {OURS} | {cell['NCDE']} | {cell['NCDE']} | {cell['NCDE']} |" in text
    assert f"| MlpLstmPolicy 64 | {cell['LSTM']} | {cell['LSTM']} | {cell['LSTM']} |" in text
    assert "| MlpLstmPolicy 64 | 1.00 (1.00 to 1.00) |" in text  # the probability of improvement
    transferred = text.split("## Other sensors")[1]
    assert "| irregular Pendulum | 0.45 +- 0.00 |" in transferred
    pictures = set(re.findall(r"\((\w+\.png)\)", text))
    assert pictures == {path.name for path in (tmp_path / "report").glob("*.png")}
    assert len(pictures) == 6
