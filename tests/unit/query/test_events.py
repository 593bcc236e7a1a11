"""Events as rows: selection, deduplication, order, time travel, and what goes wrong."""

from __future__ import annotations

import builtins
import random
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pytest

from k2beam.config import NAMESPACE, Retention
from k2beam.errors import UnreadableFile, UsageError
from k2beam.lake import scan
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.query import selection
from k2beam.query.lake import Lake
from k2beam.query.selection import event_filter, snapshot_of
from k2beam.query.selections import EventSelection
from k2beam.schemas import event_arrow_schema
from tests.lake_helpers import QUICK, lake_config, stage
from tests.query_fixtures import HOSTILE, append_events, make_catalog, quote, rows_of, trade

TRADES = [
    trade(0, 1, "100.00000001"),
    trade(1, 2, source_sequence=None),
    trade(2, 2, source_sequence=9),
    trade(3, 2, source_sequence=8),
    trade(4, 3, exchange="ASX"),
    trade(5, 4, symbol="ETHUSDT"),
    trade(6, 5, symbol=HOSTILE),
    trade(7, 86_400),
]
LATER = [
    # Copies: of one time from another source, and of another time.
    trade(100, 1, "999", message_id="m0", _source="archive:aa"),
    trade(101, 4, "998", message_id="m2"),
    trade(102, 0.5, "997", message_id="m3"),
]


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("lake")
    catalog = make_catalog(folder)
    append_events(catalog, "trades", random.Random(3).sample(TRADES, len(TRADES)))
    time.sleep(0.005)
    append_events(catalog, "trades", LATER)
    append_events(catalog, "quotes", [quote(11, 2), quote(10, 1), quote(12, 3, message_id="m10")])
    return folder


@pytest.fixture(scope="module")
def lake(warehouse: Path) -> Lake:
    return Lake(str(warehouse))


def ids(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["message_id"].to_pylist(), table["_offset"].to_pylist(), strict=True))


def test_rows_come_in_order_and_the_first_copy_stays(lake: Lake) -> None:
    assert ids(lake.trades()) == [
        ("m3", 102),
        ("m0", 100),
        ("m2", 2),
        ("m1", 1),
        ("m4", 4),
        ("m5", 5),
        ("m6", 6),
        ("m7", 7),
    ]


def test_rows_without_a_message_id_are_not_copies_of_each_other(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 1), *(trade(number, 2, message_id="") for number in (1, 2, 3))])
    append_events(catalog, "trades", [trade(9, 3, message_id="m0")])
    assert ids(Lake(str(tmp_path)).trades()) == [("m0", 0), ("", 1), ("", 2), ("", 3)]


def test_with_duplicates_every_row_is_there(lake: Lake) -> None:
    rows = ids(lake.trades(with_duplicates=True))
    assert rows[:3] == [("m3", 102), ("m0", 0), ("m0", 100)]
    assert sorted(offset for _, offset in rows) == sorted(row["_offset"] for row in TRADES + LATER)


def test_values_and_types_are_those_of_the_table(lake: Lake) -> None:
    table = lake.trades(end="2026-01-05T00:00:01.5Z", exchange="BINANCE", with_duplicates=True)
    assert table.schema == event_arrow_schema("trades")
    assert table.slice(1, 1).equals(rows_of("trades", [TRADES[0]]))


def test_a_selection_is_by_symbol_exchange_and_half_open_time(lake: Lake) -> None:
    assert [name for name, _ in ids(lake.trades(exchange="ASX"))] == ["m4"]
    assert [name for name, _ in ids(lake.trades(symbol="ETHUSDT"))] == ["m5"]
    midnight = date(2026, 1, 6)
    assert [name for name, _ in ids(lake.trades(start=midnight))] == ["m7"]
    assert "m7" not in dict(ids(lake.trades(end=midnight)))
    two, three = (datetime(2026, 1, 5, 0, 0, second, tzinfo=UTC) for second in (2, 3))
    assert [name for name, _ in ids(lake.trades(start=two, end=three))] == ["m3", "m2", "m1"]
    assert ids(lake.trades(start="2026-01-05T11:00:02+11:00", end=three.replace(tzinfo=None))) == ids(
        lake.trades(start=two, end=three)
    )


