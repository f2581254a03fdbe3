"""The best settings of a study, trained again with fresh seeds: the best of many single runs has also been lucky.

Its runs are trials of a study of their own, so that they are shared by workers, gone on with, and tried again where a
worker was killed, as those of :mod:`sb3_ncde.zoo.study`.
"""

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from sb3_ncde.zoo.study import FINISHED, OPEN, NotNeededError, join, optimize

FIRST_SEED = 1_000
"""Of a confirmation. Those of trials are random, or, where the command line has one, usually small."""
RUN = "run"
"""A run's attribute that says which trial's settings it trains, with which seed."""

LONGEST_PAUSE = 0.5
"""Seconds before a worker claims again, at most."""

Run = tuple[int, int]


class Confirmed(NamedTuple):
    """What the settings of a trial have reached, trained again.

    :param trial: of the study
    :param returns: the mean return of each seed whose training has ended, and did not fail
    :param n_seeds: that there are to be
    """

    trial: FrozenTrial
    returns: dict[int, float]
    n_seeds: int

    @property
    def is_complete(self) -> bool:
        """Whether each seed has reached something."""
        return len(self.returns) == self.n_seeds

    @property
    def mean(self) -> float:
        """Over seeds; -inf where one has failed, or is still to be trained."""
        return statistics.fmean(self.returns.values()) if self.is_complete else float("-inf")

    @property
    def spread(self) -> float:
        """The standard deviation over seeds, 0 of a single one."""
        return statistics.stdev(self.returns.values()) if len(self.returns) > 1 else 0.0


def best_trials(study: optuna.Study, number: int) -> list[FrozenTrial]:
    """Return so many completed trials of a study, the best first, each with other settings."""
    trials = study.get_trials(states=[TrialState.COMPLETE])
    different: dict[str, FrozenTrial] = {}
    for trial in sorted(trials, key=lambda trial: trial.value or 0.0, reverse=True):
        different.setdefault(json.dumps(trial.params, sort_keys=True), trial)
    return list(different.values())[:number]


def confirm(
    study: optuna.Study,
    storage: BaseStorage,
    n_timesteps: int,
    n_best: int,
    n_seeds: int,
    train: Callable[[FrozenTrial, int], float],
    heartbeat_interval: int | None,
) -> list[Confirmed]:
    """Train the best settings of a study again, each with fresh seeds, and return what they reached, the best first.

    :param study: that has its trials
    :param storage: of the study
    :param n_timesteps: of each training
    :param n_best: settings
    :param n_seeds: of each
    :param train: trains a trial's settings from a seed, and returns the mean return
    :param heartbeat_interval: of the storage; None: it has none
    """
    best = best_trials(study, n_best)
    wanted = [(trial.number, FIRST_SEED + seed) for seed in range(n_seeds) for trial in best]
    purpose = f"the best of study {study.study_name!r}, again for {n_timesteps} steps"
    runs = join(f"{study.study_name}, confirmed at {n_timesteps}", storage, purpose, direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        number, seed = claim(runs, trial, wanted)
        return train(next(other for other in best if other.number == number), seed)

    while missing := _missing(runs, wanted):
        # Runs of other settings or seeds, of an earlier confirmation, stay and do not count.
        optimize(runs, objective, len(runs.get_trials(states=FINISHED)) + len(missing), heartbeat_interval)
        if heartbeat_interval is None:  # then the last ones may be running elsewhere for ever
            break
    values = {_run_of(trial): trial.value for trial in runs.get_trials(states=[TrialState.COMPLETE])}
    seeds = sorted({seed for _, seed in wanted})
    results = [
        Confirmed(trial, {seed: v for seed in seeds if (v := values.get((trial.number, seed))) is not None}, n_seeds)
        for trial in best
    ]
    return sorted(results, key=lambda result: result.mean, reverse=True)


def _missing(runs: optuna.Study, wanted: Sequence[Run]) -> set[Run]:
    return set(wanted) - {run for trial in runs.get_trials(states=FINISHED) if (run := _run_of(trial)) is not None}


def _run_of(trial: FrozenTrial) -> Run | None:
    run = trial.user_attrs.get(RUN)
    return None if run is None else (run[0], run[1])


def claim(runs: optuna.Study, trial: optuna.Trial, wanted: Sequence[Run]) -> Run:
    """Return the run that a trial is to do: the one whose worker was killed, or the first that nobody does.

    Two workers may claim the same at the same moment, and see the other's claim or not, as it happens. So who sees
    another's claim gives up its own, and tries again after a while.

    :raises NotNeededError: if others have begun the last one, or the one whose worker was killed
    """
    run = _run_of(runs.get_trials(deepcopy=False)[trial.number])
    if run is not None:
        if run in _taken(runs, trial):
            raise NotNeededError(f"Run {run} is being done by another worker.")
        return run
    while True:
        taken = _taken(runs, trial)
        run = next((run for run in wanted if run not in taken), None)
        if run is None:
            raise NotNeededError("Each run is done or being done.")
        trial.set_user_attr(RUN, run)
        if run not in _taken(runs, trial):
            return run
        trial.set_user_attr(RUN, None)
        time.sleep(random.uniform(0.0, LONGEST_PAUSE))


def _taken(runs: optuna.Study, trial: optuna.Trial) -> set[Run | None]:
    """Return the runs that other trials have done or are doing."""
    others = (other for other in runs.get_trials(deepcopy=False) if other.number != trial.number)
    return {_run_of(other) for other in others if other.state in (*FINISHED, *OPEN)}


def table_of(results: Sequence[Confirmed], study: optuna.Study) -> Table:
    """Return a table of what a confirmation has reached."""
    columns = ("trial", "in the study", "again: mean return", "standard deviation", "worst seed", "seeds")
    table = Table(*columns, title=f"the best of study {study.study_name}, trained again")
    for result in results:
        again = (result.mean, result.spread, min(result.returns.values())) if result.is_complete else ()
        numbers = [f"{number:.1f}" for number in again] or ["incomplete", "", ""]
        seeds = f"{len(result.returns)} of {result.n_seeds}"
        table.add_row(str(result.trial.number), f"{result.trial.value:.1f}", *numbers, seeds)
    return table


def frame_of(results: Sequence[Confirmed]) -> pd.DataFrame:
    """Return the results as a table with a row for each run."""
    rows = [
        {"trial": result.trial.number, "return_in_study": result.trial.value, "seed": seed, "return": value}
        for result in results
        for seed, value in result.returns.items()
    ]
    return pd.DataFrame(rows)
