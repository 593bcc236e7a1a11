"""SQL over the tables: what it can read, as of when, and that nothing else is within its reach."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.types import StringType

from k2beam.config import NAMESPACE
from k2beam.errors import LakeError, UsageError
from k2beam.lake.tables import EVENT_TABLES
from k2beam.query.lake import Lake
from k2beam.query.selections import AsOf
from tests.query_fixtures import append_events, append_gap_rows, gap, make_catalog, quote, trade


def asked(lake: Lake, sql: str, as_of: AsOf | None = None) -> list[dict[str, Any]]:
    _, batches = lake.sql(sql, as_of)
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 1, "61000.1"), trade(1, 2), trade(2, 3, message_id="m1")])
    append_events(catalog, "trades", [trade(3, 4, source_sequence=1), trade(4, 86_400 * 3, symbol="ETHUSDT")])
    append_events(catalog, "quotes", [quote(0, 1)])
    append_gap_rows(catalog, [gap("a", 1, 2)])
    return Lake(str(tmp_path))


def test_each_event_is_once_and_the_tables_have_all_rows(lake: Lake) -> None:
    assert asked(lake, "SELECT _offset FROM trades ORDER BY 1") == [{"_offset": 0}, {"_offset": 1}, {"_offset": 4}]
    assert asked(lake, "SELECT count(*) AS n, sum(price) AS p FROM trades_v2") == [{"n": 5, "p": Decimal("61400.1")}]
    assert asked(lake, "FROM quotes SELECT bid_price, exchange") == [
        {"bid_price": Decimal("99.5"), "exchange": "BINANCE"}
    ]
    joined = "SELECT count(*) AS n FROM TRADES t JOIN sequence_gaps g USING (symbol)"
    assert asked(lake, joined) == [{"n": 2}]
    assert asked(lake, "SELECT count(*) AS n FROM reference_data") == [{"n": 0}]


def test_both_relations_of_a_kind_and_several_reads_of_one(lake: Lake) -> None:
    sql = "SELECT (SELECT count(*) FROM trades) AS once, (SELECT count(*) FROM trades_v2) AS stored, count(*) AS twice"
    assert asked(lake, f"{sql} FROM trades a JOIN trades b USING (message_id)") == [
        {"once": 3, "stored": 5, "twice": 3}
    ]
    names = {row["name"] for row in asked(lake, "SHOW TABLES")}
    assert {"trades", "quotes", "trades_v2", "sequence_gaps", "dead_letters"} <= names


def test_all_tables_are_as_of_one_moment(lake: Lake) -> None:
    earlier = lake.snapshots()
    append_events(lake.catalog, "trades", [trade(9, 9)])
    assert asked(lake, "SELECT count(*) AS n FROM trades") == [{"n": 4}]
    assert asked(lake, "SELECT count(*) AS n FROM trades", earlier) == [{"n": 3}]
    assert asked(lake, "SELECT count(*) AS n FROM trades", "2020-01-01") == [{"n": 0}]
    assert lake.trades(as_of=earlier).num_rows == 3
    by_id = lake.snapshots(earlier.ids[EVENT_TABLES["trades"]])
    assert by_id.ids[EVENT_TABLES["trades"]] == earlier.ids[EVENT_TABLES["trades"]]
    with pytest.raises(UsageError, match=r"none of the tables .* has such a snapshot"):
        lake.snapshots(5)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM secret",
        "COPY trades TO '/tmp/x'",
        "ATTACH '/tmp/x.db'",
        "CREATE TABLE x (a INT)",
        "DELETE FROM trades",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "SELEC 1",
        "",
        "SELECT CAST(symbol AS INT) FROM trades",
    ],
)
def test_nothing_else_is_within_reach(lake: Lake, sql: str) -> None:
    secret = [{"a": 1}]
    with pytest.raises(UsageError, match="SQL"):
        asked(lake, sql)
    assert secret


def test_a_table_that_was_never_made_is_empty(tmp_path: Path) -> None:
    make_catalog(tmp_path)
    lake = Lake(str(tmp_path))
    for name in ("trades", "quotes_v2", "sequence_gaps", "dead_letters"):
        assert asked(lake, f"SELECT count(*) AS n FROM {name}") == [{"n": 0}]


def test_a_column_that_was_dropped_and_made_again_has_no_old_values(lake: Lake) -> None:
    name = (NAMESPACE, EVENT_TABLES["trades"])
    with lake.catalog.load_table(name).update_schema() as update:
        update.delete_column("currency")
    with lake.catalog.load_table(name).update_schema() as update:
        update.add_column("currency", StringType())
    append_events(lake.catalog, "trades", [trade(8, 8, currency="EUR")])
    rows = asked(lake, "SELECT currency, count(*) AS n FROM trades_v2 GROUP BY 1 ORDER BY 1")
    assert rows == [{"currency": "EUR", "n": 1}, {"currency": None, "n": 5}]


def test_only_files_and_columns_that_are_needed(lake: Lake) -> None:
    table = lake.catalog.load_table((NAMESPACE, EVENT_TABLES["trades"]))
    for task in table.scan().plan_files():
        if task.file.record_count == 1:
            path = Path(task.file.file_path.removeprefix("file://"))
            content = path.read_bytes()
            path.write_bytes(b"PAR1" + b"\xff" * 200 + content[204:])
    sql = "SELECT count(price) AS n FROM trades_v2 WHERE timestamp"
    assert asked(lake, f"{sql} < TIMESTAMPTZ '2026-01-06 00:00:00+00'") == [{"n": 4}]
    with pytest.raises(LakeError, match="can't be read"):
        asked(lake, "SELECT max(message_id) FROM trades_v2")


def test_a_file_that_is_gone_is_named(lake: Lake) -> None:
    table = lake.catalog.load_table((NAMESPACE, EVENT_TABLES["trades"]))
    path = next(iter(table.scan().plan_files())).file.file_path
    Path(path.removeprefix("file://")).unlink()
    with pytest.raises(LakeError, match=r"is gone") as raised:
        asked(lake, "SELECT count(*) FROM trades_v2")
    assert path in str(raised.value)