def test_a_hostile_symbol_is_only_a_symbol(lake: Lake) -> None:
    assert ids(lake.trades(symbol=HOSTILE)) == [("m6", 6)]
    assert lake.trades(symbol="' OR 1=1 --").num_rows == 0
    assert lake.trades().num_rows == 8


def test_limit_and_columns(lake: Lake) -> None:
    table = lake.trades(limit=2, columns=["price", "symbol"])
    assert table.schema.names == ["price", "symbol"]
    assert table["price"].to_pylist() == [Decimal("997.00000000"), Decimal("999.00000000")]
    assert lake.trades(limit=0).num_rows == 0
    with pytest.raises(UsageError, match=r"no column price; DROP.*it has message_id"):
        lake.trades(columns=["price; DROP"])
    with pytest.raises(UsageError, match="--limit -1"):
        lake.trades(limit=-1)


def test_quotes(lake: Lake) -> None:
    table = lake.quotes()
    assert ids(table) == [("m10", 10), ("m11", 11)]
    assert table.schema == event_arrow_schema("quotes")


def test_a_data_frame(lake: Lake) -> None:
    frame = lake.trades(symbol="ETHUSDT").to_pandas()
    assert frame["price"][0] == Decimal("100.00000000")


def test_a_table_that_was_never_made_is_empty(tmp_path: Path) -> None:
    make_catalog(tmp_path)
    table = Lake(str(tmp_path)).trades()
    assert table.num_rows == 0
    assert table.schema == event_arrow_schema("trades")


