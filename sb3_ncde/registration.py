"""The policies are made known to RecurrentPPO by their names; to other algorithms, what to use instead."""

from functools import partial
from typing import Any

from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3

from sb3_ncde.policies import CnnNCDEPolicy, MultiInputNCDEPolicy, NCDEPolicy


def register() -> None:
    """Let RecurrentPPO know the policies, and other algorithms say what to use instead."""
    for policy in (NCDEPolicy, CnnNCDEPolicy, MultiInputNCDEPolicy):
        RecurrentPPO.policy_aliases[policy.__name__] = policy
        for other in (A2C, ARS, CrossQ, DDPG, DQN, MaskablePPO, PPO, QRDQN, SAC, TD3, TQC, TRPO):
            other.policy_aliases[policy.__name__] = partial(_refuse, policy.__name__)  # type: ignore[assignment]


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    """Raise TypeError where another algorithm makes its policy.

    :param name: by which the policy was asked for
    """
    raise TypeError(
        f"{name} is for sb3-contrib's RecurrentPPO, RecurrentPPO({name!r}, env): other algorithms have no recurrent "
        "states. To them sb3_ncde.with_memory(algorithm, env, history_length=...) gives the same memory. For masked "
        "actions see action_mask_key."
    )
