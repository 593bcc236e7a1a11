"""The page in a real browser: what it draws and says is what the commands say, and everyone can use it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, keep_screenshot
from tests.integration.killing import started
from tests.integration.test_cli import k2beam

pytestmark = pytest.mark.integration

DEVICES: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "color_scheme": "light",
        "device_scale_factor": 2,
        "has_touch": True,
        "is_mobile": True,
    },
}
NOTHING = "\N{EN DASH}"
CHARTS = ("candles", "rows", "gaps", "letters", "sizes", "snapshots")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The sample of crypto, in two commits."""
    folder: Path = tmp_path_factory.mktemp("report") / "lake"
    for name in ("trades-00001.avro", "quotes-00001.avro"):
        k2beam("ingest", "archive", repository / "samples" / "crypto" / name, "--warehouse", folder)
    return folder


@pytest.fixture(scope="module")
def page_file(warehouse: Path) -> Path:
    out = warehouse.with_name("page with a space.html")
    k2beam("report", out, "--warehouse", warehouse)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


class Opened:
    """A page with what it asked for and complained of."""

    def __init__(self, browser: Browser, address: str, **device: Any) -> None:
        self.context = browser.new_context(**device)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def cells(self, name: str) -> list[list[str]]:
        """The rows of a table."""
        script = "(name) => [...document.querySelectorAll(`#${name} tbody tr`)].map((row) => [...row.cells].map("
        found: list[list[str]] = self.page.evaluate(f"{script}(cell) => cell.textContent))", name)
        return found

    def series(self, chart: str) -> dict[str, list[Any]]:
        """What a chart draws."""
        script = "(name) => echarts.getInstanceByDom(document.getElementById(name)).getOption().series"
        return {one["name"]: one["data"] for one in self.page.evaluate(script, chart)}

    def colours(self, chart: str) -> int:
        """How many colours the canvas of a chart has: one that drew nothing has none or one."""
        script = """(name) => {
            const canvas = document.querySelector(`#${name} canvas`);
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
        found: int = self.page.evaluate(script, chart)
        return found

    def facts(self) -> dict[str, str]:
        pairs = "[...document.querySelectorAll('#facts div')].map((one) => [...one.children])"
        script = f"() => {pairs}.map((pair) => pair.map((one) => one.textContent))"
        return dict(self.page.evaluate(script))


@pytest.fixture(params=list(DEVICES))
def opened(request: pytest.FixtureRequest, browser: Browser, page_file: Path) -> Iterator[Opened]:
    """The page on each device."""
    found = Opened(browser, page_file.as_uri(), **DEVICES[request.param])
    yield found
    found.context.close()


@pytest.fixture
def desk(browser: Browser, page_file: Path) -> Iterator[Opened]:
    found = Opened(browser, page_file.as_uri(), **DEVICES["light"])
    yield found
    found.context.close()


def told(warehouse: Path, *words: str) -> Any:
    """What a command says as JSON."""
    return json.loads(k2beam(*words, "--warehouse", warehouse, "--output", "json").stdout)


def number(text: str) -> int:
    return int(text.replace(",", ""))


def amount(text: str | None) -> Decimal | None:
    return None if text in (None, NOTHING) else Decimal(str(text))


def at(text: str) -> str:
    """A time of a command's JSON, as the page writes it: whole seconds."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def test_it_is_drawn_without_network_and_without_complaint(opened: Opened, request: pytest.FixtureRequest) -> None:
    picture = keep_screenshot(opened.page, f"report-{request.node.callspec.params['opened']}")
    assert picture.stat().st_size > 50_000
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert {chart: opened.colours(chart) > 4 for chart in CHARTS} == dict.fromkeys(CHARTS, True)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls to the side"


