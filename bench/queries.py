"""Queries beside plain DuckDB over the same Parquet files, before and after compaction.

DuckDB is told the paths of the files. It answers once as anybody would ask it, not knowing of copies of an event, and
once with the rows of one message or number of the exchange taken once: what k2beam's answer says. Each answer is a
process of its own; the answers are compared.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.compaction import FILES, START_US, decimals, make_trades, result_line
from bench.questions import QUESTIONS, WAYS
from k2beam import LakeConfig
from k2beam.clock import MICROS_PER_DAY
from k2beam.config import NAMESPACE, RetryPolicy
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.ledger import ledger_rows
from k2beam.lake.tables import EVENT_TABLES, SEQUENCE_GAPS, open_table
from k2beam.model import DECIMAL, Gap, Kind
from k2beam.schemas import event_arrow_schema
from k2beam.sequence.changes import gap_id

ROUNDS = 3
GAP_EVERY = 5_000

Counts = np.ndarray[Any, np.dtype[np.int64]]


def queries(rows: int, symbols: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Medians of seconds, CPU seconds and peaks of memory, in turns; ``rows`` trades and as many quotes of a day."""
    warehouse = scratch / "queries"
    make_day(warehouse, rows, symbols)
    yield from _answers("live files", warehouse, rows)
    command = [sys.executable, "-m", "k2beam.cli.main", "maintain", "compact", "--apply", "--warehouse", str(warehouse)]
    subprocess.run(command, check=True, capture_output=True)
    yield from _answers("compacted", warehouse, rows)


def make_day(warehouse: Path, rows: int, symbols: int) -> None:
    """A day's trades and quotes in files as a live job leaves them.

    Each symbol has numbers of its own, of which one in :data:`GAP_EVERY` is missing, as the ledger says.
    """
    catalog = open_catalog(LakeConfig(warehouse=str(warehouse)))
    kinds: tuple[Kind, ...] = ("trades", "quotes")
    for seed, kind in enumerate(kinds):
        name, random = EVENT_TABLES[kind], np.random.default_rng(seed)
        table = open_table(catalog, NAMESPACE, name)
        counts = np.diff(np.linspace(0, rows, FILES + 1).astype(int)).tolist()
        step, first, given, staged, gaps = MICROS_PER_DAY // FILES, 0, np.zeros(symbols, np.int64), [], []
        for place, count in enumerate(counts):
            trades = make_trades(random, first, count, START_US + place * step, step, symbols)
            made, missing = _numbered(trades, given, kind)
            gaps += missing
            staged += write_rows(table, made if kind == "trades" else _quotes_of(made, random), START_US)
            first += count
            if len(staged) == FILES // 20:
                commit_files(catalog, NAMESPACE, name, staged, run_id="bench", policy=RetryPolicy())
                staged = []
        open_table(catalog, NAMESPACE, SEQUENCE_GAPS).append(ledger_rows(gaps, START_US))


def _numbered(trades: pa.Table, given: Counts, kind: Kind) -> tuple[pa.Table, list[Gap]]:
    """The trades with the next numbers of their symbols, and the gaps before them; ``given`` counts those before."""
    names = trades["symbol"].combine_chunks().dictionary_encode()
    symbols = np.array([int(name[1:5]) for name in names.dictionary.to_pylist()])[names.indices.to_numpy()]
    counted = np.empty(len(symbols), np.int64)
    for symbol in np.unique(symbols).tolist():
        mine = symbols == symbol
        counted[mine] = given[symbol] + np.arange(mine.sum())
        given[symbol] += mine.sum()
    numbers = counted + counted // GAP_EVERY
    place = trades.schema.get_field_index("source_sequence")
    gaps = []
    for row in np.flatnonzero((counted % GAP_EVERY == 0) & (counted > 0)).tolist():
        symbol, missing, opened = names[row].as_py(), int(numbers[row]) - 1, trades["timestamp"][row].value
        found = gap_id("BINANCE", symbol, kind, 0, missing)
        gaps.append(Gap("BINANCE", symbol, kind, 0, missing, missing, "OPEN", opened, found, 0, opened))
    return trades.set_column(place, trades.schema.field(place), pa.array(numbers)), gaps


def _quotes_of(trades: pa.Table, random: np.random.Generator) -> pa.Table:
    """Quotes around the prices of trades, at other times of the same stretch."""
    half = decimals(random.integers(1, 100, trades.num_rows), 2)
    prices = trades["price"].cast(pa.decimal128(22, 2))
    made = {
        "quote_id": trades["trade_id"],
        "_source": pa.array(["kafka:5L6g3nShT-eMCtK--X86sw/quotes/1kBxYtPdQhC0rN8vVbWzTg"] * trades.num_rows),
        "bid_price": pc.subtract(prices, half).cast(DECIMAL),
        "ask_price": pc.add(prices, half).cast(DECIMAL),
        "bid_quantity": trades["quantity"],
        "ask_quantity": trades["quantity"],
    }
    schema = event_arrow_schema("quotes")
    return pa.table([made[name] if name in made else trades[name] for name in schema.names], schema=schema)


def _answers(when: str, warehouse: Path, rows: int) -> Iterator[dict[str, Any]]:
    for question in QUESTIONS:
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                found[way].append(_asked(way, question, warehouse))
        answers = {json.dumps(one["answer"]) for taken in found.values() for one in taken}
        if len(answers) != 1:
            raise RuntimeError(f"{question}: the answers differ: {answers}")
        for unit in ("s", "CPU s", "MiB"):
            values = {way: statistics.median(one[unit] for one in taken) for way, taken in found.items()}
            for way, value in values.items():
                ratio = round(value / values[WAYS[0]], 2)
                yield result_line(f"{question}, {when}: {way}", rows, round(value, 2), unit, ratio, WAYS[0])


def _asked(way: str, question: str, warehouse: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.questions", way, question, str(warehouse)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way}, {question}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
