"""Which errors are mistakes of the user, who is to read one sentence, and which are bugs, whose traceback matters."""

import dis
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, TracebackType
from typing import NamedTuple

REFUSING = ("sb3_ncde", "rl_zoo3", "stable_baselines3", "sb3_contrib", "gymnasium", "optuna", "yaml")
"""Packages that refuse what a user gave them by an error of their own, raised on purpose and with a sentence."""

_NAMES = (AttributeError, ImportError, TypeError, ValueError)


class Reader(NamedTuple):
    """A function that works on what the user typed, so that its errors are mistakes even where nobody meant to raise.

    :param file: of the function, below the folder of its package
    :param function: its name
    :param errors: what it raises then
    :param hint: what it expects
    """

    file: str
    function: str
    errors: tuple[type[Exception], ...]
    hint: str


_MODULES = "--gym-packages takes modules that Python can import: installed ones, or files of this folder without .py"
_WRAPPERS = (
    "env_wrapper and vec_env_wrapper are written module.Class, or as a list of such; with arguments as a mapping: "
    "{module.Class: {name: value}}"
)
READERS = (
    Reader(
        "rl_zoo3/exp_manager.py",
        "read_hyperparameters",
        (OSError, AttributeError, ImportError, KeyError, TypeError),
        "--conf-file names a YAML file (.yml, .yaml), a .py file, or a module with a dict named hyperparams; in each, "
        "environment ids with a mapping of settings",
    ),
    Reader(
        "rl_zoo3/exp_manager.py",
        "_preprocess_normalization",
        (NameError, SyntaxError, TypeError),
        "normalize is true, false, a mapping like {norm_reward: false}, or Python code for one",
    ),
    Reader(
        "sb3_ncde/zoo/config_entry.py", "as_mapping", (NameError, SyntaxError, TypeError), "policy_kwargs is a mapping"
    ),
    Reader("rl_zoo3/utils.py", "get_class_by_name", _NAMES, "policy and callback are written module.Class"),
    Reader(
        "rl_zoo3/utils.py",
        "get_callback_list",
        _NAMES,
        "a callback is written module.Class, or {module.Class: {name: value}}",
    ),
    Reader("rl_zoo3/utils.py", "get_wrapper_class", _NAMES, _WRAPPERS),
    Reader("rl_zoo3/utils.py", "wrap_env", (TypeError,), _WRAPPERS),
    Reader(
        "rl_zoo3/utils.py",
        "__call__",
        (NameError, SyntaxError, TypeError, ValueError),
        "-params, --env-kwargs and --eval-env-kwargs take name:value, and the value is Python: a text needs quotes "
        "that the shell leaves in place, as in -params learning_rate:\"'lin_0.001'\"",
    ),
    Reader(
        "sb3_ncde/envs/normalization.py",
        "__init__",
        (TypeError,),
        "normalize is true, false, or a mapping with arguments of VecNormalizeObserved, like {norm_reward: false}",
    ),
    Reader("rl_zoo3/train.py", "train", (ImportError,), _MODULES),
    Reader("rl_zoo3/enjoy.py", "enjoy", (ImportError,), _MODULES),
    Reader("sb3_ncde/cli.py", "record_video", (ImportError,), _MODULES),
    Reader("sb3_ncde/zoo/benchmark.py", "main", (ImportError,), _MODULES),
    Reader("sb3_ncde/zoo/trained.py", "load", (ImportError,), _MODULES),
    Reader("rl_zoo3/plots/plot_train.py", "plot_train", (OSError,), "-f is the folder with the logs of a training"),
)

CURES = {
    "not found in gym registry": "An environment of your own is known by its module: --gym-packages MODULE.",
    "Hyperparameters not found": "Give the file an entry that is named after the environment, or one named default.",
    "No model found": "Train one first, or say by -f in which folder the logs are, and by --exp-id which run.",
    "folder was not found": "Train first, or say by -f in which folder the logs are, and by --exp-id which run.",
}
"""What to do about what the RL Zoo only complains of."""


def sentence_of(error: Exception) -> str | None:
    """Return what to tell the user of an error: a sentence where it is a mistake of theirs, None where it is a bug.

    A mistake is what a package of :data:`REFUSING` has refused on purpose, or what a :class:`Reader` stumbled over. An
    ``assert`` of this package is for what cannot happen, so that its failure is a bug. So is all that begins in code of
    the user's own, an environment for example: it is the traceback that shows them where.
    """
    reader = _reader_of(error)
    if reader is not None:
        return f"{type(error).__name__}: {error}. ({reader.hint}.)"
    origin = error.__traceback__ and list(_frames(error.__traceback__))[-1]
    if origin is None or not _raises(*origin) or not str(error):
        return None
    package = _package_of(origin[0].co_filename)
    if package is None or (package == "sb3_ncde" and isinstance(error, AssertionError)):
        return None
    if not _begins_in_known_code(error.__cause__):
        return None
    cures = [cure for complaint, cure in CURES.items() if complaint in str(error)]
    return ". ".join([str(error), *cures]) if cures and str(error)[-1] not in ".?!" else " ".join([str(error), *cures])


def _reader_of(error: Exception) -> Reader | None:
    """Return the function that worked on what the user typed when the error occurred, if it was one."""
    place = _place_of(error)
    if place is None:
        return None
    for reader in READERS:
        if place.co_name == reader.function and Path(place.co_filename).as_posix().endswith(f"/{reader.file}"):
            return reader if isinstance(error, reader.errors) and not _raised_in(error, place) else None
    return None


def _raised_in(error: Exception, place: CodeType) -> bool:
    """Return whether the place itself has refused something on purpose: then the error says all there is to say."""
    code, instruction = list(_frames(error.__traceback__))[-1]
    return code is place and _raises(code, instruction)


def _place_of(error: BaseException) -> CodeType | None:
    """Return the code in which an error occurred, that of Python's own library and of ``eval`` left out."""
    library = sysconfig.get_paths()["stdlib"]
    found = None
    for code, _ in _frames(error.__traceback__):
        file = code.co_filename
        in_library = file.startswith(library) and "site-packages" not in file
        if not (in_library or file.startswith("<")):
            found = code
    return found


def _begins_in_known_code(cause: BaseException | None) -> bool:
    """Return whether what an error was made of occurred in a package of :data:`REFUSING` as well, or there is none."""
    if cause is None:
        return True
    place = _place_of(cause)
    known = place is None or _package_of(place.co_filename) is not None
    return known and _begins_in_known_code(cause.__cause__)


def _frames(traceback: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    """Yield the code of each frame and its instruction that failed, the innermost last."""
    while traceback is not None:
        yield traceback.tb_frame.f_code, traceback.tb_lasti
        traceback = traceback.tb_next


def _raises(code: CodeType, instruction: int) -> bool:
    """Return whether an instruction is one of ``raise`` or ``assert``, and not one that failed by itself."""
    return dis.opname[code.co_code[instruction]] == "RAISE_VARARGS"


def _package_of(file: str) -> str | None:
    """Return the package of :data:`REFUSING` that a file belongs to."""
    for name in REFUSING:
        module = sys.modules.get(name)
        if module is not None and module.__file__ is not None and Path(module.__file__).parent in Path(file).parents:
            return name
    return None