def test_a_checker_of_accessibility_finds_nothing(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = Axe().run(opened.page)
    assert found.violations_count == 0, found.generate_report()


def test_the_verdict_is_that_of_the_audit(desk: Opened, warehouse: Path) -> None:
    report = told(warehouse, "audit", "--no-mend")
    text = desk.page.inner_text("#verdict")
    assert text.startswith("PASSED")
    names = ("expected", "received", "dead", "missing", "duplicate")
    sums = [sum(source[name] for source in report["sources"]) for name in names]
    found = re.search(
        r"([\d,]+) offsets expected: ([\d,]+) are events, ([\d,]+) dead letters, ([\d,]+) missing, ([\d,]+) there", text
    )
    assert found is not None
    assert [number(one) for one in found.groups()] == sums
    assert sums[0] > 5_000
    assert [[row[0], number(row[1]), row[2], *map(number, row[3:])] for row in desk.cells("sources")] == [
        [source["source"], source["partition"], source["end"], *(source[name] for name in names)]
        for source in sorted(report["sources"], key=lambda one: (one["source"], one["partition"]))
    ]


def test_the_facts_are_those_of_the_queries(desk: Opened, warehouse: Path) -> None:
    stats, symbols = told(warehouse, "query", "stats"), told(warehouse, "query", "symbols")
    gaps, letters = told(warehouse, "gaps"), told(warehouse, "dlq", "stats")
    facts = desk.facts()
    assert number(facts["Rows of events"]) == sum(row["rows"] for row in symbols)
    assert number(facts["Open gaps"]) == len(gaps)
    assert number(facts["Numbers missing"]) == sum(gap["missing_count"] for gap in gaps)
    assert number(facts["Dead letters"]) == sum(row["letters"] for row in letters)
    assert number(facts["Symbols"]) == len({(row["exchange"], row["symbol"]) for row in symbols})
    assert [(row[0], number(row[1]), number(row[2]), row[5], row[6]) for row in desk.cells("tables")] == [
        (row["table"], row["rows"], row["files"], at(row["first_event"]), at(row["last_event"])) for row in stats
    ]
    classes: dict[str, int] = {}
    for row in letters:
        classes[row["error_class"]] = classes.get(row["error_class"], 0) + row["letters"]
    assert {row[0]: number(row[1]) for row in desk.cells("letters-table")} == classes
    assert sorted(desk.series("letters")["Dead letters"]) == sorted(classes.values())
    assert sum(sum(sizes) for sizes in desk.series("sizes").values()) == sum(row["files"] for row in stats)


def test_candles_are_those_of_the_query(desk: Opened, warehouse: Path) -> None:
    for symbol in ("ETHUSDT", "BTCUSDT"):
        desk.page.select_option("#symbol", label=f"{symbol} on BINANCE")
        words = ("--every", "5s", "--symbol", symbol, "--from", "2026-01-05", "--empty", "--completeness")
        bars = told(warehouse, "query", "bars", *words)
        rows = desk.cells("candles-table")
        assert len(rows) == len(bars) > 200
        for row, bar in zip(rows, bars, strict=True):
            assert row[0] == at(bar["start"])
            for name, shown in zip(("open", "high", "low", "close", "volume", "vwap"), row[1:7], strict=True):
                assert amount(shown) == amount(bar[name])
            assert number(row[7]) == bar["trades"]
            assert row[9] == {True: "yes", False: "no", None: "not known"}[bar["complete"]]
        drawn = desk.series("candles")
        assert [value is not None for value in drawn["Gap"]] == [bool(bar["missing"]) for bar in bars]
        assert any(bar["missing"] for bar in bars)
        assert drawn["Volume"] == [float(bar["volume"]) for bar in bars]
        names = ("open", "close", "low", "high")
        assert [price for price in drawn["Price"] if price[0] != "-"] == [
            [float(bar[name]) for name in names] for bar in bars if bar["trades"]
        ]


def test_gaps_and_rows_are_those_of_the_queries(desk: Opened, warehouse: Path) -> None:
    gaps = told(warehouse, "gaps")
    names = ("symbol", "exchange", "kind", "first_missing", "last_missing", "missing_count")
    assert sorted([*row[:3], *map(number, row[3:6])] for row in desk.cells("gaps-table")) == sorted(
        [gap[name] for name in names] for gap in gaps
    )
    assert sorted(row[8] for row in desk.cells("gaps-table")) == sorted(at(gap["opened_at"]) for gap in gaps)
    assert len(desk.series("gaps")["Gaps"]) == len(gaps)
    minutes = told(
        warehouse,
        "query",
        "sql",
        "SELECT CAST(date_trunc('minute', timestamp) AS VARCHAR) AS minute, count(*) AS rows FROM trades_v2 "
        "GROUP BY minute ORDER BY minute",
    )
    found = {row[0][:16]: number(row[1]) for row in desk.cells("rows-table") if row[1] != "0"}
    assert found == {row["minute"][:16]: row["rows"] for row in minutes}
    assert [value for _, value in desk.series("rows")["Trades"]] == [number(row[1]) for row in desk.cells("rows-table")]


def test_it_can_be_used_by_keyboard(desk: Opened) -> None:
    page, key = desk.page, desk.page.keyboard
    key.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    key.press("Tab")
    expect(page.locator("#theme")).to_be_focused()
    key.press("Space")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#theme")).to_have_attribute("aria-pressed", "true")
    for _ in range(2):
        key.press("Tab")
    expect(page.locator("#symbol")).to_be_focused()
    before = page.get_attribute("#candles", "aria-label")
    key.press("ArrowDown")
    expect(page.locator("#candles")).not_to_have_attribute("aria-label", before or "")
    key.press("Tab")
    key.press("Enter")
    expect(page.locator("#candles-table table")).to_be_visible()
    key.press("Tab")
    expect(page.locator("#candles-table")).to_be_focused()


def test_a_served_page_follows_the_tables(browser: Browser, warehouse: Path, tmp_path: Path, repository: Path) -> None:
    lake = tmp_path / "lake"
    k2beam("ingest", "archive", repository / "samples" / "asx" / "trades.avro", "--warehouse", lake)
    words = ("--listen", "127.0.0.1:0", "--interval", "300ms", "--last", "30d")
    process = started(repository, "serve", "--warehouse", str(lake), *words)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("Serving"))
        opened = Opened(browser, line.split()[-1], **DEVICES["light"])
        rows = number(opened.facts()["Rows of events"])
        assert rows == 243
        k2beam("ingest", "archive", repository / "samples" / "asx" / "quotes.avro", "--warehouse", lake)
        more = sum(row["rows"] for row in told(lake, "query", "symbols"))
        assert more > rows
        expect(opened.page.locator("#facts")).to_contain_text(f"{more:,}", timeout=20_000)
        assert opened.complaints == []
        keep_screenshot(opened.page, "serve")
        process.send_signal(signal.SIGTERM)
        expect(opened.page.locator("#state")).to_contain_text("No answer since", timeout=20_000)
        assert process.wait(20) == 0
        opened.context.close()
    finally:
        process.kill()
        process.communicate()
