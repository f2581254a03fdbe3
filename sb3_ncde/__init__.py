"""Continuous-time memory for Stable-Baselines3: neural controlled differential equation policies.

Importing the package registers its policies with RecurrentPPO, as "NCDEPolicy", "CnnNCDEPolicy" and
"MultiInputNCDEPolicy", and its environments with Gymnasium, under the namespace ``sb3_ncde/``. Other algorithms that
are asked for these names say what to use instead.
"""

from functools import partial
from importlib.metadata import version
from typing import Any

from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

from sb3_ncde import envs, presets
from sb3_ncde.buffers import HistoryReplayBuffer
from sb3_ncde.memory import with_memory
from sb3_ncde.policies import CnnNCDEPolicy, MultiInputNCDEPolicy, NCDEPolicy
from sb3_ncde.torch_layers import NCDEExtractor
from sb3_ncde.vec_history import VecHistory

__all__ = [
    "CnnNCDEPolicy",
    "HistoryReplayBuffer",
    "MultiInputNCDEPolicy",
    "NCDEExtractor",
    "NCDEPolicy",
    "VecHistory",
    "envs",
    "presets",
    "with_memory",
]
__version__ = version("sb3-ncde")


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    """Raise TypeError where another algorithm makes its policy.

    :param name: by which the policy was asked for
    """
    raise TypeError(
        f"{name} is for sb3-contrib's RecurrentPPO, RecurrentPPO({name!r}, env): other algorithms have no recurrent "
        "states. To them sb3_ncde.with_memory(algorithm, env, history_length=...) gives the same memory. For masked "
        "actions see action_mask_key."
    )


for _policy in (NCDEPolicy, CnnNCDEPolicy, MultiInputNCDEPolicy):
    RecurrentPPO.policy_aliases[_policy.__name__] = _policy
    for _other in (A2C, ARS, CrossQ, DDPG, DQN, MaskablePPO, PPO, QRDQN, SAC, TD3, TQC, TRPO):
        _other.policy_aliases[_policy.__name__] = partial(_refuse, _policy.__name__)  # type: ignore[assignment]
