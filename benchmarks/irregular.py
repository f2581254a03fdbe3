"""Pendulum without velocities, observed after 1 to 5 steps of physics: NCDEPolicy, an LSTM and stacked frames.

All agents have the same information. NCDEPolicy gets the observation and the elapsed time, and NaN where a sensor has
no value; the others get what can be made of that by hand (:class:`features.Features`): held values, their rates,
elapsed time and, where values are missing, which ones are and for how long. All have the settings of
``configs/ppo_ncde.yml`` for this environment, and :data:`MISSING` where values are missing, but for the
``policy_kwargs`` that are NCDEPolicy's own. They are evaluated with the sampling of training and with fixed periods.

    python benchmarks/irregular.py                                   # one after the other: many hours
    python benchmarks/irregular.py --agents NCDEPolicy --seeds 0 1   # goes on with what the folder has
    python benchmarks/irregular.py --steps 256 --episodes 2 --seeds 0 --output runs/tiny    # whether it runs
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import torch as th
from features import Features
from gymnasium.wrappers import FlattenObservation, FrameStackObservation
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde.evaluation import evaluate_grid, over_agents, plot_grid
from sb3_ncde.hyperparams import hyperparams, with_schedules
from sb3_ncde.normalize import VecNormalizeObserved

ENV = "sb3_ncde/IrregularPendulumNoVel-v1"
MIXED = 0
"""Stands for the sampling of training, 1 to 5 steps, among the periods."""
PERIODS = (MIXED, 1, 2, 3, 5)
MISSING = {"learning_rate": "lin_0.0015", "vf_coef": 2.0, "max_grad_norm": 5.0}
"""What all agents have instead of the entry's where values are missing: the critic has more to learn then."""


