"""The README's code runs as it stands, but for the number of steps."""

import re
from pathlib import Path
from typing import Any

from stable_baselines3.common.env_util import make_vec_env

from sb3_ncde.arguments import NCDEArguments
from tests.envs import MaskedWalk, RandomWalk

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_code_runs() -> None:
    example, acting, time, masks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(example.replace("35_000", "200"), namespace)
    exec(acting, namespace)
    namespace["env"] = make_vec_env(RandomWalk, env_kwargs={"observation": "dict"})
    exec(time, namespace)
    namespace["model"].learn(64)
    namespace["masked_env"] = MaskedWalk()
    exec(masks, namespace)
    namespace["model"].learn(64)


def test_table_of_arguments_is_complete() -> None:
    rows = re.findall(r"^\| (`.*?) \| .* \|$", README, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(NCDEArguments.__dataclass_fields__) <= named
