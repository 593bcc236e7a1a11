"""The commands query, gaps and dlq: what they print, and their exit codes."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from k2beam.cli import dlq, gaps, query
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, GAP_SCHEMA
from k2beam.query import overview
from k2beam.query.asof import AS_OF_SCHEMA
from k2beam.query.bars import BAR_SCHEMA
from k2beam.query.dead_letters import LetterCount
from k2beam.query.selections import DEAD_LETTER_COLUMNS
from k2beam.query.spread import Spread
from k2beam.query.summary import DaySummary
from k2beam.schemas import event_arrow_schema
from tests.query_fixtures import (
    DAY,
    HOSTILE,
    SECOND,
    SOURCE,
    append_dead_letters,
    append_events,
    append_gap_rows,
    dead_letter,
    gap,
    make_catalog,
    quote,
    trade,
)


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    for group in (query, gaps, dlq):
        group.register(app)
    return app


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("lake")
    catalog = make_catalog(folder)
    append_events(
        catalog,
        "trades",
        [trade(0, 1, "61000.1"), trade(1, 2), trade(2, 3, message_id="m1"), trade(3, 4, symbol=HOSTILE)],
    )
    append_events(catalog, "quotes", [quote(0, 1)])
    append_gap_rows(catalog, [gap("a", 1, 2), gap("b", 4, 4, "FILLED", 1)])
    append_dead_letters(catalog, [dead_letter(9), dead_letter(3)])
    return folder


class Commands:
    """Runs commands on one warehouse."""

    def __init__(self, app: typer.Typer, warehouse: Path) -> None:
        self._app = app
        self._warehouse = warehouse

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(self._app, [*arguments, "--warehouse", str(self._warehouse)])

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--output", "json")
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return json.loads(result.stdout)


@pytest.fixture(scope="module")
def commands(app: typer.Typer, warehouse: Path) -> Commands:
    return Commands(app, warehouse)


def test_trades_as_json_have_every_column(commands: Commands) -> None:
    rows = commands.json("query", "trades", "--symbol", "BTCUSDT")
    assert [list(row) for row in rows] == [event_arrow_schema("trades").names] * 2
    first = rows[0]
    assert (first["price"], first["timestamp"]) == ("61000.1", "2026-01-05T00:00:01.000000Z")
    assert (first["vendor_data"], first["trade_conditions"], first["platform_sequence"]) == ({"k": "v"}, ["x"], None)


def test_options_reach_the_query(commands: Commands) -> None:
    def offsets(*options: str) -> list[int]:
        return [row["_offset"] for row in commands.json("query", "trades", *options)]

    assert offsets() == [0, 1, 3]
    assert offsets("--with-duplicates") == [0, 1, 2, 3]
    assert offsets("--limit", "1") == [0]
    assert offsets("--exchange", "ASX") == []
    assert offsets("--from", "2026-01-05T00:00:02Z", "--to", "2026-01-05T00:00:04Z") == [1]
    assert offsets("--symbol", HOSTILE) == [3]
    assert offsets("--as-of", "2020-01-01") == []
    assert commands.json("query", "trades", "--columns", "side, price", "--limit", "1") == [
        {"side": "BUY", "price": "61000.1"}
    ]
    assert len(commands.json("query", "quotes", "--symbol", "BTCUSDT", "--limit", "5")) == 1


def test_a_table_shows_the_main_columns_and_csv_all(commands: Commands) -> None:
    for kind, number in (("trades", 3), ("quotes", 1)):
        lines = commands.run("query", kind).stdout.splitlines()
        assert lines[0].split() == list(query.TABLE_COLUMNS[kind])
        assert len(lines) == number + 1
    rows = list(csv.reader(io.StringIO(commands.run("query", "trades", "-o", "csv").stdout)))
    assert rows[0] == event_arrow_schema("trades").names
    assert HOSTILE in rows[3]


def test_summary(commands: Commands) -> None:
    summary = commands.json("query", "summary", "--symbol", "BTCUSDT", "--day", "2026-01-05")
    assert list(summary) == list(DaySummary.__dataclass_fields__)
    assert summary == {
        "symbol": "BTCUSDT",
        "exchange": None,
        "day": "2026-01-05",
        "open": "61000.1",
        "high": "61000.1",
        "low": "100",
        "close": "100",
        "volume": "2",
        "trades": 2,
        "vwap": "30550.05",
        "complete": None,
        "missing": None,
    }
    doubled = commands.json(
        "query", "summary", "--symbol", "BTCUSDT", "--day", "2026-01-05", "--with-duplicates", "--exchange", "BINANCE"
    )
    assert (doubled["trades"], doubled["exchange"]) == (3, "BINANCE")
    earlier = commands.json("query", "summary", "--symbol", "BTCUSDT", "--day", "2026-01-05", "--as-of", "2020-01-01")
    assert (earlier["trades"], earlier["vwap"]) == (0, None)


def test_a_summary_of_several_symbols_has_a_row_of_each(commands: Commands) -> None:
    rows = commands.json("query", "summary", "--symbol", f"BTCUSDT,{HOSTILE}", "--day", "2026-01-05")
    assert [(row["symbol"], row["trades"]) for row in rows] == [("BTCUSDT", 2), (HOSTILE, 1)]


def test_several_names_mean_all_of_them(commands: Commands) -> None:
    both = ["--symbol", "BTCUSDT", "--symbol", HOSTILE]
    assert len(commands.json("query", "trades", *both)) == 3
    assert len(commands.json("query", "trades", "--symbol", f"BTCUSDT,NONE,{HOSTILE}")) == 3
    assert len(commands.json("query", "trades", "--exchange", "X,BINANCE")) == 3
    assert [row["gap_id"] for row in commands.json("gaps", "--symbol", "X,BTCUSDT")] == ["a"]
    assert commands.run("query", "trades", "--symbol", "").exit_code == 2


def test_bars(commands: Commands) -> None:
    (bar, other) = commands.json("query", "bars", "--every", "1m")
    assert list(bar) == BAR_SCHEMA.names
    assert bar == {
        "exchange": "BINANCE",
        "symbol": HOSTILE,
        "start": "2026-01-05T00:00:00.000000Z",
        "end": "2026-01-05T00:01:00.000000Z",
        "open": "100",
        "high": "100",
        "low": "100",
        "close": "100",
        "volume": "1",
        "trades": 1,
        "vwap": "100",
    }
    assert other["trades"] == 2
    assert len(commands.json("query", "bars", "--every", "1 trades", "--symbol", "BTCUSDT")) == 2
    assert len(commands.json("query", "bars", "--every", "1s", "--symbol", "BTCUSDT", "--with-duplicates")) == 3
    span = ["--from", "2026-01-05", "--to", "2026-01-05T01:00:00"]
    assert len(commands.json("query", "bars", "--every", "5m", "--empty", "--symbol", "BTCUSDT", *span)) == 12
    (day,) = commands.json("query", "bars", "--every", "1d", "--zone", "America/New_York", "--symbol", "BTCUSDT")
    assert day["start"] == "2026-01-04T05:00:00.000000Z"
    assert commands.json("query", "bars", "--every", "1d", "--as-of", "2020-01-01") == []


def test_asof_and_spread(commands: Commands) -> None:
    rows = commands.json("query", "asof", "--symbol", "BTCUSDT")
    assert [list(row) for row in rows] == [AS_OF_SCHEMA.names] * 2
    assert [(row["spread"], row["mid"], row["quote_timestamp"]) for row in rows] == [
        ("1", "100", "2026-01-05T00:00:01.000000Z")
    ] * 2
    late = commands.json("query", "asof", "--symbol", "BTCUSDT", "--tolerance", "500ms")
    assert [row["spread"] for row in late] == ["1", None]
    (spread,) = commands.json("query", "spread")
    assert list(spread) == list(Spread.__dataclass_fields__)
    assert (spread["quotes"], spread["mean"], spread["time_weighted"]) == (1, "1", None)


def test_sql(commands: Commands) -> None:
    assert commands.json("query", "sql", "SELECT count(*) AS n, max(price) AS p FROM trades") == [
        {"n": 3, "p": "61000.1"}
    ]
    assert commands.json("query", "sql", "SELECT count(*) AS n FROM trades", "--as-of", "2020-01-01") == [{"n": 0}]
    result = commands.run("query", "sql", "DROP TABLE trades_v2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "must be one query" in result.stderr


def test_the_snapshots_that_are_read_are_said(commands: Commands) -> None:
    (snapshot,) = commands.json("query", "snapshots", "--table", "trades_v2")
    for command in (
        ["trades"],
        ["bars", "--every", "1m"],
        ["asof"],
        ["summary", "--symbol", "BTCUSDT", "--day", "2026-01-05"],
        ["symbols"],
        ["sql", "FROM trades"],
    ):
        result = commands.run("query", *command, "--show-snapshot", "--output", "json")
        assert f"trades_v2: snapshot {snapshot['snapshot_id']}\n" in result.stderr
        assert json.loads(result.stdout)
    read_again = commands.run("query", "trades", "--as-of", str(snapshot["snapshot_id"]), "--output", "csv")
    assert read_again.stdout == commands.run("query", "trades", "--output", "csv").stdout


def test_rows_go_to_a_file(commands: Commands, tmp_path: Path) -> None:
    for kind, number in (("trades", 3), ("quotes", 1)):
        path = tmp_path / f"{kind}.parquet"
        result = commands.run("query", kind, "--output", "parquet", "--file", str(path))
        assert (result.exit_code, result.stdout) == (0, "")
        found = pq.read_table(path)
        assert (found.num_rows, found.schema) == (number, event_arrow_schema(kind))


def test_symbols_stats_and_snapshots(commands: Commands) -> None:
    rows = commands.json("query", "symbols", "--symbol", "BTCUSDT", "--exchange", "BINANCE")
    assert [(row["kind"], row["rows"]) for row in rows] == [("trades", 3), ("quotes", 1)]
    assert [list(row) for row in rows] == [list(overview.SymbolCount.__dataclass_fields__)] * 2
    assert commands.json("query", "symbols", "--from", "2026-01-06") == []
    tables = {row["table"]: row for row in commands.json("query", "stats")}
    assert (tables["trades_v2"]["rows"], tables["trades_v2"]["last_event"]) == (4, "2026-01-05T00:00:04.000000Z")
    (snapshot,) = commands.json("query", "snapshots", "--table", "quotes_v2")
    assert (snapshot["operation"], snapshot["added_rows"], snapshot["parent_id"]) == ("append", 1, None)
    moment = datetime.fromisoformat(snapshot["committed_at"])
    assert moment.tzinfo is not None
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 3_600


def test_gaps(commands: Commands) -> None:
    def ids(*options: str) -> list[str]:
        return [row["gap_id"] for row in commands.json("gaps", *options)]

    assert ids() == ["a"]
    assert ids("--all") == ids("--status", "all") == ids("--history") == ["a", "b"]
    assert ids("--kind", "quotes") == ids("--symbol", "X") == ids("--exchange", "X") == []
    assert list(commands.json("gaps")[0]) == GAP_SCHEMA.names
    assert commands.run("gaps", "--kind", "books").exit_code == 2


def test_dead_letters(commands: Commands) -> None:
    (row,) = commands.json("dlq", "list")
    assert list(row) == list(DEAD_LETTER_COLUMNS)
    assert (row["offset"], row["failed_at"]) == (9, "2026-01-05T00:00:01.000000Z")
    assert commands.json("dlq", "list", "--class", "X") == commands.json("dlq", "list", "--stage", "read") == []
    assert commands.json("dlq", "list", "--source", "X") == commands.json("dlq", "list", "--limit", "0") == []
    shown = commands.json("dlq", "show", SOURCE, "0", "3")
    assert (shown["resolved"], shown["payload"]["hex"]) == (True, "0000000007ff")
    missing = commands.run("dlq", "show", SOURCE, "0", "77")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "no dead letter at offset 77" in missing.stderr


def test_dead_letters_are_chosen_counted_and_exported(app: typer.Typer, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_dead_letters(
        catalog,
        [
            dead_letter(3),
            dead_letter(5, _offset_last=8, failed_at=DAY + 60 * SECOND),
            dead_letter(9, error_class="tombstone", stage="frame", payload=None),
            dead_letter(11, _source="csv:a", failed_at=DAY + 120 * SECOND),
        ],
    )
    append_events(catalog, "trades", [trade(3, 1)])  # what was a dead letter is an event now
    commands = Commands(app, tmp_path)

    def offsets(*options: str) -> list[int]:
        exported = [row["_offset"] for row in commands.json("dlq", "export", *options)]
        assert exported == [row["offset"] for row in commands.json("dlq", "list", *options)]
        return exported

    assert offsets() == [11, 5, 9]
    assert offsets("--class", "tombstone,X", "--class", "Truncated") == [11, 5, 9]
    assert offsets("--stage", "frame") == [9]
    assert offsets("--source", f"{SOURCE},csv:b") == [5, 9]
    assert offsets("--from", "2026-01-05T00:01:00", "--to", "2026-01-05T00:02:00") == [5]
    assert offsets("--limit", "2") == [11, 5]
    stats = commands.json("dlq", "stats")
    assert list(stats[0]) == list(LetterCount.__dataclass_fields__)
    assert [(row["error_class"], row["source"], row["letters"], row["offsets"]) for row in stats] == [
        ("Truncated", "csv:a", 1, 1),
        ("Truncated", SOURCE, 1, 4),
        ("tombstone", SOURCE, 1, 1),
    ]
    assert stats[1]["first_failed_at"] == stats[1]["last_failed_at"] == "2026-01-05T00:01:00.000000Z"
    path = tmp_path / "letters.parquet"
    assert commands.run("dlq", "export", "--output", "parquet", "--file", str(path)).exit_code == 0
    found = pq.read_table(path)
    assert found.schema == DEAD_LETTER_SCHEMA
    assert found["payload"].to_pylist() == [b"\x00\x00\x00\x00\x07\xff", b"\x00\x00\x00\x00\x07\xff", None]


EVERY = [
    ["query", "trades"],
    ["query", "quotes"],
    ["query", "bars", "--every", "1m"],
    ["query", "asof"],
    ["query", "spread"],
    ["query", "sql", "SELECT symbol, price FROM trades"],
    ["query", "symbols"],
    ["query", "stats"],
    ["query", "snapshots"],
    ["gaps"],
    ["dlq", "list"],
    ["dlq", "stats"],
    ["dlq", "export"],
]


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_an_empty_lake_gives_an_empty_result_with_columns(app: typer.Typer, tmp_path: Path, command: list[str]) -> None:
    make_catalog(tmp_path)
    commands = Commands(app, tmp_path)
    assert commands.json(*command) == []
    header = commands.run(*command, "-o", "csv").stdout.splitlines()
    assert len(header) == 1
    assert "," in header[0]


@pytest.mark.parametrize(
    "command",
    [
        *EVERY,
        ["query", "summary", "--symbol", "X", "--day", "2026-01-05"],
        ["dlq", "show", "s", "0", "1"],
        ["dlq", "replay"],
    ],
    ids=" ".join,
)
def test_a_missing_warehouse_is_wrong_usage(app: typer.Typer, tmp_path: Path, command: list[str]) -> None:
    result = Commands(app, tmp_path / "none").run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: no warehouse at ")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query", "trades", "--from", "soon"], "--from 'soon' is not a time"),
        (["query", "trades", "--as-of", "5"], "has no such snapshot"),
        (["query", "trades", "--columns", "a,price"], "trades has no column a"),
        (["query", "summary", "--symbol", "X", "--day", "monday"], "--day 'monday' is not a day"),
        (["query", "stats", "--as-of", "5"], "must be a time here"),
        (["query", "snapshots", "--table", "x"], "there is no table x"),
        (["query", "trades", "--catalog", "prod"], "not both"),
        (["query", "bars", "--every", "7m"], "--every"),
        (["query", "bars", "--every", "1m", "--zone", "Mars"], "--zone"),
        (["query", "bars", "--every", "5 trades", "--empty"], "empty bars"),
        (["query", "asof", "--tolerance", "soon"], "--tolerance"),
    ],
)
def test_wrong_usage_says_what_to_do(commands: Commands, arguments: list[str], said: str) -> None:
    result = commands.run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
