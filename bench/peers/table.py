"""The table that a peer writes: made by pyiceberg, empty, of the fields of a trade; and what is in it in the end.

It has no partitions and pyiceberg's own settings, which is less work than k2beam's tables are.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog

CATALOG = "iceberg"
"""Kafka Connect's sink has no other name for its catalog by default, and a catalog in SQL keeps tables by it."""
NAMESPACE, NAME = "market_data", "trades"


def catalog_uri(warehouse: Path) -> str:
    """As SQLAlchemy takes it."""
    return f"sqlite:///{warehouse / 'catalog.db'}"


def warehouse_uri(warehouse: Path) -> str:
    return f"file://{warehouse}"


def open_peer_catalog(warehouse: Path) -> SqlCatalog:
    """pyiceberg's own catalog in SQLite, with none of k2beam's changes."""
    warehouse.mkdir(parents=True, exist_ok=True)
    return SqlCatalog(CATALOG, uri=catalog_uri(warehouse), warehouse=warehouse_uri(warehouse))


def create_table(warehouse: Path, schema: pa.Schema) -> None:
    """The empty table."""
    catalog = open_peer_catalog(warehouse)
    catalog.create_namespace_if_not_exists(NAMESPACE)
    catalog.create_table((NAMESPACE, NAME), schema=schema)
    with closing(sqlite3.connect(warehouse / "catalog.db")) as database:
        # Iceberg's Java keeps readers open in one process, for which its own commits would wait in vain.
        database.execute("PRAGMA journal_mode=WAL")


def with_bigint_times(schema: pa.Schema) -> pa.Schema:
    """A schema with microseconds where it had timestamps."""
    fields = [field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field for field in schema]
    return pa.schema(fields)


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows of the newest snapshot, and when it was committed (seconds since the epoch)."""

    rows: int
    committed: float


def progress(warehouse: Path) -> Progress:
    """How far a peer is, read without pyiceberg: who waits should not take the processor from who works."""
    with closing(sqlite3.connect(f"file:{warehouse / 'catalog.db'}?mode=ro", uri=True, timeout=60)) as database:
        (location,) = database.execute(
            "SELECT metadata_location FROM iceberg_tables WHERE table_namespace = ? AND table_name = ?",
            (NAMESPACE, NAME),
        ).fetchone()
    metadata: dict[str, Any] = json.loads(Path(location.removeprefix("file:")).read_text(encoding="utf-8"))
    for snapshot in metadata.get("snapshots", ()):
        if snapshot["snapshot-id"] == metadata["current-snapshot-id"]:
            return Progress(int(snapshot["summary"]["total-records"]), snapshot["timestamp-ms"] / 1000)
    return Progress(0, 0.0)


@dataclass(frozen=True, slots=True)
class Content:
    """What must be alike in the tables of all: rows, how many message ids, sums of three fields, trades to buy."""

    rows: int
    ids: int
    sequences: int
    price: Decimal
    quantity: Decimal
    buys: int


def content(table: Any) -> Content:
    """Of a table of pyiceberg."""
    found = table.scan(selected_fields=("message_id", "source_sequence", "price", "quantity", "side")).to_arrow()
    price, quantity = (found[name].cast(pa.decimal128(38, 8)) for name in ("price", "quantity"))
    return Content(
        rows=found.num_rows,
        ids=pc.count_distinct(found["message_id"]).as_py(),
        sequences=pc.sum(found["source_sequence"]).as_py(),
        price=pc.sum(price).as_py(),
        quantity=pc.sum(quantity).as_py(),
        buys=pc.sum(pc.equal(found["side"], "BUY")).as_py(),
    )


def peer_content(warehouse: Path) -> Content:
    return content(open_peer_catalog(warehouse).load_table((NAMESPACE, NAME)))
