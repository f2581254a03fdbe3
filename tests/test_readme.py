"""The README's code runs as it stands, but for the number of steps."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sb3_ncde.arguments import NCDEArguments
from tests.envs import MaskedWalk

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it saves pictures
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace: dict[str, Any] = {"masked_env": MaskedWalk()}
    for block in blocks:
        exec(block.replace("35_000", "200").replace("n_episodes=100", "n_episodes=2"), namespace)
        if "learn" not in block:
            namespace["model"].n_steps = namespace["model"].rollout_buffer.buffer_size = 16
            namespace["model"].learn(64)
    assert len(blocks) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", "latents.png"}


SHORTER = {
    "train": "-n 512 --eval-freq -1",
    "enjoy": "-n 100",
    "plot": "-w 1",
    "record-video": "-n 20",
    "benchmark": "--seeds 0 -n 512 --eval-steps 100",
    "tune": "-n 512 --max-total-trials 1 --eval-episodes 1 --n-evaluations 1",
}
"""Options that make each of the commands short; the last of an option's values counts."""


@pytest.mark.filterwarnings("ignore")
def test_commands_of_the_zoo_run(tmp_path: Path) -> None:
    """As typed in from the page, in one folder; those of a server only where there is one."""
    pytest.importorskip("rl_zoo3")
    section = README.split("## In the RL Zoo")[1].split("\n## ")[0]
    lines = re.findall(r"^    ((?:sb3-ncde|python -m) .*)$", section, flags=re.MULTILINE)
    assert {word for line in lines for word in line.split()} >= SHORTER.keys()
    # Among them the commands of the environment that runs the tests; where there is a display, no window.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    for line in lines:
        command = line.partition("#")[0].replace("rl_zoo3.", "")
        name = next(word for word in command.split() if word in SHORTER)
        if "postgresql://" in line:
            if "TEST_POSTGRES" not in os.environ:
                continue
            line = re.sub(r"postgresql://\S+", os.environ["TEST_POSTGRES"], line)
            line = line.replace("--study-name pendulum", f"--study-name {tmp_path.name}-{time.time()}")
        typed = f"{line.partition('#')[0]} {SHORTER[name]}"
        done = subprocess.run(typed, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, typed + done.stdout + done.stderr


def test_table_of_arguments_is_complete() -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \|$", README, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(NCDEArguments.__dataclass_fields__) <= named
