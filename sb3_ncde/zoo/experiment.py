"""The RL Zoo's experiment manager for ``ppo_ncde``: what the stock one drops or cannot do, mended by a subclass."""

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial
from rich.console import Console
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import get_callback_list
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

from sb3_ncde.envs.normalization import VecNormalizeObserved
from sb3_ncde.hyperparams import with_schedules
from sb3_ncde.plain_values import check_integer
from sb3_ncde.zoo.best_trial import Tuning, best_entry
from sb3_ncde.zoo.config_entry import as_mapping, check_arguments, check_entry, in_numbers
from sb3_ncde.zoo.confirmation import Confirmed, confirm, frame_of, table_of
from sb3_ncde.zoo.memory import MemoryExperimentManager
from sb3_ncde.zoo.registration import ALGO, PPONCDE
from sb3_ncde.zoo.run_folder import RunFolder
from sb3_ncde.zoo.sampler import convert_ppo_ncde_params, sample_ppo_ncde_params
from sb3_ncde.zoo.study import FINISHED, join, open_storage, optimize

UNSEEN = 1_000_000
"""From a confirmation's seed of training to that of its evaluation."""


class NCDEExperimentManager(ExperimentManager):
    """Experiment manager whose ``policy_kwargs`` add up, and whose studies survive their workers.

    Beside that: linear schedules end at 0 and not below; images, time and action masks are not normalised, and missing
    values do not count; without ``--conf-file`` the settings are those of this package; 1e-3 is a number; what an entry
    has of unknown names or impossible values is refused by a sentence; trial 0 of a study can be loaded; checkpoints
    have the normalisation statistics of their moment beside them, which ``-i`` finds; a run that fails before there is
    anything to keep leaves no folder; the best settings of a study can be confirmed by fresh seeds.
    """

    heartbeat_interval = 30
    """Seconds between two signs of life of a worker to its study."""
    n_confirmed = 0
    """Settings of a study, its best ones, that are trained again."""
    n_confirming_seeds = 3
    """Of each of them."""

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
        hyperparams = in_numbers(hyperparams)
        policy_kwargs = as_mapping(hyperparams.get("policy_kwargs"))
        if trial_id is not None:
            hyperparams |= convert_ppo_ncde_params(self._params_of_trial(trial_id), policy_kwargs)
        if custom is not None:
            policy_kwargs = as_mapping(hyperparams.get("policy_kwargs")) | as_mapping(custom.get("policy_kwargs"))
            hyperparams |= in_numbers(custom)
            if policy_kwargs:
                hyperparams["policy_kwargs"] = policy_kwargs
        if self.n_timesteps > 0:
            hyperparams.setdefault("n_timesteps", self.n_timesteps)
        check_entry(hyperparams, self.env_name.gym_id, self.config)
        saved = dict(sorted(copy.deepcopy(hyperparams).items()))
        self.settings = saved
        if trial_id is not None or custom is not None:
            print("With what the command line changes of them:")
            print(yaml.dump(saved))
        return hyperparams, saved

    def _params_of_trial(self, trial_id: int) -> dict[str, Any]:
        """Return what was sampled in a trial.

        :raises ValueError: if there is no such storage, study or trial
        """
        file = Path(self._storage.removeprefix("sqlite:///"))
        if file.suffix and "://" not in str(file) and not file.exists():  # to open it would make it
            raise ValueError(
                f"--trial-id {trial_id}: there is no {file} with studies. Say by --storage where they are."
            )
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
        self.folder = RunFolder(Path(self.save_path))
        with self.folder.removed_if_worthless():
            return super().setup_experiment()

    def learn(self, model: BaseAlgorithm) -> None:
        """Train the model."""
        with self.folder.removed_if_worthless():
            super().learn(model)

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        preprocessed = super()._preprocess_hyperparams(hyperparams)
        check_arguments(preprocessed[0])
        return preprocessed

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
        statistics = self._saved_statistics()
        if statistics is not None:
            print(f"Loading saved VecNormalize stats: {statistics}")
            normalized = VecNormalizeObserved.load(str(statistics), env)
            normalized.training = not eval_env
            normalized.norm_reward = normalized.norm_reward and not eval_env
            return normalized
        if not self.normalize:
            return env
        kwargs = self.normalize_kwargs | ({"norm_reward": False, "training": False} if eval_env else {})
        policy_kwargs = as_mapping(self.settings.get("policy_kwargs"))
        named = (policy_kwargs.get(name) for name in ("time_key", "action_mask_key"))
        passing = [key for key in named if key is not None]
        return VecNormalizeObserved(env, **({"skip": passing} | kwargs))

    def _saved_statistics(self) -> Path | None:
        """Return the file of the normalisation that belongs to the agent that ``-i`` names, if there is one."""
        beside = re.sub(r"_(\d+_steps)\.zip$", r"_vecnormalize_\1.pkl", self.trained_agent)
        if beside.endswith(".pkl") and os.path.exists(beside):
            return Path(beside)
        own = Path(self.trained_agent).parent / self.env_name / "vecnormalize.pkl"
        return own if self.trained_agent and own.exists() else None

    def hyperparameters_optimization(self) -> None:
        """Take part in a study until it has its trials, then print and write its best one as a YAML entry.

        ``--max-total-trials`` are those of all workers, and so are ``--n-trials``, where these are given instead.

        :raises ValueError: for more than one job: threads would share one sampler and PyTorch's one thread; or for a
            confirmation of less than one setting or seed
        """
        with self.folder.removed_if_worthless():
            if self.n_jobs != 1:
                raise ValueError(
                    f"--n-jobs {self.n_jobs}: start the same command several times instead; workers share a study."
                )
            check_integer("--confirm", self.n_confirmed, minimum=0)
            check_integer("--confirm-seeds", self.n_confirming_seeds, minimum=1)
            self._take_part(self._open_storage())

    def _take_part(self, storage: optuna.storages.BaseStorage) -> None:
        """Run trials of the study until it has enough, confirm its best ones if that is asked for, and report."""
        study = join(
            str(self.study_name),
            storage,
            f"{self.algo} on {self.env_name.gym_id}",
            sampler=self._create_sampler(self.sampler),
            pruner=self._create_pruner(self.pruner),
            direction="maximize",
        )
        n_trials = self.n_trials if self.max_total_trials is None else self.max_total_trials
        heartbeat = self.heartbeat_interval if isinstance(storage, optuna.storages.RDBStorage) else None
        n_timesteps, confirmed = self.settings["n_timesteps"], []
        try:
            optimize(study, self.objective, n_trials, heartbeat)
            if self.n_confirmed and len(study.get_trials(states=FINISHED)) >= n_trials:
                sizes = (self.n_confirmed, self.n_confirming_seeds)
                confirmed = confirm(study, storage, n_timesteps, *sizes, self._train_again, heartbeat)
        except KeyboardInterrupt:
            print("Stopped. The same command goes on with the study.")
        self._report(study, confirmed)

    def _train_again(self, trial: FrozenTrial, seed: int) -> float:
        """Return the mean return of a trial's settings, trained from a seed as the command ``train`` does.

        :raises optuna.TrialPruned: if the training fails
        """
        tuned = convert_ppo_ncde_params(trial.params, self._hyperparams.get("policy_kwargs"))
        self.normalize_kwargs["gamma"] = tuned["gamma"]
        print(f"Training the settings of trial {trial.number} again, with seed {seed}.")
        self.seed = seed
        env = self.create_envs(self.n_envs, no_log=True)
        arguments = self._hyperparams | self._preprocess_schedules(tuned)
        try:
            model = PPONCDE(env=env, seed=seed, device=self.device, verbose=0, **arguments)
            model.learn(
                self.settings["n_timesteps"], callback=get_callback_list({"callback": self.specified_callbacks})
            )
            self.seed = seed + UNSEEN
            unseen = self.create_envs(self.n_eval_envs, eval_env=True)
            sync_envs_normalization(env, unseen)
            mean, _ = evaluate_policy(model, unseen, self.n_eval_episodes, deterministic=self.deterministic_eval)
            unseen.close()
        except (AssertionError, ValueError) as error:  # as in a trial: these settings make NaN, for example
            print(f"It failed: {error}")
            raise optuna.TrialPruned from error
        finally:
            env.close()
        return float(mean)  # type: ignore[arg-type]  # not a list, unless asked for

    def _report(self, study: optuna.Study, confirmed: Sequence[Confirmed]) -> None:
        """Print and write what a study has found, and the best of it as an entry of a configuration."""
        folder = Path(self.save_path)
        study.trials_dataframe().to_csv(folder / "trials.csv")
        print(f"All trials: {folder / 'trials.csv'}")
        if not any(trial.value is not None for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])):
            print("No trial has been completed yet, so there is no best one.")
            return
        if confirmed:
            Console().print(table_of(confirmed, study))
            frame_of(confirmed).to_csv(folder / "confirmed.csv", index=False)
            print(f"All runs of the confirmation: {folder / 'confirmed.csv'}")
        settings = self.settings | ({"env_kwargs": self.env_kwargs} if self.env_kwargs else {})
        tuning = Tuning(self.env_name.gym_id, settings, self.n_timesteps, self.n_eval_episodes)
        entry = best_entry(study, tuning, next((result for result in confirmed if result.is_complete), None))
        (folder / "best_trial.yml").write_text(entry)
        print(f"The best trial, also in {folder / 'best_trial.yml'}:\n\n{entry}")

    @property
    def _storage(self) -> str:
        """Where studies are: a URL, or the path of a journal."""
        return self.storage or f"sqlite:///{self.log_path}studies.db"

    def _open_storage(self) -> optuna.storages.BaseStorage:
        return open_storage(self._storage, self.heartbeat_interval)


def experiment_manager(args: Any, algo: str, *rest: Any, **kwargs: Any) -> ExperimentManager:
    """Return the experiment manager of an algorithm; that of the RL Zoo's own ones knows the entries with memory."""
    manager = NCDEExperimentManager if algo == ALGO else MemoryExperimentManager
    return manager(args, algo, *rest, **kwargs)
