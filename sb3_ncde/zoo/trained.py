"""A trained agent of a log folder, as the RL Zoo's command ``enjoy`` finds it."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.utils import ALGOS, create_test_env, get_model_path, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_ncde.zoo.memory import refuse_inner_statistics


class Trained(NamedTuple):
    """A trained agent.

    :param model: with the environment
    :param env: of one episode at a time, as in the training but for rewards, which are the environment's own
    :param name: of the environment
    :param path: of the saved model
    :param folder: with the settings of the training, and the statistics of its normalisation
    :param env_kwargs: arguments of the environment that the command line of the training gave
    """

    model: BaseAlgorithm
    env: VecEnv
    name: EnvironmentName
    path: Path
    folder: Path
    env_kwargs: dict[str, Any]


def parser_of_agents(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that say which agent is meant, those of ``enjoy``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--env", type=EnvironmentName, required=True, help="environment ID")
    parser.add_argument("--algo", default="ppo_ncde", choices=list(ALGOS), help="algorithm")
    parser.add_argument("-f", "--folder", default="logs", help="log folder")
    parser.add_argument("--exp-id", type=int, default=0, help="run; 0: the latest, -1: no folder of a run")
    parser.add_argument("--load-best", action="store_true", help="the agent that was best in evaluations")
    parser.add_argument("--gym-packages", nargs="+", default=[], help="modules to import that register environments")
    return parser


def load(options: argparse.Namespace) -> Trained:
    """Return the agent that options of :func:`parser_of_agents` name.

    :raises ValueError: if there is none, or its statistics have not been saved
    """
    for package in options.gym_packages:
        import_module(package)
    name = options.env
    _, path, log_folder = get_model_path(options.exp_id, options.folder, options.algo, name, options.load_best)
    folder = Path(log_folder) / name
    hyperparams, statistics = get_saved_hyperparams(str(folder), test_mode=True)
    said: Any = yaml.load((folder / "args.yml").read_text(), Loader=yaml.UnsafeLoader)
    env_kwargs: dict[str, Any] = said["env_kwargs"] or {}
    env = create_test_env(
        name.gym_id,
        stats_path=statistics,
        should_render=False,
        hyperparams=hyperparams,
        env_kwargs=hyperparams.pop("env_kwargs", {}) | env_kwargs,
        vec_env_cls=ExperimentManager.default_vec_env_cls,
    )
    refuse_inner_statistics(env)
    # As enjoy does: schedules are code, which another Python may not read, and acting needs neither them nor a buffer.
    schedules = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    buffer: dict[str, Any] = {"buffer_size": 1} if issubclass(ALGOS[options.algo], OffPolicyAlgorithm) else {}
    model = ALGOS[options.algo].load(path, env=env, custom_objects=schedules, device="cpu", **buffer)
    return Trained(model, env, name, Path(path), folder, env_kwargs)
