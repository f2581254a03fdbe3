"""Speed of NCDEPolicy beside what its users come from, in one process, interleaved.

Each round trains every policy in turn from scratch, so that a change in the machine's speed meets all of them;
the figure to quote is the ratio within a round. Sizes of rollouts and minibatches, epochs and gSDE are those of the RL
Zoo's ppo_lstm.yml for these two tasks; observations and rewards are normalised, for all policies alike. The learning
rate is 0: an agent that learns has longer episodes, and with them other sequences to pad than one that does not yet.

    python benchmarks/speed.py                                 # the figures of the README, about 25 minutes
    python benchmarks/speed.py --tasks wide images missing     # other observations, about 15 minutes
    python benchmarks/speed.py --tasks predict                 # one environment's predict(), a minute
    python benchmarks/speed.py --tasks lengths                 # draws docs/lengths.png, some minutes
    python benchmarks/speed.py --rounds 1 --tiny --tasks pendulum images missing predict lengths --output /tmp
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from torch.nn import functional as F

import sb3_ncde  # noqa: F401  (registers policies and environments)
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.sensors import SensorDropout

PARTS = ("rollout", "update", "total")


class IdentityPolicy(RecurrentActorCriticPolicy):
    """RecurrentPPO with an encoder that does nothing: the speed that RecurrentPPO itself allows."""

    @staticmethod
    def _process_sequence(
        features: th.Tensor, lstm_states: tuple[th.Tensor, th.Tensor], episode_starts: th.Tensor, lstm: th.nn.LSTM
    ) -> tuple[th.Tensor, th.Tensor]:
        return F.pad(features, (0, lstm.hidden_size - features.shape[1])), lstm_states  # type: ignore[return-value]


Make = Callable[[VecEnv, dict[str, Any]], OnPolicyAlgorithm]
NCDE, FLOOR = "NCDEPolicy", "RecurrentPPO, identity encoder"


def recurrent(policy: str | type[RecurrentActorCriticPolicy], **policy_kwargs: Any) -> Make:
    """Return what makes RecurrentPPO with a policy of an environment and PPO's settings."""
    return lambda env, ppo: RecurrentPPO(policy, env, policy_kwargs=policy_kwargs, device="cpu", **ppo)


def stacked(policy: str, frames: int) -> Make:
    """Return what makes PPO on stacked frames."""
    return lambda env, ppo: PPO(policy, VecFrameStack(env, frames), device="cpu", **ppo)


# In a round they follow one another: what is compared most closely stands side by side, as the machine's speed drifts.
VECTORS: dict[str, Make] = {
    "MlpLstmPolicy (256 units, as shipped)": recurrent("MlpLstmPolicy"),
    "MlpLstmPolicy (64 units)": recurrent("MlpLstmPolicy", lstm_hidden_size=64),
    "PPO, 8 stacked frames": stacked("MlpPolicy", 8),
    FLOOR: recurrent(IdentityPolicy, lstm_hidden_size=64),
    NCDE: recurrent("NCDEPolicy"),
    "NCDEPolicy, H = 32, S = 16": recurrent("NCDEPolicy", history_length=32, hop_length=16),
}
WIDE = {name: make for name, make in VECTORS.items() if name not in ("NCDEPolicy, H = 32, S = 16", FLOOR)}
WIDE[FLOOR] = recurrent(IdentityPolicy, lstm_hidden_size=256)
IMAGES: dict[str, Make] = {
    NCDE: recurrent("CnnNCDEPolicy"),
    "CnnLstmPolicy (256 units, as shipped)": recurrent("CnnLstmPolicy"),
    "PPO, 4 stacked frames": stacked("CnnPolicy", 4),
}
MISSING: dict[str, Make] = {
    NCDE: recurrent("NCDEPolicy", missing_values=True),
    "NCDEPolicy, nothing missing": recurrent("NCDEPolicy"),
}


