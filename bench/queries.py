"""Queries beside a plain scan of pyiceberg with DuckDB, which knows nothing of copies of a message.

The peer reads the columns that its answer needs, or also those that would tell copies apart, all files at once. The
answers are compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from bench.compaction import NAME, result_line, timed
from k2beam import IngestConfig, Lake, LakeConfig, run_ingest
from k2beam.query.events import IDENTITY
from k2beam.query.selection import event_filter
from k2beam.query.selections import EventSelection
from k2beam.simulate.simulate import Simulation, simulate
from transforms.read_archive import ReadArchive

ROUNDS = 5
SYMBOL, DAY = "BTCUSDT", date(2026, 1, 5)
HOUR = datetime(2026, 1, 5, 12, tzinfo=UTC)
COLUMNS = ("timestamp", "price", "quantity", "source_sequence")
SUMMARY = """
    SELECT first(price ORDER BY timestamp, source_sequence), max(price), min(price),
           last(price ORDER BY timestamp, source_sequence), sum(quantity), count(*)
    FROM trades
"""


def queries(rows: int, symbols: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """A symbol's day as one line, and its trades of an hour; medians of five, in turns with the plain scans."""
    archive, warehouse = scratch / "queries", str(scratch / "queries-warehouse")
    rate = rows / 80_000  # all on one day
    simulate(archive, Simulation(rows=rows, symbols=symbols, seed=1, envelope="plain", files=8, rate=rate))
    run_ingest(ReadArchive([str(archive)]), IngestConfig(LakeConfig(warehouse)), ["--runner=FnApiRunner"])
    lake = Lake(warehouse)
    day = EventSelection(SYMBOL, start=DAY, end=DAY + timedelta(days=1))
    hour = EventSelection(SYMBOL, start=HOUR, end=HOUR + timedelta(hours=1))
    yield from _beside("a symbol's day", rows, lambda: _plain_summary(lake, day), lambda: _summary(lake))
    same = "a symbol's day, by the columns that tell copies apart"
    yield from _beside(same, rows, lambda: _plain_summary(lake, day, IDENTITY), lambda: _summary(lake))
    yield from _beside("a symbol's hour", rows, lambda: _plain_rows(lake, hour), lambda: _rows(lake, hour))


def _summary(lake: Lake) -> tuple[Any, ...]:
    found = lake.summary(SYMBOL, DAY)
    return found.open, found.high, found.low, found.close, found.volume, found.trades


def _plain_summary(lake: Lake, selection: EventSelection, further: tuple[str, ...] = ()) -> tuple[Any, ...]:
    with duckdb.connect() as connection:
        connection.register("trades", _scanned(lake, selection, (*COLUMNS, *further)))
        (row,) = connection.sql(SUMMARY).fetchall()
    return tuple(row)


def _rows(lake: Lake, selection: EventSelection) -> int:
    return int(lake.trades(SYMBOL, start=selection.start, end=selection.end).num_rows)


def _plain_rows(lake: Lake, selection: EventSelection) -> int:
    return int(_scanned(lake, selection, ("*",)).sort_by("timestamp").num_rows)


def _scanned(lake: Lake, selection: EventSelection, columns: tuple[str, ...]) -> Any:
    table = lake.catalog.load_table((lake.namespace, NAME))
    return table.scan(row_filter=event_filter(selection, "timestamp"), selected_fields=columns).to_arrow()


def _beside(what: str, rows: int, plain: Callable[[], Any], ours: Callable[[], Any]) -> Iterator[dict[str, Any]]:
    """Seconds and CPU seconds of both. Raises RuntimeError where the answers differ."""
    if (found := ours()) != (expected := plain()):
        raise RuntimeError(f"{what}: {found} is not {expected}")
    times = [(timed(plain), timed(ours)) for _ in range(ROUNDS)]
    for index, unit in enumerate(("s", "CPU s")):
        floor, taken = (statistics.median(pair[side][index] for pair in times) for side in (0, 1))
        yield result_line(f"{what}: plain scan", rows, round(floor, 2), unit)
        yield result_line(f"{what}: k2beam", rows, round(taken, 2), unit, round(taken / floor, 2), "plain scan")
