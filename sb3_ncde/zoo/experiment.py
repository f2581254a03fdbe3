"""The RL Zoo's experiment manager for ``ppo_ncde``: what the stock one drops or cannot do, mended by a subclass."""

import copy
import datetime
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import rl_zoo3.exp_manager
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_ncde.envs.normalization import VecNormalizeObserved
from sb3_ncde.hyperparams import with_schedules
from sb3_ncde.zoo import ALGO
from sb3_ncde.zoo.sampler import convert_ppo_ncde_params, sample_ppo_ncde_params
from sb3_ncde.zoo.study import join, open_storage, optimize


class NCDEExperimentManager(ExperimentManager):
    """Experiment manager whose ``policy_kwargs`` add up, and whose studies survive their workers.

    Beside that: linear schedules end at 0 and not below; time and action masks are not normalised, and missing values
    do not count; without ``--conf-file`` the settings are those of this package; trial 0 of a study can be loaded;
    checkpoints have the normalisation statistics of their moment beside them, which ``-i`` finds.
    """

    heartbeat_interval = 30
    """Seconds between two signs of life of a worker to its study."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["config"] = kwargs.get("config") or "sb3_ncde.hyperparams"
        super().__init__(*args, **kwargs)
        self.study_name = self.study_name or str(self.env_name)
        if self.optimize_hyperparameters:
            # Among the folders of trained agents, one without a model would be the latest that `enjoy` looks for.
            self.save_path = self.params_path = os.path.join(self.log_path, "studies", self.study_name)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the configuration's settings, under those of a trial and those of the command line."""
        trial_id, self.trial_id = self.trial_id, None
        custom, self.custom_hyperparams = self.custom_hyperparams, None
        hyperparams, _ = super().read_hyperparameters()
        hyperparams = copy.deepcopy(hyperparams)
        policy_kwargs = as_mapping(hyperparams.get("policy_kwargs"))
        if trial_id is not None:
            hyperparams |= convert_ppo_ncde_params(self._params_of_trial(trial_id), policy_kwargs)
        if custom is not None:
            policy_kwargs = as_mapping(hyperparams.get("policy_kwargs")) | as_mapping(custom.get("policy_kwargs"))
            hyperparams |= custom
            if policy_kwargs:
                hyperparams["policy_kwargs"] = policy_kwargs
        saved = dict(sorted(copy.deepcopy(hyperparams).items()))
        self.settings = saved
        if trial_id is not None or custom is not None:
            print("With what the command line changes of them:")
            print(yaml.dump(saved))
        return hyperparams, saved

    def _params_of_trial(self, trial_id: int) -> dict[str, Any]:
        """Return what was sampled in a trial.

        :raises ValueError: if there is no such study or trial
        """
        storage = self._open_storage()
        studies = optuna.get_all_study_names(storage)
        if self.study_name not in studies:
            found = ", ".join(studies) or "none"
            raise ValueError(f"The storage has no study {self.study_name!r}; it has: {found}. Use --study-name.")
        trials = optuna.load_study(study_name=self.study_name, storage=storage).trials
        if not 0 <= trial_id < len(trials):
            raise ValueError(
                f"--trial-id {trial_id}: study {self.study_name!r} has {len(trials)} trials, numbered from 0."
            )
        return trials[trial_id].params

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        """Return the model and its settings, or None where a study is to find them."""
        HYPERPARAMS_SAMPLER[self.algo] = self._sample
        return super().setup_experiment()

    def _sample(
        self, trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
    ) -> dict[str, Any]:
        policy_kwargs = self._hyperparams.get("policy_kwargs")
        sampled = sample_ppo_ncde_params(trial, n_actions, n_envs, additional_args, policy_kwargs)
        self.normalize_kwargs["gamma"] = sampled["gamma"]
        return sampled

    @staticmethod
    def _preprocess_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
        linear = {name: value for name, value in hyperparams.items() if str(value).startswith("lin_")}
        others = {name: value for name, value in hyperparams.items() if name not in linear}
        return ExperimentManager._preprocess_schedules(others) | with_schedules(linear)

    def create_callbacks(self) -> None:
        """Create the RL Zoo's callbacks, with checkpoints that save their normalisation statistics."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        for callback in self.callbacks:
            if isinstance(callback, CheckpointCallback):
                callback.save_vecnormalize = True

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        beside = re.sub(r"_(\d+_steps)\.zip$", r"_vecnormalize_\1.pkl", self.trained_agent)
        if not (beside.endswith(".pkl") and os.path.exists(beside)):
            own = Path(self.trained_agent).parent / self.env_name / "vecnormalize.pkl"
            if not self.normalize or own.exists():
                return super()._maybe_normalize(env, eval_env)
            kwargs = self.normalize_kwargs | ({"norm_reward": False, "training": False} if eval_env else {})
            policy_kwargs = as_mapping(self.settings.get("policy_kwargs"))
            passing = [policy_kwargs.get(name) for name in ("time_key", "action_mask_key")]
            skip = [key for key in passing if key is not None]
            return VecNormalizeObserved(env, **({"skip": skip} | kwargs))
        print(f"Loading the normalisation statistics of {beside}")
        normalized = VecNormalize.load(beside, env)
        normalized.training = not eval_env
        normalized.norm_reward = normalized.norm_reward and not eval_env
        return normalized

    def hyperparameters_optimization(self) -> None:
        """Take part in a study until it has its trials, then print and write its best one as a YAML entry.

        ``--max-total-trials`` are those of all workers, and so are ``--n-trials``, where these are given instead.

        :raises ValueError: for more than one job: threads would share one sampler and PyTorch's one thread
        """
        if self.n_jobs != 1:
            raise ValueError(
                f"--n-jobs {self.n_jobs}: start the same command several times instead; workers share a study."
            )
        storage = self._open_storage()
        study = join(
            str(self.study_name),
            storage,
            f"{self.algo} on {self.env_name.gym_id}",
            sampler=self._create_sampler(self.sampler),
            pruner=self._create_pruner(self.pruner),
            direction="maximize",
        )
        n_trials = self.n_trials if self.max_total_trials is None else self.max_total_trials
        try:
            has_heartbeat = isinstance(storage, optuna.storages.RDBStorage)
            optimize(study, self.objective, n_trials, self.heartbeat_interval if has_heartbeat else None)
        except KeyboardInterrupt:
            print("Stopped. The same command goes on with the study.")
        folder = Path(self.save_path)
        study.trials_dataframe().to_csv(folder / "trials.csv")
        print(f"All trials: {folder / 'trials.csv'}")
        if not any(trial.value is not None for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])):
            print("No trial has been completed yet, so there is no best one.")
            return
        entry = self._entry(study)
        (folder / "best_trial.yml").write_text(entry)
        print(f"The best trial, also in {folder / 'best_trial.yml'}:\n\n{entry}")

    def _entry(self, study: optuna.Study) -> str:
        """Return the best trial as an entry of a configuration."""
        best = study.best_trial
        tuned = convert_ppo_ncde_params(best.params, as_mapping(self.settings.get("policy_kwargs")))
        entry = self.settings | tuned | {"n_timesteps": self.n_timesteps}
        finished = len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]))
        comment = (
            f"# Trial {best.number}, the best of {finished} of study {study.study_name!r}, {datetime.date.today()}:\n"
            f"# return {best.value:.1f}, mean of {self.n_eval_episodes} episodes of one training run.\n"
        )
        try:
            return comment + yaml.safe_dump({self.env_name.gym_id: entry})
        except yaml.representer.RepresenterError:  # a class, from policy_kwargs that are code
            sampled = convert_ppo_ncde_params(best.params, self._plain_kwargs())
            comment += "# To these policy_kwargs belong those of the configuration that are no plain values.\n"
            return comment + yaml.safe_dump({self.env_name.gym_id: entry | sampled})

    def _plain_kwargs(self) -> dict[str, Any]:
        """Return the ``policy_kwargs`` of the configuration that YAML can name."""
        policy_kwargs = as_mapping(self.settings.get("policy_kwargs"))
        plain = (str, int, float, bool, list, type(None))
        return {name: value for name, value in policy_kwargs.items() if isinstance(value, plain)}

    def _open_storage(self) -> optuna.storages.BaseStorage:
        return open_storage(self.storage or f"sqlite:///{self.log_path}studies.db", self.heartbeat_interval)


def experiment_manager(args: Any, algo: str, *rest: Any, **kwargs: Any) -> ExperimentManager:
    """Return the experiment manager of an algorithm, the RL Zoo's own for all but ``ppo_ncde``."""
    manager = NCDEExperimentManager if algo == ALGO else ExperimentManager
    return manager(args, algo, *rest, **kwargs)


def as_mapping(policy_kwargs: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return ``policy_kwargs`` of a configuration, which may be Python code in the RL Zoo's names (nn, th, ...)."""
    if isinstance(policy_kwargs, str):
        return dict(eval(policy_kwargs, vars(rl_zoo3.exp_manager).copy()))
    return dict(policy_kwargs or {})
