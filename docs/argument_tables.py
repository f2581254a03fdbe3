"""Write the tables of docs/arguments.md from the docstrings of the arguments. ``python docs/argument_tables.py``."""

import inspect
import re
from pathlib import Path

import yaml

from sb3_ncde.arguments import NCDEArguments
from sb3_ncde.cde.arguments import EncoderArguments
from sb3_ncde.history.arguments import HistoryArguments

PAGE = Path(__file__).with_name("arguments.md")
GROUPS = (HistoryArguments, EncoderArguments, NCDEArguments)
"""Each has a table on the page, of the arguments that are its own, behind a comment with its name."""


def rows(group: type) -> list[str]:
    """Return a table's rows: of each argument its name, its default as YAML has it, and its meaning."""
    meanings = re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", inspect.getdoc(group) or "", re.DOTALL | re.MULTILINE)
    own = {name: " ".join(text.split()).replace("``", "`") for name, text in meanings}
    assert list(own) == list(group.__annotations__), f"the docstring of {group.__name__} and its arguments differ"
    defaults = {name: yaml.safe_dump(getattr(group, name)).split("\n")[0] for name in own}
    return [f"| `{name}` | `{defaults[name]}` | {meaning} |" for name, meaning in own.items()]


def with_tables(page: str) -> str:
    """Return the page with its tables written anew."""
    for group in GROUPS:
        mark = f"<!-- {group.__name__} -->\n"
        before, rest = page.split(mark)
        table = ["| argument | default | meaning |", "|---|---|---|", *rows(group)]
        after = re.sub(r"\A\n(\|.*\n)*", "", rest)  # without the table of before
        page = "\n".join([before + mark, *table, after])
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
