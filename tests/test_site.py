"""The site: each page is in its navigation, and its tables, messages and sizes are those of the code.

``make docs`` builds it, and fails where a link or an anchor of it leads nowhere.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_ncde
from sb3_ncde import HistoryReplayBuffer, VecHistory, sensors, wrappers
from sb3_ncde.arguments import split_arguments

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def site_pages(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation, in its order."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from site_pages(part)


def test_each_page_is_in_the_navigation_and_on_the_first_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text().replace("!ENV", "")
    pages = list(site_pages(yaml.safe_load(text)["nav"]))
    assert sorted(pages) == sorted([*(page.name for page in DOCS.glob("*.md")), "CONTRIBUTING.md", "CHANGELOG.md"])
    assert pages[0] == "index.md"
    assert "(docs/index.md)" in (ROOT / "README.md").read_text()
    index = (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or f"({page.name}" in index


def test_what_is_public_is_on_the_page_of_the_api() -> None:
    named = set(re.findall(r"^::: sb3_ncde\.([\w.]+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE))
    classes = {name for name in sb3_ncde.__all__ if name not in ("envs", "presets")}
    assert named >= classes
    assert named >= {f"sensors.{name}" for name in sensors.__all__} | {f"wrappers.{name}" for name in wrappers.__all__}
    for name in named:
        module, _, attribute = f"sb3_ncde.{name}".rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


@pytest.mark.parametrize("module", [sensors, wrappers])
def test_tables_of_wrappers_name_what_each_takes(module: Any) -> None:
    rows = re.findall(r"^\| `(\w+)\((.*?)\)` \|", (DOCS / "sensors.md").read_text(), flags=re.MULTILINE)
    table = dict(rows)
    assert set(module.__all__) <= table.keys()
    for name in module.__all__:
        parameters = inspect.signature(getattr(module, name)).parameters
        for argument, default in re.findall(r"(\w+)(?:=(\[.*?\]|[^,]+))?", table[name]):
            assert argument in parameters
            if default and parameters[argument].default is not inspect.Parameter.empty:
                assert parameters[argument].default == ast.literal_eval(default)


def test_each_argument_of_the_lstm_policies_has_a_row() -> None:
    """With the names that the refusal of it has."""
    recurrent, plain = (inspect.signature(c).parameters.keys() for c in (RecurrentActorCriticPolicy, ActorCriticPolicy))
    rows = dict(re.findall(r"^\| `(\w+)[^|]*\| (.*) \|$", (DOCS / "from-lstm.md").read_text(), flags=re.MULTILINE))
    assert len(recurrent - plain) == 5
    for name in recurrent - plain:
        with pytest.raises(TypeError) as refusal:
            split_arguments("NCDEPolicy", {name: 1})
        ours = re.findall(r"`(\w+)", rows[name])
        assert ours
        assert all(argument in str(refusal.value) for argument in ours)


# Messages


def text_of(node: ast.expr | None, names: dict[str, ast.expr | None]) -> str:
    """Return the text that an expression makes, with … for what is only known when it runs.

    :param node: the expression
    :param names: what the module's variables hold and its functions return, by their names
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return re.sub("…+", "…", "".join(text_of(part, names) for part in node.values))
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        node = node.value
    if isinstance(node, ast.Call):
        node = node.func
    value = names.get(node.id) if isinstance(node, ast.Name) else None
    return text_of(value, {}) if isinstance(value, ast.JoinedStr | ast.Constant) else "…"


def messages() -> Iterator[tuple[str, str]]:
    """Yield the module and the text of each error and each warning of the package that a user may read."""
    for path in sorted((ROOT / "sb3_ncde").rglob("*.py")):
        tree = ast.parse(path.read_text())
        names: dict[str, ast.expr | None] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = node.value
            elif isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return):
                names[node.name] = node.body[-1].value
        for node in ast.walk(tree):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = ast.unparse(call.func)
            # One worker's, by which a study goes on to its next trial.
            raised = isinstance(node, ast.Raise) and name != "NotNeededError"
            if raised or name in ("warnings.warn", "sys.exit"):
                text = " ".join(text_of(call.args[0], names).split())
                if len(text.replace("…", "")) > 12:  # else it only hands on what another has said
                    yield path.name, text


