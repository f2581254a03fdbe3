"""Speed of SAC with memory beside SAC on stacked frames of the same window and SAC alone, in one process, interleaved.

Each round measures every agent in turn, so that a change in the machine's speed meets all of them; the figure to quote
is the ratio within a round.

    python benchmarks/off_policy_speed.py                          # docs/speed/off_policy.txt, some minutes
    python benchmarks/off_policy_speed.py --tiny --output /tmp     # whether it runs
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch as th
from rich.console import Console
from rich.table import Table
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_ncde import with_memory

ENV = "sb3_ncde/PendulumNoVel-v1"
LENGTH = 4
"""Of the history, and of the stack."""
FUSED = {"optimizer_kwargs": {"fused": True}}

MEMORY, STACKED = "memory", f"{LENGTH} stacked frames"
AGENTS: dict[str, Callable[[VecEnv, dict[str, Any]], SAC]] = {
    MEMORY: lambda env, kwargs: with_memory(SAC, env, history_length=LENGTH, **kwargs),
    STACKED: lambda env, kwargs: SAC("MlpPolicy", VecFrameStack(env, LENGTH), **kwargs),
    f"{STACKED}, fused Adam": lambda env, kwargs: SAC(
        "MlpPolicy", VecFrameStack(env, LENGTH), policy_kwargs=FUSED, **kwargs
    ),
    "no memory": lambda env, kwargs: SAC("MlpPolicy", env, **kwargs),
}
PARTS = ("update", "step", "predict")


def measure(model: SAC, updates: int, steps: int) -> dict[str, float]:
    """Return the seconds of an update, of a step (``predict`` and the environments), and of ``predict`` alone."""
    begin = time.perf_counter()
    model.train(updates, 256)
    update = (time.perf_counter() - begin) / updates
    model.policy.set_training_mode(False)
    env = model.get_env()
    assert env is not None
    obs, predicting = env.reset(), 0.0
    begin = time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        action, _ = model.predict(obs)  # type: ignore[arg-type]
        predicting += time.perf_counter() - before
        obs, _, _, _ = env.step(action)
    return {"update": update, "step": (time.perf_counter() - begin) / steps, "predict": predicting / steps}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="few updates and steps: whether it runs, not how fast")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of speed/off_policy.txt")
    options = parser.parse_args(arguments)
    th.set_num_threads(1)
    updates, steps = (2, 20) if options.tiny else (50, 500)
    models = {}
    for name, make in AGENTS.items():
        models[name] = make(make_vec_env(ENV, seed=0), {"learning_starts": 300, "seed": 0, "device": "cpu"})
        models[name].learn(310 if options.tiny else 600)
    rounds = [{name: measure(model, updates, steps) for name, model in models.items()} for _ in range(options.rounds)]
    table = Table(title=f"SAC on {ENV}, medians of {len(rounds)} rounds")
    table.add_column("agent")
    for part in PARTS:
        table.add_column(f"{part} [ms]", justify="right")
    for part in PARTS:
        table.add_column(f"memory's {part} / this one's (range)", justify="right")
    for name in models:
        cells = [f"{1e3 * statistics.median(result[name][part] for result in rounds):.2f}" for part in PARTS]
        for part in PARTS:
            ratios = [result[MEMORY][part] / result[name][part] for result in rounds]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")
        table.add_row(name, *cells)
    console = Console(width=200, record=True)
    console.print(table)
    (options.output / "speed").mkdir(parents=True, exist_ok=True)
    (options.output / "speed" / "off_policy.txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
