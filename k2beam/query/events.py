"""Events as rows: selected, without duplicates, in order. Trades and quotes share everything here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import FileScanTask

from k2beam.arrays import Ints
from k2beam.errors import UsageError
from k2beam.lake.rules import read_rules
from k2beam.lake.scan import find_readable, whole_schema
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import Kind
from k2beam.query import duck
from k2beam.query.copies import NO_EPOCH, may_have_copies, number_rows
from k2beam.query.relation import local_files, relate
from k2beam.query.selection import PlannedRead, naming_the_file, plan_reading
from k2beam.query.selections import EventSelection
from k2beam.schemas import EVENT_TIME_COLUMN, event_arrow_schema
from k2beam.sequence import SequenceRules, recount
from k2beam.sequence.rules import NO_RULES, VENDOR_DATA

PLACE: tuple[str, ...] = ("_source", "_partition", "_offset")
"""Where a message was: what puts copies of it in order."""

NUMBERED = (pa.field("_epoch", pa.int64()), pa.field("_number", pa.int64()))
"""What :func:`numbered_rows` adds to rows."""


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The selected rows of one kind as they are stored, planned once; ``reading`` is None for a table never made."""

    kind: Kind
    schema: pa.Schema
    reading: PlannedRead | None
    rules: SequenceRules
    selects_symbols: bool = False

    @property
    def most_rows(self) -> int:
        """So many rows there are at most, by the metadata of the files."""
        return 0 if self.reading is None else sum(task.file.record_count for task in self.reading.tasks)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in no order. Raises LakeError for an unreadable file."""
        return (batch.cast(self.schema) for batch in (() if self.reading is None else self.reading.batches()))

    def local_files(self) -> list[str]:
        """The files that a session must be told of to read the rows."""
        return local_files(self.reading)

    def relate(self, session: duck.Session, name: str) -> None:
        """Make ``name`` a view of the rows."""
        relate(session, name, self.reading, self.schema)

    def may_have_copies(self, session: duck.Session, name: str) -> bool:
        """Whether rows of ``name``, which has all of these, may be copies of others; it misses none."""
        return may_have_copies(session, name, self.schema, self.most_rows, self.kind, self.rules)

    def schema_of(self, columns: Sequence[str]) -> pa.Schema:
        """The schema of some of the columns (none: all), in the order given."""
        return pa.schema([self.schema.field(name) for name in columns or self.schema.names])

    def of_files(self, tasks: Sequence[FileScanTask]) -> StoredEvents:
        """The same of some of the files."""
        return self if self.reading is None else replace(self, reading=self.reading.only(tasks))

    def between(self, start: int | None, end: int | None) -> StoredEvents:
        """The same from ``start`` to before ``end``, microseconds (None: all)."""
        return self if self.reading is None else replace(self, reading=self.reading.between(start, end))


def stored_events(
    catalog: Catalog, namespace: str, kind: Kind, selection: EventSelection, columns: Sequence[str]
) -> StoredEvents:
    """The selected rows as they are stored: ``columns`` (none: all), and what finding copies needs besides.

    Raises UsageError for an unknown column or a bad option, LakeError for unreadable metadata.
    """
    table = find_readable(catalog, namespace, EVENT_TABLES[kind])
    whole = event_arrow_schema(kind) if table is None else whole_schema(table)
    columns = list(columns) or whole.names
    if unknown := [name for name in columns if name not in whole.names]:
        raise UsageError(f"{kind} has no column {', '.join(unknown)}; it has {', '.join(whole.names)}")
    rules = read_rules(catalog, namespace).of_kind(kind) if "source_sequence" in whole.names else NO_RULES
    ruling = {name if name in whole.names else VENDOR_DATA for name in rules.columns(kind)}
    needed = {*columns, *PLACE, *ruling, "message_id", "source_sequence", "_ingested_at", EVENT_TIME_COLUMN[kind]}
    needed |= {"exchange", "symbol"}
    names = [name for name in whole.names if name in needed]
    reading = None if table is None else plan_reading(table, names, selection, EVENT_TIME_COLUMN[kind])
    schema = pa.schema([whole.field(name) for name in names])
    return StoredEvents(kind, schema, reading, rules, selection.symbol is not None)


def in_order(kind: Kind, *, reverse: bool = False) -> str:
    """The order of events as an SQL list: event time, exchange sequence (without one: last), offset."""
    names = [f'"{EVENT_TIME_COLUMN[kind]}"', "_offset", "_source", "_partition"]
    if "source_sequence" in event_arrow_schema(kind).names:
        names.insert(1, "source_sequence")
    how = "DESC NULLS FIRST" if reverse else "NULLS LAST"
    return ", ".join(f"{name} {how}" for name in names)


def answer(
    sources: Mapping[str, StoredEvents],
    ask: Callable[[duck.Session], Iterator[pa.RecordBatch]],
    with_duplicates: bool = False,
) -> Iterator[pa.RecordBatch]:
    """What ``ask`` finds in relations of these names, in which each event is once.

    Of the rows with one ``message_id`` (not an empty one) the first by event time, source and offset stays, of those
    with one number of the exchange the one that was ingested first. Raises LakeError for an unreadable file.
    """
    files = [path for stored in sources.values() for path in stored.local_files()]
    with duck.session(files) as session, naming_the_file([stored.reading for stored in sources.values()]):
        for name, stored in sources.items():
            _make_each_once(session, name, stored, with_duplicates=with_duplicates)
        yield from ask(session)


def has_copies(stored: StoredEvents) -> bool:
    """Whether some rows may be copies of others; it misses none. Raises LakeError for an unreadable file."""
    found = False

    def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
        nonlocal found
        found = stored.may_have_copies(session, "events")
        return iter(())

    list(answer({"events": stored}, ask, with_duplicates=True))
    return found


def ordered(
    stored: StoredEvents, schema: pa.Schema, *, limit: int | None = None, with_duplicates: bool = False
) -> Iterator[pa.RecordBatch]:
    """The columns of ``schema`` of the rows in their order, at most ``limit`` of them."""
    # Names come from the schema, values only as parameters.
    listed = ", ".join(f'"{name}"' for name in schema.names)
    sql = f"SELECT {listed} FROM events ORDER BY {in_order(stored.kind)}"  # noqa: S608
    parameters: dict[str, object] = {}
    if limit is not None:
        sql, parameters = f"{sql} LIMIT $rows", {"rows": limit}
    found = answer({"events": stored}, lambda session: session.stream(sql, parameters), with_duplicates)
    return (batch.cast(schema) for batch in found)


def copied_places(stored: StoredEvents) -> pa.Table:
    """Where the rows are (:data:`PLACE`) that are copies of others, as :func:`answer` takes them out."""
    places = stored.schema_of(PLACE)
    names = ", ".join(PLACE)

    def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
        return session.stream(f"SELECT {names} FROM events_stored ANTI JOIN events USING ({names})")  # noqa: S608

    return pa.Table.from_batches([batch.cast(places) for batch in answer({"events": stored}, ask)], places)


def _make_each_once(session: duck.Session, name: str, stored: StoredEvents, *, with_duplicates: bool) -> None:
    """Make ``name`` a relation of the rows, each event once unless ``with_duplicates``; ``name_stored`` has all."""
    kept = f"{name}_stored"
    stored.relate(session, kept)
    if not with_duplicates:
        if stored.selects_symbols:
            # To look for few rows twice takes longer than to keep them.
            session.run(f"CREATE TEMP TABLE {name}_found AS SELECT * FROM {kept}")  # noqa: S608
            kept = f"{name}_found"
        if stored.may_have_copies(session, kept):
            _take_out_copies(session, name, stored)
            return
    session.run(f"CREATE VIEW {name} AS SELECT * FROM {kept}")  # noqa: S608


def _take_out_copies(session: duck.Session, name: str, stored: StoredEvents) -> None:
    """Make ``name`` a table of the rows, each event once."""
    further = NUMBERED if "source_sequence" in stored.schema.names else ()
    batches = (numbered_rows(stored.kind, stored.rules, batch) if further else batch for batch in stored.batches())
    session.register(f"{name}_numbered", pa.schema([*stored.schema, *further]), batches)
    time = f'"{EVENT_TIME_COLUMN[stored.kind]}"'
    copy = f"row_number() OVER (PARTITION BY message_id ORDER BY {time}, _source, _partition, _offset)"
    session.run(
        f"CREATE TEMP TABLE {name} AS SELECT * FROM {name}_numbered QUALIFY {copy} = 1 OR message_id = ''"  # noqa: S608
    )
    if further:
        take_out_twins(session, name, time)


def numbered_rows(kind: Kind, rules: SequenceRules, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with :data:`NUMBERED`: the epoch that their rule says, and their number (null: none)."""
    epochs, numbers = number_rows(rows, kind, rules)
    return pa.RecordBatch.from_arrays(
        [*rows.columns, pa.array(epochs), pa.array(numbers, mask=numbers < 0)],
        names=[*rows.schema.names, *(field.name for field in NUMBERED)],
    )


