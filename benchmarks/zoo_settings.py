"""The RL Zoo's own settings of an algorithm for an environment, as arguments in Python."""

from functools import cache
from pathlib import Path
from typing import Any

import rl_zoo3
import yaml

from sb3_ncde.hyperparams import Settings, with_schedules
from sb3_ncde.zoo.config_entry import as_mapping, in_numbers


def zoo_settings(algorithm: str, env_id: str) -> Settings:
    """Return the settings that the RL Zoo has, with its ``policy_kwargs`` and without its policy.

    :param algorithm: name of the RL Zoo's file: ppo, ppo_lstm, sac, ...
    :param env_id: an environment that it has settings for
    """
    model = with_schedules(in_numbers(_entries(algorithm)[env_id]))
    del model["policy"]
    model["policy_kwargs"] = as_mapping(model.get("policy_kwargs"))
    return Settings(model.pop("n_envs", 1), model.pop("n_timesteps"), bool(model.pop("normalize", False)), model)


@cache
def _entries(algorithm: str) -> dict[str, Any]:
    file = Path(rl_zoo3.__file__).with_name("hyperparams") / f"{algorithm}.yml"
    entries: dict[str, Any] = yaml.safe_load(file.read_text())
    return entries
