"""Compaction beside a plain read and write of the same files, its memory, and what one symbol's hour costs.

The files are those of a live job: each has all symbols and a short stretch of one day.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from bench.memory import PEAK
from k2beam import EventSelection, Lake, LakeConfig
from k2beam.clock import MICROS_PER_DAY
from k2beam.config import NAMESPACE, RetryPolicy
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import Table, open_table
from k2beam.maintain.candidates import live_files, plan_groups
from k2beam.maintain.rewrite import rewrite_files
from k2beam.query.selection import event_filter
from k2beam.schemas import event_arrow_schema

FILES = 2_000
ROUNDS = 3
TARGET = 64 << 20
NAME = "trades_v2"
START_US = 20_000 * MICROS_PER_DAY
_SOURCE = "kafka:5L6g3nShT-eMCtK--X86sw/market.crypto.trades.binance/1kBxYtPdQhC0rN8vVbWzTg"
_HOURS = 20
_NEVER_BUSY = 1 << 62


def compaction(rows: int, symbols: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Rows and CPU seconds of a rewrite with its proof (the best of three rounds in turns with the plain one), the
    whole command with its peak of memory, and the median of some symbols' hours before and after it."""
    warehouse = scratch / "compaction"
    make_small_files(warehouse, rows, symbols)
    table = _opened(warehouse)
    (group,) = plan_groups(live_files(table), TARGET, _NEVER_BUSY)
    paths = [file.file_path.removeprefix("file://") for file in group.files]
    plain, certified = [], []
    for _ in range(ROUNDS):
        plain.append(timed(lambda: _plain(paths, scratch / "plain.parquet")))
        certified.append(timed(lambda: _rewritten_and_deleted(table, group.files)))
    yield from _beside("plain read and write", "rewrite with its proof", plain, certified, group.rows)
    before = list(_symbol_hour("before", warehouse, symbols))
    yield _command(warehouse, group.rows)
    yield from before
    yield from _symbol_hour("after", warehouse, symbols)


def make_small_files(warehouse: Path, rows: int, symbols: int) -> None:
    """Trades of one day in :data:`FILES` committed files of different sizes, one after the other in time."""
    catalog = open_catalog(LakeConfig(warehouse=str(warehouse)))
    table = open_table(catalog, NAMESPACE, NAME)
    random = np.random.default_rng(1)
    shares = random.uniform(0.4, 1.6, FILES)
    counts = np.maximum(1, (rows * shares / shares.sum()).astype(int))
    firsts, step = np.cumsum(counts) - counts, MICROS_PER_DAY // FILES
    staged = []
    for number, (count, first) in enumerate(zip(counts.tolist(), firsts.tolist(), strict=True)):
        trades = make_trades(random, first, count, START_US + number * step, step, symbols)
        staged += write_rows(table, trades, START_US)
        if len(staged) == FILES // 20:
            commit_files(catalog, NAMESPACE, NAME, staged, run_id="bench", policy=RetryPolicy())
            staged = []