def take_out_twins(session: duck.Session, name: str, time: str) -> None:
    """Of the rows of the table ``name`` with one number of the exchange leave the one that was ingested first.

    It has :data:`NUMBERED`, :data:`PLACE`, ``exchange``, ``symbol``, ``_ingested_at`` and ``time``, a quoted name.
    """
    key, twins, begun = "exchange, symbol, _epoch", f"{name}_twins", f"{name}_starts"
    session.run(f"""
        CREATE TEMP TABLE {twins} AS SELECT DISTINCT {key} FROM {name} WHERE _number IS NOT NULL
        GROUP BY {key}, _number HAVING count(*) > 1
    """)  # noqa: S608
    counted = session.stream(f"""
        SELECT {key}, epoch_us({time}) AS time, _number AS number
        FROM {name} SEMI JOIN {twins} USING ({key}) WHERE _number IS NOT NULL ORDER BY {key}, time, number
    """)  # noqa: S608
    starts = pa.Table.from_pylist(list(_epochs_of(counted)), _STARTS)
    if not starts.num_rows:
        return
    session.register_table(begun, starts)
    session.run(f"""
        DELETE FROM {name} WHERE rowid IN (
            SELECT numbered.row FROM (SELECT rowid AS row, * FROM {name} WHERE _number IS NOT NULL) numbered
            ASOF JOIN {begun} AS begun ON numbered.exchange = begun.exchange AND numbered.symbol = begun.symbol
                AND numbered._epoch = begun._epoch AND epoch_us({time}) >= since
            QUALIFY row_number() OVER (
                PARTITION BY numbered.exchange, numbered.symbol, numbered._epoch, since, _number
                ORDER BY _ingested_at, {time}, _source, _partition, _offset
            ) > 1
        )
    """)  # noqa: S608


