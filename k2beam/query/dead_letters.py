"""Dead letters as rows for people; those whose offsets became events after all are hidden."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression, GreaterThanOrEqual, LessThanOrEqual
from pyiceberg.table import Table

from k2beam.coverage import Coverage
from k2beam.errors import UsageError
from k2beam.lake.commit import read_coverage
from k2beam.lake.predicates import all_of, any_of, equal, term
from k2beam.lake.scan import find_readable, plan_files, read_file
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS, EVENT_TABLES
from k2beam.query import duck
from k2beam.query.selection import between
from k2beam.query.selections import DeadLetterSelection, names_of

_STORED = ("_source", "_partition", "_offset", "_offset_last", "stage", "error_class", "error_message", "failed_at")


def list_dead_letters(catalog: Catalog, namespace: str, selection: DeadLetterSelection) -> list[tuple[Any, ...]]:
    """The dead letters as :data:`DEAD_LETTER_COLUMNS`, sorted by source, partition and offset; payloads are not read.

    Hidden is one all of whose offsets are events by now: an event outranks a dead letter. Raises
    LakeError for an unreadable file or a damaged coverage.
    """
    table = find_readable(catalog, namespace, DEAD_LETTERS)
    if table is None:
        return []
    letters = _selected(table, catalog, namespace, selection, _STORED)
    rows = (row for batch in letters for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))
    if selection.limit is None:
        return sorted(rows)
    return heapq.nsmallest(selection.limit, rows)


def letter_filter(selection: DeadLetterSelection) -> BooleanExpression:
    """The selection as pyiceberg's expression. Raises UsageError for an empty list or a time that can't be read."""
    terms = any_of(
        {
            "error_class": names_of(selection.error_class, "error class"),
            "stage": names_of(selection.stage, "stage"),
            "_source": names_of(selection.source, "source"),
        }
    )
    return all_of([*terms, *between("failed_at", selection.start, selection.end)])


@dataclass(frozen=True, slots=True)
class LetterCount:
    """The dead letters of one error class, stage and source; ``offsets`` are the messages that they stand for."""

    error_class: str
    stage: str
    source: str
    letters: int
    offsets: int
    first_failed_at: datetime
    last_failed_at: datetime


def count_dead_letters(catalog: Catalog, namespace: str, selection: DeadLetterSelection) -> list[LetterCount]:
    """How many dead letters there are of each error class, stage and source, the most first; hidden ones left out.

    Raises as :func:`list_dead_letters` does.
    """
    found: dict[tuple[str, str, str], list[tuple[Any, ...]]] = {}
    for source, _, first, last, stage, error_class, _, failed_at in list_dead_letters(catalog, namespace, selection):
        found.setdefault((error_class, stage, source), []).append((last - first + 1, failed_at))
    counts = []
    for key, rows in found.items():
        offsets, times = zip(*rows, strict=True)
        counts.append(LetterCount(*key, len(rows), sum(offsets), min(times), max(times)))
    return sorted(counts, key=lambda count: (-count.letters, count.error_class, count.stage, count.source))


def select_dead_letters(
    catalog: Catalog, namespace: str, selection: DeadLetterSelection
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The whole dead letters by source, partition and offset: all columns of the table, payloads too; and their schema.

    Hidden ones are left out. Raises as :func:`list_dead_letters` does.
    """
    table = find_readable(catalog, namespace, DEAD_LETTERS)
    return DEAD_LETTER_SCHEMA, iter(()) if table is None else _whole(table, catalog, namespace, selection)


def _whole(table: Table, catalog: Catalog, namespace: str, selection: DeadLetterSelection) -> Iterator[pa.RecordBatch]:
    letters = _selected(table, catalog, namespace, selection, DEAD_LETTER_SCHEMA.names)
    limit = "" if selection.limit is None else f"LIMIT {selection.limit}"
    with duck.session() as session:
        session.register("letters", DEAD_LETTER_SCHEMA, letters)
        ordered = session.stream(f"FROM letters ORDER BY _source, _partition, _offset, failed_at {limit}")
        yield from (batch.cast(DEAD_LETTER_SCHEMA) for batch in ordered)


def show_dead_letter(catalog: Catalog, namespace: str, source: str, partition: int, offset: int) -> dict[str, Any]:
    """Everything about the dead letter that stands for an offset, the newest one where there are several.

    Key, payload and header values are given as ``{"hex": …, "base64": …}``; ``resolved``
    says that an event took its place. Raises UsageError where there is none.
    """
    table = find_readable(catalog, namespace, DEAD_LETTERS)
    terms = [
        *equal({"_source": source, "_partition": partition}),
        term(LessThanOrEqual, "_offset", offset),
        term(GreaterThanOrEqual, "_offset_last", offset),
    ]
    batches = _read(table, DEAD_LETTER_SCHEMA.names, all_of(terms)) if table else iter(())
    found = [row for batch in batches for row in batch.to_pylist()]
    if not found:
        raise UsageError(
            f"there is no dead letter at offset {offset} of partition {partition} of {source!r}; "
            "`k2beam dlq list` shows what there is"
        )
    events = read_coverage(catalog, namespace, EVENT_TABLES.values())
    return _details(max(found, key=lambda row: row["failed_at"]), events)


def unresolved(letters: Iterable[pa.RecordBatch], events: Coverage) -> Iterator[pa.RecordBatch]:
    """The letters that stand for an offset which is no event; their places are among the columns."""
    for batch in letters:
        places = zip(*(batch.column(name).to_pylist() for name in _STORED[:4]), strict=True)
        yield batch.filter(pa.array([not _is_event(events, *place) for place in places], pa.bool_()))


def _selected(
    table: Table, catalog: Catalog, namespace: str, selection: DeadLetterSelection, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    events = read_coverage(catalog, namespace, EVENT_TABLES.values())
    return unresolved(_read(table, columns, letter_filter(selection)), events)


def _is_event(events: Coverage, source: str, partition: int, first: int, last: int) -> bool:
    return bool(events[source, partition].contains_range(first, last + 1))


def _read(table: Table, columns: Any, row_filter: BooleanExpression) -> Iterator[pa.RecordBatch]:
    return (batch for task in plan_files(table, row_filter) for batch in read_file(table, task, columns, row_filter))


def _details(row: dict[str, Any], events: Coverage) -> dict[str, Any]:
    return {
        "source": row["_source"],
        "partition": row["_partition"],
        "offset": row["_offset"],
        "offset_last": row["_offset_last"],
        "resolved": _is_event(events, row["_source"], row["_partition"], row["_offset"], row["_offset_last"]),
        "stage": row["stage"],
        "error_class": row["error_class"],
        "message": row["error_message"],
        "failed_at": row["failed_at"],
        "timestamp": row["timestamp"],
        "schema_id": row["schema_id"],
        "key": _bytes(row["key"]),
        "payload_bytes": None if row["payload"] is None else len(row["payload"]),
        "payload": _bytes(row["payload"]),
        "headers": [{"key": header["key"], "value": _bytes(header["value"])} for header in row["headers"]],
        "record_json": row["record_json"],
    }


def _bytes(value: bytes | None) -> dict[str, str] | None:
    return None if value is None else {"hex": value.hex(), "base64": base64.b64encode(value).decode("ascii")}
