"""What the documents say is true: commands exist, Python runs and prints what is shown, files and names are there."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from k2beam.cli.main import app, split_beam_options
from k2beam.demo import DemoReport
from k2beam.job.stats import IngestStats
from k2beam.lake.tables import COVERED_TABLES, PROPERTIES, SEQUENCE_GAPS
from tests.replay_helpers import ingest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

WRONG_USAGE = typer.BadParameter.__mro__[1]
"""The base of what typer raises for a command line that it does not take."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(k2beam [^`\n]+)`")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:k2beam|transforms|tests|docs|examples|schemas|scripts)/[\w./]*[\w/])`")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands_in_blocks(name: str) -> list[str]:
    """Commands as they are to be typed; blocks of output (text) show them after ``==``."""
    lines = [line.removeprefix("== ") for _, body in FENCE.findall(read(name)) for line in body.splitlines()]
    return [line for line in lines if line.startswith("k2beam ")]


def commands_in_text(name: str) -> list[str]:
    """Commands that a sentence names: what is required may be left out."""
    return INLINE.findall(FENCE.sub("", read(name)))


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


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_exists_and_takes_its_options(document: str) -> None:
    paths = [parse(command, whole=True) for command in commands_in_blocks(document)]
    paths += [parse(command, whole=False) for command in commands_in_text(document)]
    for path in {tuple(path) for path in paths}:
        shown = CliRunner().invoke(app, [*path, "--help"])
        assert shown.exit_code == 0, shown.output
        assert "Usage:" in shown.output


def test_the_readme_shows_every_command() -> None:
    def leaves(group: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        commands = getattr(group, "commands", None)
        if commands is None:
            return {path}
        return {leaf for name, command in commands.items() for leaf in leaves(command, (*path, name))}

    named = [parse(command, whole=True) for command in commands_in_blocks("README.md")]
    named += [parse(command, whole=False) for command in commands_in_text("README.md")]
    assert leaves(typer.main.get_command(app)) - {tuple(path) for path in named} == set()


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


def test_the_python_of_the_readme_prints_what_is_shown(sample_folder: Path) -> None:
    blocks = FENCE.findall(read("README.md"))
    programs = [(body, blocks[number + 1]) for number, (language, body) in enumerate(blocks) if language == "python"]
    assert programs
    for program, (language, shown) in programs:
        assert language == "text", "the block after a program is what it prints"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=sample_folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == shown


def test_the_excerpt_of_the_sample_run_is_what_the_commands_print(sample_folder: Path) -> None:
    """Rows of the excerpt are the beginnings of printed rows, or columns of them."""
    shown = next(body for language, body in FENCE.findall(read("README.md")) if language == "text")
    warehouse = ["--warehouse", str(sample_folder / "warehouse")]
    printed = ""
    for command in (["query", "trades", "--limit", "5"], ["gaps"], ["audit", "--source", str(ROOT / "samples")]):
        result = CliRunner().invoke(app, [*command, *warehouse])
        assert result.exit_code == 0, result.output
        printed += result.output
    rows = [set(line.split()) for line in printed.splitlines()]
    table = shown[shown.index("== k2beam query") :]
    excerpt = [line for line in table.splitlines() if line and line != "…" and not line.startswith("== ")]
    assert len(excerpt) > 10
    assert [line for line in excerpt if not any(set(line.split()) <= row for row in rows)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_somewhere(document: str) -> None:
    text = read(document)
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines()}
    for link in LINK.findall(text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        assert not path or (ROOT / document).parent.joinpath(path).exists(), f"{document}: {link}"
        assert not anchor or anchor in headings, f"{document}: no heading for #{anchor}"
    for path in PATH.findall(text):
        assert (ROOT / path).exists(), f"{document}: {path} is not there"


def test_the_architecture_explains_every_dependency() -> None:
    call = next(
        node
        for node in ast.walk(ast.parse(read("setup.py")))
        if isinstance(node, ast.Call) and any(keyword.arg == "install_requires" for keyword in node.keywords)
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    wanted = [*ast.literal_eval(given["install_requires"])]
    for extra in ast.literal_eval(given["extras_require"]).values():
        wanted += extra
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted}
    section = read("ARCHITECTURE.md").split("## Dependencies", 1)[1].split("\n## ", 1)[0]
    explained = {
        name for row in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE) for name in re.findall(r"`([\w-]+)", row)
    }
    assert explained == names


def test_the_architecture_names_tables_and_properties() -> None:
    text = read("ARCHITECTURE.md")
    for name in (*COVERED_TABLES, SEQUENCE_GAPS, *PROPERTIES):
        assert f"`{name}" in text, name


@pytest.mark.parametrize("output", [IngestStats, DemoReport])
def test_every_field_of_the_stats_is_documented(repository: Path, output: type) -> None:
    text = (repository / "docs" / "output.md").read_text(encoding="utf-8")
    assert [each.name for each in dataclasses.fields(output) if f"`{each.name}`" not in text] == []
