"""The settings of ``configs/ppo_ncde.yml`` as a module, in the form that the RL Zoo reads with ``--conf-file``."""

from pathlib import Path
from typing import Any

import yaml

_NAME = "ppo_ncde.yml"
_PACKAGED = Path(__file__).with_name(_NAME)
_CHECKOUT = Path(__file__).parents[1] / "configs" / _NAME

hyperparams: dict[str, dict[str, Any]] = yaml.safe_load((_PACKAGED if _PACKAGED.exists() else _CHECKOUT).read_text())
"""By environment id: the arguments of RecurrentPPO, and ``n_envs``, ``n_timesteps``, ``normalize``, ``policy``."""
