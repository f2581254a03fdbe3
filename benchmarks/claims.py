"""Claims: which of several processes does what makes a file, on any number of machines over one folder.

A claim is a lock on a file beside the one to be made. The system gives it up when its process ends, however it ends. On
a network the folder must be on a file system that has locks, as NFS 4.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE = 1.0
"""Seconds for which a lock is asked for again: whoever only looks whether it is taken has it for a moment."""


@contextmanager
def claim(wanted: Path) -> Iterator[bool]:
    """Try to become the one that makes a file, and give whether this is so.

    The claim ends with the block, whether the file has been made or not.

    :param wanted: the file; it must appear whole, by ``Path.replace``
    """
    try:
        lock = _lock(wanted).acquire(timeout=PATIENCE)
    except Timeout:
        yield False
        return
    with lock:
        yield not wanted.exists()


def claimed(wanted: Path) -> bool:
    """Return whether someone is at work on a file."""
    if not _path(wanted).exists():
        return False
    try:
        with _lock(wanted).acquire(blocking=False):
            return False
    except Timeout:
        return True


def _lock(wanted: Path) -> FileLock:
    return FileLock(_path(wanted))


def _path(wanted: Path) -> Path:
    return wanted.with_name(f".{wanted.name}.lock")