def test_a_missing_warehouse_is_a_usage_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no warehouse at"):
        Lake(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_time_travel_by_snapshot_and_by_time(lake: Lake) -> None:
    table = lake.catalog.load_table((lake.namespace, "trades_v2"))
    first, second = sorted(table.snapshots(), key=lambda snapshot: snapshot.timestamp_ms)
    before = sorted(ids(lake.trades(as_of=first.snapshot_id)))
    assert before == sorted((row["message_id"], row["_offset"]) for row in TRADES)
    assert sorted(ids(lake.trades(as_of=str(first.snapshot_id)))) == before
    between = datetime.fromtimestamp((second.timestamp_ms - 1) / 1000, UTC)
    assert sorted(ids(lake.trades(as_of=between.isoformat()))) == before
    assert ids(lake.trades(as_of=datetime.now(UTC) + timedelta(days=1))) == ids(lake.trades())
    assert lake.trades(as_of="2020-01-01").num_rows == 0
    with pytest.raises(UsageError, match=r"--as-of 12: table .*trades_v2 has no such snapshot"):
        lake.trades(as_of=12)


@pytest.mark.parametrize(("expired", "refused"), [(0, [0]), (1, [0, 1]), (2, [1, 2])])
def test_time_travel_to_where_a_snapshot_was_expired_is_refused(
    tmp_path: Path, expired: int, refused: list[int]
) -> None:
    """Of the time before an expired snapshot nobody knows any more where it ended."""
    catalog = make_catalog(tmp_path)
    moments = []
    for offset in range(4):
        table = append_events(catalog, "trades", [trade(offset, 1)])
        moments.append(datetime.now(UTC))
        time.sleep(0.005)
    oldest_first = sorted(table.snapshots(), key=lambda snapshot: snapshot.timestamp_ms)
    table.maintenance.expire_snapshots().by_id(oldest_first[expired].snapshot_id).commit()
    lake = Lake(str(tmp_path))
    for number, when in enumerate(moments):
        if number in refused:
            with pytest.raises(UsageError, match="was expired"):
                lake.trades(as_of=when)
        else:
            assert lake.trades(as_of=when).num_rows == number + 1
    if expired == 0:
        with pytest.raises(UsageError, match="was expired"):
            lake.trades(as_of="2020-01-01")


def test_time_travel_says_what_was_expired_and_when(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    keep = Retention(snapshots=2)
    for offset in range(5):
        staged = [stage(tmp_path, [offset])]
        commit_files(catalog, NAMESPACE, "trades_v2", staged, run_id="r", policy=QUICK, retention=keep)
    second = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    told = rf"3 were expired, of up to {second}, the last at {second}; `k2beam query snapshots`"
    for moment in (12, "2020-01-01"):
        with pytest.raises(UsageError, match=told):
            Lake(str(tmp_path)).trades(as_of=moment)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": "yesterday"}, "--from 'yesterday' is not a time"),
        ({"end": "2026-13-01"}, "--to '2026-13-01' is not a time"),
        ({"as_of": "noon"}, "--as-of 'noon' is not a time"),
        ({"end": "9999-12-31T23:59:59-10:00"}, "outside the years"),
    ],
)
def test_a_bad_time_names_its_option(lake: Lake, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        lake.trades(**options)


@pytest.mark.parametrize(("limit", "size", "most"), [(3, 1 << 30, 3), (3, 1, 1)], ids=["many small ones", "large ones"])
def test_a_stream_reads_a_few_files_ahead(
    limit: int, size: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = make_catalog(tmp_path)
    for offset in range(8):
        append_events(catalog, "trades", [trade(offset, offset)])
    opened: list[str] = []
    original, together = scan.read_file, Barrier(most)

    def watched(table: Any, task: Any, *rest: Any, **options: Any) -> Any:
        opened.append(task.file.file_path)
        if len(opened) <= most:
            together.wait(60)  # fails unless so many are read at once
        return original(table, task, *rest, **options)

    monkeypatch.setattr(scan, "read_file", watched)
    monkeypatch.setattr(scan, "_FILES_AT_ONCE", limit)
    monkeypatch.setattr(scan, "_BYTES_AT_ONCE", size)
    table = catalog.load_table(("market_data", "trades_v2"))
    batches = selection.plan_reading(table, ["symbol"], EventSelection(), "timestamp").batches()
    for taken in range(1, 9):
        assert next(batches).num_rows == 1
        assert len(opened) <= taken - 1 + most
    assert len({*opened}) == 8
    assert next(batches, None) is None


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    table = append_events(catalog, "trades", [trade(0, 1)])
    (task,) = table.scan().plan_files()
    Path(task.file.file_path.removeprefix("file://")).unlink()
    with pytest.raises(UnreadableFile, match=r"\.parquet is gone"):
        Lake(str(tmp_path)).trades()


def test_a_manifest_that_is_gone_is_named(tmp_path: Path) -> None:
    table = append_events(make_catalog(tmp_path), "trades", [trade(0, 1)])
    (manifest,) = table.current_snapshot().manifests(table.io)
    Path(manifest.manifest_path.removeprefix("file://")).unlink()
    with pytest.raises(UnreadableFile, match=r"-m0\.avro is gone"):
        Lake(str(tmp_path)).trades()


def test_the_filter_is_pushed_down_to_the_files(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    table = append_events(catalog, "trades", [trade(0, 1), trade(1, 90_000), trade(2, 2, exchange="ASX")])
    from k2beam.query.selection import plan

    def files(selection: EventSelection) -> int:
        return len(plan(table, event_filter(selection, "timestamp"), snapshot_of(table, None)))

    assert files(EventSelection()) == 3
    assert files(EventSelection(exchange="ASX")) == 1
    assert files(EventSelection(start="2026-01-06")) == 1
    assert files(EventSelection(symbol="NONE")) == 0


def test_without_duckdb_the_extra_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "duckdb":
            raise ImportError(name)
        return original(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"k2beam\[query\]"):
        lake.trades()
