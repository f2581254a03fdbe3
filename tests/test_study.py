"""Studies that several workers share: each trial once, none lost, whatever happens to a worker."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from optuna.trial import TrialState  # noqa: E402

from sb3_ncde.zoo.study import FINISHED, join, open_storage, optimize  # noqa: E402

POSTGRES = "TEST_POSTGRES"
"""Environment variable with the URL of a database for tests; ``.ci/run`` starts the server and sets it."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/studies/study.db"
    if POSTGRES not in os.environ:
        # In CI none is skipped, as it starts a server; `make test` is for machines that may have none.
        pytest.skip(f"{POSTGRES} is not set to the URL of a PostgreSQL database")
    return os.environ[POSTGRES]


@pytest.fixture
def storage(url: str) -> Iterator[Any]:
    opened: Any = open_storage(url, 1)
    yield opened
    opened.remove_session()
    opened.engine.dispose()


@pytest.fixture
def name(tmp_path: Path) -> str:
    return f"{tmp_path.parent.name}-{tmp_path.name}-{time.time()}"


@pytest.fixture
def workers() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test, whatever it does."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


ENDLESS = 10**9
"""Steps of a trial that runs until its worker is killed."""
SEEDS = (45, 258, 374)
"""Of workers whose first trials are short, but for how many steps they take."""


