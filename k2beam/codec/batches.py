"""Raw batches to event batches: framing, schemas, decoding and normalisation of whole batches.

Every row of the input comes out once, as a row of one event batch or as one dead letter (a block in which it is not
known where records end: one dead letter for all of its offsets). The stages and error classes of the dead letters:

- ``frame``: tombstone, empty_payload, bad_magic, short_frame, bad_schema_header;
- ``schema``: unknown_schema_id, schema_incompatible, schema_unsupported;
- ``decode``: those of :mod:`k2beam.codec.strict`, and decimal_overflow, bad_decimal,
  timestamp_overflow, unresolvable_value, broken_block;
- ``normalise``: bad_date.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints
from k2beam.codec.dead_letters import (
    Failure,
    block_dead_letter,
    decode_failure,
    raw_dead_letters,
    record_texts,
    row_dead_letter,
)
from k2beam.codec.extras import together, with_extras
from k2beam.codec.frame import (
    HEADER_BYTES,
    AnyFrameError,
    Frames,
    header_schemas,
    ref_name,
    split_frames,
    unframe,
)
from k2beam.codec.normalise import Provenance, normalise
from k2beam.codec.strict import decode_many
from k2beam.codec.writer_schema import BROKEN_BLOCK, Decoder, WriterSchema
from k2beam.errors import SchemaError, UnsupportedSchema
from k2beam.model import (
    PROVENANCE_FIELDS,
    TIMESTAMP,
    BlockBatch,
    DeadLetter,
    EventBatch,
    Kind,
    Origin,
    RawBatch,
    SchemaRef,
)
from k2beam.schemas import EVENT_TIME_COLUMN, event_arrow_schema, full_name, payload_arrow_schema

_log = logging.getLogger(__name__)

LIVE_SOURCE = "kafka:"

SchemaLookup = Callable[[SchemaRef], str]
"""Writer schema (JSON text) by Confluent id or GUID; raises SchemaError for one that does not exist."""


class DecodedBatch(NamedTuple):
    """At most one event batch for each kind, and the dead letters in the order of the rows."""

    events: tuple[EventBatch, ...]
    dead_letters: tuple[DeadLetter, ...]


class _Part(NamedTuple):
    """Version 2 columns of one writer schema, and then those that it adds to them, and the input row of each."""

    kind: Kind
    columns: pa.RecordBatch
    rows: Ints


class BatchDecoder:
    """Decodes batches with ``decoder``; ``clock`` gives microseconds, UTC.

    ``lookup`` is asked for the schema ids that a batch does not bring along. Whatever else it
    raises than SchemaError (a registry that can't be reached) is raised: the batch is tried again.
    ``on_unknown``, if there is one, is told the kind and the number of values of fields that no column has (they are in
    ``vendor_data``), and each schema with such fields is logged once. With ``evolve`` such fields become columns, after
    those of the table, if their type is plain.
    """

    def __init__(
        self,
        decoder: Decoder,
        clock: Callable[[], int],
        lookup: SchemaLookup | None = None,
        on_unknown: Callable[[Kind, int], None] | None = None,
        *,
        evolve: bool = False,
    ) -> None:
        self._decoder = decoder
        self._clock = clock
        self._lookup = lookup
        self._on_unknown = on_unknown
        self._evolve = evolve
        self._logged: set[str] = set()

    def decode(self, batch: RawBatch | BlockBatch) -> DecodedBatch:
        """The events and dead letters of ``batch``. The extents are left to the caller."""
        return self._blocks(batch) if isinstance(batch, BlockBatch) else self._raw(batch)

    def _raw(self, batch: RawBatch) -> DecodedBatch:
        values = batch.data.column("value")
        frames = split_frames(values)
        named = {row: ref for row, ref in header_schemas(batch.data.column("headers")).items() if values[row].is_valid}
        errors = [*(error for error in frames.errors if error[0] not in named), *_errors_in(named)]
        failures: list[tuple[int | None, Failure]] = [
            (None, Failure(row, "frame", error.error_class, str(error))) for row, error in errors
        ]
        parts: dict[Kind, list[_Part]] = {}
        schemas = dict(batch.schemas)
        for ref, rows, body_offset in _by_schema(frames, named):
            part, failed = self._framed(batch.data, rows, ref, schemas, body_offset)
            failures.extend((ref if isinstance(ref, int) else None, failure) for failure in failed)
            if part is not None and len(part.rows):
                parts.setdefault(part.kind, []).append(part)
        now = self._clock()
        live = _is_live(batch)
        events = tuple(_raw_events(_joined(same), batch, now, live=live) for same in parts.values())
        return DecodedBatch(events, raw_dead_letters(batch.data, failures, now))

    def _framed(
        self, data: pa.RecordBatch, rows: Ints, ref: SchemaRef, schemas: Mapping[SchemaRef, str], body_offset: int
    ) -> tuple[_Part | None, list[Failure]]:
        """The rows of one schema."""
        try:
            text = schemas[ref] if ref in schemas else self._look_up(ref)
        except SchemaError as error:
            error_class = error.error_class if isinstance(error, UnsupportedSchema) else "unknown_schema_id"
            return None, [Failure(row, "schema", error_class, str(error)) for row in rows.tolist()]
        try:
            schema = WriterSchema.parse(text, self._evolve)
        except SchemaError as error:
            message = f"schema {ref_name(ref)}: {error}"
            return None, [Failure(row, "schema", "schema_incompatible", message) for row in rows.tolist()]
        decoded = self._decoder.decode(_take(data.column("value"), rows), body_offset, schema)
        failures = [decode_failure(error, int(rows[error.row])) for error in decoded.errors]
        rows = rows[decoded.rows]
        names = ("source", "partition", "offset", "timestamp")
        provenance = Provenance(*(_take(data.column(name), rows) for name in names))
        part, failed = self._to_version_2(schema, decoded.columns, rows, provenance, f"schema {ref_name(ref)}")
        return part, failures + failed

    def _look_up(self, ref: SchemaRef) -> str:
        if self._lookup is None:
            raise SchemaError(f"schema {ref_name(ref)} did not come with the data, and no registry is configured")
        return self._lookup(ref)

    def _blocks(self, batch: BlockBatch) -> DecodedBatch:
        blocks = tuple(block for block in batch.blocks if block.count)
        try:
            schema = WriterSchema.parse(batch.schema_json, self._evolve)
        except SchemaError as error:
            name, now = _name_in(batch.schema_json), self._clock()
            failed = Failure(0, "schema", "schema_incompatible", str(error))
            dead_letters = (
                block_dead_letter(batch, block, failed._replace(payload=block.payload), name, now) for block in blocks
            )
            return DecodedBatch((), tuple(dead_letters))
        decoded = self._decoder.decode_blocks([(block.payload, block.count) for block in blocks], schema)
        places = _Places(batch, schema)
        failures = [decode_failure(error, error.row) for error in decoded.errors]
        part, failed_rows = self._to_version_2(
            schema, decoded.columns, decoded.rows, places.provenance(decoded.rows), f"the schema of {batch.path}"
        )
        failures += [failure._replace(payload=places.payload(failure.row)) for failure in failed_rows]
        now = self._clock()
        events: tuple[EventBatch, ...] = ()
        if len(part.rows):
            data = _with_provenance(part, places.provenance(part.rows), now)
            events = (EventBatch(part.kind, data, origin=Origin(batch, pa.array(part.rows))),)
        ordered = sorted(failures, key=lambda failure: failure.row)
        return DecodedBatch(events, tuple(places.dead_letter(failure, now) for failure in ordered))

    def _to_version_2(
        self, schema: WriterSchema, columns: pa.RecordBatch, rows: Ints, provenance: Provenance, name: str
    ) -> tuple[_Part, list[Failure]]:
        """The rows as version 2, and the failures of those that can't be; ``name`` says which schema it is."""
        kind = schema.known.kind
        if kind is None:
            raise SchemaError(f"schema {schema.known.name} is not an event")
        added, extras = columns.select(list(schema.added)), columns.select(list(schema.extras))
        if schema.extras:
            self._tell(kind, schema, extras, name)
        if schema.added or schema.extras:
            columns = columns.select(payload_arrow_schema(schema.known.name).names)
        if schema.known.version > 1:
            return _Part(kind, _beside(with_extras(columns, extras), added), rows), []
        normalised = normalise(columns, kind, provenance)
        texts = record_texts(columns, (fault.row for fault in normalised.faults)) if normalised.faults else []
        failures = [
            Failure(int(rows[fault.row]), "normalise", fault.error_class, fault.message, text)
            for fault, text in zip(normalised.faults, texts, strict=True)
        ]
        kept = pa.array(normalised.rows)
        whole = with_extras(normalised.columns, extras.take(kept))
        return _Part(kind, _beside(whole, added.take(kept)), rows[normalised.rows]), failures

    def _tell(self, kind: Kind, schema: WriterSchema, extras: pa.RecordBatch, name: str) -> None:
        if self._on_unknown is None:
            return
        self._on_unknown(kind, sum(len(texts) - texts.null_count for texts in extras.columns))
        if name not in self._logged:
            self._logged.add(name)
            fields = ", ".join(schema.extras)
            _log.warning("%s has fields that no column has: %s; they are kept in vendor_data as text", name, fields)


def dead_letters_of_events(origin: Origin, failures: Sequence[Failure], failed_at: int) -> tuple[DeadLetter, ...]:
    """The dead letters of events refused after they had been decoded; each failure's row is that of the event.

    Each has what any other dead letter of its source has: the message as it was read, with its key, headers and
    log's timestamp, or the record's own bytes and its place in the file. ``failed_at`` in microseconds, UTC.
    """
    batch = origin.batch
    found = [failure._replace(row=origin.rows[failure.row].as_py()) for failure in failures]
    if isinstance(batch, RawBatch):
        values, named = batch.data.column("value"), header_schemas(batch.data.column("headers"))
        rows = [failure.row for failure in found]
        refs = [named[row] if row in named else unframe(values[row].as_py())[0] for row in rows]
        ids = [ref if isinstance(ref, int) else None for ref in refs]
        return raw_dead_letters(batch.data, list(zip(ids, found, strict=True)), failed_at)
    places = _Places(batch, WriterSchema.parse(batch.schema_json))
    whole = (failure._replace(payload=places.payload(failure.row)) for failure in found)
    return tuple(places.dead_letter(failure, failed_at) for failure in whole)


def _errors_in(named: Mapping[int, SchemaRef | AnyFrameError]) -> Iterator[tuple[int, AnyFrameError]]:
    return ((row, found) for row, found in named.items() if not isinstance(found, int | str))


def _by_schema(frames: Frames, named: Mapping[int, SchemaRef | AnyFrameError]) -> Iterator[tuple[SchemaRef, Ints, int]]:
    """Each schema, its rows, and where their bodies begin."""
    ids = frames.schema_ids
    if named:
        ids = ids.copy()
        ids[list(named)] = -1
    for schema_id in np.unique(ids[ids >= 0]).tolist():
        yield schema_id, np.flatnonzero(ids == schema_id), HEADER_BYTES
    by_header: dict[SchemaRef, list[int]] = defaultdict(list)
    for row, ref in named.items():
        if isinstance(ref, int | str):
            by_header[ref].append(row)
    for ref, rows in by_header.items():
        yield ref, np.array(sorted(rows), dtype=np.int64), 0


class _Places:
    """Where the rows of a block batch, counted through its blocks, come from."""

    def __init__(self, batch: BlockBatch, schema: WriterSchema) -> None:
        self._batch = batch
        self._schema = schema
        self._blocks = tuple(block for block in batch.blocks if block.count)
        self._first_rows = np.array([0, *accumulate(block.count for block in self._blocks)], dtype=np.int64)
        self._ends: dict[int, list[int]] = {}

    def provenance(self, rows: Ints) -> Provenance:
        number = self._block_of(rows)
        first_offsets = np.array([block.first_offset for block in self._blocks], dtype=np.int64)
        offsets = first_offsets[number] + rows - self._first_rows[number]
        return Provenance(
            pa.repeat(pa.scalar(self._batch.source), len(rows)),
            pa.repeat(pa.scalar(self._batch.partition, type=pa.int32()), len(rows)),
            pa.array(offsets),
            pa.nulls(len(rows), TIMESTAMP),
        )

    def dead_letter(self, failure: Failure, now: int) -> DeadLetter:
        number = int(self._block_of(np.array([failure.row]))[0])
        block, name = self._blocks[number], self._schema.tree.name
        if failure.error_class == BROKEN_BLOCK:
            return block_dead_letter(self._batch, block, failure, name, now)
        return row_dead_letter(self._batch, block, failure.row - int(self._first_rows[number]), failure, name, now)

    def payload(self, row: int) -> bytes:
        """The bytes of one record, found by reading its block again; only rows that failed late need it."""
        number = int(self._block_of(np.array([row]))[0])
        block = self._blocks[number]
        if number not in self._ends:
            self._ends[number] = [0, *decode_many(block.payload, block.count, self._schema.tree)[1]]
        ends = self._ends[number]
        position = row - int(self._first_rows[number])
        return block.payload[ends[position] : ends[position + 1]]

    def _block_of(self, rows: Ints) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._first_rows, rows, side="right") - 1


