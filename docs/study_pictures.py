"""Draw docs/latents.png and docs/grid.png, of an agent that is trained with a quarter of its values missing.

    python docs/study_pictures.py                           # some minutes
    python docs/study_pictures.py --steps 256 --episodes 2 --output /tmp    # whether it runs

The numbers of the grid are kept in docs/grid.csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib as mpl
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde.evaluation import evaluate_grid, plot_grid, plot_latents
from sb3_ncde.hyperparams import settings
from sb3_ncde.normalize import VecNormalizeObserved

mpl.use("Agg")

ENV = "sb3_ncde/IrregularPendulumNoVel-v1"
OWN = {"vf_coef": 2.0, "max_grad_norm": 5.0}
"""In place of the entry's: the critic has more to learn where values are missing."""


def make_env(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    """Return Pendulum without velocities, observed every so many steps of physics, with a share of missing values."""
    return gym.make(ENV, sampling={"low": period, "high": period}, dropout={"probability": drop_rate})


def make_trained_env() -> gym.Env[Any, Any]:
    """Return it as the agent is trained: observed after 1 to 5 steps, a quarter of the values missing."""
    return gym.make(ENV, dropout={"probability": 0.25})


def train(steps: int | None) -> RecurrentPPO:
    """Return an agent with the settings of the entry, and a window that holds some values of each sensor."""
    tuned = settings(ENV)
    kwargs = tuned.model["policy_kwargs"] | {"missing_values": True, "history_length": 5}
    venv = make_vec_env(make_trained_env, tuned.n_envs, seed=0)
    env = VecNormalizeObserved(venv, skip=["time"], gamma=tuned.model["gamma"])
    model = RecurrentPPO(env=env, seed=0, device="cpu", **tuned.model | OWN | {"policy_kwargs": kwargs})
    return model.learn(steps or tuned.n_timesteps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the agent, evaluate it, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="of training (default: as configs/ppo_ncde.yml says)")
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder (default: docs)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    model = train(options.steps)

    table = evaluate_grid(
        model,
        make_env,
        periods=[1, 2, 3, 4, 5],
        drop_rates=[0.0, 0.25, 0.5, 0.75],
        n_episodes=options.episodes,
        progress_bar=True,
    )
    table.round(2).to_csv(options.output / "grid.csv", index=False)
    axes = plot_grid(table)
    axes.set_title("Trained at 1 to 5 steps, a quarter of the values missing")
    axes.get_figure().savefig(options.output / "grid.png", dpi=150)  # type: ignore[union-attr]

    figure = plot_latents(model, make_trained_env(), seed=3)
    figure.savefig(options.output / "latents.png", dpi=150)


if __name__ == "__main__":
    main()
