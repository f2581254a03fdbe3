"""The settings of ``configs/ppo_ncde.yml``: in Python by :func:`settings`, in the RL Zoo by ``--conf-file``.

The RL Zoo takes this module's name, ``--conf-file sb3_ncde.hyperparams``, and reads :data:`hyperparams`.
"""

import copy
import difflib
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import yaml
from stable_baselines3.common.utils import LinearSchedule

_NAME = "ppo_ncde.yml"
_PACKAGED = Path(__file__).with_name(_NAME)
_CHECKOUT = Path(__file__).parents[1] / "configs" / _NAME

hyperparams: dict[str, dict[str, Any]] = yaml.safe_load((_PACKAGED if _PACKAGED.exists() else _CHECKOUT).read_text())
"""By environment id: the arguments of RecurrentPPO, and ``n_envs``, ``n_timesteps``, ``normalize``, ``policy``."""

_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class Settings(NamedTuple):
    """The settings of an environment, ready for RecurrentPPO: ``RecurrentPPO(env=env, **settings(env_id).model)``.

    Where there is a :attr:`wrapper_class`, they were found with it around each environment.

    :param n_envs: environments side by side
    :param n_timesteps: steps of training
    :param normalize: whether observations and rewards are to be normalised, by SB3's ``VecNormalize`` (where time is
        observed or values are missing, by :class:`sb3_ncde.normalize.VecNormalizeObserved`)
    :param model: keyword arguments of RecurrentPPO, the policy among them; the caller's own, to change at will
    :param wrapper_class: of each environment, for SB3's ``make_vec_env``; None: the environment as it is
    """

    n_envs: int
    n_timesteps: int
    normalize: bool
    model: dict[str, Any]
    wrapper_class: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None


def settings(env_id: str) -> Settings:
    """Return the settings that ``configs/ppo_ncde.yml`` has for an environment.

    :param env_id: an environment's id, or ``"default"``: not tuned, a start for an environment that has no entry
    :raises ValueError: if there is no entry, with the ids that are most like it
    """
    name = env_id.rpartition(":")[2]  # Gymnasium's "module:id" imports the module first
    if name not in hyperparams:
        nearest = difflib.get_close_matches(name, hyperparams, n=3, cutoff=0.5)
        hint = f" The nearest are {', '.join(nearest)}." if nearest else ""
        raise ValueError(
            f'No settings for {name!r}.{hint} settings("default") is a start for an environment without an entry.'
        )
    model = with_schedules(hyperparams[name])
    model["policy"] = model["policy"].rpartition(".")[2]  # the name under which the policy is registered
    normalize = bool(model.pop("normalize"))  # in the RL Zoo, also what is normalised
    wrapper = model.pop("env_wrapper", None)  # in the RL Zoo, the path of a class
    wrapper_class = None if wrapper is None else pkgutil.resolve_name(wrapper)
    return Settings(model.pop("n_envs"), model.pop("n_timesteps"), normalize, model, wrapper_class)


def with_schedules(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of an entry with numbers and schedules where YAML has texts.

    Numbers are those of :func:`with_numbers`. The schedule of ``lin_x`` falls linearly from x to 0 and stays there. The
    RL Zoo's own goes on below 0 in a last rollout that ends after ``n_timesteps``: the update after it climbs the loss,
    and may ruin the agent.
    """
    return {
        name: LinearSchedule(float(value[4:]), 0.0, 1.0) if str(value).startswith("lin_") else value
        for name, value in with_numbers(entry).items()
    }


def with_numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of an entry with numbers for texts like ``1e-3``, those of ``policy_kwargs`` included.

    To YAML a number with an exponent needs a dot and a sign, ``1.0e-3``; what lacks one of them is a text. Whole
    numbers become integers, as ``n_steps: 1e3`` must.
    """
    return {name: _number(value) for name, value in entry.items()}


def _number(value: Any) -> Any:
    if isinstance(value, Mapping):
        return with_numbers(value)
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() else number
    return copy.deepcopy(value)
