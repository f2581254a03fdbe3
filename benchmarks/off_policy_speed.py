"""Speed of SAC with memory beside SAC on stacked frames of the same window and SAC alone, in one process, interleaved.

Each round measures every agent in turn, so that a change in the machine's speed meets all of them; the figure to quote
is the ratio within a round. The agent with memory acts twice: by SB3's ``predict``, and exported, as it would on a
robot. All act deterministically.

    python benchmarks/off_policy_speed.py                          # docs/speed/off_policy.txt, some minutes
    python benchmarks/off_policy_speed.py --tiny --output /tmp     # whether it runs
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from rich.console import Console
from rich.table import Table
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_ncde import VecHistory, with_memory
from sb3_ncde.deploy import Agent, export_numpy

ENV = "sb3_ncde/PendulumNoVel-v1"
LENGTH = 4
"""Of the history, and of the stack."""
FUSED = {"optimizer_kwargs": {"fused": True}}

MEMORY, EXPORTED, STACKED = "memory", "memory, exported", f"{LENGTH} stacked frames"
AGENTS: dict[str, Callable[[VecEnv, dict[str, Any]], SAC]] = {
    MEMORY: lambda env, kwargs: with_memory(SAC, env, history_length=LENGTH, **kwargs),
    STACKED: lambda env, kwargs: SAC("MlpPolicy", VecFrameStack(env, LENGTH), **kwargs),
    f"{STACKED}, fused Adam": lambda env, kwargs: SAC(
        "MlpPolicy", VecFrameStack(env, LENGTH), policy_kwargs=FUSED, **kwargs
    ),
    "no memory": lambda env, kwargs: SAC("MlpPolicy", env, **kwargs),
}
Choose = Callable[[Any, Any], Any]
"""Chooses actions, given observations and in which environments episodes have just begun."""
PARTS = ("update", "step", "acting")
RATIOS = {
    "memory's update": (MEMORY, "update"),
    "memory's step": (MEMORY, "step"),
    "exported's step": (EXPORTED, "step"),
}


def exported(model: SAC) -> Agent:
    """Return a model's agent in NumPy."""
    with tempfile.TemporaryDirectory() as folder:
        export_numpy(model, Path(folder) / "agent.npz")
        return Agent.load(Path(folder) / "agent.npz")


def learn(model: SAC, updates: int) -> dict[str, float]:
    """Return the seconds of an update."""
    begin = time.perf_counter()
    model.train(updates, 256)
    model.policy.set_training_mode(False)
    return {"update": (time.perf_counter() - begin) / updates}


def act(env: VecEnv, choose: Choose, steps: int) -> dict[str, float]:
    """Return the seconds of a step (acting and the environments), and of acting alone."""
    obs, dones, acting = env.reset(), np.ones(env.num_envs, bool), 0.0
    begin = time.perf_counter()
    for _ in range(steps):
        before = time.perf_counter()
        action = choose(obs, dones)
        acting += time.perf_counter() - before
        obs, _, dones, _ = env.step(action)
    return {"step": (time.perf_counter() - begin) / steps, "acting": acting / steps}


def by_predict(model: SAC) -> Choose:
    """Return what acts by SB3's ``predict``."""
    return lambda obs, dones: model.predict(obs, deterministic=True)[0]


def by_agent(agent: Agent) -> Choose:
    """Return what acts in NumPy."""

    def choose(obs: Any, dones: Any) -> Any:
        if dones.any():
            agent.reset(dones)
        return agent.act(obs)

    return choose


def measure(models: dict[str, SAC], agent: Agent, updates: int, steps: int) -> dict[str, dict[str, float]]:
    """Return what :func:`learn` and :func:`act` say of each agent in turn; the exported one has no updates."""
    found = {}
    for name, model in models.items():
        env = model.get_env()
        assert env is not None
        found[name] = learn(model, updates) | act(env, by_predict(model), steps)
        if isinstance(env, VecHistory):
            agent.reset()
            found[EXPORTED] = {"update": math.nan} | act(env.venv, by_agent(agent), steps)
    return found


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
    agent = exported(models[MEMORY])
    rounds = [measure(models, agent, updates, steps) for _ in range(options.rounds)]
    table = Table(title=f"SAC on {ENV}, medians of {len(rounds)} rounds; ratios: median (range)")
    table.add_column("agent")
    for part in PARTS:
        table.add_column(f"{part} [ms]", justify="right")
    for name in RATIOS:
        table.add_column(f"{name} / this one's", justify="right")
    for name in rounds[0]:
        medians = {part: statistics.median(result[name][part] for result in rounds) for part in PARTS}
        cells = [f"{1e3 * median:.2f}" for median in medians.values()]
        for ours, part in RATIOS.values():
            ratios = [result[ours][part] / result[name][part] for result in rounds]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")
        table.add_row(name, *("-" if "nan" in cell else cell for cell in cells))
    console = Console(width=170, record=True)
    console.print(table)
    (options.output / "speed").mkdir(parents=True, exist_ok=True)
    (options.output / "speed" / "off_policy.txt").write_text(console.export_text())


if __name__ == "__main__":
    main()
