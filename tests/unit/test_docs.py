"""What the documents show works: commands exist and take their options, Python runs and prints what is shown."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from k2beam.cli.main import app
from tests.documents import DOCUMENTS, PAGES, ROOT, blocks, commands_in_blocks, commands_in_text, missing, parse
from tests.replay_helpers import ingest

WRONG_USAGE = typer.BadParameter.__mro__[1]
"""The base of what typer raises for a command line that it does not take."""

PRINTS = ["README.md", "docs/query.md", "docs/engines.md"]
"""Documents whose programs are followed by what they print."""
LIST_OF_COMMANDS = "docs/reference/commands.md"


def leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that has no sub-commands, by its path."""
    if not hasattr(group, "commands"):
        yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from leaves(command, (*path, name))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_exists_and_takes_its_options(document: str) -> None:
    paths = [parse(command, whole=True) for command in commands_in_blocks(document)]
    paths += [parse(command, whole=False) for command in commands_in_text(document)]
    for path in {tuple(path) for path in paths}:
        shown = CliRunner().invoke(app, [*path, "--help"])
        assert shown.exit_code == 0, shown.output
        assert "Usage:" in shown.output


def test_every_command_is_shown_on_a_page() -> None:
    pages = ["README.md", *PAGES]
    pages.remove(LIST_OF_COMMANDS)
    named = [parse(command, whole=True) for page in pages for command in commands_in_blocks(page)]
    named += [parse(command, whole=False) for page in pages for command in commands_in_text(page)]
    every = {path for path, _ in leaves(typer.main.get_command(app))}
    assert every - {tuple(path) for path in named} == set()
    listed = {tuple(parse(command, whole=False)) for command in commands_in_text(LIST_OF_COMMANDS)}
    assert every - listed == set(), f"{LIST_OF_COMMANDS} does not say which page explains them"


def test_every_option_and_argument_has_help_text() -> None:
    silent = [
        f"k2beam {' '.join(path)}: {parameter.name}"
        for path, command in leaves(typer.main.get_command(app))
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "command",
    [
        "k2beam ingest nothing",
        "k2beam audit --nothing",
        "k2beam query summary --symbol A",
        "k2beam gaps X",
        "k2beam query",
    ],
)
def test_a_wrong_command_is_found(command: str) -> None:
    with pytest.raises((WRONG_USAGE, AssertionError)):
        parse(command, whole=True)


@pytest.fixture(scope="module")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the samples in ``warehouse``, as ``run_local.sh`` leaves a checkout."""
    folder = tmp_path_factory.mktemp("samples")
    ingest([ROOT / "samples"], folder / "warehouse")
    return folder


@pytest.mark.parametrize("document", PRINTS)
def test_python_prints_what_is_shown(document: str, sample_folder: Path) -> None:
    found = blocks(document)
    programs = [(body, found[number + 1]) for number, (language, body) in enumerate(found) if language == "python"]
    assert programs
    own = os.environ | {"PYTHONPATH": str(ROOT)}
    for program, (language, shown) in programs:
        assert language == "text", "the block after a program is what it prints"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=sample_folder, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == shown


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_imports_what_is_there(document: str) -> None:
    for program in (body for language, body in blocks(document) if language == "python"):
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("document", ["README.md", "docs/start.md"])
def test_the_excerpt_of_the_sample_run_is_what_the_commands_print(document: str, sample_folder: Path) -> None:
    """Rows of the excerpt are the beginnings of printed rows, or columns of them."""
    shown = next(body for language, body in blocks(document) if language == "text")
    warehouse = ["--warehouse", str(sample_folder / "warehouse")]
    printed = ""
    for command in (["query", "trades", "--limit", "5"], ["gaps"], ["audit", "--source", str(ROOT / "samples")]):
        result = CliRunner().invoke(app, [*command, *warehouse])
        assert result.exit_code == 0, result.output
        printed += result.output
    table = shown[shown.index("== k2beam query") :]
    assert len([line for line in table.splitlines() if line and line != "…" and not line.startswith("== ")]) >= 5
    assert missing(table, printed) == []
