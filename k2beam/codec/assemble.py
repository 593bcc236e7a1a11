"""Decoded records to one :class:`Decoded`: checked by length, made columns, errors set apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.codec.avro_schema import AvroType, Primitive, decimal_digits, without_null
from k2beam.codec.columns import Column, Fault, build_column, is_columnar
from k2beam.codec.decimals import number_of
from k2beam.codec.extras import text_of
from k2beam.codec.strict import decode_exact
from k2beam.codec.writer_schema import Decoded, RowError, WriterSchema
from k2beam.errors import StrictError
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Record = dict[str, Any]


@dataclass(slots=True)
class Chunk:
    """Rows read together: where each lies in its bytes, what was read, and where reading ended."""

    rows: list[int] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    records: list[_Record | None] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)


class Assembler:
    """Takes chunks of one writer schema, in order, and gives their :class:`Decoded`.

    ``body_offset`` bytes before each row's start belong to its payload.
    """

    def __init__(self, schema: WriterSchema, body_offset: int = 0) -> None:
        self._schema = schema
        self._body_offset = body_offset
        self._types = {field.name: field.type for field in schema.tree.fields}
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[Ints] = []
        self._errors: list[RowError] = []

    def add(self, chunk: Chunk) -> list[RowError]:
        """Takes the rows of ``chunk``; returns the errors of rows whose bytes are not an encoding."""
        if not len(chunk):
            return []
        doubtful, columns = self._check(chunk)
        broken: list[RowError] = []
        if doubtful:
            broken = self._decide(chunk, doubtful)
            columns = None
        kept = [position for position, record in enumerate(chunk.records) if record is not None]
        if kept:
            self._finish(chunk, kept, columns)
        self._errors.extend(broken)
        return broken

    def result(self) -> Decoded:
        """All rows taken so far."""
        table = pa.Table.from_batches(self._batches, self._schema.arrow_schema).combine_chunks()
        batches = table.to_batches()
        empty = pa.RecordBatch.from_pylist([], self._schema.arrow_schema)
        rows = np.concatenate(self._rows) if self._rows else np.zeros(0, dtype=np.int64)
        errors = tuple(sorted(self._errors, key=lambda error: error.row))
        return Decoded(batches[0] if batches else empty, rows, errors)

    def _check(self, chunk: Chunk) -> tuple[list[int], dict[str, Column] | None]:
        """Positions of rows that are not proven good, and the columns of all if that is none."""
        if not self._schema.columnar:
            return list(range(len(chunk))), None
        read = [position for position, record in enumerate(chunk.records) if record is not None]
        good = np.zeros(len(chunk), dtype=np.bool_)
        columns = self._columns([record for record in chunk.records if record is not None])
        lengths = np.zeros(len(read), dtype=np.int64)
        for column in columns.values():
            lengths += column.lengths
        starts, ends, reached = (np.array(part, dtype=np.int64) for part in (chunk.starts, chunk.ends, chunk.reached))
        good[read] = lengths == (ends - starts)[read]
        good &= reached == ends
        return np.flatnonzero(~good).tolist(), columns

    def _columns(self, records: list[_Record], *, wanted: bool = False) -> dict[str, Column]:
        names = (rule.field for rule in self._schema.rules if rule.field is not None) if wanted else self._types
        return {name: _column([record[name] for record in records], self._types[name]) for name in names}

    def _decide(self, chunk: Chunk, doubtful: list[int]) -> list[RowError]:
        """Has each doubtful row decoded strictly; the record is put in place, or taken out."""
        errors = []
        for position in doubtful:
            data, start, end = chunk.data[position], chunk.starts[position], chunk.ends[position]
            try:
                chunk.records[position] = decode_exact(data, start, end, self._schema.tree)
            except StrictError as error:
                chunk.records[position] = None
                payload = data[start - self._body_offset : end]
                errors.append(RowError(chunk.rows[position], error.error_class, str(error), payload))
        return errors

    def _finish(self, chunk: Chunk, kept: list[int], columns: dict[str, Column] | None) -> None:
        """Resolves the kept rows to our schema and keeps them, but for those with a faulty value."""
        if columns is None:
            records = [record for record in chunk.records if record is not None]
            columns = self._columns(records, wanted=True)
        arrays: list[pa.Array] = []
        faults: dict[int, tuple[str, Fault]] = {}
        for rule in self._schema.rules:
            column = None if rule.field is None else columns[rule.field]
            array, unresolved = rule.apply(column and column.array, len(kept))
            arrays.append(array)
            for fault in (*unresolved, *(column.faults if column else ())):
                faults.setdefault(fault.row, (rule.name, fault))
        rows = np.array(chunk.rows, dtype=np.int64)[kept]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema.arrow_schema)
        if faults:
            self._errors.extend(self._fault(chunk, kept[row], *fault) for row, fault in faults.items())
            good = np.ones(len(kept), dtype=np.bool_)
            good[list(faults)] = False
            rows, batch = rows[good], batch.filter(pa.array(good))
        self._rows.append(rows)
        self._batches.append(batch)

    def _fault(self, chunk: Chunk, position: int, name: str, fault: Fault) -> RowError:
        payload = chunk.data[position][chunk.starts[position] - self._body_offset : chunk.ends[position]]
        record = chunk.records[position] or {}
        logical = {key: _logical(value, self._types[key]) for key, value in record.items()}
        return RowError(chunk.rows[position], fault.error_class, f"{name}: {fault.message}", payload, logical)


def _column(values: list[Any], avro_type: AvroType) -> Column:
    """The column of a field, or its text where no column has its type."""
    if is_columnar(avro_type):
        return build_column(values, avro_type)
    return Column(pa.array(map(text_of, values), pa.string()), np.zeros(len(values), dtype=np.int64))


def _logical(value: Any, avro_type: AvroType) -> Any:
    """The value as Decimal or datetime where its type says so and it can be."""
    inner, _ = without_null(avro_type)
    if value is None or not isinstance(inner, Primitive) or not inner.logical:
        return value
    if inner.name == "bytes":
        number = number_of(value, decimal_digits(inner.logical)[1])
        return value if number is None else number
    micros = value * (1000 if inner.logical == "timestamp-millis" else 1)
    return _EPOCH + timedelta(microseconds=micros) if MIN_TIMESTAMP <= micros <= MAX_TIMESTAMP else value


def chunk_bounds(offsets: Ints, rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) row of chunks of at most ``rows`` rows and ``size`` bytes, or of one row."""
    first, count = 0, len(offsets) - 1
    while first < count:
        fitting = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        last = min(max(fitting, first + 1), first + rows, count)
        yield first, last
        first = last
