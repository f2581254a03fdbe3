"""A pendulum that is observed at irregular times by sensors that fail: train, then see how the agent does at each rate.

The velocity is hidden, each observation comes after 1 to 5 steps of physics, and a tenth of the values are missing.
Writes the agent, its normalisation and a picture of its returns. Needs the extra ``train``.

    python examples/irregular_sensors.py                  # less than two minutes
    python examples/irregular_sensors.py --steps 1024     # whether it runs
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from matplotlib.figure import Figure
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde.evaluation import evaluate_grid, plot_grid
from sb3_ncde.hyperparams import settings
from sb3_ncde.normalize import VecNormalizeObserved

ENV = "sb3_ncde/IrregularPendulumNoVel-v1"


def at_period(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    """Return the pendulum, observed every so many steps of physics, with a share of the values missing."""
    return gym.make(ENV, sampling={"low": period, "high": period}, dropout={"probability": drop_rate})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=98_304, help="of training")
    parser.add_argument("--episodes", type=int, default=20, help="of the evaluation, at each rate")
    parser.add_argument("--output", type=Path, default=Path("runs/irregular_sensors"), help="folder for what is made")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are too small to split over cores
    options.output.mkdir(parents=True, exist_ok=True)

    tuned = settings(ENV)
    tuned.model["policy_kwargs"] |= {"missing_values": True, "history_length": 5}
    tuned.model["n_steps"] = min(tuned.model["n_steps"], options.steps // tuned.n_envs)  # a rollout is no longer
    env = make_vec_env(ENV, n_envs=tuned.n_envs, env_kwargs={"dropout": {"probability": 0.1}})
    env = VecNormalizeObserved(env, skip=["time"], gamma=tuned.model["gamma"])
    model = RecurrentPPO(env=env, seed=0, device="cpu", verbose=1, **tuned.model)
    model.learn(options.steps)
    model.save(options.output / "agent")
    env.save(str(options.output / "agent.pkl"))

    table = evaluate_grid(
        model,
        at_period,
        periods=[1, 2, 3, 5],
        drop_rates=[0.0, 0.1],
        n_episodes=options.episodes,
        n_envs=options.episodes,
    )
    print(table.round(1).to_string(index=False))
    figure = Figure()
    axes = plot_grid(table, figure.subplots())
    axes.set_xlabel("steps of physics from one observation to the next")
    figure.savefig(options.output / "returns.png")
    print(f"In {options.output}: agent.zip, agent.pkl, returns.png")


if __name__ == "__main__":
    main()
