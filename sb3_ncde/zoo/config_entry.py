"""An entry of a configuration: the settings of an environment, in the types and with the names that they must have."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import rl_zoo3.exp_manager
from sb3_contrib import RecurrentPPO

from sb3_ncde.hyperparams import with_numbers
from sb3_ncde.plain_values import check_integer
from sb3_ncde.zoo.registration import POLICIES

OPTIONS = {"device": "--device", "seed": "--seed", "tensorboard_log": "--tensorboard-log", "verbose": "--verbose"}
"""Arguments of RecurrentPPO that the RL Zoo's commands give, and the options that they are given by."""
WHOLE = ("n_envs", "n_timesteps", "n_steps", "batch_size", "n_epochs")
SCHEDULED = ("learning_rate", "clip_range", "clip_range_vf")


def as_mapping(policy_kwargs: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``policy_kwargs`` of a configuration, which may be Python code in the RL Zoo's names (nn, th, ...)."""
    if isinstance(policy_kwargs, str):
        return dict(eval(policy_kwargs, vars(rl_zoo3.exp_manager).copy()))
    return dict(policy_kwargs or {})


def in_numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with numbers for texts like ``1e-3``, also in the arguments of wrappers and callbacks.

    What counts something becomes an integer: the RL Zoo's own entries have ``n_timesteps: !!float 1e6``.
    """
    numbers = {name: _in_numbers(value) for name, value in entry.items()}
    for name in WHOLE:
        if isinstance(numbers.get(name), float) and numbers[name].is_integer():
            numbers[name] = int(numbers[name])
    return numbers


def _in_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _in_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_in_numbers(part) for part in value]
    return with_numbers({"": value})[""]


def check_entry(entry: Mapping[str, Any], env_id: str, config: str) -> None:
    """Raise ValueError or TypeError for an entry that lacks what each must have, or for a value it cannot have.

    :param entry: of the configuration, with what the command line changes
    :param env_id: environment that it is for
    :param config: that it is from
    """
    lacking = [name for name in ("policy", "n_timesteps") if name not in entry]
    if lacking:
        raise ValueError(
            f"The settings of {env_id} in {config} lack {' and '.join(lacking)}. An entry has at least a policy and "
            f"n_timesteps, the steps of training. {POLICIES}"
        )
    for name in WHOLE:
        if entry.get(name) is not None:
            check_integer(name, entry[name], minimum=1)
    for name in SCHEDULED:
        _check_schedule(name, entry.get(name, 0.0))


def _check_schedule(name: str, value: Any) -> None:
    """Raise ValueError for a text that is no schedule: the RL Zoo takes ``cos_0.001`` for a linear one."""
    if not isinstance(value, str):
        return
    try:
        known = value.startswith("lin_") and float(value.removeprefix("lin_")) >= 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(
            f"{name}: {value} is no number, and no schedule. A number is written 0.001 or 1e-3, and lin_0.001 falls "
            "linearly to 0."
        )


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise TypeError for what is left of an entry and is no argument of RecurrentPPO, with the nearest that is one."""
    valid = inspect.signature(RecurrentPPO.__init__).parameters.keys() - {"self", "env", "_init_setup_model", *OPTIONS}
    for name in arguments:
        if name in OPTIONS:
            raise TypeError(f"{name} is no setting of an entry: give it as the option {OPTIONS[name]}.")
        if name not in valid:
            nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else f"It takes {', '.join(sorted(valid))}."
            raise TypeError(f"Neither the RL Zoo nor RecurrentPPO knows a setting {name!r}. {hint}")
