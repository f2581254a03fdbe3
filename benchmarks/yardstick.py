"""NCDEPolicy beside SB3's PPO without memory, by the settings of the quickstart: what its score is to be compared with.

PPO is trained for as many steps and evaluated in the same episodes: once it sees what NCDEPolicy sees, and once it sees
the velocity as well. What is NCDEPolicy's own among the settings is left out.

    python benchmarks/yardstick.py --seeds 0 1 2                     # docs/yardstick.csv begins so: 20 minutes
    python benchmarks/yardstick.py --agents NCDEPolicy --tasks PendulumNoVel-v1 IrregularPendulumNoVel-v1 --seeds 3 4
    python benchmarks/yardstick.py --agents NCDEPolicy --tasks CartPoleNoVel-v1 --seeds 3 4 5 6 7 8 9
    python benchmarks/yardstick.py --report docs/yardstick.csv       # a table of results that are there
    python benchmarks/yardstick.py --seeds 0 --steps 256 --episodes 2 --output runs/tiny    # whether it runs
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from resumable import main
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_ncde.hyperparams import settings
from sb3_ncde.quickstart import EVALUATION_SEED, YARDSTICKS, normalize
from sb3_ncde.sensors import IrregularSampling


def irregular_pendulum() -> gym.Env[Any, Any]:
    """Return Pendulum that shows its velocity, observed after 1 to 5 steps of physics."""
    return IrregularSampling(gym.make("Pendulum-v1"), low=1, high=5, dt=0.05)


SEEING: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "sb3_ncde/CartPoleNoVel-v1": partial(gym.make, "CartPole-v1"),
    "sb3_ncde/PendulumNoVel-v1": partial(gym.make, "Pendulum-v1"),
    "sb3_ncde/IrregularPendulumNoVel-v1": irregular_pendulum,
    "CartPole-v1": partial(gym.make, "CartPole-v1"),
}
"""The same tasks with their velocities."""
TASKS = {env_id.removeprefix("sb3_ncde/"): env_id for env_id in YARDSTICKS}
"""The quickstart's environments."""
NCDE, SAME, SEES = "NCDEPolicy", "PPO sees the same", "PPO sees the velocity too"


def make(name: str, agent: str, seed: int) -> tuple[BaseAlgorithm, VecEnv]:
    """Return an agent, and what it is evaluated on: the environments of the quickstart's evaluation."""
    env_id = TASKS[name]
    tuned = settings(env_id)
    shown = SEEING[env_id] if agent == SEES else partial(gym.make, env_id)
    env = normalize(make_vec_env(shown, n_envs=tuned.n_envs, seed=seed), tuned)
    evaluated = normalize(make_vec_env(shown, n_envs=10, seed=EVALUATION_SEED), tuned)
    evaluated.training = evaluated.norm_reward = False
    if agent == NCDE:
        return RecurrentPPO(env=env, seed=seed, device="cpu", **tuned.model), evaluated
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    own = tuned.model.get("policy_kwargs", {})
    kwargs = {name: value for name, value in own.items() if name == "log_std_init"}  # the one that is SB3's
    return PPO(env=env, seed=seed, device="cpu", **tuned.model | {"policy": policy, "policy_kwargs": kwargs}), evaluated


if __name__ == "__main__":
    main(
        __doc__.splitlines()[0],
        {name: [settings(env_id).n_timesteps] for name, env_id in TASKS.items()},
        [NCDE, SAME, SEES],
        make,
        Path("runs/yardstick"),
    )
