"""A robot's loop: sensors at their own times, one action per arrival, and a process that is killed and comes back.

A cart with a pole has two sensors: where the cart is, about every 30 ms, and the angle of the pole, about every 20 ms.
Each arrival is an observation, in which the other sensor is NaN, and ``elapsed`` says how long it was since the arrival
before. The robot's process acts on it at once, with NumPy alone, and writes a log. In the middle of an episode it is
killed. The process after it reads the log, and goes on as if nothing had happened.

``python examples/robot.py`` trains an agent in about a minute, exports it, and lets the robot run. ``--steps 512``
trains it hardly at all, to see that it runs.
"""

import argparse
import json
import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

PERIODS = np.array([0.03, 0.02])
"""Seconds from one value of a sensor to its next, about: of the cart, of the pole."""
TICK = 0.005
"""Seconds of a step of physics."""


class TwoSensors(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole without velocities, observed whenever a sensor has a new value."""

    def __init__(self) -> None:
        from sb3_ncde.observation_spaces import BoxWithMissing  # a Box that NaN lies in

        super().__init__(gym.make("CartPole-v1", max_episode_steps=4000))
        self.unwrapped.tau = TICK  # type: ignore[attr-defined]
        sensors, time = BoxWithMissing(-np.inf, np.inf, (2,), np.float32), spaces.Box(0, np.inf, (1,), np.float32)
        self.observation_space = spaces.Dict({"sensors": sensors, "time": time})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; at its beginning both sensors have a value."""
        values, info = super().reset(**kwargs)
        self.due = PERIODS * self.np_random.uniform(0.8, 1.2, 2)
        return self.observed(values, np.array([True, True]), 0), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold the action until the next arrival."""
        ticks = max(1, round(self.due.min() / TICK))
        self.due -= ticks * TICK
        reward, over, cut = 0.0, False, False
        for _ in range(ticks):
            if not (over or cut):
                values, gained, over, cut, info = super().step(action)
                reward += TICK * float(gained)
        arrived = self.due < TICK / 2
        self.due += arrived * PERIODS * self.np_random.uniform(0.8, 1.2, 2)
        return self.observed(values, arrived, ticks), reward, over, cut, info

    def observed(self, values: Any, arrived: Any, ticks: int) -> dict[str, Any]:
        """Return an observation: the values of those sensors that have new ones."""
        seen = np.where(arrived, values[[0, 2]], np.nan).astype(np.float32)
        return {"sensors": seen, "time": np.array([ticks * TICK], np.float32)}


def train(file: Path, steps: int) -> None:
    """Train an agent and export it. Where the robot is, nothing of this is needed."""
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_ncde.deploy import export_numpy
    from sb3_ncde.hyperparams import settings
    from sb3_ncde.normalize import VecNormalizeObserved

    torch.set_num_threads(1)
    tuned = settings("default").model | {"policy": "MultiInputNCDEPolicy", "n_steps": 128, "batch_size": 256}
    tuned["policy_kwargs"] = {"missing_values": True, "time_key": "time", "dt": 0.012}
    env = VecNormalizeObserved(make_vec_env(TwoSensors, n_envs=8), skip=["time"])
    export_numpy(RecurrentPPO(env=env, seed=0, device="cpu", **tuned).learn(steps), file)


def robot(agent_file: Path, log_file: Path, arrivals: Connection) -> None:
    """Act on every arrival. What was observed before this process began is in the log.

    :param agent_file: the exported agent
    :param log_file: of the episode, a line of JSON for each arrival
    :param arrivals: from where they come, and to where the actions go
    """
    from sb3_ncde.deploy import Agent

    agent = Agent.load(agent_file)
    if log_file.exists():
        lines = [json.loads(line) for line in log_file.read_text().splitlines()]
        agent.replay(({"sensors": line["sensors"]}, line["elapsed"]) for line in lines)
    with log_file.open("a") as log:
        while True:
            sensors, elapsed = arrivals.recv()
            # Before acting: what is written afterwards may be lost with the process.
            print(json.dumps({"sensors": sensors, "elapsed": elapsed}), file=log, flush=True)
            arrivals.send(int(agent.act({"sensors": np.array(sensors)}, elapsed=elapsed)))


def episode(agent_file: Path, log_file: Path, killed_at: int | None, longest: int = 400) -> list[int]:
    """Let the world run with the robot in a process of its own, and return what that did.

    :param killed_at: the arrival before which the process is killed; None: it is not
    :param longest: arrivals
    """
    context, env = multiprocessing.get_context("spawn"), TwoSensors()
    observation, _ = env.reset(seed=0)
    actions: list[int] = []
    over, process = False, None
    while not over and len(actions) < longest:
        if process is None or len(actions) == killed_at:
            if process is not None:
                process.kill()
                process.join()
            here, there = context.Pipe()
            process = context.Process(target=robot, args=(agent_file, log_file, there), daemon=True)
            process.start()
        here.send((observation["sensors"].tolist(), float(observation["time"][0])))
        actions.append(here.recv())
        observation, _, terminated, truncated, _ = env.step(actions[-1])
        over = terminated or truncated
    if process is not None:
        process.kill()
        process.join()
    return actions


def main() -> None:
    """Train and export an agent, and let it run twice: as it should be, and with a process that is killed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000, help="of the training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        agent_file = Path(folder, "agent.npz")
        train(agent_file, options.steps)
        expected = episode(agent_file, Path(folder, "whole.jsonl"), killed_at=None)
        killed_at = len(expected) // 2
        found = episode(agent_file, Path(folder, "killed.jsonl"), killed_at)
    print(f"{len(expected)} arrivals; with a process that is killed before arrival {killed_at}, {len(found)}")
    if found != expected:
        raise SystemExit("The process that came back has acted otherwise.")
    print("The actions are the same, before and after.")


if __name__ == "__main__":
    main()
