"""The README's code runs as it stands, but for the number of steps."""

import re
from pathlib import Path
from typing import Any

from sb3_ncde.arguments import NCDEArguments
from tests.envs import MaskedWalk

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace: dict[str, Any] = {"masked_env": MaskedWalk()}
    for block in blocks:
        exec(block.replace("35_000", "200"), namespace)
        if "learn" not in block:
            namespace["model"].n_steps = namespace["model"].rollout_buffer.buffer_size = 16
            namespace["model"].learn(64)
    assert len(blocks) == 7


def test_table_of_arguments_is_complete() -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \|$", README, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(NCDEArguments.__dataclass_fields__) <= named
