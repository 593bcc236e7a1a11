"""Symbols, table statistics and snapshots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile

from k2beam.config import NAMESPACE
from k2beam.errors import UsageError
from k2beam.query import overview
from k2beam.query.selections import EventSelection
from tests.query_fixtures import (
    HOSTILE,
    append_dead_letters,
    append_events,
    append_gap_rows,
    dead_letter,
    gap,
    make_catalog,
    quote,
    trade,
)

DAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = make_catalog(tmp_path_factory.mktemp("lake"))
    append_events(catalog, "trades", [trade(0, 5), trade(1, 1), trade(2, 3, exchange="ASX")])
    append_events(catalog, "trades", [trade(3, 90_000), trade(4, 2, symbol=HOSTILE), trade(9, 5, message_id="m0")])
    append_events(catalog, "quotes", [quote(0, 7)])
    append_dead_letters(catalog, [dead_letter(20)])
    append_gap_rows(catalog, [gap("a", 1, 2)])
    return catalog


def seconds(number: float) -> datetime:
    return DAY + timedelta(seconds=number)


def test_symbols(catalog: Catalog) -> None:
    assert overview.list_symbols(catalog, NAMESPACE, EventSelection()) == [
        overview.SymbolCount("ASX", "BTCUSDT", "trades", 1, seconds(3), seconds(3)),
        overview.SymbolCount("BINANCE", HOSTILE, "trades", 1, seconds(2), seconds(2)),
        overview.SymbolCount("BINANCE", "BTCUSDT", "trades", 4, seconds(1), seconds(90_000)),
        overview.SymbolCount("BINANCE", "BTCUSDT", "quotes", 1, seconds(7), seconds(7)),
    ]
    chosen = EventSelection(symbol="BTCUSDT", exchange="BINANCE", end="2026-01-05T00:00:05Z")
    assert overview.list_symbols(catalog, NAMESPACE, chosen) == [
        overview.SymbolCount("BINANCE", "BTCUSDT", "trades", 1, seconds(1), seconds(1))
    ]


def test_stats_are_those_of_the_rows(catalog: Catalog) -> None:
    found = {row.table: row for row in overview.list_stats(catalog, NAMESPACE)}
    assert list(found) == ["trades_v2", "quotes_v2", "dead_letters", "sequence_gaps"]
    trades = found["trades_v2"]
    table = catalog.load_table((NAMESPACE, "trades_v2"))
    files = [Path(task.file.file_path.removeprefix("file://")) for task in table.scan().plan_files()]
    assert trades == overview.TableStats(
        table="trades_v2",
        snapshot_id=table.metadata.current_snapshot_id,
        rows=6,
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        first_event=seconds(1),
        last_event=seconds(90_000),
    )
    assert (found["quotes_v2"].rows, found["quotes_v2"].first_event) == (1, seconds(7))
    assert (found["dead_letters"].rows, found["dead_letters"].last_event) == (1, seconds(1))
    assert (found["sequence_gaps"].rows, found["sequence_gaps"].first_event) == (1, DAY)


def test_without_bounds_the_times_come_from_the_rows(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    with_bounds = overview.list_stats(catalog, NAMESPACE)
    monkeypatch.setattr(DataFile, "lower_bounds", property(lambda _: None))
    read: list[Any] = []
    original = overview.read_file
    monkeypatch.setattr(overview, "read_file", lambda *arguments: read.append(1) or original(*arguments))
    assert overview.list_stats(catalog, NAMESPACE) == with_bounds
    assert len(read) == sum(row.files for row in with_bounds)


def test_stats_at_an_earlier_time(catalog: Catalog) -> None:
    table = catalog.load_table((NAMESPACE, "trades_v2"))
    first = min(table.history(), key=lambda entry: entry.timestamp_ms)
    when = datetime.fromtimestamp(first.timestamp_ms / 1000, UTC)
    found = {row.table: row for row in overview.list_stats(catalog, NAMESPACE, when)}
    assert (found["trades_v2"].rows, found["trades_v2"].snapshot_id) == (3, first.snapshot_id)
    assert found["quotes_v2"] == overview.TableStats("quotes_v2", None, 0, 0, 0, None, None)
    with pytest.raises(UsageError, match="one table only"):
        overview.list_stats(catalog, NAMESPACE, str(first.snapshot_id))


def test_rows_that_were_deleted_are_not_counted(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    table = append_events(catalog, "trades", [trade(0, 1), trade(1, 2), trade(2, 3)])
    table.delete("message_id == 'm2'")
    (row,) = overview.list_stats(catalog, NAMESPACE)
    assert (row.rows, row.last_event) == (2, seconds(2))


def test_a_file_with_delete_files_is_counted_by_its_rows(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    left = pa.record_batch({"timestamp": pa.array([seconds(1), seconds(2)], pa.timestamp("us", "UTC"))})
    plan = overview.plan

    def with_deletes(*arguments: Any) -> list[Any]:
        return [SimpleNamespace(file=task.file, delete_files={"some"}) for task in plan(*arguments)]

    monkeypatch.setattr(overview, "plan", with_deletes)
    monkeypatch.setattr(overview, "read_file", lambda _table, _task, columns: iter([left.rename_columns(columns)]))
    quotes = overview.list_stats(catalog, NAMESPACE)[1]
    assert (quotes.table, quotes.rows, quotes.first_event, quotes.last_event) == (
        "quotes_v2",
        2,
        seconds(1),
        seconds(2),
    )


def test_snapshots(catalog: Catalog) -> None:
    found = overview.list_snapshots(catalog, NAMESPACE, ["trades_v2"])
    table = catalog.load_table((NAMESPACE, "trades_v2"))
    first, second = sorted(table.snapshots(), key=lambda snapshot: snapshot.timestamp_ms)
    expected = overview.SnapshotInfo(
        table="trades_v2",
        snapshot_id=first.snapshot_id,
        parent_id=None,
        committed_at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=first.timestamp_ms),
        operation="append",
        added_rows=3,
        added_files=2,
        total_rows=3,
    )
    assert found[0] == expected
    assert found[1] == replace(
        expected,
        snapshot_id=second.snapshot_id,
        parent_id=first.snapshot_id,
        committed_at=found[1].committed_at,
        added_rows=3,
        added_files=2,
        total_rows=6,
    )
    every = [row.table for row in overview.list_snapshots(catalog, NAMESPACE)]
    assert every == ["trades_v2", "trades_v2", "quotes_v2", "dead_letters", "sequence_gaps"]
    with pytest.raises(UsageError, match="there is no table trades; the tables are trades_v2"):
        overview.list_snapshots(catalog, NAMESPACE, ["trades"])


def test_an_empty_lake_has_nothing(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    assert overview.list_symbols(catalog, NAMESPACE, EventSelection()) == []
    assert overview.list_stats(catalog, NAMESPACE) == []
    assert overview.list_snapshots(catalog, NAMESPACE) == []