_STARTS = pa.schema([("exchange", pa.string()), ("symbol", pa.string()), ("_epoch", pa.int64()), ("since", pa.int64())])


def _epochs_of(counted: Iterable[pa.RecordBatch]) -> Iterator[dict[str, object]]:
    """When the epochs of each key began, microseconds; one begins before all times."""
    names = ("exchange", "symbol", "_epoch")
    for key, times, numbers in numbers_by_key(counted, names):
        named = dict(zip(names, key, strict=True))
        yield {**named, "since": -(2**63)}
        if named["_epoch"] == NO_EPOCH:
            yield from ({**named, "since": epoch.first_time} for epoch in recount(times, numbers)[1:])


def numbers_by_key(
    counted: Iterable[pa.RecordBatch], names: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], Ints, Ints]]:
    """``time`` and ``number`` of one key after the other, of rows that are ordered by the columns ``names``."""
    pending: list[pa.RecordBatch] = []
    last: tuple[Any, ...] = ()
    for batch in counted:
        keys = [batch.column(name) for name in names]
        changes = np.zeros(batch.num_rows, np.bool_)
        for column in keys:
            codes = column.dictionary_encode().indices.to_numpy()
            changes[1:] |= codes[1:] != codes[:-1]
        bounds = [0, *np.flatnonzero(changes).tolist(), batch.num_rows]
        for begin, end in itertools.pairwise(bounds):
            here = tuple(column[begin].as_py() for column in keys)
            if pending and here != last:
                yield last, *_joined(pending)
                pending = []
            pending.append(batch.slice(begin, end - begin))
            last = here
    if pending:
        yield last, *_joined(pending)


def _joined(parts: list[pa.RecordBatch]) -> tuple[Ints, Ints]:
    times, numbers = (np.concatenate([part.column(name).to_numpy() for part in parts]) for name in ("time", "number"))
    return times, numbers


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

    Each event is there once among the rows selected (:func:`answer`), unless ``with_duplicates``. ``columns`` names the
    columns wanted, in their order; none means all. ``limit`` is in rows. Raises UsageError for an unknown column or a
    bad option, LakeError for an unreadable file.
    """
    if limit is not None and limit < 0:
        raise UsageError(f"--limit {limit} is less than 0")
    stored = stored_events(catalog, namespace, kind, selection, columns)
    schema = stored.schema_of(columns)
    return schema, ordered(stored, schema, limit=limit, with_duplicates=with_duplicates)
