"""How long an exported agent takes to act: PyTorch, NumPy and ONNX Runtime, median and 99th percentile.

Each acts on the same raw observations of one robot, one at a time: for PyTorch that is ``VecNormalize.normalize_obs``
and ``model.predict`` with its state, for NumPy ``Agent.act``, for ONNX Runtime a call of its session, on one thread.
They take turns, in rounds, so that whatever else the machine does is shared; the first calls of each are not counted.
The agents are not trained: what they compute is as much.

``python benchmarks/deploy.py`` prints the table of docs/deployment.md in about a minute, and writes docs/deploy.csv;
``python benchmarks/deploy.py --calls 20 --output DIR`` shows in some seconds that it runs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_ncde import with_memory
from sb3_ncde.deploy import Agent, export_numpy, export_onnx
from sb3_ncde.deploy.onnx_runtime import session_of

ENV = "sb3_ncde/PendulumNoVel-v1"
ROUND = 20
"""Calls of each before the next has its turn."""
Acts = Callable[[Any, bool], Any]
"""A function of a raw observation, and of whether it is the first of its episode."""


def agents() -> dict[str, Any]:
    """Return what is measured, by what its row says."""

    def recurrent(**kwargs: Any) -> RecurrentPPO:
        env = VecNormalize(make_vec_env(ENV))
        return RecurrentPPO("NCDEPolicy", env, n_steps=8, batch_size=8, policy_kwargs=kwargs, device="cpu", seed=0)

    return {
        "NCDEPolicy, defaults (8 observations)": recurrent(),
        "NCDEPolicy, history_length: 3, hop_length: 1": recurrent(history_length=3, hop_length=1),
        "NCDEPolicy, 8 observations, traces: true": recurrent(traces=True),
        "SAC, 4 observations": with_memory(SAC, ENV, history_length=4, buffer_size=8, device="cpu", seed=0),
    }


def in_pytorch(model: Any) -> Acts:
    """Return what acts as a user of SB3 would have it act."""
    if isinstance(model, RecurrentPPO):
        normalize, state = model.get_vec_normalize_env(), None
        assert normalize is not None

        def act(observation: Any, begins: bool) -> Any:
            nonlocal state
            rows = normalize.normalize_obs(observation[None])
            action, state = model.predict(rows, state, np.array([begins]), deterministic=True)
            return action

        return act
    env = model.get_env()
    env.reset()

    def of_histories(observation: Any, begins: bool) -> Any:
        # What VecHistory does at a step, with an observation of the robot in place of the environment's.
        env._take_in(observation[None], np.array([begins]))
        return model.predict(env._packed(), deterministic=True)[0]

    return of_histories


def in_numpy(path: Path) -> Acts:
    """Return what acts with NumPy alone."""
    agent = Agent.load(path)

    def act(observation: Any, begins: bool) -> Any:
        if begins:
            agent.reset()
        return agent.act(observation)

    return act


def in_onnx_runtime(path: Path) -> Acts:
    """Return what acts with ONNX Runtime."""
    session = session_of(path.read_bytes())
    history = np.zeros((1, session.get_inputs()[-1].shape[1]), np.float32)
    elapsed = np.ones(1, np.float32)

    def act(observation: Any, begins: bool) -> Any:
        nonlocal history
        given = {"observation": observation[None], "elapsed": elapsed, "episode_start": np.array([begins])}
        action, history = session.run(["action", "next_history"], given | {"history": history})
        return action

    return act


def measure(model: Any, folder: Path, n_calls: int) -> dict[str, Any]:
    """Return the microseconds of each call by runtime."""
    export_numpy(model, folder / "agent.npz")
    export_onnx(model, folder / "agent.onnx")
    runtimes = {
        "PyTorch": in_pytorch(model),
        "NumPy": in_numpy(folder / "agent.npz"),
        "ONNX Runtime": in_onnx_runtime(folder / "agent.onnx"),
    }
    observations = np.random.default_rng(0).uniform(-1, 1, (n_calls + 2 * ROUND, 2)).astype(np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    for first in range(0, len(observations), ROUND):
        for name, act in runtimes.items():
            for number, observation in enumerate(observations[first : first + ROUND], start=first):
                begin = time.perf_counter()
                act(observation, number % 200 == 0)
                seconds[name].append(time.perf_counter() - begin)
    return {name: 1e6 * np.array(taken[2 * ROUND :]) for name, taken in seconds.items()}


def main() -> None:
    """Print a table, and write it: microseconds of a call, median and 99th percentile."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=4000, help="of each agent in each runtime")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of deploy.csv")
    options = parser.parse_args()
    th.set_num_threads(1)
    rows, lines = [], ["agent,runtime,median,percentile_99"]
    with tempfile.TemporaryDirectory() as folder:
        for name, model in agents().items():
            taken = measure(model, Path(folder), options.calls)
            found = {runtime: (np.median(each), np.quantile(each, 0.99)) for runtime, each in taken.items()}
            lines += [f'"{name}",{runtime},{median:.0f},{high:.0f}' for runtime, (median, high) in found.items()]
            cells = [f"{median:.0f} / {high:.0f}" for median, high in found.values()]
            rows.append(f"| {name} | {' | '.join(cells)} |")
    print("| microseconds, median / 99th percentile | PyTorch | NumPy | ONNX Runtime |\n|---|---|---|---|")
    print("\n".join(rows))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "deploy.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
