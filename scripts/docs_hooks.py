"""What mkdocs does for this project beyond its settings (``make docs``).

- The commands are written into docs/reference/commands.md from the program itself. One without help text, or an
  option or argument without, is a warning, which ``--strict`` makes an error.
- Pages of the repository that lie outside docs/ are part of the site (``PAGES``). A link to any other file outside
  docs/ becomes the file's path, since the site has no copy of it; to one that is not there, a warning.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from k2beam.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {
    "architecture.md": ROOT / "ARCHITECTURE.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "deploy.md": ROOT / "deploy" / "README.md",
    "ops.md": ROOT / "ops" / "README.md",
    "security.md": ROOT / "SECURITY.md",
    "samples.md": ROOT / "samples" / "README.md",
}
"""Pages of the site that are files of the repository outside docs/."""

COMMANDS = "reference/commands.md"
MARK = "<!-- commands: scripts/docs_hooks.py -->"

_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]+)?\)")

_ROLE = re.compile(r":(?:meth|class|func|mod|attr|data):(?=<code>)")
_DROPPED = (
    re.compile(r"^\* `--help`: .*\n", re.MULTILINE),
    re.compile(r"^\*\*Commands\*\*:\n\n(\* .*\n)*", re.MULTILINE),  # their first words only, and the whole follows
)

log = logging.getLogger("mkdocs.hooks.k2beam")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for name, path in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in the commands, and turn links out of docs/ into what the site has."""
    name = page.file.src_uri
    if name == COMMANDS:
        markdown = markdown.replace(MARK, commands())
    parts = _FENCE.split(markdown)  # the odd ones are blocks of code
    return "".join(
        part if number % 2 else _LINK.sub(lambda m: _link(m, name), part) for number, part in enumerate(parts)
    )


def on_page_content(html: str, **_: Any) -> str:
    """Take away the roles of names in docstrings (``:meth:``), which Markdown does not know."""
    return _ROLE.sub("", html)


def _link(found: re.Match[str], name: str) -> str:
    """One link of the page ``name`` as the site has it."""
    text, target, anchor = found.group(1), found.group(2), found.group(3) or ""
    if "://" in target:
        return found.group()
    path = Path(os.path.normpath(PAGES.get(name, DOCS / name).parent / target))
    if not path.exists():
        log.warning("%s: %s is not there", name, target)
        return found.group()
    uri = next((uri for uri, page in PAGES.items() if page == path), None)
    if uri is None and path.is_relative_to(DOCS):
        uri = path.relative_to(DOCS).as_posix()
    if uri is None:
        shown = f"`{path.relative_to(ROOT).as_posix()}`"
        return shown if path.name.strip("/") in text or text.strip("`/") in shown else f"{text} ({shown})"
    return f"[{text}]({os.path.relpath(uri, Path(name).parent)}{anchor})"


def commands() -> str:
    """The reference of all commands as Markdown, by typer's own writer; what has no help text is a warning."""
    command = typer.main.get_command(app)
    for named in undocumented(command, "k2beam"):
        log.warning("%s has no help text", named)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="k2beam"), name="k2beam")
    for dropped in _DROPPED:
        text = dropped.sub("", text)
    return re.sub(r"^#+ ", "## ", text, flags=re.MULTILINE)


def undocumented(command: Any, path: str) -> Iterator[str]:
    """Each command, option and argument without help text, by its name."""
    if not command.help:
        yield path
    for parameter in command.params:
        if not getattr(parameter, "help", None):
            yield f"{path}: {parameter.opts[-1]}"
    for name, child in getattr(command, "commands", {}).items():
        yield from undocumented(child, f"{path} {name}")
