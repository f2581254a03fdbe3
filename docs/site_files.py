"""A hook of mkdocs: pages link to files of the repository that lie outside of docs/, and the site has these as well.

So a link is the same on GitHub and on the site: ``../configs/sac.yml`` from a page, ``docs/saving.md`` from
``CONTRIBUTING.md``.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
"""Pages that stand where GitHub looks for them."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what is linked to the files of the site."""
    text = "".join(path.read_text() for path in Path(config.docs_dir).glob("*.md"))
    linked = re.findall(r"\]\(\.\./([^)#]+)", text)
    for name in sorted({*PAGES, *linked}):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where the site has what they name."""
    here, there = (r"\]\(docs/", "](") if page.file.src_uri in PAGES else (r"\]\(\.\./", "](")
    return re.sub(here, there, markdown)
