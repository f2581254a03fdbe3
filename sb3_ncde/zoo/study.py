"""A study of Optuna that any number of workers share over one storage, and that ends with as many trials as asked.

A worker is a process: it runs trials until the study has enough, may be killed at any time, and may join at any time.
What a killed worker leaves is found by Optuna's heartbeat and tried again by another one, with the same values.
"""

import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import (
    BaseStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
    fail_stale_trials,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from tqdm import tqdm

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
OPEN = (TrialState.RUNNING, TrialState.WAITING)
PURPOSE = "purpose"
"""A study's attribute that says what it is for."""
PATIENCE = 30.0
"""Seconds to wait for a storage whose tables another worker is creating."""
MAX_RETRY = 3
"""How often a trial is tried again whose worker was killed; then it is given up as its workers' killer."""


class NotNeededError(Exception):
    """Ends a trial that another worker began at the same moment."""


def open_storage(url: str, heartbeat_interval: int) -> BaseStorage:
    """Return the storage of studies at a URL, and create it where there is none.

    :param url: ``sqlite:///path.db``, ``postgresql://user:password@host/database`` or another database of SQLAlchemy;
        or the path of a journal file that ends in ``.log``, which has no heartbeat
    :param heartbeat_interval: seconds between two signs of life of a worker; after three without one its trial counts
        as lost
    :raises ImportError: if there is no driver for the database
    :raises ConnectionError: if the database does not answer, or refuses
    :raises ValueError: for what is no URL, or an interval that is not positive
    """
    if heartbeat_interval <= 0:
        raise ValueError(f"A heartbeat every {heartbeat_interval} seconds: it takes at least 1.")
    if url.endswith(".log"):
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(url))
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(
            f"{url!r} is no URL of a storage: it is sqlite:///studies.db, postgresql://user:password@host/database, "
            "or a journal file whose name ends in .log."
        ) from None
    # By the scheme alone SQLAlchemy 2.0 and 2.1 choose different drivers; the extra zoo brings this one.
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    url = parsed.render_as_string(hide_password=False)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat, since 2021
                return RDBStorage(
                    url,
                    heartbeat_interval=heartbeat_interval,
                    grace_period=3 * heartbeat_interval,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY),
                )
        except DBAPIError as error:
            # Workers that begin together on an empty database all create its tables, and all but one fail.
            created_by_others = any(sign in str(error).lower() for sign in ("already exists", "unique", "locked"))
            if not created_by_others or time.monotonic() > end:
                raise ConnectionError(f"The storage {parsed} cannot be used: {str(error.orig).strip()}") from None
            time.sleep(random.uniform(0.1, 0.5))


def join(name: str, storage: BaseStorage, purpose: str, **kwargs: Any) -> optuna.Study:
    """Return the study of a name, and create it where there is none.

    :param purpose: what the study is for; a name has one
    :param kwargs: arguments of Optuna's ``create_study``
    :raises ValueError: if the study has trials for another purpose: their parameters and values cannot be compared
    """
    study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **kwargs)
    found = study.user_attrs.get(PURPOSE)
    if found is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(PURPOSE, purpose)
    elif found != purpose:
        other = "not of sb3-ncde" if found is None else f"for {found}"
        raise ValueError(f"The storage has a study {name!r}, but it is {other}, not for {purpose}: use --study-name.")
    return study


def optimize(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float],
    n_trials: int,
    heartbeat_interval: int | None,
) -> None:
    """Run trials until the study has ``n_trials`` finished ones, those of all workers together.

    When the last ones are running elsewhere, the worker waits for them, and takes over those whose worker is lost.

    :param study: over any storage
    :param objective: to maximize
    :param n_trials: finished trials, completed or pruned, that the study is to have in the end
    :param heartbeat_interval: of the study's storage; None: it has none, and a lost worker's trials remain lost
    """
    ended_by_others = False
    known: set[int] = set()

    def run(trial: optuna.Trial) -> float:
        nonlocal ended_by_others
        check_needed(study, trial, n_trials)
        try:
            return objective(trial)
        finally:
            ended_by_others = study.get_trials(deepcopy=False)[trial.number].state != TrialState.RUNNING

    with tqdm(total=n_trials, desc=f"trials of {study.study_name}", unit="trial") as progress:
        while True:
            trials = study.get_trials(deepcopy=False)
            if heartbeat_interval is not None:
                _fail_lost_trials(study, trials, known)
                trials = study.get_trials(deepcopy=False)
            states = [trial.state for trial in trials]
            finished = sum(state in FINISHED for state in states)
            progress.update(finished - progress.n)
            if finished >= n_trials:
                return
            if TrialState.WAITING in states or finished + states.count(TrialState.RUNNING) < n_trials:
                ended_by_others = False
                try:
                    study.optimize(run, n_trials=1, catch=(NotNeededError,), gc_after_trial=True)
                except Exception:
                    # Optuna cannot end a trial that others have ended because this worker was silent for too long.
                    if not ended_by_others:
                        raise
            elif heartbeat_interval is None:
                progress.write(
                    "The last trials are running in other workers. (A journal cannot tell whether they live.)"
                )
                return
            else:
                time.sleep(min(heartbeat_interval, 5))


def _fail_lost_trials(study: optuna.Study, trials: list[FrozenTrial], known: set[int]) -> None:
    """Fail the trials whose worker gives no sign of life, and queue them to be tried again.

    A worker may have been killed before its first sign. Optuna never takes such a trial for lost, so each running trial
    is given one sign when this worker first sees it.

    :param known: numbers of the trials that have been seen running; added to
    """
    for trial in trials:
        if trial.state == TrialState.RUNNING and trial.number not in known:
            known.add(trial.number)
            study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        fail_stale_trials(study)


def check_needed(study: optuna.Study, trial: optuna.Trial, n_trials: int) -> None:
    """Raise NotNeededError if another worker began the same trial, or the last one of the study, at the same moment.

    Both workers come here after they have begun: of two trials, the one with the lower number is run.
    """
    trials = study.get_trials(deepcopy=False)
    before = trials[: trial.number]
    if sum(other.state in (*FINISHED, *OPEN) for other in before) >= n_trials:
        raise NotNeededError(f"The study has its {n_trials} trials.")
    # A lost trial may be found by two workers at once where the database has no row locks (SQLite).
    history = trials[trial.number].system_attrs.get("retry_history")
    if history and any(other.system_attrs.get("retry_history") == history for other in before):
        raise NotNeededError(f"Trial {history[-1]} is already tried again.")
