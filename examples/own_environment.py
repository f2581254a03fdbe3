"""An environment of one's own, with two sensors at times of their own: check, train, save, load, act.

A cart on a rail is to stay at 0. A camera sees its position, a few times a second and with noise; an encoder measures
its velocity more often, but at one time in three it gives nothing. Whenever a sensor is due, the agent observes it and
sets the force. What has no value is NaN, and a key holds the seconds since the previous observation.

    python examples/own_environment.py                  # less than two minutes
    python examples/own_environment.py --steps 2048     # whether it runs
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_ncde  # noqa: F401  (registers the policies)
from sb3_ncde.normalize import VecNormalizeObserved
from sb3_ncde.observation_spaces import BoxWithMissing

MEAN_WAIT = np.array([0.3, 0.1])
"""Seconds from one value to the next: of the camera, of the encoder."""


class Rail(gym.Env[dict[str, Any], Any]):
    """A cart on a rail, in metres and seconds; an episode takes 10 s, and ends early 3 m from the middle."""

    observation_space = gym.spaces.Dict(
        sensors=BoxWithMissing(-np.inf, np.inf, (2,), np.float32),  # position, velocity; NaN: no value
        time=gym.spaces.Box(0, np.inf, (1,), np.float32),  # since the previous observation
    )
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)  # acceleration

    def _observe(self, due: Any, elapsed: float) -> dict[str, Any]:
        values = [self.position + self.np_random.normal(0, 0.05), self.velocity]
        works = [True, self.np_random.random() > 1 / 3]
        sensors = np.where(due & works, values, np.nan).astype(np.float32)
        return {"sensors": sensors, "time": np.array([elapsed], np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin somewhere on the rail, with both sensors due."""
        super().reset(seed=seed)
        self.position, self.velocity = self.np_random.uniform(-1, 1, size=2)
        self.now, self.waits = 0.0, self.np_random.exponential(MEAN_WAIT)
        return self._observe(np.array([True, True]), 0.0), {}

    def step(self, action: Any) -> Any:
        """Accelerate until the next sensor is due."""
        elapsed = float(self.waits.min())
        due = self.waits == elapsed
        self.waits = np.where(due, self.np_random.exponential(MEAN_WAIT), self.waits - elapsed)
        force = float(np.clip(action[0], -1, 1)) + self.np_random.normal(0, 0.3)
        self.position += elapsed * self.velocity + elapsed**2 / 2 * force
        self.velocity += elapsed * force
        self.now += elapsed
        lost = abs(self.position) > 3
        reward = elapsed * (1 - self.position**2) - 10 * lost
        return self._observe(due, elapsed), float(reward), bool(lost), self.now > 10, {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Check the environment, train, save, load and act in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=65_536, help="of training")
    parser.add_argument("--episodes", type=int, default=20, help="of the evaluation")
    parser.add_argument("--output", type=Path, default=Path("runs/own_environment"), help="folder for what is made")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are too small to split over cores
    options.output.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "found nan")  # they are meant
        check_env(Rail())

    policy_kwargs = {"time_key": "time", "dt": 0.075, "missing_values": True}  # 3.3 and 10 values a second
    env = VecNormalizeObserved(make_vec_env(Rail, n_envs=8), skip=["time"])
    model = RecurrentPPO(
        "MultiInputNCDEPolicy", env, policy_kwargs=policy_kwargs, batch_size=256, seed=0, device="cpu", verbose=1
    )
    model.learn(options.steps)
    model.save(options.output / "agent")
    env.save(str(options.output / "agent.pkl"))

    env = VecNormalizeObserved.load(str(options.output / "agent.pkl"), make_vec_env(Rail, n_envs=8))
    env.training = env.norm_reward = False
    model = RecurrentPPO.load(options.output / "agent", env, device="cpu")
    mean, std = evaluate_policy(model, env, n_eval_episodes=options.episodes)
    print(f"return of {options.episodes} episodes: {mean:.1f} +- {std:.1f} (10 is the most)")

    # One cart, step by step, as on a robot: the state goes round, and observations are normalised as in training.
    cart, state, start = Rail(), None, True
    observation, _ = cart.reset(seed=1)
    while True:
        seen = env.normalize_obs(observation)
        action, state = model.predict(seen, state, np.array([start]), deterministic=True)
        observation, _, terminated, truncated, _ = cart.step(action)
        start = False
        if terminated or truncated:
            break
    print(f"one cart: at {cart.position:.2f} m after {cart.now:.1f} s")


if __name__ == "__main__":
    main()
