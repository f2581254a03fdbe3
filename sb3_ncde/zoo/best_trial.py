"""The best trial of a study as an entry of a configuration, with what is known of it as a comment."""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
import yaml
from optuna.trial import FrozenTrial

from sb3_ncde.zoo.config_entry import as_mapping
from sb3_ncde.zoo.confirmation import Confirmed
from sb3_ncde.zoo.sampler import convert_ppo_ncde_params
from sb3_ncde.zoo.study import FINISHED


class Tuning(NamedTuple):
    """What a study was to find.

    :param env_id: environment
    :param settings: of the configuration, those of the command line among them
    :param n_timesteps: steps of training of a trial
    :param n_episodes: of an evaluation
    """

    env_id: str
    settings: Mapping[str, Any]
    n_timesteps: int
    n_episodes: int


def best_entry(study: optuna.Study, tuning: Tuning, confirmed: Confirmed | None) -> str:
    """Return the best trial as an entry of a configuration, which trains as long as the configuration says.

    :param study: with a completed trial
    :param tuning: what it was to find
    :param confirmed: the best of those that were trained again; None: the best of the study
    """
    best = study.best_trial if confirmed is None else confirmed.trial
    comment = _found(study, best, tuning) if confirmed is None else _confirmed(study, confirmed, tuning)
    policy_kwargs = as_mapping(tuning.settings.get("policy_kwargs"))
    entry = {**tuning.settings, **convert_ppo_ncde_params(best.params, policy_kwargs)}
    try:
        return comment + yaml.safe_dump({tuning.env_id: entry})
    except yaml.representer.RepresenterError:  # a class, from policy_kwargs that are code
        plain = {name: value for name, value in policy_kwargs.items() if _is_plain(value)}
        comment += "# To these policy_kwargs belong those of the configuration that are no plain values.\n"
        return comment + yaml.safe_dump({tuning.env_id: entry | convert_ppo_ncde_params(best.params, plain)})


def _found(study: optuna.Study, best: FrozenTrial, tuning: Tuning) -> str:
    return (
        f"# Trial {best.number}, the best of {_n_finished(study)} of study {study.study_name!r}, "
        f"{datetime.date.today()}:\n# {_in_the_study(best, tuning)}.\n"
    )


def _confirmed(study: optuna.Study, confirmed: Confirmed, tuning: Tuning) -> str:
    worst = min(confirmed.returns.values())
    return (
        f"# Trial {confirmed.trial.number} of {_n_finished(study)} of study {study.study_name!r}, "
        f"{datetime.date.today()}, the best of those that were trained again:\n"
        f"# return {confirmed.mean:.1f} +- {confirmed.spread:.1f}, mean and standard deviation over "
        f"{confirmed.n_seeds} seeds, worst {worst:.1f}; each {tuning.n_episodes} episodes after "
        f"{tuning.settings['n_timesteps']:,} steps.\n# In the study: {_in_the_study(confirmed.trial, tuning)}.\n"
    )


def _in_the_study(trial: FrozenTrial, tuning: Tuning) -> str:
    return (
        f"return {trial.value:.1f}, mean of {tuning.n_episodes} episodes of one training run of "
        f"{tuning.n_timesteps:,} steps"
    )


def _n_finished(study: optuna.Study) -> int:
    return len(study.get_trials(states=FINISHED))


def _is_plain(value: Any) -> bool:
    """Return whether YAML can name a value."""
    return isinstance(value, (str, int, float, bool, list, type(None)))
