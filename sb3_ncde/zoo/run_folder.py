"""The folder of a run, which is not to stay where the run has left nothing in it.

The RL Zoo makes it before anything else, and ``enjoy`` looks for the agent in the latest one.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WORTHLESS = {"args.yml", "command.txt", "config.yml"}
"""What is written before a training begins."""
HEADER = 2
"""Lines of a Monitor's file that has no episode."""


class RunFolder:
    """A folder that is to be made, with the folders above it that are not there yet.

    :param path: of the run
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made = [folder for folder in (path, *path.parents) if not folder.exists()]  # the innermost first

    @contextmanager
    def removed_if_worthless(self) -> Iterator[None]:
        """After an error, remove what was made for the run, if it has left neither an agent nor an episode."""
        try:
            yield
        except BaseException:
            if self.path in self.made and not any(map(_has_worth, self.path.rglob("*"))):
                shutil.rmtree(self.path, ignore_errors=True)  # on Windows a file that is still open stays
                for folder in self.made:
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()
            raise


def _has_worth(path: Path) -> bool:
    if path.name.endswith(".monitor.csv"):
        return len(path.read_text().splitlines()) > HEADER
    return path.is_file() and path.name not in WORTHLESS
