"""A task that needs memory and a mask: NCDEPolicy beside PPO and MaskablePPO, which have no memory.

Each episode has a goal, one of six actions, which only the first observation shows. In each of the six steps after it
three random actions are legal, the goal among them, and only the mask says which; taking the goal is worth 1, an
illegal action ends the episode. Who knows the mask but not the goal takes it one time in three, for a return of 2; the
best return is 6. PPO sees the mask as an observation.

    python benchmarks/masked.py                                       # docs/masked.csv, about five minutes
    python benchmarks/masked.py --seeds 1 --steps 256 --output /tmp   # whether it runs
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch as th
from gymnasium import spaces
from rich.progress import Progress
from rich.table import Table
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_maskable_policy
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

import sb3_ncde  # noqa: F401  (registers policies)
from sb3_ncde.wrappers import ActionMaskObservation

ACTIONS, LEGAL, STEPS = 6, 3, 6


class MaskedRecall(gym.Env[Any, np.int64]):
    """The task; it observes the goal, one-hot, at the first observation, and zeros after it."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (ACTIONS,), np.float32)
        self.action_space = spaces.Discrete(ACTIONS)

    def action_masks(self) -> np.ndarray:
        """Return which actions are legal in the present step."""
        return self.masks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a goal, and show it; in this step all actions are legal and none is worth anything."""
        super().reset(seed=seed)
        self.goal = int(self.np_random.integers(ACTIONS))
        self.step_count = 0
        self.masks = np.ones(ACTIONS, dtype=bool)
        return np.eye(ACTIONS, dtype=np.float32)[self.goal], {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Score the action, and draw the next mask."""
        legal = bool(self.masks[action])
        reward = float(legal and action == self.goal and self.step_count > 0)
        self.step_count += 1
        others = self.np_random.permutation(np.delete(np.arange(ACTIONS), self.goal))[: LEGAL - 1]
        self.masks = np.isin(np.arange(ACTIONS), [self.goal, *others])
        return np.zeros(ACTIONS, np.float32), reward, not legal or self.step_count > STEPS, False, {}


def train(name: str, env: VecEnv, seed: int, steps: int) -> float:
    """Return the mean return over 200 deterministic episodes after training."""
    ppo: dict[str, Any] = dict(n_steps=64, batch_size=256, gamma=0.9, learning_rate=1e-3, seed=seed, device="cpu")
    if name == "MaskablePPO":
        model = MaskablePPO("MultiInputPolicy", env, **ppo).learn(steps)
        mean, _ = evaluate_maskable_policy(model, env, 200, warn=False)
    elif name == "PPO":
        mean, _ = evaluate_policy(PPO("MultiInputPolicy", env, **ppo).learn(steps), env, 200, warn=False)
    else:
        kwargs = {"action_mask_key": "action_mask"} if "action_mask_key" in name else {}
        recurrent = RecurrentPPO("MultiInputNCDEPolicy", env, policy_kwargs=kwargs, **ppo).learn(steps)
        mean, _ = evaluate_policy(recurrent, env, 200, warn=False)
    return float(np.mean(mean))


POLICIES = ("NCDEPolicy with action_mask_key", "NCDEPolicy that sees the mask", "MaskablePPO", "PPO")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print a table, and write the agents one by one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20_000, help="of training (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of masked.csv (%(default)s)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    table = Table("policy", "mean return", "of each seed", title=f"{options.steps:,} steps, of at most {STEPS}")
    rows = []
    with Progress() as progress:
        bar = progress.add_task("training", total=len(POLICIES) * options.seeds)
        for name in POLICIES:
            returns = []
            for seed in range(options.seeds):
                env = make_vec_env(lambda: ActionMaskObservation(MaskedRecall()), n_envs=8, seed=seed)
                returns.append(train(name, env, seed, options.steps))
                rows.append({"policy": name, "seed": seed, "steps": options.steps, "mean": round(returns[-1], 3)})
                progress.advance(bar)
            table.add_row(name, f"{statistics.mean(returns):.2f}", ", ".join(f"{value:.2f}" for value in returns))
        progress.console.print(table)
    options.output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(options.output / "masked.csv", index=False)


if __name__ == "__main__":
    main()
