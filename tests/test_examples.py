"""The examples: each runs as it stands, only shorter, and leaves what it says."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


FILES = {
    "irregular_sensors": (["--steps", "1024", "--episodes", "1"], {"agent.zip", "agent.pkl", "returns.png"}),
    "sac": (["--steps", "120", "--episodes", "1"], {"agent.zip", "buffer.pkl"}),
    "own_environment": (["--steps", "1024", "--episodes", "2"], {"agent.zip", "agent.pkl"}),
}


def test_pages_lead_to_each_example() -> None:
    pages = "".join(page.read_text() for page in (EXAMPLES.parent / "docs").glob("*.md"))
    for example in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")]:
        assert f"(../examples/{example.name})" in pages


@pytest.mark.parametrize("name", FILES)
def test_scripts(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, files = FILES[name]
    script = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    script["main"]([*arguments, "--output", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == files
    assert "return" in capsys.readouterr().out


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells one after the other, in one namespace; it is committed without outputs."""
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in cells)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code):
        shorter = re.sub(r"n_eval_episodes=\d+", "n_eval_episodes=1", re.sub(r"learn\([\d_]+", "learn(256", cell))
        exec(compile(shorter, f"cell {number}", "exec"), namespace)
    assert "the same state: True" in capsys.readouterr().out
