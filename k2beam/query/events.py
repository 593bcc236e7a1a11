"""Events as rows: selected, without duplicates, in order. Trades and quotes share everything here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.errors import UsageError
from k2beam.lake.scan import find_readable, whole_schema
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import Kind
from k2beam.query import duck
from k2beam.query.selection import read
from k2beam.query.selections import EventSelection
from k2beam.schemas import EVENT_TIME_COLUMN, event_arrow_schema

IDENTITY: tuple[str, ...] = ("message_id", "_source", "_partition", "_offset")
"""What tells copies of a message apart, and which of them came first."""


def first_copies(kind: Kind) -> str:
    """SQL for the rows of ``events`` that are the first of their message_id: by event time, source, offset.

    Rows with an empty message_id are not copies of each other: all of them stay.
    """
    order = f'"{EVENT_TIME_COLUMN[kind]}", _source, _partition, _offset'
    copy = f"row_number() OVER (PARTITION BY message_id ORDER BY {order})"
    return f"SELECT * FROM events QUALIFY {copy} = 1 OR message_id = ''"  # noqa: S608


def in_order(kind: Kind) -> str:
    """The order of events as an SQL list: event time, exchange sequence (without one: last), offset."""
    sequence = "source_sequence NULLS LAST, " if "source_sequence" in event_arrow_schema(kind).names else ""
    return f'"{EVENT_TIME_COLUMN[kind]}", {sequence}_offset, _source, _partition'


def columns_needed(kind: Kind, wanted: Sequence[str]) -> list[str]:
    """``wanted`` and what deduplication and order need besides, in the order of the table."""
    own = event_arrow_schema(kind).names
    needed = {*wanted, *IDENTITY, EVENT_TIME_COLUMN[kind], "source_sequence"}
    return [*(name for name in own if name in needed), *(name for name in wanted if name not in own)]


def stream_events(
    catalog: Catalog, namespace: str, kind: Kind, selection: EventSelection, columns: Sequence[str]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The selected rows as they are stored, file by file; none where the table was never made."""
    return _stream(find_readable(catalog, namespace, EVENT_TABLES[kind]), kind, selection, columns)


def _stream(
    table: Table | None, kind: Kind, selection: EventSelection, columns: Sequence[str]
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    whole = _columns(table, kind)
    batches = iter(()) if table is None else read(table, columns, selection, EVENT_TIME_COLUMN[kind])
    return pa.schema([whole.field(name) for name in columns]), batches


def _columns(table: Table | None, kind: Kind) -> pa.Schema:
    return event_arrow_schema(kind) if table is None else whole_schema(table)


def select_events(
    catalog: Catalog,
    namespace: str,
    kind: Kind,
    selection: EventSelection,
    *,
    columns: Sequence[str] = (),
    limit: int | None = None,
    with_duplicates: bool = False,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The selected events in order of (event time, source_sequence, offset), and their Arrow schema.

    Of several rows with one message_id (not an empty one) the first by (event time, source, offset) stays, among the
    rows selected, unless ``with_duplicates``. ``columns`` names the columns wanted, in their order;
    none means all. ``limit`` is in rows. Raises UsageError for an unknown column or a bad option,
    LakeError for an unreadable file.
    """
    table = find_readable(catalog, namespace, EVENT_TABLES[kind])
    whole = _columns(table, kind)
    wanted = list(columns) or list(whole.names)
    if unknown := [name for name in wanted if name not in whole.names]:
        raise UsageError(f"{kind} has no column {', '.join(unknown)}; it has {', '.join(whole.names)}")
    if limit is not None and limit < 0:
        raise UsageError(f"--limit {limit} is less than 0")
    stored, batches = _stream(table, kind, selection, columns_needed(kind, wanted))
    rows = "SELECT * FROM events" if with_duplicates else first_copies(kind)
    # Names come from the schema, values only as parameters.
    names = ", ".join(f'"{name}"' for name in wanted)
    sql = f"SELECT {names} FROM ({rows}) ORDER BY {in_order(kind)}"  # noqa: S608
    parameters: dict[str, object] = {}
    if limit is not None:
        sql, parameters = f"{sql} LIMIT $rows", {"rows": limit}
    schema = pa.schema([stored.field(name) for name in wanted])
    return schema, (batch.cast(schema) for batch in duck.query(sql, parameters, stored, batches))
