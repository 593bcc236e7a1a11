"""Which events of another record have a number of the exchange that the tables have already."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.lake.rules import read_rules
from k2beam.model import Kind
from k2beam.query import duck
from k2beam.query.completeness import events_around
from k2beam.query.events import NUMBERED, PLACE, numbered_rows, stored_events, take_out_twins
from k2beam.schemas import EVENT_TIME_COLUMN, event_arrow_schema

_LATEST = "TIMESTAMPTZ '9999-01-01'"


class OfferedEvents:
    """Events of one kind from another record, of which only the identities are kept."""

    def __init__(self, catalog: Catalog, namespace: str, kind: Kind) -> None:
        self._catalog, self._namespace, self._kind = catalog, namespace, kind
        self._rules = read_rules(catalog, namespace).of_kind(kind)
        whole = event_arrow_schema(kind)
        self._names = ["exchange", "symbol", EVENT_TIME_COLUMN[kind], *PLACE]
        self._schema = pa.schema([*(whole.field(name) for name in self._names), *NUMBERED])
        self._identities: list[pa.RecordBatch] = []

    def add(self, events: pa.RecordBatch) -> None:
        """Take note of events, with their provenance; those without a number have no identity."""
        rows = numbered_rows(self._kind, self._rules, events).select(self._schema.names)
        self._identities.append(rows.filter(rows.column("_number").is_valid()).cast(self._schema))

    def twins(self) -> Iterator[pa.RecordBatch]:
        """Where those are (:data:`k2beam.query.events.PLACE`) whose number is in the tables, or comes twice.

        One number: of one exchange, symbol and epoch. Where rules don't say when numbers begin anew, it is guessed
        from the rows of the tables and the events together, of the same days and a day around them. Of events with one
        number the first by time stays. Raises LakeError for an unreadable file.
        """
        time = f'"{EVENT_TIME_COLUMN[self._kind]}"'
        with duck.session() as session:
            session.register_table("given", pa.Table.from_batches(self._identities, self._schema))
            (found,) = session.rows(f"""
                SELECT list(DISTINCT symbol) AS symbols, list(DISTINCT exchange) AS exchanges,
                       epoch_us(min({time})) AS first, epoch_us(max({time})) AS last FROM given
            """)  # noqa: S608
            if found["first"] is None:
                return
            near = events_around(found["symbols"], found["exchanges"], found["first"], found["last"])
            stored = stored_events(self._catalog, self._namespace, self._kind, near, self._names)
            rows = (numbered_rows(self._kind, self._rules, batch) for batch in stored.batches())
            session.register("stored", pa.schema([*stored.schema, *NUMBERED]), rows)
            columns = ", ".join(f'"{name}"' for name in self._schema.names)
            session.run(f"""
                CREATE TEMP TABLE rows AS
                SELECT {columns}, _ingested_at, false AS offered FROM stored WHERE _number IS NOT NULL
                UNION ALL SELECT {columns}, {_LATEST}, true FROM given
            """)  # noqa: S608
            take_out_twins(session, "rows", time)
            places = ", ".join(PLACE)
            left = session.stream(f"SELECT {places} FROM given ANTI JOIN (FROM rows WHERE offered) USING ({places})")  # noqa: S608
            yield from left
