"""A study of Optuna that any number of workers share over one storage, and that ends with as many trials as asked.

A worker is a process: it runs trials until the study has enough, may be killed at any time, and may join at any time.
What a killed worker leaves is found by Optuna's heartbeat and tried again by another one, with the same values.
"""

import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tqdm import tqdm

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
OPEN = (TrialState.RUNNING, TrialState.WAITING)
MAX_RETRY = 3
"""How often a trial is tried again whose worker was killed; then it is given up as its workers' killer."""


class NotNeededError(Exception):
    """Ends a trial that was begun at the same moment as the last one of the study."""


def open_storage(url: str, heartbeat_interval: int) -> BaseStorage:
    """Return the storage of studies at a URL, and create it where there is none.

    :param url: ``sqlite:///path.db``, ``postgresql://user:password@host/database`` or another database of SQLAlchemy;
        or the path of a journal file that ends in ``.log``, which has no heartbeat
    :param heartbeat_interval: seconds between two signs of life of a worker; after three without one its trial counts
        as lost
    :raises ImportError: if there is no driver for the database
    """
    if url.endswith(".log"):
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(url))
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    # By the scheme alone SQLAlchemy 2.0 and 2.1 choose different drivers; the extra zoo brings this one.
    url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return RDBStorage(
        url,
        heartbeat_interval=heartbeat_interval,
        grace_period=3 * heartbeat_interval,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY),
    )


def optimize(study: optuna.Study, objective: Callable[[optuna.Trial], float], n_trials: int) -> None:
    """Run trials until the study has ``n_trials`` finished ones, those of all workers together.

    When the last ones are running elsewhere, the worker waits for them, and takes over those whose worker is lost.

    :param study: over any storage
    :param objective: to maximize
    :param n_trials: finished trials, completed or pruned, that the study is to have in the end
    """

    def needed(trial: optuna.Trial) -> float:
        # Two workers may both see that one more trial is needed; of the two that they begin, the first is.
        before = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number]
        if sum(other.state in (*FINISHED, *OPEN) for other in before) >= n_trials:
            raise NotNeededError(f"The study has its {n_trials} trials.")
        return objective(trial)

    interval = getattr(study._storage, "heartbeat_interval", None)
    with tqdm(total=n_trials, desc=f"trials of {study.study_name}", unit="trial") as progress:
        while True:
            if interval is not None:
                optuna.storages.fail_stale_trials(study)
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
            finished = sum(state in FINISHED for state in states)
            progress.update(finished - progress.n)
            if finished >= n_trials:
                return
            if TrialState.WAITING in states or finished + states.count(TrialState.RUNNING) < n_trials:
                try:
                    study.optimize(needed, n_trials=1, catch=(NotNeededError,), gc_after_trial=True)
                except (UpdateFinishedTrialError, ValueError) as error:
                    if not _taken_over(error):
                        raise
            elif interval is None:
                progress.write(
                    "The last trials are running in other workers. (A journal cannot tell whether they live.)"
                )
                return
            else:
                time.sleep(min(interval, 5))


def _taken_over(error: Exception) -> bool:
    """Return whether a worker that had been silent for too long was told that its trial is another one's now."""
    return isinstance(error, UpdateFinishedTrialError) or "Cannot tell a FAIL trial" in str(error)
