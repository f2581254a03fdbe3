"""Claims: which of several processes, on any number of machines over one folder, does what makes a file.

A claim is a file beside the one to be made, whose creation is atomic, and which is touched as long as its process
lives. One that has not been touched for long was its process's last: the next claim, of the next number, takes its
place. So no two can take it over at once, and nothing needs to be renamed or locked.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOUCHED = 10.0
"""Seconds from one sign of life to the next."""
STALE = 120.0
"""Seconds without one after which a claim is no one's."""


@contextmanager
def claim(wanted: Path, stale: float = STALE) -> Iterator[bool]:
    """Try to become the one that makes a file, and give whether this is so.

    The claim ends with the block, whether the file has been made or not.

    :param wanted: the file; it must appear whole, by ``Path.replace``
    :param stale: seconds without a sign of life after which a claim is no one's
    """
    mine = None if wanted.exists() else _take(wanted, stale)
    if mine is None:
        yield False
        return
    if wanted.exists():  # it has been made, and its claim given up, since it was looked for
        mine.unlink()
        yield False
        return
    ended = threading.Event()
    pulse = threading.Thread(target=_stay_alive, args=(mine, ended, min(TOUCHED, stale / 4)), daemon=True)
    pulse.start()
    try:
        yield True
    finally:
        ended.set()
        pulse.join()
        for claimed in _claims(wanted):
            claimed.unlink(missing_ok=True)


def claimed(wanted: Path, stale: float = STALE) -> bool:
    """Return whether someone is at work on a file."""
    claims = _claims(wanted)
    return bool(claims) and _age(claims[-1], wanted.parent) < stale


def _take(wanted: Path, stale: float) -> Path | None:
    """Return a claim, or None if someone else has it."""
    claims = _claims(wanted)
    if claims and _age(claims[-1], wanted.parent) < stale:
        return None
    number = _number(claims[-1]) + 1 if claims else 0
    mine = wanted.with_name(f"{wanted.name}.claim-{number}")
    try:
        mine.touch(exist_ok=False)
    except FileExistsError:
        return None
    return mine


def _claims(wanted: Path) -> list[Path]:
    """Return the claims of a file, the last one last."""
    return sorted(wanted.parent.glob(f"{wanted.name}.claim-*"), key=_number)


def _number(claimed: Path) -> int:
    return int(claimed.name.rpartition("-")[2])


def _age(claimed: Path, folder: Path) -> float:
    """Return the seconds since a claim was touched, by the clock of the file system that all machines share."""
    now = folder / ".now"
    now.touch()
    try:
        return now.stat().st_mtime - claimed.stat().st_mtime
    except FileNotFoundError:  # given up at this moment: the file is there, or can be claimed at the next look
        return 0.0


def _stay_alive(mine: Path, ended: threading.Event, pause: float) -> None:
    while not ended.wait(pause):
        try:
            mine.touch(exist_ok=True)
        except OSError:  # the folder is out of reach for now
            time.sleep(pause)
