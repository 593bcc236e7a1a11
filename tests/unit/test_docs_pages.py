"""The documents as pages: links lead somewhere, lines can be read, and what must be written down is."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import re
from pathlib import Path

import pytest

import k2beam
from k2beam.demo import DemoReport
from k2beam.job.stats import IngestStats
from k2beam.lake.tables import COVERED_TABLES, PROPERTIES, SEQUENCE_GAPS
from tests.documents import DOCUMENTS, FENCE, ROOT, read

WIDTH = 100
LINES = {"README.md": range(100, 121), "ARCHITECTURE.md": range(250)}

DEPENDENCIES = "docs/decisions/0002-dependencies.md"
TABLES = "docs/reference/tables.md"
CONFIGURATION = "docs/reference/configuration.md"
OUTPUT = "docs/reference/output.md"
PYTHON = "docs/reference/python.md"

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:k2beam|transforms|tests|docs|examples|schemas|scripts|ops|bench)/[\w./-]*[\w/])`")
PLACEHOLDER = re.compile(r"NAME|EXCHANGE|<")
WHOLE = re.compile(r"`[^`\n]+`|!?\[[^\]\n]+\]\([^)\s]+\)")
"""What can't be broken into two lines: code, and links with their addresses."""
BEGINS = re.compile(r"\s*(?:[-*]|\d+\.) |\|")
"""A line of a list or a table. Markdown on GitHub needs no empty line before it; that of the site does."""


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub gives to the headings of a document."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-") for title in titles)


def dead_links(document: str) -> list[str]:
    """Links of a document that lead nowhere: no such file, or no such heading in it."""
    dead = []
    for link in LINK.findall(FENCE.sub("", read(document))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def too_wide(text: str) -> list[str]:
    """Lines of more than 100 columns that could be broken: no table, code or link."""
    prose = FENCE.sub("", text).splitlines()
    return [line for line in prose if len(line) > WIDTH and not line.startswith("|") and " " in breakable(line)]


def breakable(line: str) -> str:
    """A line without its bullet, with each piece that can't be broken as one word."""
    return WHOLE.sub("x", re.sub(r"^\s*(?:[-*]|\d+\.) ", "", line)).strip()


def glued(text: str) -> list[str]:
    """First lines of lists and tables that stand directly below a paragraph."""
    pairs = itertools.pairwise(FENCE.sub("", text).splitlines())
    return [
        line
        for before, line in pairs
        if BEGINS.match(line) and before.strip() and not BEGINS.match(before) and not before.startswith(" ")
    ]


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_links_and_paths_lead_somewhere(document: str) -> None:
    assert dead_links(document) == []
    named = [path for path in PATH.findall(read(document)) if not PLACEHOLDER.search(path)]
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_prose_is_wrapped_and_lists_begin_after_an_empty_line(document: str) -> None:
    assert too_wide(read(document)) == []
    assert glued(read(document)) == []


@pytest.mark.parametrize("document", list(LINES))
def test_a_document_has_the_length_that_it_may_have(document: str) -> None:
    assert len(read(document).splitlines()) in LINES[document]


def test_every_page_is_in_the_index() -> None:
    index = read("docs/index.md") + read("docs/decisions/index.md").replace("](0", "](decisions/0")
    linked = {str((ROOT / "docs" / link).resolve()) for link in LINK.findall(index)}
    pages = [ROOT / name for name in DOCUMENTS if name.startswith("docs/") and name != "docs/index.md"]
    assert [str(page) for page in pages if str(page.resolve()) not in linked] == []


def test_a_bad_page_is_found() -> None:
    wide = "word " * 21
    assert too_wide(f"{wide}\n\n| {wide} |\n\n```\n{wide}\n```\n") == [wide]
    assert too_wide(f"- `{wide}`\n") == []
    assert glued("text\n- a list\n- of two\n\n- one\n  more\n- two\n") == ["- a list"]
    assert "the-one-idea" in anchors(ROOT / "ARCHITECTURE.md")


def test_every_dependency_has_its_reason() -> None:
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
    explained = {
        name
        for row in re.findall(r"^\| ([^|]+) \|", read(DEPENDENCIES), re.MULTILINE)
        for name in re.findall(r"`([\w-]+)", row)
    }
    assert explained == names


def test_tables_and_their_properties_are_named() -> None:
    text = read(TABLES)
    for name in (*COVERED_TABLES, SEQUENCE_GAPS, *PROPERTIES):
        assert f"`{name}" in text, name


def test_every_public_name_has_its_place_on_the_page_of_python() -> None:
    shown = re.findall(r"^::: k2beam\.(\w+)$", read(PYTHON), re.MULTILINE)
    assert sorted(shown) == sorted(set(k2beam.__all__) - {"__version__"})


def test_every_variable_of_the_environment_is_named() -> None:
    sources = [*(ROOT / "k2beam").rglob("*.py"), *(ROOT / "transforms").rglob("*.py"), ROOT / "run_local.sh"]
    used = {name for path in sources for name in re.findall(r"\bK2BEAM_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    assert "K2BEAM_CACHE" in used
    assert {name for name in used if f"`{name}`" not in read(CONFIGURATION)} == set()


@pytest.mark.parametrize("output", [IngestStats, DemoReport])
def test_every_field_of_the_stats_is_documented(output: type) -> None:
    text = read(OUTPUT)
    assert [each.name for each in dataclasses.fields(output) if f"`{each.name}`" not in text] == []
