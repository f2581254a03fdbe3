"""The settings of ``configs/ppo_ncde.yml`` as a module, in the form that the RL Zoo reads with ``--conf-file``."""

from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.utils import LinearSchedule

_NAME = "ppo_ncde.yml"
_PACKAGED = Path(__file__).with_name(_NAME)
_CHECKOUT = Path(__file__).parents[1] / "configs" / _NAME

hyperparams: dict[str, dict[str, Any]] = yaml.safe_load((_PACKAGED if _PACKAGED.exists() else _CHECKOUT).read_text())
"""By environment id: the arguments of RecurrentPPO, and ``n_envs``, ``n_timesteps``, ``normalize``, ``policy``."""


def with_schedules(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with schedules for ``lin_x``, which falls linearly from x to 0 and stays there.

    The RL Zoo's own schedule goes on below 0 in a last rollout that ends after ``n_timesteps``: the update after it
    climbs the loss, and may ruin the agent.
    """
    return {
        name: LinearSchedule(float(value[4:]), 0.0, 1.0) if str(value).startswith("lin_") else value
        for name, value in settings.items()
    }
