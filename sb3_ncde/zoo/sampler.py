"""What a trial of ``ppo_ncde`` may try: the sizes of the policy and the settings of PPO."""

from collections.abc import Mapping
from typing import Any

import optuna

from sb3_ncde.acting.tableaus import SOLVERS
from sb3_ncde.cde.interpolation import INTERPOLATIONS
from sb3_ncde.cde.solvers import ADAPTIVE_SOLVERS
from sb3_ncde.hyperparams import with_schedules

PPO = ("learning_rate", "ent_coef", "clip_range", "n_epochs", "max_grad_norm")
ENCODER = ("latent_size", "field_width", "feature_norm", "rates", "skip")
"""Arguments of the encoder that are sampled, for any algorithm."""
POLICY = ("history_length", "field_depth", "solver", *ENCODER)
NORMS = ["layer_norm", "unit"]


def sample_ppo_ncde_params(
    trial: optuna.Trial,
    n_actions: int,
    n_envs: int,
    additional_args: Mapping[str, Any],
    policy_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Sample the arguments of RecurrentPPO for a trial, in the RL Zoo's form.

    :param trial: that the values are asked of
    :param n_actions: of the RL Zoo's form, and not used; so are the next two
    :param n_envs: environments of a rollout
    :param additional_args: of replay buffers
    :param policy_kwargs: of the configuration. They stay where nothing is sampled for them, and bound what is sampled:
        nothing is tried that the policy would refuse beside them
    """
    fixed = dict(policy_kwargs or {})
    trial.suggest_categorical("history_length", [4, 8, 16, 32])
    trial.suggest_categorical("hops", [1, 2, 4])
    suggest_encoder(trial, fixed)
    trial.suggest_int("field_depth", 1, 2)
    least_order = INTERPOLATIONS[fixed.get("interpolation", "linear")].least_order
    able = [name for name, tableau in SOLVERS.items() if tableau.order >= least_order]
    if fixed.get("solver") not in ADAPTIVE_SOLVERS and len(able) > 1:
        trial.suggest_categorical("solver", able)
    trial.suggest_float("time_scale", 0.25, 4.0, log=True)
    trial.suggest_int("n_steps_pow", 5, 10)
    trial.suggest_int("batch_size_pow", 5, 9)
    trial.suggest_float("one_minus_gamma", 1e-4, 0.1, log=True)
    trial.suggest_float("one_minus_gae_lambda", 0.01, 0.2, log=True)
    trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True)
    trial.suggest_categorical("schedule", ["linear", "constant"])
    trial.suggest_float("ent_coef", 1e-8, 0.01, log=True)
    trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3])
    trial.suggest_categorical("n_epochs", [5, 10, 20])
    trial.suggest_float("max_grad_norm", 0.3, 5.0, log=True)
    return with_schedules(convert_ppo_ncde_params(trial.params, fixed))


def suggest_encoder(trial: optuna.Trial, fixed: Mapping[str, Any]) -> None:
    """Ask a trial for what is sampled of an encoder for any algorithm: those of :data:`ENCODER`.

    :param trial: that the values are asked of
    :param fixed: arguments of the encoder in the configuration
    """
    trial.suggest_categorical("latent_size", [8, 16, 32])
    trial.suggest_categorical("field_width", [16, 32, 64])
    if fixed.get("feature_norm", NORMS[0]) in NORMS:
        trial.suggest_categorical("feature_norm", NORMS)
    if fixed.get("time_channel", True):  # else the time may be seen by these alone
        trial.suggest_categorical("rates", [True, False])
        trial.suggest_categorical("skip", [True, False])


def convert_ppo_ncde_params(
    params: Mapping[str, Any], policy_kwargs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the hyperparameters that a trial's values stand for, all of them plain YAML values.

    :param params: of a trial of :func:`sample_ppo_ncde_params`
    :param policy_kwargs: of the configuration; the trial's are laid over them
    """
    fixed = dict(policy_kwargs or {})
    sampled = {name: params[name] for name in POLICY if name in params}
    sampled["hop_length"] = max(1, params["history_length"] // params["hops"])
    # The configuration's dt is the nominal time between observations, and the time scale what counts as one.
    sampled["dt"] = round_sensibly(fixed.get("dt", 1.0) * params["time_scale"])
    hyperparams = {name: round_sensibly(params[name]) for name in PPO}
    for name in ("gamma", "gae_lambda"):
        hyperparams[name] = round(1 - round_sensibly(params[f"one_minus_{name}"]), 8)
    if params["schedule"] == "linear":
        hyperparams["learning_rate"] = f"lin_{hyperparams['learning_rate']}"
    return hyperparams | {
        "n_steps": 2 ** params["n_steps_pow"],
        "batch_size": 2 ** params["batch_size_pow"],
        "policy_kwargs": fixed | sampled,
    }


def round_sensibly(value: Any) -> Any:
    """Return a float with as many digits as matter, and anything else as it is."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