def as_vector_of_64(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Repeat the features until they are 64."""
    space = spaces.Box(-np.inf, np.inf, (64,), np.float32)
    return TransformObservation(env, lambda values: np.resize(values, 64).astype(np.float32), space)


def as_image(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Show the features as an image of 64 x 64 x 3: what the network makes of it does not matter for its speed."""
    space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    return TransformObservation(env, lambda values: np.resize(values * 100 + 128, (64, 64, 3)).astype(np.uint8), space)


def as_it_is(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return the environment."""
    return env


@dataclass(frozen=True)
class Task:
    """An environment and the settings of PPO on it."""

    title: str
    env_id: str
    n_envs: int
    ppo: dict[str, Any]
    policies: dict[str, Make]
    wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] = as_it_is


PENDULUM = Task(
    "Pendulum (full windows)",
    "sb3_ncde/PendulumNoVel-v1",
    4,
    dict(n_steps=1024, batch_size=128, n_epochs=10, gamma=0.9, learning_rate=0.0, use_sde=True, sde_sample_freq=4),
    VECTORS,
)
TASKS = {
    "cartpole": Task(
        "CartPole (short episodes)",
        "sb3_ncde/CartPoleNoVel-v1",
        8,
        dict(n_steps=32, batch_size=256, n_epochs=20, gae_lambda=0.8, gamma=0.98, learning_rate=0.0),
        VECTORS,
    ),
    "pendulum": PENDULUM,
    "wide": replace(PENDULUM, title="Pendulum, 64 features", policies=WIDE, wrap=as_vector_of_64),
    "images": replace(
        PENDULUM,
        title="Pendulum, images of 64 x 64 x 3",
        policies=IMAGES,
        wrap=as_image,
        ppo=PENDULUM.ppo | {"n_steps": 64, "n_epochs": 4, "use_sde": False, "sde_sample_freq": -1},
    ),
    "missing": replace(PENDULUM, title="Pendulum, a quarter of the values missing", policies=MISSING),
}
LENGTHS = (2, 4, 8, 16, 32, 64)
"""Of histories, whose cost is drawn."""


def environments(task: Task, name: str, seed: int) -> VecEnv:
    """Return a task's environments for a policy, with normalisation but for images."""
    dropped = task.policies is MISSING and name == NCDE

    def make() -> gym.Env[Any, Any]:
        env = task.wrap(gym.make(task.env_id))
        return SensorDropout(env, probability=0.25) if dropped else env

    env = make_vec_env(make, n_envs=task.n_envs, seed=seed)
    return (VecNormalizeObserved if dropped else VecNormalize)(env, norm_obs=task.wrap is not as_image)


def measure(name: str, task: Task, seed: int, rollouts: int) -> dict[str, float]:
    """Return steps per second of rollout, update and both, after one rollout and update of warm-up."""
    env = environments(task, name, seed)
    model = task.policies[name](env, task.ppo | {"seed": seed})
    seconds = dict.fromkeys(PARTS[:2], 0.0)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = method(*args, **kwargs)
            seconds[part] += time.perf_counter() - begin
            return result

        return call

    steps = task.n_envs * model.n_steps
    model.learn(steps)
    model.collect_rollouts = timed("rollout", model.collect_rollouts)  # type: ignore[method-assign]
    model.train = timed("update", model.train)  # type: ignore[method-assign]
    model.learn(rollouts * steps, reset_num_timesteps=False)
    env.close()
    speed = {part: rollouts * steps / spent for part, spent in seconds.items()}
    return speed | {"total": rollouts * steps / sum(seconds.values())}


def report(task: Task, rounds: list[dict[str, dict[str, float]]]) -> Table:
    """Return a table: medians over the rounds, and NCDEPolicy's speed as a ratio, (least to most)."""
    table = Table(title=f"{task.title}: steps per second, median of {len(rounds)} rounds")
    table.add_column("policy")
    for part in PARTS:
        table.add_column(part, justify="right")
    for part in PARTS:
        table.add_column(f"NCDEPolicy's {part} / this one's (range)", justify="right")
    for name in task.policies:
        cells = [f"{statistics.median(result[name][part] for result in rounds):,.0f}" for part in PARTS]
        for part in PARTS:
            ratios = [result[NCDE][part] / result[name][part] for result in rounds]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")
        table.add_row(name, *cells)
    return table


def one_environment(rounds: int, calls: int) -> Table:
    """Return a table: how long ``predict`` takes for one environment, as in a robot's loop."""
    agents: dict[str, tuple[Task, str]] = {
        NCDE: (PENDULUM, NCDE),
        "NCDEPolicy, missing values": (TASKS["missing"], NCDE),
        "MlpLstmPolicy (64 units)": (PENDULUM, "MlpLstmPolicy (64 units)"),
        "MlpPolicy (no memory)": (replace(PENDULUM, policies={"MlpPolicy": stacked("MlpPolicy", 1)}), "MlpPolicy"),
    }
    models = {}
    for title, (task, name) in agents.items():
        task = replace(task, n_envs=1, ppo=task.ppo | {"n_steps": 64, "batch_size": 32, "n_epochs": 1})
        models[title] = task.policies[name](environments(task, name, 0), task.ppo | {"seed": 0}).learn(64)
    seconds: dict[str, list[float]] = {title: [] for title in models}
    medians: dict[str, list[float]] = {title: [] for title in models}
    for _ in range(rounds):
        for title, model in models.items():
            env = model.get_env()
            assert env is not None
            observation, state, starts, spent = env.reset(), None, np.ones(1, bool), []
            for _ in range(calls):
                begin = time.perf_counter()
                action, state = model.predict(observation, state, starts, deterministic=True)  # type: ignore[arg-type]
                spent.append(time.perf_counter() - begin)
                observation, _, starts, _ = env.step(action)
            seconds[title] += spent
            medians[title].append(statistics.median(spent))
    table = Table(title=f"predict() of one environment, {rounds} x {calls} calls")
    for column in ("policy", "median", "99th percentile", "median / MlpPolicy's", "median / LSTM's"):
        table.add_column(column, justify="right")
    for title, spent in seconds.items():
        ratios = [
            statistics.median(own / other for own, other in zip(medians[title], medians[beside], strict=True))
            for beside in ("MlpPolicy (no memory)", "MlpLstmPolicy (64 units)")
        ]
        high = float(np.quantile(spent, 0.99))
        cells = [f"{1e6 * statistics.median(spent):.0f} us", f"{1e6 * high:.0f} us", *(f"{r:.2f}" for r in ratios)]
        table.add_row(title, *cells)
    return table


def draw_lengths(rounds: int, task: Task, path: Path) -> None:
    """Draw what a step of rollout and of update costs by the length of the history, beside an encoder of nothing."""
    policies = {f"H = {length}": recurrent("NCDEPolicy", history_length=length) for length in LENGTHS}
    task = replace(task, policies=policies | {FLOOR: VECTORS[FLOOR]}, ppo=task.ppo | {"n_epochs": 2})
    results = [{name: measure(name, task, seed, 1) for name in task.policies} for seed in range(rounds)]
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for part in PARTS[:2]:
        cost = [statistics.median(result[FLOOR][part] / result[name][part] for result in results) for name in policies]
        axes.plot(LENGTHS, cost, marker="o", label=part)
    axes.axhline(1.0, color="gray", linestyle=":", label="no encoder")
    axes.set_xscale("log", base=2)
    axes.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    axes.set(xlabel="history_length H", ylabel="time of a step / RecurrentPPO's own", ylim=(0.0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep one table per task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="times that each policy is trained (default: %(default)s)"
    )
    others = ["predict", "lengths"]
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS, *others], default=["cartpole", "pendulum"])
    parser.add_argument("--tiny", action="store_true", help="small rollouts: whether it runs, not how fast")
    parser.add_argument(
        "--output", type=Path, default=Path("docs"), help="folder of the picture and of speed/TASK.txt (%(default)s)"
    )
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    console = Console(width=200, record=True)
    (options.output / "speed").mkdir(parents=True, exist_ok=True)
    tiny = {"n_steps": 16, "batch_size": 64, "n_epochs": 2} if options.tiny else {}
    for name in options.tasks:
        if name == "predict":
            console.print(one_environment(options.rounds, 50 if options.tiny else 2000))
        elif name == "lengths":
            task = replace(PENDULUM, ppo=PENDULUM.ppo | ({"n_steps": 256} | tiny))
            draw_lengths(options.rounds, task, options.output / "lengths.png")
            continue
        else:
            task = replace(TASKS[name], ppo=TASKS[name].ppo | tiny)
            # CartPole's rollouts are short: several of them.
            rollouts = 1 if options.tiny or task.n_envs * task.ppo["n_steps"] > 1024 else 24
            rounds = [
                {policy: measure(policy, task, seed, rollouts) for policy in task.policies}
                for seed in track(range(options.rounds), name)
            ]
            console.print(report(task, rounds))
        (options.output / "speed" / f"{name}.txt").write_text(console.export_text())


if __name__ == "__main__":
    gym.logger.min_level = gym.logger.ERROR
    main()
