"""The page as text: whole in itself, and with nothing of the tables in its markup."""

from __future__ import annotations

import html.parser
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from k2beam.query.lake import Lake
from k2beam.report import ReportSelection, gather_contents, render
from tests.report_helpers import MARKUP, make_lake

FOLDER = files("k2beam.report") / "page"


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return gather_contents(Lake(str(make_lake(tmp_path_factory.mktemp("lake")))), ReportSelection())


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def test_nothing_is_taken_from_elsewhere(contents: dict[str, Any]) -> None:
    page = Elements(render(contents, "a lake"))
    assert [tag for tag, attributes in page.found if "src" in attributes or tag in ("img", "iframe", "base")] == []
    assert [attributes["href"] for tag, attributes in page.found if "href" in attributes] == ["data:,", "#main"]
    (policy,) = [attributes["content"] for _, attributes in page.found if "http-equiv" in attributes]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert policy.endswith("connect-src 'none'")
    assert "connect-src 'self'" in render(contents, "a lake", 500)
    assert "url(" not in FOLDER.joinpath("page.css").read_text(encoding="utf-8")


def test_names_and_titles_are_no_markup(contents: dict[str, Any]) -> None:
    page = render(contents, MARKUP)
    found = Elements(page)
    assert len(found.scripts) == 3
    held = json.loads(found.scripts[0])
    assert held == json.loads(json.dumps(contents))
    assert MARKUP in [one["symbol"] for one in held["candles"]["of"]]
    assert MARKUP not in page


def test_every_element_that_the_scripts_fill_is_there(contents: dict[str, Any]) -> None:
    names = {attributes["id"] for _, attributes in Elements(render(contents, "x")).found if "id" in attributes}
    scripts = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("tables.js", "charts.js", "live.js"))
    asked = set(re.findall(r'(?:node|tell|table|chart)\("([a-z-]+)"', scripts))
    assert len(asked) > 15
    assert asked <= names


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_in_both_themes() -> None:
    style = FOLDER.joinpath("page.css").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root[^{]*{([^}]*)}", style)
    ]
    assert len(themes) == 2
    assert themes[0].keys() == themes[1].keys()
    for theme in themes:
        for ground in ("ground", "raised"):
            for text in ("ink", "quiet", "good", "bad", "accent", "second"):
                assert contrast(theme[ground], theme[text]) >= 4.5, (ground, text)


def test_the_library_is_the_one_that_the_docs_name(repository: Path) -> None:
    head = FOLDER.joinpath("echarts.min.js").read_text(encoding="utf-8")[:2_000]
    assert "Apache Software Foundation" in head
    version = re.search(r'version="(\d+\.\d+\.\d+)"', FOLDER.joinpath("echarts.min.js").read_text(encoding="utf-8"))
    assert version is not None
    for page in ("docs/report.md", "docs/decisions/0017-the-page-draws-with-echarts.md"):
        assert f"ECharts {version[1]}" in (repository / page).read_text(encoding="utf-8")
    assert "Apache License" in FOLDER.joinpath("echarts.LICENSE").read_text(encoding="utf-8")
