"""What the page holds is what the queries and the audit say."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2beam.audit.audit import audit
from k2beam.errors import UsageError
from k2beam.query.dead_letters import count_dead_letters
from k2beam.query.lake import Lake
from k2beam.query.overview import list_snapshots, list_stats
from k2beam.query.selections import DeadLetterSelection, EventSelection
from k2beam.report import ReportSelection, audit_verdict, gather_contents
from k2beam.report import contents as contents_module
from tests.query_fixtures import DAY, SECOND, append_events, append_gap_rows, gap, make_catalog, trade
from tests.report_helpers import MARKUP, make_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(str(make_lake(tmp_path_factory.mktemp("lake"))))


def shown(lake: Lake, **asked: Any) -> dict[str, Any]:
    names = ("symbol", "exchange", "start", "end")
    events = EventSelection(**{name: asked.pop(name) for name in names if name in asked})
    contents = gather_contents(lake, ReportSelection(events, **asked))
    json.dumps(contents, allow_nan=False)
    return contents


def ms(seconds: float) -> int:
    return (DAY + round(seconds * SECOND)) // 1_000


def test_bars_are_those_of_the_query(lake: Lake) -> None:
    candles = shown(lake, every="1m")["candles"]
    assert [(one["symbol"], one["exchange"]) for one in candles["of"]] == [("BTCUSDT", "BINANCE"), (MARKUP, "BINANCE")]
    assert candles["every"] == "1m"
    for one in candles["of"]:
        found = lake.bars("1m", one["symbol"], start="2026-01-05", empty=True, completeness=True).to_pylist()
        bars = one["bars"]
        assert bars["at"] == [round(row["start"].timestamp() * 1_000) for row in found]
        for name in ("open", "high", "low", "close", "volume", "vwap"):
            assert [None if text is None else Decimal(text) for text in bars[name]] == [row[name] for row in found]
        for name in ("trades", "complete", "missing"):
            assert bars[name] == [row[name] for row in found]
    first = candles["of"][0]["bars"]
    assert first["at"][0] == ms(0)
    assert first["missing"][:3] == [None, 4, 0]
    assert first["complete"][1] is False
    assert first["open"][0] == "100"


def test_the_size_of_bars_follows_the_time_and_the_time_the_newest_event(lake: Lake) -> None:
    assert shown(lake)["candles"]["every"] == "5s"
    assert shown(lake, last=timedelta(days=60))["candles"]["every"] == "4h"
    contents = shown(lake, last=timedelta(minutes=4))
    assert contents["rows"]["at"] == [ms(60 * minute) for minute in (1, 2, 3, 4, 5)], "from 1:51 on"
    assert sum(contents["rows"]["trades"]) == 25 + 1
    assert contents["symbols"] == 2
    assert shown(lake, last=timedelta(minutes=3))["symbols"] == 1
    assert shown(lake)["symbols"] == 3
    assert shown(lake, last=timedelta(days=60))["symbols"] == 4


def test_the_time_can_be_given(lake: Lake) -> None:
    contents = shown(lake, start="2026-01-05T00:01", end="2026-01-05T00:03", every="30s")
    bars = contents["candles"]["of"][0]["bars"]
    assert bars["at"] == [ms(60), ms(90), ms(120), ms(150)]
    assert sum(bars["trades"]) == 12
    assert sum(contents["rows"]["trades"]) == 12 + 2
    ended = shown(lake, end="2026-01-05T00:01", last=timedelta(seconds=30), every="10s")
    assert ended["candles"]["of"][0]["bars"]["at"] == [ms(30), ms(40), ms(50)]


def test_rows_a_minute_are_counts_of_all_symbols(lake: Lake) -> None:
    rows = shown(lake, symbol="BTCUSDT")["rows"]
    assert (rows["every"], rows["seconds"]) == ("1m", 60)
    assert rows["at"] == [ms(60 * minute) for minute in range(6)]
    assert rows["trades"] == [7, 7, 7, 6, 6, 6]
    assert rows["quotes"] == [1, 2, 0, 0, 0, 0]


def test_gaps_lie_between_the_messages_around_them(lake: Lake) -> None:
    gaps = shown(lake)["gaps"]
    assert (gaps["open"], gaps["missing"]) == (1, 4)
    (one,) = gaps["shown"]
    assert (one["first"], one["last"], one["missing"], one["severity"]) == ("10", "13", 4, "SMALL")
    assert (one["from"], one["until"]) == (ms(91), ms(101))


def test_a_gap_whose_beginning_is_gone_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 5, source_sequence=2**60)])
    found = [gap(f"g{n}", 10 * n, 10 * n + n, opened_at=DAY + 5 * SECOND) for n in range(1, 5)]
    append_gap_rows(catalog, [*found, gap("last", 2**59, 2**60 - 1, opened_at=DAY + 5 * SECOND)])
    monkeypatch.setattr(contents_module, "MOST_GAPS", 2)
    gaps = shown(Lake(str(tmp_path)))["gaps"]
    assert gaps["open"] == 5
    assert gaps["missing"] == 2 + 3 + 4 + 5 + 2**59
    assert [(one["first"], one["missing"]) for one in gaps["shown"]] == [(str(2**59), 2**59), ("40", 5)]
    assert [(one["from"], one["until"]) for one in gaps["shown"]] == [(None, ms(5))] * 2


def test_tables_files_and_snapshots(lake: Lake) -> None:
    contents = shown(lake)
    stats = list_stats(lake.catalog, lake.namespace)
    assert [(one["table"], one["rows"], one["files"], one["bytes"]) for one in contents["tables"]] == [
        (one.table, one.rows, one.files, one.bytes) for one in stats
    ]
    assert [sum(one["sizes"]) for one in contents["tables"]] == [one.files for one in stats]
    assert all(len(one["sizes"]) == len(contents["size_classes"]) + 1 for one in contents["tables"])
    assert {one["table"] for one in contents["tables"] if one["events"]} == {"trades_v2", "quotes_v2"}
    assert [(one["table"], int(one["snapshot_id"]), one["total_rows"]) for one in contents["snapshots"]] == [
        (one.table, one.snapshot_id, one.total_rows) for one in list_snapshots(lake.catalog, lake.namespace)
    ]


def test_only_the_last_snapshots_of_a_table_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = make_catalog(tmp_path)
    for number in range(4):
        append_events(catalog, "trades", [trade(number, number)])
    monkeypatch.setattr(contents_module, "MOST_SNAPSHOTS", 2)
    assert [one["total_rows"] for one in shown(Lake(str(tmp_path)))["snapshots"]] == [3, 4]


def test_dead_letters_by_class(lake: Lake) -> None:
    letters = shown(lake)["dead_letters"]
    assert letters == [
        {"error_class": "Truncated", "letters": 2, "offsets": 6},
        {"error_class": "BadMagic", "letters": 1, "offsets": 1},
    ]
    counted = count_dead_letters(lake.catalog, lake.namespace, DeadLetterSelection())
    assert sum(one.letters for one in counted) == sum(one["letters"] for one in letters)


def test_the_verdict_is_that_of_the_audit(lake: Lake) -> None:
    report = audit(lake.catalog, lake.namespace, mend=False)
    verdict = audit_verdict(lake)
    assert verdict["ok"] == report.ok
    assert verdict["problems"] == list(report.problems)
    assert {one["source"]: one["received"] for one in verdict["sources"]} == {
        one.source: one.received for one in report.sources
    }
    assert verdict["offsets"]["received"] == sum(one.received for one in report.sources) > 40
    assert verdict["offsets"]["dead"] == 7
    assert gather_contents(lake, ReportSelection(), verdict)["verdict"] is verdict


def test_of_many_sources_those_with_something_wrong_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = make_catalog(tmp_path)
    for number in range(5):
        offsets = (0, 2) if number == 3 else (0, 1)
        append_events(catalog, "trades", [trade(at, at, _source=f"archive:{number}") for at in offsets])
    monkeypatch.setattr(contents_module, "MOST_SOURCES", 2)
    verdict = audit_verdict(Lake(str(tmp_path)))
    assert [one["source"] for one in verdict["sources"]] == ["archive:3", "archive:0"]
    assert (verdict["sources_in_all"], verdict["offsets"]["missing"], verdict["offsets"]["received"]) == (5, 1, 10)
    assert verdict["ok"] is False


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"symbol": ["BTCUSDT", "NONE"]}, "no trades of symbol NONE in the time"),
        ({"exchange": "KRAKEN"}, "no trades of exchange KRAKEN"),
        ({"symbol": "OLD"}, "no trades of symbol OLD in the time"),
        ({"every": "7m"}, "--every '7m' does not divide a day"),
        ({"start": "monday"}, "--from 'monday' is not a time"),
        ({"end": "monday"}, "--to 'monday' is not a time"),
    ],
)
def test_what_can_not_be_shown_is_said(lake: Lake, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        shown(lake, **asked)


def test_more_bars_than_a_page_takes_are_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents_module, "MOST_BARS", 10)
    with pytest.raises(
        UsageError, match=r"--every 5s makes \d+ bars of BTCUSDT on BINANCE, and a page shows 10 at most"
    ):
        shown(lake, every="5s")


def test_bars_by_number_of_trades(lake: Lake) -> None:
    bars = shown(lake, symbol="BTCUSDT", every="10 trades")["candles"]["of"][0]["bars"]
    assert bars["trades"] == [10, 10, 10, 6]


def test_of_many_symbols_those_with_the_most_trades(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    rows = [(f"S{number}", place) for number in range(12) for place in range(number + 1)]
    append_events(catalog, "trades", [trade(n, n, symbol=name) for n, (name, _) in enumerate(rows)])
    found = shown(Lake(str(tmp_path)))["candles"]["of"]
    assert [one["symbol"] for one in found] == [f"S{number}" for number in range(11, 3, -1)]
    asked = shown(Lake(str(tmp_path)), symbol=[f"S{number}" for number in range(10)])["candles"]["of"]
    assert len(asked) == 10


def test_an_empty_lake_is_shown_too(tmp_path: Path) -> None:
    make_catalog(tmp_path)
    contents = shown(Lake(str(tmp_path)))
    assert contents["tables"] == contents["candles"]["of"] == contents["rows"]["at"] == contents["gaps"]["shown"] == []
