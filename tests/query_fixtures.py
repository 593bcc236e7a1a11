"""Small tables for the tests of the queries, written with pyiceberg itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.config import NAMESPACE, LakeConfig
from k2beam.coverage import Coverage
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS, EVENT_TABLES, GAP_SCHEMA, SEQUENCE_GAPS, open_table
from k2beam.model import Kind
from k2beam.query.duck import Session
from k2beam.query.events import StoredEvents
from k2beam.schemas import event_arrow_schema
from k2beam.sequence import recount
from k2beam.sequence.rules import NO_RULES, SequenceRules

DAY = 1_767_571_200_000_000
"""2026-01-05T00:00:00Z in microseconds."""
SECOND = 1_000_000
HOSTILE = "'; DROP TABLE trades; --"
SOURCE = "kafka:cluster/trades/topic"


def make_catalog(warehouse: Any) -> Catalog:
    return open_catalog(LakeConfig(str(warehouse)))


def trade(offset: int, seconds: float, price: str = "100", quantity: str = "1", **fields: Any) -> dict[str, Any]:
    """A trade of BTCUSDT on BINANCE, ``seconds`` into the day; ``fields`` replace what it has."""
    time = DAY + round(seconds * SECOND)
    row = {
        "message_id": f"m{offset}",
        "trade_id": f"t{offset}",
        "symbol": "BTCUSDT",
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "timestamp": time,
        "price": Decimal(price),
        "quantity": Decimal(quantity),
        "currency": "USDT",
        "side": "BUY",
        "trade_conditions": ["x"],
        "source_sequence": offset,
        "ingestion_timestamp": time,
        "platform_sequence": None,
        "vendor_data": {"k": "v"},
        "_source": SOURCE,
        "_partition": 0,
        "_offset": offset,
        "_ingested_at": time,
    }
    return {**row, **fields}


def quote(offset: int, seconds: float, **fields: Any) -> dict[str, Any]:
    row = trade(offset, seconds)
    for name in ("trade_id", "price", "quantity", "side", "trade_conditions"):
        del row[name]
    prices = {"bid_price": "99.5", "bid_quantity": "2", "ask_price": "100.5", "ask_quantity": "3"}
    return {**row, "quote_id": f"q{offset}", **{name: Decimal(text) for name, text in prices.items()}, **fields}


def rows_of(kind: Kind, rows: Iterable[dict[str, Any]]) -> pa.Table:
    schema = event_arrow_schema(kind)
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


class _InMemory(StoredEvents):
    """Rows that stand for those of a table."""

    rows: pa.Table

    @property
    def most_rows(self) -> int:
        return self.rows.num_rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        return iter(self.rows.to_batches(max_chunksize=2))

    def relate(self, session: Session, name: str) -> None:
        session.register_table(name, self.rows)


def stored_in_memory(kind: Kind, rows: Iterable[dict[str, Any]], rules: SequenceRules = NO_RULES) -> StoredEvents:
    """Rows as a table would give them."""
    table = rows_of(kind, rows)
    stored = _InMemory(kind, table.schema, None, rules)
    object.__setattr__(stored, "rows", table)
    return stored


def append_events(catalog: Catalog, kind: Kind, rows: Iterable[dict[str, Any]]) -> Table:
    """One commit of rows to an event table, with their coverage."""
    data = list(rows)
    table = open_table(catalog, NAMESPACE, EVENT_TABLES[kind])
    table.append(rows_of(kind, data))
    covered = Coverage.from_properties(table.properties)
    for row in data:
        covered.add_many(row["_source"], row["_partition"], [row["_offset"]])
    with table.transaction() as transaction:
        transaction.set_properties(covered.to_properties())
    return table


def dead_letter(offset: int, **fields: Any) -> dict[str, Any]:
    row = {
        "_source": SOURCE,
        "_partition": 0,
        "_offset": offset,
        "_offset_last": offset,
        "timestamp": DAY,
        "key": b"BTCUSDT",
        "payload": b"\x00\x00\x00\x00\x07\xff",
        "headers": [{"key": "k2.path", "value": b"a.avro"}, {"key": "empty", "value": None}],
        "schema_id": 7,
        "stage": "decode",
        "error_class": "Truncated",
        "error_message": f"offset {offset} ends early",
        "record_json": None,
        "failed_at": DAY + SECOND,
    }
    return {**row, **fields}


def append_dead_letters(catalog: Catalog, rows: Iterable[dict[str, Any]]) -> Table:
    table = open_table(catalog, NAMESPACE, DEAD_LETTERS)
    table.append(pa.Table.from_pylist(list(rows), schema=DEAD_LETTER_SCHEMA))
    return table


def gap(gap_id: str, first: int, last: int, status: str = "OPEN", revision: int = 0, **fields: Any) -> dict[str, Any]:
    row = {
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "kind": "trades",
        "epoch": 0,
        "first_missing": first,
        "last_missing": last,
        "missing_count": last - first + 1,
        "severity": "SMALL" if last - first < 10 else "LARGE",
        "status": status,
        "opened_at": DAY,
        "detected_at": DAY + SECOND,
        "gap_id": gap_id,
        "revision": revision,
    }
    return {**row, **fields}


def append_gap_rows(catalog: Catalog, rows: Iterable[dict[str, Any]]) -> Table:
    table = open_table(catalog, NAMESPACE, SEQUENCE_GAPS)
    table.append(pa.Table.from_pylist(list(rows), schema=GAP_SCHEMA))
    return table


def each_once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without copies, in the most literal way: one of each message_id, then one of each number of an epoch."""

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["timestamp"], row["_source"], row["_partition"], row["_offset"]

    by_id: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=place):
        by_id.setdefault(row["message_id"] or object(), row)
    keys: dict[Any, list[dict[str, Any]]] = {}
    for row in by_id.values():
        keys.setdefault((row["exchange"], row["symbol"]), []).append(row)
    return [kept for found in keys.values() for kept in _by_number(found, place)]


def _by_number(rows: list[dict[str, Any]], place: Any) -> Iterable[dict[str, Any]]:
    counted = [row for row in rows if (row["source_sequence"] or 0) >= 0 and row["source_sequence"] is not None]
    times, numbers = (np.array([row[name] for row in counted], np.int64) for name in ("timestamp", "source_sequence"))
    starts = [epoch.first_time for epoch in recount(times, numbers)[1:]]
    by_number: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["_ingested_at"], *place(row))):
        epoch = sum(row["timestamp"] >= start for start in starts)
        by_number.setdefault((epoch, row["source_sequence"]) if row in counted else object(), row)
    return by_number.values()
