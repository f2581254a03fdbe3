"""The RL Zoo's own algorithms with memory: their settings of this package, and trials that keep and sample the memory.

The RL Zoo lets the ``policy_kwargs`` that it samples replace those of the entry, the features extractor among them.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from pprint import pprint
from typing import Any

import optuna
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_wrapper

from sb3_ncde.torch_layers import NCDEExtractor
from sb3_ncde.vec_history import VecHistory, refuse_normalized_histories
from sb3_ncde.zoo.config_entry import as_mapping
from sb3_ncde.zoo.sampler import ENCODER, suggest_encoder


def refuse_inner_statistics(env: VecEnv) -> None:
    """Raise ValueError for environments that normalise below VecHistory."""
    if isinstance(unwrap_vec_wrapper(env, VecHistory), VecNormalize):
        raise ValueError(
            "vec_env_wrapper normalises observations below VecHistory, but the RL Zoo neither saves nor loads the "
            "statistics of such a wrapper: the agent would be evaluated and exported with others. Scale observations "
            "in the environment, by numbers that do not change (env_wrapper), or train in Python (docs/algorithms.md)."
        )


class MemoryExperimentManager(ExperimentManager):
    """Experiment manager of the RL Zoo's own algorithms, which knows the entries with memory.

    Trials of an entry with NCDEExtractor keep its ``policy_kwargs``, and sample arguments of it beside what the RL Zoo
    samples for the algorithm. All other entries are left to the RL Zoo. Without ``--conf-file`` the settings are
    those of this package, for the environments that it has an entry for.
    """

    def __init__(self, args: Any, algo: str, env_id: str, *rest: Any, **kwargs: Any) -> None:
        kwargs["config"] = kwargs.get("config") or own_config(algo, env_id)
        super().__init__(args, algo, env_id, *rest, **kwargs)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Make environments, and refuse statistics that the RL Zoo would neither save nor find again.

        :raises ValueError: if a wrapper of ``vec_env_wrapper`` normalises, or histories are normalised
        """
        env = super().create_envs(n_envs, eval_env, no_log)
        refuse_normalized_histories(env)
        refuse_inner_statistics(env)
        return env

    def hyperparameters_optimization(self) -> None:
        """Run a study, with a sampler that knows the memory where the entry has one."""
        stock = HYPERPARAMS_SAMPLER[self.algo]

        def sample(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
            return sample_memory_params(stock, self._hyperparams, trial, n_actions, n_envs, additional_args)

        if has_memory(self._hyperparams):
            HYPERPARAMS_SAMPLER[self.algo] = sample
        try:
            super().hyperparameters_optimization()
        finally:
            HYPERPARAMS_SAMPLER[self.algo] = stock

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the configuration's settings, under those of a trial and those of the command line."""
        trial_id = self.trial_id
        if trial_id is None or self.storage is None or self.study_name is None:
            return super().read_hyperparameters()
        self.trial_id = None
        entry, _ = super().read_hyperparameters()
        self.trial_id = trial_id
        if not has_memory(entry):
            return super().read_hyperparameters()
        params = self.load_trial(self.storage, self.study_name, trial_id, convert=False)
        tuned = convert_memory_params(HYPERPARAMS_CONVERTER[self.algo], entry, params)
        hyperparams = entry | tuned | (self.custom_hyperparams or {})
        print(f"With what trial {trial_id} changes of them:")
        pprint(hyperparams)
        return hyperparams, dict(sorted(deepcopy(hyperparams).items()))


def own_config(algo: str, env_id: str) -> str | None:
    """Return the file with this package's settings of an algorithm, if it has an entry for the environment."""
    name = f"{algo}.yml"
    packaged, checkout = Path(__file__).parents[1] / name, Path(__file__).parents[2] / "configs" / name
    file = packaged if packaged.exists() else checkout
    return str(file) if file.exists() and env_id in yaml.safe_load(file.read_text()) else None


def has_memory(entry: Mapping[str, Any]) -> bool:
    """Return whether the features extractor of an entry is NCDEExtractor."""
    extractor = as_mapping(entry.get("policy_kwargs")).get("features_extractor_class")
    return isinstance(extractor, type) and issubclass(extractor, NCDEExtractor)


def sample_memory_params(
    stock: Callable[..., dict[str, Any]],
    entry: Mapping[str, Any],
    trial: optuna.Trial,
    n_actions: int,
    n_envs: int,
    additional_args: dict[str, Any],
) -> dict[str, Any]:
    """Sample the arguments of an algorithm with memory for a trial.

    :param stock: the RL Zoo's sampler of the algorithm
    :param entry: of the configuration; its ``policy_kwargs`` stay where nothing is sampled for them
    :param trial: that the values are asked of
    :param n_actions: for the RL Zoo's sampler, as are the next two
    :param n_envs: environments
    :param additional_args: of replay buffers
    """
    sampled = stock(trial, n_actions, n_envs, additional_args)
    extractor = as_mapping(as_mapping(entry["policy_kwargs"]).get("features_extractor_kwargs"))
    suggest_encoder(trial, extractor)
    return _laid_over(entry, sampled, trial.params)


def convert_memory_params(
    stock: Callable[[dict[str, Any]], dict[str, Any]], entry: Mapping[str, Any], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the hyperparameters that a trial's values stand for.

    :param stock: the RL Zoo's converter of the algorithm
    :param entry: of the configuration
    :param params: of a trial of :func:`sample_memory_params`
    """
    others = {name: value for name, value in params.items() if name not in ENCODER}
    if others.get("noise_type", "") is None:  # to the RL Zoo's sampler: the entry's noise; to its algorithms: an error
        del others["noise_type"], others["noise_std"]
    return _laid_over(entry, stock(others), params)


def _laid_over(entry: Mapping[str, Any], sampled: dict[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the RL Zoo has sampled, with the entry's ``policy_kwargs`` under it and the extractor's arguments."""
    policy_kwargs = as_mapping(entry["policy_kwargs"])
    chosen = {name: params[name] for name in ENCODER if name in params}
    extractor = as_mapping(policy_kwargs.get("features_extractor_kwargs")) | chosen
    whole = policy_kwargs | sampled.get("policy_kwargs", {}) | {"features_extractor_kwargs": extractor}
    buffer = as_mapping(entry.get("replay_buffer_kwargs"))
    if "gamma" in buffer:  # of n-step returns, which has to be the algorithm's
        sampled = sampled | {"replay_buffer_kwargs": buffer | {"gamma": sampled["gamma"]}}
    return sampled | {"policy_kwargs": whole}