MESSAGES = list(messages())
ON_THE_PAGE = re.findall(r"^\| `(.*?)` \| .*? \|$", (DOCS / "troubleshooting.md").read_text().replace("\\|", "|"), re.M)


def test_each_message_of_the_package_is_explained() -> None:
    """On the page of troubleshooting, by a part of it that can be searched for."""
    assert len(MESSAGES) > 100
    unexplained = [(module, text) for module, text in MESSAGES if not any(part in text for part in ON_THE_PAGE)]
    assert unexplained == []


def test_each_message_that_is_explained_exists() -> None:
    assert len(ON_THE_PAGE) > 100
    unknown = [part for part in ON_THE_PAGE if not any(part in text for _, text in MESSAGES)]
    assert unknown == []
    for part in ON_THE_PAGE:
        assert len(part.replace("…", "")) >= 12, f"{part} is too short to be searched for"


# Memory in MB


class Robot(gym.Env[Any, Any]):
    """The example of the page: 24 numbers, 6 motors."""

    observation_space = spaces.Box(-1.0, 1.0, (24,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (6,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin; nothing of it is ever stepped."""
        return np.zeros(24, np.float32), {}


def figures(title: str) -> list[str]:
    """Return the sizes in the table's row that begins with a title, in its order."""
    (row,) = re.findall(rf"^\| {title}.*$", (DOCS / "how-it-works.md").read_text(), flags=re.MULTILINE)
    return re.findall(r"[\d,.]+ [KM]B", row)


def test_sizes_of_states_are_those_of_real_ones() -> None:
    states, rollouts = [], []
    lstms = [("MlpLstmPolicy", {"lstm_hidden_size": units}) for units in (64, 256)]
    for policy, kwargs in [("NCDEPolicy", {"history_length": 8}), *lstms]:
        model = RecurrentPPO(policy, DummyVecEnv([Robot] * 16), n_steps=512, policy_kwargs=kwargs, device="cpu")
        _, state = model.predict(np.zeros((1, 24), np.float32))
        states.append(f"{sum(part.nbytes for part in state or ()) / 1e3:.1f} KB")
        buffer: Any = model.rollout_buffer
        parts = [f"{kind}_states_{head}" for kind in ("hidden", "cell") for head in ("pi", "vf")]
        rollouts.append(f"{sum(getattr(buffer, part).nbytes for part in parts) / 1e6:.1f} MB")
    assert figures("the state that `predict` returns") == states
    assert figures("all states in a rollout buffer of 16 environments x 512 steps") == rollouts


def test_sizes_of_replay_buffers_are_those_of_real_ones() -> None:
    def stored(**kwargs: Any) -> str:
        space = VecHistory(DummyVecEnv([Robot]), history_length=8, **kwargs).observation_space
        return f"{HistoryReplayBuffer(1_000_000, space, Robot.action_space).nbytes / 1e6:,.0f} MB"

    frames, sizes = spaces.Box(-1.0, 1.0, (8 * 24,), np.float32), [stored()]
    for once in (False, True):
        stock = ReplayBuffer(
            1000, frames, Robot.action_space, optimize_memory_usage=once, handle_timeout_termination=not once
        )
        arrays = (value for value in vars(stock).values() if isinstance(value, np.ndarray))
        sizes.append(f"{sum(array.nbytes for array in arrays) / 1e3:,.0f} MB")
    assert figures("a replay buffer of 1,000,000 transitions") == sizes
    assert figures("the same, `missing_values: true`") == [stored(missing_values=True)]
