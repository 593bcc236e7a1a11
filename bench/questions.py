"""``python -m bench.questions WAY QUESTION WAREHOUSE``: one question to the tables, answered one way, and what it took.

Time counts from when the libraries are loaded: opening the catalog is in it, the imports are not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from bench.compaction import START_US
from bench.memory import own_peak_kib
from k2beam import Lake
from k2beam.query import bars, events  # noqa: F401 - loaded before the time counts

DAY = datetime.fromtimestamp(START_US / 1e6, UTC)
HOUR = DAY + timedelta(hours=12)
SYMBOL = "S0007USDT"
WHOLE_DAY = f"symbol = '{SYMBOL}' AND timestamp >= '{DAY}' AND timestamp < '{DAY + timedelta(days=1)}'"
ORDER = "timestamp, source_sequence, _offset"

Answer = list[Any]
Options = dict[str, bool]


def main() -> None:
    way, question, warehouse = sys.argv[1:]
    files = {kind: _files(warehouse, kind) for kind in ("trades", "quotes")}
    wall, cpu = time.monotonic(), time.process_time()
    answer = _answered(way, question, warehouse, files)
    taken = {"s": time.monotonic() - wall, "CPU s": time.process_time() - cpu, "MiB": own_peak_kib() / 1024}
    print(json.dumps({"answer": [str(value) for value in answer], **taken}))


def _answered(way: str, question: str, warehouse: str, files: dict[str, list[str]]) -> Answer:
    by_duckdb, by_k2beam = QUESTIONS[question]
    if way in PLAIN:
        return by_duckdb(_Plain(files, way == PLAIN[1]))
    return by_k2beam(warehouse, {"completeness": True} if way == TOLD else {})


def _files(warehouse: str, kind: str) -> list[str]:
    table = Lake(warehouse).catalog.load_table(("market_data", f"{kind}_v2"))
    return [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]


class _Plain:
    """DuckDB over files."""

    def __init__(self, files: dict[str, list[str]], once: bool) -> None:
        self._files = files
        self._once = once
        self._connection = duckdb.connect()

    def rows(self, kind: str, condition: str = "true") -> str:
        """SQL for the rows of a kind that a condition holds for."""
        rows = f"SELECT * FROM read_parquet({self._files[kind]}) WHERE {condition}"
        if self._once:
            for key, first in (
                ("message_id", "timestamp, _offset"),
                ("exchange, symbol, source_sequence", "_ingested_at"),
            ):
                copies = f"row_number() OVER (PARTITION BY {key} ORDER BY {first})"
                rows = f"SELECT * FROM ({rows}) QUALIFY {copies} = 1"
        return f"({rows})"

    def ask(self, sql: str) -> pa.Table:
        """The answer to a query."""
        return self._connection.sql(sql).to_arrow_table()


def _hour_of_k2beam(warehouse: str, _: Options) -> Answer:
    found = Lake(warehouse).trades(SYMBOL, start=HOUR, end=HOUR + timedelta(hours=1))
    return [found.num_rows, pc.sum(found["price"])]


def _hour_of_duckdb(plain: _Plain) -> Answer:
    span = f"symbol = '{SYMBOL}' AND timestamp >= '{HOUR}' AND timestamp < '{HOUR + timedelta(hours=1)}'"
    found = plain.ask(f"SELECT * FROM {plain.rows('trades', span)} ORDER BY {ORDER}")
    return [found.num_rows, pc.sum(found["price"])]


def _day_of_k2beam(warehouse: str, options: Options) -> Answer:
    found = Lake(warehouse).summary(SYMBOL, DAY.date(), **options)
    return [found.open, found.high, found.low, found.close, found.volume, found.trades]


_BAR = f"""first(price ORDER BY {ORDER}) AS open, max(price) AS high, min(price) AS low,
           last(price ORDER BY {ORDER}) AS close, sum(quantity) AS volume, count(*) AS trades,
           sum(CAST(price AS DOUBLE) * CAST(quantity AS DOUBLE)) / sum(quantity) AS vwap"""


def _day_of_duckdb(plain: _Plain) -> Answer:
    (row,) = plain.ask(f"SELECT {_BAR} FROM {plain.rows('trades', WHOLE_DAY)}").to_pylist()
    return list(row.values())[:-1]


def _bars_of_k2beam(warehouse: str, options: Options) -> Answer:
    return _bar_sums(Lake(warehouse).bars("1m", **options))


def _bars_of_duckdb(plain: _Plain) -> Answer:
    return _bar_sums(
        plain.ask(f"""SELECT exchange, symbol, date_trunc('minute', timestamp) AS start, {_BAR}
                      FROM {plain.rows("trades")} GROUP BY ALL ORDER BY exchange, symbol, start""")
    )


def _bar_sums(found: pa.Table) -> Answer:
    return [found.num_rows, *(pc.sum(found[name]) for name in ("open", "high", "low", "close", "volume", "trades"))]


def _asof_of_k2beam(warehouse: str, options: Options) -> Answer:
    return _asof_sums(Lake(warehouse).asof(SYMBOL, start=DAY, end=DAY + timedelta(days=1), **options))


def _asof_of_duckdb(plain: _Plain) -> Answer:
    trades, quotes = (plain.rows(kind, WHOLE_DAY) for kind in ("trades", "quotes"))
    return _asof_sums(
        plain.ask(f"""SELECT t.*, q.bid_price, q.ask_price, q.ask_price - q.bid_price AS spread
                      FROM {trades} t ASOF LEFT JOIN {quotes} q ON t.symbol = q.symbol AND t.timestamp >= q.timestamp
                      ORDER BY t.timestamp, t.source_sequence""")
    )


def _asof_sums(found: pa.Table) -> Answer:
    return [found.num_rows, *(pc.sum(found[name]) for name in ("price", "bid_price", "spread"))]


QUESTIONS: dict[str, tuple[Callable[[_Plain], Answer], Callable[[str, Options], Answer]]] = {
    "a symbol's hour": (_hour_of_duckdb, _hour_of_k2beam),
    "a symbol's day": (_day_of_duckdb, _day_of_k2beam),
    "bars of a minute, all symbols": (_bars_of_duckdb, _bars_of_k2beam),
    "as-of of a symbol's day": (_asof_of_duckdb, _asof_of_k2beam),
}
PLAIN = ("DuckDB", "DuckDB, each event once")
TOLD = "k2beam, told if complete"
WAYS = (*PLAIN, "k2beam", TOLD)


if __name__ == "__main__":
    main()
