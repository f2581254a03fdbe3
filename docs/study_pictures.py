"""Draw docs/latents.png and docs/grid.png, of an agent that ``benchmarks/irregular.py`` has trained.

It was trained with a quarter of its values missing::

    python benchmarks/irregular.py --agents NCDEPolicy --drop-rates 0.25 --seeds 0
    python docs/study_pictures.py

The numbers of the grid are printed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib as mpl
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_ncde.evaluation import evaluate_grid, plot_grid, plot_latents

mpl.use("Agg")


def make_env(period: int, drop_rate: float) -> gym.Env[Any, Any]:
    """Return Pendulum without velocities, observed every so many steps of physics, with a share of missing values."""
    sampling = {"low": period, "high": period}
    return gym.make("sb3_ncde/IrregularPendulumNoVel-v1", sampling=sampling, dropout={"probability": drop_rate})


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the agent, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", type=Path, default=Path("runs/irregular/NCDEPolicy-drop-0.25-seed-0"))
    parser.add_argument("--episodes", type=int, default=100, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder (default: docs)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    model = RecurrentPPO.load(f"{options.agent}.zip", device="cpu")
    env = gym.make("sb3_ncde/IrregularPendulumNoVel-v1", dropout={"probability": 0.25})
    statistics = VecNormalize.load(f"{options.agent}.pkl", DummyVecEnv([lambda: env]))

    table = evaluate_grid(
        model,
        make_env,
        periods=[1, 2, 3, 4, 5],
        drop_rates=[0.0, 0.25, 0.5, 0.75],
        n_episodes=options.episodes,
        vec_normalize=statistics,
        progress_bar=True,
    )
    print(table.round(2).to_string(index=False))
    axes = plot_grid(table)
    axes.set_title("Trained at 1 to 5 steps, a quarter of the values missing")
    axes.get_figure().savefig(options.output / "grid.png", dpi=150)  # type: ignore[union-attr]

    figure = plot_latents(model, env, seed=3, vec_normalize=statistics)
    figure.savefig(options.output / "latents.png", dpi=150)


if __name__ == "__main__":
    main()
