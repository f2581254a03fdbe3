"""What a solver does to PPO's ratio: how far log-probabilities on a fresh rollout are from those it was made with.

A fixed solver treats every window alike, whatever it is solved with. An adaptive one chooses its steps for the batch,
and the minibatch is not the batch of the rollout: the ratio of new to old probability begins at 1 only within the
tolerance.

The solvers are trained in turn, several rounds of them, so that a change in the machine's speed meets all: their time
is stated as a multiple of the first one's in the same round.

    python benchmarks/ratio.py                                        # docs/ratio.csv, about ten minutes
    python benchmarks/ratio.py --steps 32 --rounds 1 --output /tmp    # whether it runs
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import sb3_ncde  # noqa: F401  (registers policies and environments)

SOLVERS: tuple[dict[str, Any], ...] = (
    {"solver": "midpoint"},
    {"solver": "rk4"},
    *({"solver": solver, "rtol": rtol, "atol": rtol} for solver in ("bosh3", "dopri5") for rtol in (1e-2, 1e-3, 1e-5)),
)


class RatioCallback(BaseCallback):
    """Notes the worst |ratio - 1| of each rollout before the update on it."""

    def _on_training_start(self) -> None:
        self.worst: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, RecurrentPPO)
        policy: Any = self.model.policy
        worst = 0.0
        buffer: Any = self.model.rollout_buffer
        for batch in buffer.get(self.model.batch_size):
            with th.no_grad():
                _, log_prob, _ = policy.evaluate_actions(
                    batch.observations, batch.actions.long().flatten(), batch.lstm_states, batch.episode_starts
                )
            ratio = (log_prob - batch.old_log_prob).exp()[batch.mask > 1e-8]
            worst = max(worst, float((ratio - 1).abs().max()))
        self.worst.append(worst)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each solver, print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2048, help="of training (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each, seeds 0, 1, ... (default: 3)")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of ratio.csv (%(default)s)")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    worst: list[list[float]] = [[] for _ in SOLVERS]
    seconds: list[list[float]] = [[] for _ in SOLVERS]
    for seed in track(range(options.rounds), "training"):
        for index, kwargs in enumerate(SOLVERS):
            env = VecNormalize(make_vec_env("sb3_ncde/CartPoleNoVel-v1", 8, seed=seed))
            model = RecurrentPPO(
                "NCDEPolicy", env, n_steps=32, batch_size=64, n_epochs=4, policy_kwargs=kwargs, seed=seed, device="cpu"
            )
            callback = RatioCallback()
            begin = time.perf_counter()
            model.learn(options.steps, callback=callback)
            seconds[index].append(time.perf_counter() - begin)
            worst[index] += callback.worst
    columns = ["solver", "rtol = atol", "|ratio - 1|, median of rollouts", "worst", f"time / {SOLVERS[0]['solver']}'s"]
    rows = []
    for kwargs, ratios, spent in zip(SOLVERS, worst, seconds, strict=True):
        times = [own / first for own, first in zip(spent, seconds[0], strict=True)]
        found = f"{statistics.median(ratios):.1e}", f"{max(ratios):.1e}", f"{statistics.median(times):.1f}"
        rows.append((kwargs["solver"], f"{kwargs['rtol']:g}" if "rtol" in kwargs else "", *found))
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    options.output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(options.output / "ratio.csv", index=False)


if __name__ == "__main__":
    main()
