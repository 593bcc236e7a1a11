"""A person's SQL over the tables, by DuckDB: read only, and closed in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.errors import QueryFailed, UsageError
from k2beam.lake.scan import find_readable, whole_schema
from k2beam.lake.tables import EVENT_TABLES, SPECS
from k2beam.model import KINDS
from k2beam.query import duck
from k2beam.query.events import StoredEvents, copied_places, stored_events
from k2beam.query.relation import local_files, relate
from k2beam.query.selection import PlannedRead, naming_the_file, pin_snapshots, plan_reading
from k2beam.query.selections import AsOf, EventSelection, Snapshots
from k2beam.schemas import EVENT_TIME_COLUMN

_WORD = re.compile(r"\w+")


def run_sql(
    catalog: Catalog, namespace: str, sql: str, as_of: AsOf | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The answer to one query in DuckDB's SQL, and its Arrow schema.

    Relations are the tables by their names (``trades_v2``: all rows), and ``trades``, ``quotes`` and
    ``reference_data``: the same rows with each event once. All are as of one moment. Files, the network and DuckDB's
    configuration can't be reached, and nothing can be written. Raises UsageError for SQL that can't be run or is no
    query, LakeError for an unreadable file.
    """
    words = {word.lower() for word in _WORD.findall(sql)}
    listed = "show" in words or "information_schema" in words
    kinds = [kind for kind in KINDS if kind in words or listed]
    names = [name for name in SPECS if name in words or listed or name in {EVENT_TABLES[kind] for kind in kinds}]
    snapshots = pin_snapshots(catalog, namespace, as_of, names)
    planned = {name: _planned(catalog, namespace, name, snapshots) for name in names}
    readings = [reading for reading, _ in planned.values() if reading is not None]
    with ExitStack() as stack, _blaming(readings):
        files = [path for reading in readings for path in local_files(reading)]
        session = stack.enter_context(duck.session(files))
        for name, (reading, schema) in planned.items():
            relate(session, name, reading, schema)
        for kind in kinds:
            stored = stored_events(catalog, namespace, kind, EventSelection(as_of=snapshots), ["message_id"])
            _view_each_once(session, stored)
        schema, batches = session.ask(sql)
        return schema, _until_end(batches, readings, stack.pop_all())


def _until_end(
    batches: Iterator[pa.RecordBatch], readings: Iterable[PlannedRead], stack: ExitStack
) -> Iterator[pa.RecordBatch]:
    with stack, _blaming(readings):
        yield from batches


@contextmanager
def _blaming(readings: Iterable[PlannedRead]) -> Iterator[None]:
    """What fails is a file that can't be read, or else the SQL."""
    try:
        with naming_the_file(readings):
            yield
    except QueryFailed as error:
        raise UsageError(str(error)) from None


def _planned(catalog: Catalog, namespace: str, name: str, snapshots: Snapshots) -> tuple[PlannedRead | None, pa.Schema]:
    table = find_readable(catalog, namespace, name)
    if table is None:
        return None, SPECS[name].schema
    # Others may have made a column optional.
    schema = pa.schema([field.with_nullable(True) for field in whole_schema(table)])
    time = next((EVENT_TIME_COLUMN[kind] for kind in KINDS if EVENT_TABLES[kind] == name), "")
    return plan_reading(table, schema.names, EventSelection(as_of=snapshots), time), schema


def _view_each_once(session: duck.Session, stored: StoredEvents) -> None:
    """A view of a kind's table, which the session has, without the rows that are copies of others."""
    kind, table, left_out = stored.kind, EVENT_TABLES[stored.kind], ""
    if stored.may_have_copies(session, table):
        places = copied_places(stored)
        session.register_table(f"{kind}_copies", places)
        left_out = f"ANTI JOIN {kind}_copies USING ({', '.join(places.schema.names)})"
    session.run(f"CREATE VIEW {kind} AS SELECT * FROM {table} {left_out}")  # noqa: S608