def start_worker(
    url: str, name: str, n_trials: int, folder: Path, steps: int = 64, seed: int = SEEDS[0]
) -> subprocess.Popen[str]:
    options = f"--env CartPoleNoVel-v1 -n {steps} --max-total-trials {n_trials} --eval-episodes 1 --n-evaluations 1"
    options += f" --heartbeat 1 --pruner none --storage {url} --study-name {name} -f {folder} --seed {seed}"
    command = [sys.executable, "-m", "sb3_ncde.cli", "tune", *options.split(), "-params", "n_envs:1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def trials(storage: Any, name: str) -> list[Any]:
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:  # not created yet
        return []
    found: list[Any] = study.get_trials()
    return found


def wait_for(condition: Any, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def test_a_worker_killed_in_mid_trial_loses_and_doubles_nothing(
    url: str, storage: Any, name: str, tmp_path: Path, workers: list[subprocess.Popen[str]]
) -> None:
    n_trials = 4
    workers.append(start_worker(url, name, n_trials, tmp_path, steps=ENDLESS))
    last = "max_grad_norm"  # that is sampled: then the trial trains
    wait_for(lambda: any(trial.state == TrialState.RUNNING and last in trial.params for trial in trials(storage, name)))
    workers[0].send_signal(signal.SIGKILL)  # it is the only one, so the trial that runs is its own
    workers[0].wait()
    (killed,) = (trial for trial in trials(storage, name) if trial.state == TrialState.RUNNING)
    workers += [start_worker(url, name, n_trials, tmp_path, seed=seed) for seed in SEEDS[1:]]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers[1:]]
    assert [worker.returncode for worker in workers[1:]] == [0, 0], outputs
    found = trials(storage, name)
    assert sum(trial.state in FINISHED for trial in found) == n_trials
    assert all(trial.state in (*FINISHED, TrialState.FAIL) for trial in found)
    assert found[killed.number].state == TrialState.FAIL
    retried = [trial for trial in found if trial.system_attrs.get("failed_trial") == killed.number]
    assert [trial.params for trial in retried if trial.state in FINISHED] == [killed.params]
    assert "The best trial" in outputs[0]
    assert "The best trial" in outputs[1]


def test_a_worker_killed_beside_another_one(
    url: str, storage: Any, name: str, tmp_path: Path, workers: list[subprocess.Popen[str]]
) -> None:
    n_trials = 3

    def running() -> int:
        return sum(trial.state == TrialState.RUNNING for trial in trials(storage, name))

    workers.append(start_worker(url, name, n_trials, tmp_path, ENDLESS))
    wait_for(lambda: running() == 1)
    workers.append(start_worker(url, name, n_trials, tmp_path, 500, SEEDS[1]))
    wait_for(lambda: running() == 2)
    workers[0].send_signal(signal.SIGKILL)
    output = workers[1].communicate(timeout=300)[0]
    assert workers[1].returncode == 0, output
    found = trials(storage, name)
    assert sum(trial.state in FINISHED for trial in found) == n_trials
    assert sum(trial.state == TrialState.FAIL for trial in found) == 1


def make_study(storage: Any, name: str) -> Any:
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_of_two_last_trials_begun_at_once_the_second_is_given_up(
    storage: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, other = make_study(storage, name), make_study(storage, name)
    run = study.optimize

    def run_after_another_worker(*args: Any, **kwargs: Any) -> None:
        trial = other.ask()  # after this worker has seen that one more is needed, and before it begins it
        threading.Timer(0.5, other.tell, (trial, 1.0)).start()
        run(*args, **kwargs)

    monkeypatch.setattr(study, "optimize", run_after_another_worker)
    optimize(study, lambda trial: pytest.fail("was begun nevertheless"), 1, 1)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE, TrialState.FAIL]


BEGIN_TOGETHER = """
import os, sys, time
import optuna
from sb3_ncde.zoo.study import open_storage

open_storage("sqlite:///:memory:", 30)  # imports what it needs, once for all of the workers
start = time.time() + 0.2
workers = []
for _ in range(4):
    workers.append(os.fork())
    if not workers[-1]:
        time.sleep(max(0, start - time.time()))
        optuna.create_study(storage=open_storage(sys.argv[1], 30), study_name="one", load_if_exists=True)
        sys.exit()
sys.exit(any([os.waitpid(worker, 0)[1] for worker in workers]))
"""


def test_workers_may_begin_together_on_an_empty_database(url: str, tmp_path: Path) -> None:
    if url.startswith("postgresql"):
        psycopg = pytest.importorskip("psycopg")
        database = f"empty_{time.time_ns()}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {database}")
        url = url.rsplit("/", 1)[0] + f"/{database}"
    done = subprocess.run([sys.executable, "-c", BEGIN_TOGETHER, url], stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("url", "heartbeat", "message"),
    [
        ("studies.db", 30, r"'studies.db' is no URL of a storage: it is sqlite:///studies.db"),
        ("sqlite:///studies.db", 0, "A heartbeat every 0 seconds"),
    ],
)
def test_what_is_no_storage_is_refused(url: str, heartbeat: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_storage(url, heartbeat)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_study_has_one_purpose(storage: Any, name: str) -> None:
    join(name, storage, "ppo_ncde on A").ask()
    assert len(join(name, storage, "ppo_ncde on A").trials) == 1
    with pytest.raises(ValueError, match=r"but it is for ppo_ncde on A, not for ppo_ncde on B: use --study-name"):
        join(name, storage, "ppo_ncde on B")
    make_study(storage, f"{name}-stock").ask()
    with pytest.raises(ValueError, match=r"but it is not of sb3-ncde, not for ppo_ncde on B"):
        join(f"{name}-stock", storage, "ppo_ncde on B")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_storage_that_is_not_there_is_an_error(scheme: str) -> None:
    with pytest.raises(Exception, match="refused"):
        open_storage(f"{scheme}://postgres@127.0.0.1:1/none", 30)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed")
def test_a_trial_whose_worker_never_gave_a_sign_of_life_is_tried_again(storage: Any, name: str) -> None:
    study = make_study(storage, name)
    study.ask()  # by a worker that is killed at once
    optimize(study, lambda trial: 0.0, 2, 1)
    states = [trial.state for trial in study.get_trials()]
    assert sorted(states) == sorted([TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE])
    assert states[0] == TrialState.FAIL


def test_a_lost_trial_found_by_two_workers_is_tried_once(storage: Any, name: str) -> None:
    study = make_study(storage, name)
    for _ in range(2):
        study.add_trial(
            optuna.create_trial(state=TrialState.WAITING, system_attrs={"failed_trial": 0, "retry_history": [0]})
        )
    optimize(study, lambda trial: 0.0, 2, 1)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_a_worker_that_was_silent_for_too_long_goes_on(storage: Any, name: str) -> None:
    study = make_study(storage, name)
    calls = []

    def objective(trial: Any) -> float:
        calls.append(trial.number)
        if len(calls) == 1:  # what other workers do when there is no sign of life of this one
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return 0.0

    optimize(study, objective, 2, 1)
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, *[TrialState.COMPLETE] * 2]


def test_other_errors_are_not_swallowed(storage: Any, name: str) -> None:
    def objective(trial: Any) -> float:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        optimize(make_study(storage, name), objective, 2, 1)


def test_a_journal_ends_without_waiting_for_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(open_storage(f"{tmp_path}/journal/study.log", 1), "journal")
    study.ask()  # in another worker, which may have been killed: a journal cannot tell
    optimize(study, lambda trial: 0.0, 2, None)
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert "cannot tell whether they live" in capsys.readouterr().out