def _beside(columns: pa.RecordBatch, added: pa.RecordBatch) -> pa.RecordBatch:
    if not added.num_columns:
        return columns
    schema = pa.schema([*columns.schema, *added.schema])
    return pa.RecordBatch.from_arrays([*columns.columns, *added.columns], schema=schema)


def _joined(parts: list[_Part]) -> _Part:
    """The parts of one kind as one, in the order of the input."""
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    (columns,) = together([part.columns for part in parts]).combine_chunks().to_batches()
    return _Part(parts[0].kind, columns.take(pa.array(order)), rows[order])


def _raw_events(part: _Part, batch: RawBatch, now: int, *, live: bool) -> EventBatch:
    names = ("source", "partition", "offset", "timestamp")
    provenance = Provenance(*(_take(batch.data.column(name), part.rows) for name in names))
    events = EventBatch(part.kind, _with_provenance(part, provenance, now), origin=Origin(batch, pa.array(part.rows)))
    if not live:
        return events
    event_time = part.columns.column(EVENT_TIME_COLUMN[part.kind])
    return replace(events, element_time=pc.coalesce(provenance.timestamps, event_time))


def _with_provenance(part: _Part, provenance: Provenance, now: int) -> pa.RecordBatch:
    """The columns of an event table: version 2 and where each row came from."""
    ingested_at = pa.array(np.full(len(part.rows), now, dtype=np.int64)).cast(TIMESTAMP)
    schema = event_arrow_schema(part.kind)
    columns, size = part.columns.columns, len(schema) - len(PROVENANCE_FIELDS)
    places = [provenance.sources, provenance.partitions, provenance.offsets, ingested_at]
    if len(columns) > size:
        schema = pa.schema([*schema, *list(part.columns.schema)[size:]])
    return pa.RecordBatch.from_arrays([*columns[:size], *places, *columns[size:]], schema=schema)


def _is_live(batch: RawBatch) -> bool:
    """Whether the rows come from a topic now; those of an archive keep their event time."""
    return not batch.path and bool(pc.all(pc.starts_with(batch.data.column("source"), LIVE_SOURCE)).as_py())


def _take(column: pa.Array, rows: Ints) -> pa.Array:
    """The column's values at ``rows`` (ascending); the column itself where that is all of it."""
    return column if len(rows) == len(column) else column.take(pa.array(rows))


def _name_in(text: str) -> str:
    """The full name of a refused schema, where it has one that can be written down."""
    try:
        name = full_name(json.loads(text)) or ""
        name.encode()
        return name
    except (ValueError, RecursionError):
        return ""
