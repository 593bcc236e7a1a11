"""The documents of the project, and what is in them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import typer

from k2beam.cli.main import app, split_beam_options

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/README.md",
    "ops/README.md",
    "samples/README.md",
    *PAGES,
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIME_TAKEN = re.compile(r" in [\d.]+ s \(.*\)")
_SHELL = re.compile(r" (?:[|>&]|2>)")
"""Where the shell's part of a line begins."""
_INLINE = re.compile(r"`(k2beam [^`\n]+)`")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[tuple[str, str]]:
    """The blocks of code of a document: language and body."""
    return FENCE.findall(read(name))


def commands_in_blocks(name: str) -> list[str]:
    """Commands as they are to be typed; blocks of output (text) show them after ``==``."""
    lines = [_SHELL.split(line.removeprefix("== "))[0] for _, body in blocks(name) for line in body.splitlines()]
    return [line for line in lines if line.startswith("k2beam ")]


def commands_in_text(name: str) -> list[str]:
    """Commands that a sentence names: what is required may be left out."""
    return _INLINE.findall(FENCE.sub("", read(name)))


def parse(command: str, *, whole: bool) -> list[str]:
    """The path of sub-commands; an unknown command or option, or (``whole``) a missing or bad one, raises."""
    arguments, _ = split_beam_options(shlex.split(command, comments=True)[1:])
    found = typer.main.get_command(app)
    path: list[str] = []
    while True:
        context = found.make_context("k2beam", list(arguments), resilient_parsing=not whole)
        rest = [*context._protected_args, *context.args]
        if not hasattr(found, "resolve_command"):
            assert not rest, f"{command}: {rest} is not taken"
            return path
        if not rest:
            assert not whole, f"{command}: a sub-command is missing"
            return path
        name, found, arguments = found.resolve_command(context, rest)
        path.append(name)


def missing(shown: str, printed: str) -> list[str]:
    """Lines of an excerpt that were not printed, whole or as columns of a line; of JSON, as a part of an object."""
    lines, rows = shown.splitlines(), [set(_TIME_TAKEN.sub("", line).split()) for line in printed.splitlines()]
    lost = []
    if "{" in lines:
        begin, end = lines.index("{"), lines.index("}")
        part = json.loads(re.sub(r",\s*…?\s*}$", "}", "\n".join(lines[begin : end + 1])))
        whole = json.JSONDecoder().raw_decode(printed[printed.index("{\n") :])[0]
        lost = [name for name, value in part.items() if whole.get(name) != value]
        del lines[begin : end + 1]
    for line in lines:
        words = set(_TIME_TAKEN.sub("", line).split())
        if line != "…" and not line.startswith("== ") and not any(words <= row for row in rows):
            lost.append(line)
    return lost
