"""What an exported agent is made of, and the file that holds it: plain values and arrays, no code and no pickle.

An agent is a tree of dicts, lists, plain values and arrays. In the file, an ``.npz``, each array stands under its place
in the tree, and the tree stands beside them as JSON, with the names of its arrays.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from sb3_ncde.history.window_rule import Array

FORMAT = "sb3_ncde.deploy"
FORMAT_VERSION = 3
"""Of the tree. It rises with every change that a reader of before would not understand."""
_ARRAY, _METADATA = "array", "metadata.json"
Tree = dict[str, Any]


class OtherFormatError(ValueError):
    """The file holds something else than an agent of :data:`FORMAT_VERSION`, or not what was written into it."""


def write(path: Path, tree: Tree) -> None:
    """Write an agent to a file, or leave what was there before as it is.

    :param path: of the file, with the suffix ``.npz``
    :param tree: the agent
    """
    described, arrays = without_arrays(tree)
    named: dict[str, Any] = {_METADATA: np.frombuffer(json.dumps(described).encode(), np.uint8), **arrays}
    with replaced(path) as file:
        np.savez(file, **named)


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of another once it is whole, and in the same moment."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def read(path: Path) -> Tree:
    """Read an agent from a file.

    :raises OtherFormatError: for a file of another kind or version, or one whose weights have changed
    """
    content = io.BytesIO(path.read_bytes())
    try:
        with np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        described = json.loads(arrays.pop(_METADATA).tobytes())
    except Exception as error:  # what a damaged archive ends in is up to the bits that are wrong
        raise OtherFormatError(f"{path} is not a file that sb3_ncde.deploy.export_numpy has written.") from error
    check_version(described, str(path))
    if digest(arrays) != described["sha256"]:
        raise OtherFormatError(f"The weights in {path} are not those that were written (SHA-256): copy the file again.")
    return _with_arrays(described, arrays)  # type: ignore[no-any-return]


def check_version(described: Mapping[str, Any], name: str) -> None:
    """Raise OtherFormatError for an agent of another version, by the name of both."""
    if described.get("format") != FORMAT:
        raise OtherFormatError(f"{name} does not hold an agent of {FORMAT}, but {described.get('format')!r}.")
    found = described.get("format_version")
    if found != FORMAT_VERSION:
        written = described.get("versions", {}).get("sb3-ncde", "unknown")
        raise OtherFormatError(
            f"{name} has the format version {found} (written by sb3-ncde {written}), but this sb3-ncde reads version "
            f"{FORMAT_VERSION}: install the version that wrote it, or export the agent again."
        )


def metadata_of(tree: Tree) -> Tree:
    """Return what a tree says without its arrays, by name, and the layout of the history as ``history``."""
    described, _ = without_arrays(tree)
    return described | {"history": described["encoder"]["description"]["layout"]}


def without_arrays(tree: Tree) -> tuple[Tree, dict[str, Array]]:
    """Return the tree with names in place of its arrays, and the arrays by these names."""
    arrays: dict[str, Array] = {}

    def named(node: Any, place: str) -> Any:
        if isinstance(node, np.ndarray):
            arrays[place] = node
            return {_ARRAY: place}
        if isinstance(node, Mapping):
            return {key: named(part, f"{place}.{key}" if place else str(key)) for key, part in node.items()}
        if isinstance(node, list | tuple):
            return [named(part, f"{place}.{number}") for number, part in enumerate(node)]
        return node

    return named(tree, ""), arrays


def as_read(tree: Tree) -> Tree:
    """Return a tree as :func:`read` would, of a file that it was written to."""
    described, arrays = without_arrays(tree)
    return _with_arrays(json.loads(json.dumps(described)), arrays)  # type: ignore[no-any-return]


def digest(arrays: Mapping[str, Array]) -> str:
    """Return the SHA-256 of arrays: of their names, types, shapes and numbers."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _with_arrays(node: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(node, dict):
        if node.keys() == {_ARRAY}:
            return arrays[node[_ARRAY]]
        return {key: _with_arrays(part, arrays) for key, part in node.items()}
    return [_with_arrays(part, arrays) for part in node] if isinstance(node, list) else node
