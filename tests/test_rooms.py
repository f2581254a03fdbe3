"""Imports point down the list of rooms, never up."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sb3_ncde"
ROOMS = (
    "cli",  # the commands
    "quickstart",
    "zoo",
    "evaluation",  # tables and pictures
    "deploy",  # without what trained
    "__init__",  # the public names
    "registration",
    "memory",  # all parts together, in one line
    "history_policies",  # of off-policy algorithms
    "policies",  # where SB3 meets the memory
    "buffers",
    "torch_layers",
    "vec_history",
    "saved_policy",
    "action_mask",
    "arguments",
    "presets",
    "hyperparams",
    "heads",  # of NCDEPolicy while it acts
    "known_layers",  # of SB3's networks while they act
    "cde",  # the equation
    "acting",  # a step of it in NumPy
    "history",  # what is remembered
    "sensors",  # the public paths of what is in envs
    "wrappers",
    "normalize",
    "observation_spaces",
    "envs",  # tasks, sensors, spaces
    "plain_values",
)
"""From top to bottom. A room may import what stands below it, and itself."""


def room(module: str) -> str:
    """Return the room of a module of this package by its dotted name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(source: str) -> Iterator[str]:
    """Yield the dotted names of this package that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "sb3_ncde")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            if module == "sb3_ncde":  # its modules by name, or its public names
                modules = {path.stem for path in PACKAGE.iterdir()}
                yield from (f"{module}.{alias.name}" if alias.name in modules else module for alias in node.names)
            elif module.startswith("sb3_ncde."):
                yield module


def arrows_up(name: str, source: str) -> list[str]:
    """Return what a module imports from a room above its own."""
    own = ROOMS.index(room(name))
    return [imported for imported in imports(source) if ROOMS.index(room(imported)) < own]


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_down(name: str) -> None:
    assert arrows_up(name, modules()[name].read_text()) == []


def test_every_room_is_on_the_list_once_and_none_is_empty() -> None:
    assert sorted(ROOMS) == sorted({room(name) for name in modules()})


@pytest.mark.parametrize(
    "line",
    ["from sb3_ncde.policies import NCDEPolicy", "import sb3_ncde.cli", "from sb3_ncde import NCDEPolicy, presets"],
)
def test_an_arrow_that_runs_back_up_is_found(line: str) -> None:
    assert arrows_up("sb3_ncde.history.windows", f"def f() -> None:\n    {line}\n")
    assert not arrows_up("sb3_ncde.cli", line)


@pytest.mark.parametrize("name", ["cde", "envs", "evaluation", "history", "zoo"])
def test_a_room_says_what_belongs_there(name: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text()))
    assert docstring is not None
    assert 3 <= len(docstring.splitlines()) <= 7


def test_the_map_for_contributors_is_that_of_the_rooms() -> None:
    page = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    section = page.split("## The rooms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[\w./]+`(?:, )?)+) \|", section, flags=re.MULTILINE)
    named = [name.removesuffix(".py").removesuffix("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)]
    assert sorted(named) == sorted(ROOMS)
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", page):
        assert (PACKAGE / name).exists() or (PACKAGE.parent / name).exists(), name
    walk = page.split("## The way of an observation")[1].split("\n## ")[0]
    source = "".join(path.read_text() for path in modules().values())
    for owner, method in re.findall(r"`([A-Z]\w+)\.(\w+)`", walk):
        assert owner in ("RecurrentPPO",) or f"class {owner}" in source, owner
        assert f"def {method}(" in source or owner == "RecurrentPPO", method