def make_env(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    """Return the environment with a period and a drop rate; without one, no value may be missing."""
    kwargs: dict[str, Any] = {"dropout": {"probability": drop_rate}} if drop_rate else {}
    if period != MIXED:
        kwargs["sampling"] = {"low": period, "high": period}
    return gym.make(ENV, **kwargs)


def make_features(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    """Return the environment for a policy without a notion of time."""
    return Features(make_env(period, drop_rate), missing=drop_rate > 0)


def make_stacked_features(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    """Return the same as its last 8 frames."""
    return FlattenObservation(FrameStackObservation(make_features(period, drop_rate), 8, padding_type="zero"))


def shared(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the ``policy_kwargs`` that any policy takes: those of SB3's own."""
    return {name: value for name, value in settings["policy_kwargs"].items() if name == "log_std_init"}


def make_ncde(settings: dict[str, Any], drop_rate: float) -> BaseAlgorithm:
    """Return an agent with NCDEPolicy."""
    kwargs = settings.pop("policy_kwargs")
    if drop_rate:
        kwargs = kwargs | {"missing_values": True, "history_length": 5}  # 3 hold too few values of a sensor
    env = make_vec_env(partial(make_env, MIXED, drop_rate), settings.pop("n_envs"), seed=settings["seed"])
    normalized = VecNormalizeObserved(env, skip=["time"], gamma=settings["gamma"])
    return RecurrentPPO("MultiInputNCDEPolicy", normalized, policy_kwargs=kwargs, **settings)


def make_lstm(settings: dict[str, Any], drop_rate: float) -> BaseAlgorithm:
    """Return an agent with LSTMs of 64 units for actor and critic."""
    env = make_vec_env(partial(make_features, MIXED, drop_rate), settings.pop("n_envs"), seed=settings["seed"])
    settings["policy_kwargs"] = shared(settings) | {"lstm_hidden_size": 64}
    return RecurrentPPO("MlpLstmPolicy", VecNormalize(env, gamma=settings["gamma"]), **settings)


def make_stacked(settings: dict[str, Any], drop_rate: float) -> BaseAlgorithm:
    """Return an agent without memory that sees 8 frames."""
    env = make_vec_env(partial(make_stacked_features, MIXED, drop_rate), settings.pop("n_envs"), seed=settings["seed"])
    settings["policy_kwargs"] = shared(settings)
    return PPO("MlpPolicy", VecNormalize(env, gamma=settings["gamma"]), **settings)


AGENTS: dict[str, tuple[Callable[..., BaseAlgorithm], Callable[[int, float], gym.Env[Any, Any]]]] = {
    "NCDEPolicy": (make_ncde, make_env),
    "MlpLstmPolicy 64": (make_lstm, make_features),
    "8 stacked frames": (make_stacked, make_stacked_features),
}


def run(agent: str, drop_rate: float, seed: int, steps: int | None, episodes: int, folder: Path) -> None:
    """Train an agent and evaluate it at each period; what the folder has already is kept."""
    done = folder / f"{agent.replace(' ', '_')}-drop-{drop_rate:g}-seed-{seed}.csv"
    if done.exists():
        return
    make_agent, make_evaluated = AGENTS[agent]
    settings = dict(hyperparams[ENV])
    n_timesteps = steps or int(settings.pop("n_timesteps"))
    settings = {name: settings[name] for name in settings.keys() - {"policy", "normalize", "n_timesteps"}}
    settings = with_schedules(settings | (MISSING if drop_rate else {})) | {"seed": seed, "device": "cpu"}
    begin = time.perf_counter()
    model: Any = make_agent(settings, drop_rate)
    model.learn(n_timesteps)
    seconds = time.perf_counter() - begin
    table = evaluate_grid(model, make_evaluated, PERIODS, [drop_rate], n_episodes=episodes)
    table = table.assign(agent=agent, seed=seed, steps=n_timesteps, steps_per_second=n_timesteps / seconds)
    model.save(done.with_suffix(".zip"))
    model.get_vec_normalize_env().save(str(done.with_suffix(".pkl")))
    table.to_csv(done, index=False)


def report(results: pd.DataFrame, drop_rate: float) -> Table:
    """Return a table of the means over seeds, with their spread and the worst seed."""
    share = f", {drop_rate:.0%} of the values missing" if drop_rate else ""
    names = ["1 to 5" if period == MIXED else str(period) for period in PERIODS]
    table = Table("agent", *names, "seeds", title=f"return on {ENV}{share}, by steps of physics per observation")
    for agent, rows in results[results["drop_rate"] == drop_rate].groupby("agent", sort=False):
        cells = []
        for period in PERIODS:
            means = rows.loc[rows["period"] == period, "mean"]
            spread = means.std() if len(means) > 1 else 0.0
            cells.append(f"{means.mean():.0f} +- {spread:.0f} ({means.min():.0f})")
        table.add_row(str(agent), *cells, str(rows["seed"].nunique()))
    return table


def draw(results: pd.DataFrame, drop_rate: float, path: Path) -> None:
    """Draw the means over seeds against the period, with a bootstrap interval over seeds."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    fixed = results[(results["drop_rate"] == drop_rate) & (results["period"] != MIXED)]
    for agent, rows in fixed.groupby("agent", sort=False):
        plot_grid(over_agents(rows), axes, str(agent))
    axes.set_title(ENV + (f", {drop_rate:.0%} of the values missing" if drop_rate else ""))
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate what is asked for, and report all that the folder has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS))
    parser.add_argument("--drop-rates", type=float, nargs="+", default=[0.0, 0.25, 0.5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of training (default: as configs/ppo_ncde.yml says)")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/irregular"), help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for seed, drop_rate, agent in track(list(product(options.seeds, options.drop_rates, options.agents)), "training"):
        run(agent, drop_rate, seed, options.steps, options.episodes, options.output)
    results = pd.concat([pd.read_csv(path) for path in sorted(options.output.glob("*.csv"))])
    for drop_rate in sorted(results["drop_rate"].unique()):
        Console().print(report(results, drop_rate))
        draw(results, drop_rate, options.output / f"drop_{drop_rate:g}.png")


if __name__ == "__main__":
    main()