def make_trades(random: np.random.Generator, first: int, count: int, start: int, step: int, symbols: int) -> pa.Table:
    """Trades at random times of ``step`` microseconds from ``start`` on, with offsets from ``first`` on."""
    times, symbol = np.sort(random.integers(start, start + step, count)), random.integers(0, symbols, count)
    offsets = np.arange(first, first + count)
    ids = np.frombuffer(random.bytes(16 * count), np.uint8).reshape(count, 16)
    texts = pa.array(offsets).cast(pa.string())
    columns: dict[str, Any] = {
        "message_id": [str(uuid.UUID(bytes=one.tobytes())) for one in ids],
        "trade_id": texts,
        "symbol": pa.array([f"S{number:04}USDT" for number in range(symbols)]).take(pa.array(symbol)),
        "exchange": ["BINANCE"] * count,
        "asset_class": ["crypto"] * count,
        "timestamp": times,
        "price": decimals(random.integers(10**4, 10**6, count), 2),
        "quantity": decimals(random.integers(1, 10**5, count), 4),
        "currency": ["USDT"] * count,
        "side": pa.array(["BUY", "SELL"]).take(pa.array(random.integers(0, 2, count))),
        "trade_conditions": [[]] * count,
        "source_sequence": offsets,
        "ingestion_timestamp": times + random.integers(1_000, 90_000, count),
        "platform_sequence": [None] * count,
        "vendor_data": [[("m", "1"), ("id", text)] for text in texts.to_pylist()],
        "_source": [_SOURCE] * count,
        "_partition": symbol % 4,
        "_offset": offsets,
        "_ingested_at": times + 100_000,
    }
    schema = event_arrow_schema("trades")
    made = [columns[field.name] for field in schema]
    arrays = [
        one.cast(field.type, safe=False) if isinstance(one, pa.Array) else pa.array(one, type=field.type)
        for one, field in zip(made, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def decimals(numbers: np.ndarray[Any, np.dtype[np.int64]], places: int) -> pa.Array:
    """Whole numbers as decimals of so many places."""
    unit = pa.scalar(Decimal(1).scaleb(-places), pa.decimal128(places + 1, places))
    return pc.multiply(pa.array(numbers).cast(pa.decimal128(19, 0)), unit)


def _opened(warehouse: Path) -> Table:
    table = find_readable(open_catalog(LakeConfig(warehouse=str(warehouse))), NAMESPACE, NAME)
    if table is None:
        raise RuntimeError(f"{warehouse} has no {NAME}")
    return table


def _plain(paths: list[str], path: Path) -> None:
    """What any compaction does: read the files, write one with the same codec. No order, no proof."""
    pq.write_table(ds.dataset(paths, format="parquet").to_table(), path, compression="zstd")


def _rewritten_and_deleted(table: Table, files: Any) -> None:
    for file in rewrite_files(table, files, TARGET).files:
        table.io.delete(file.file_path)


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds and CPU seconds of a call."""
    wall, cpu = time.monotonic(), time.process_time()
    run()
    return time.monotonic() - wall, time.process_time() - cpu


def _beside(
    floor: str, what: str, floors: list[tuple[float, float]], taken: list[tuple[float, float]], rows: int
) -> Iterator[dict[str, Any]]:
    for index, unit in enumerate(("rows/s", "rows/CPU s")):
        rates = {name: rows / min(one[index] for one in times) for name, times in ((floor, floors), (what, taken))}
        for name, rate in rates.items():
            yield result_line(name, rows, round(rate), unit, round(rate / rates[floor], 2), floor)


def _command(warehouse: Path, rows: int) -> dict[str, Any]:
    """The command itself, and its peak of memory. Raises RuntimeError where it does not end with at most ten files."""
    arguments = ["maintain", "compact", "--apply", "--warehouse", str(warehouse), "--output", "json"]
    done = subprocess.run([sys.executable, "-c", PEAK, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"compaction ended with {done.returncode}: {done.stderr[-2000:]}")
    (result,) = json.loads(done.stdout)
    if result["result"] != "compacted" or result["rows"] != rows or result["files_after"] > 10:
        raise RuntimeError(f"not what was to be compacted: {result}")
    peak = int(done.stderr.rpartition("peak ")[2]) // 1024
    what = f"compaction of {result['files']:,} to {result['files_after']} files, peak memory"
    return result_line(
        what, rows, peak, "MiB", round(result["bytes_after"] / result["bytes"], 2), "bytes of the files before"
    )


def _symbol_hour(when: str, warehouse: Path, symbols: int) -> Iterator[dict[str, Any]]:
    """The medians of some hours of symbols: seconds of the query, row groups and compressed bytes that it reads."""
    table, lake = _opened(warehouse), Lake(str(warehouse))
    seconds, groups, sizes = [], [], []
    for number in range(_HOURS):
        hour = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(hours=number % 24)
        symbol = f"S{number * symbols // _HOURS:04}USDT"
        selection = EventSelection(symbol=symbol, start=hour, end=hour + timedelta(hours=1))
        started = time.monotonic()
        _, batches = lake.events("trades", selection)
        found = sum(batch.num_rows for batch in batches)
        seconds.append(time.monotonic() - started)
        if not found:
            raise RuntimeError(f"no rows of {symbol} from {hour}")
        read = list(_row_groups(table, selection, symbol, hour))
        groups.append(len(read))
        sizes.append(sum(read))
    for value, unit in ((seconds, "ms"), (groups, "row groups"), (sizes, "KiB")):
        median = statistics.median(value) * (1000 if unit == "ms" else 1) / (1024 if unit == "KiB" else 1)
        yield result_line(f"a symbol's hour {when}", None, round(median), unit, None, "")


def _row_groups(table: Table, selection: EventSelection, symbol: str, hour: datetime) -> Iterator[int]:
    """The compressed bytes of each row group that the query has to read, by the bounds of its columns."""
    for task in table.scan(row_filter=event_filter(selection, "timestamp")).plan_files():
        footer = pq.read_metadata(task.file.file_path.removeprefix("file://"))
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            columns = [group.column(position) for position in range(group.num_columns)]
            bounds = {column.path_in_schema: column.statistics for column in columns}
            symbols, times = bounds["symbol"], bounds["timestamp"]
            if symbols.min <= symbol <= symbols.max and times.min < hour + timedelta(hours=1) and times.max >= hour:
                yield sum(column.total_compressed_size for column in columns)


def result_line(
    what: str, rows: int | None, value: float | None, unit: str, ratio: float | None = None, beside: str | None = None
) -> dict[str, Any]:
    """One line of the table that a benchmark prints."""
    return {"what": what, "rows": rows, "value": value, "unit": unit, "ratio": ratio, "beside": beside}
