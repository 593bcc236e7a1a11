"""The decoder in columns: a field at a time over thousands of payloads, instead of a payload at a time.

Each payload is a lane (see :mod:`k2beam.codec.columnar.lanes`) and each field a few numpy steps over all of them.
It only knows the common encodings: one block for an array or map, few items, numbers within their limits. Any row that
is anything else goes to the reference decoder, alone, and what that says counts, be it a row or an error. So the
two can't differ, but in a row that both of them take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from k2beam.arrays import Ints, Mask
from k2beam.codec.assemble import chunk_bounds
from k2beam.codec.columnar.blocks import walk_blocks
from k2beam.codec.columnar.lanes import Buffer, Lanes
from k2beam.codec.columnar.plan import ColumnarPlan, plan_of
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import Decoded, Decoder, WriterSchema

_CHUNK_ROWS = 8_192
_CHUNK_BYTES = 2 << 20
"""Chunks that stay in the processor's cache."""

MIN_ROWS = 16
"""Below, a step costs more than the rows do."""


class ColumnarDecoder:
    """The :class:`k2beam.codec.writer_schema.Decoder` in columns, equal to ``reference`` in every outcome.

    Batches of fewer rows than ``min_rows`` and schemas that :meth:`supports` refuses go to the reference as they are.
    Takes a few times the memory of a chunk besides the result: a length is held against the bytes that are there
    before anything is made of it.
    """

    def __init__(self, reference: Decoder | None = None, min_rows: int = MIN_ROWS) -> None:
        self._reference = reference or ReferenceDecoder()
        self._min_rows = min_rows
        self._plans: WeakKeyDictionary[WriterSchema, ColumnarPlan | None] = WeakKeyDictionary()

    def supports(self, schema: WriterSchema) -> bool:
        """Whether rows of ``schema`` are read in columns."""
        return self._plan(schema) is not None

    def decode(self, payloads: pa.BinaryArray | Sequence[bytes], body_offset: int, schema: WriterSchema) -> Decoded:
        """See :meth:`k2beam.codec.writer_schema.Decoder.decode`."""
        plan = self._plan(schema)
        if plan is None or len(payloads) < max(self._min_rows, 1):
            return self._reference.decode(payloads, body_offset, schema)
        values = payloads if isinstance(payloads, pa.BinaryArray) else pa.array(payloads, type=pa.binary())
        _, offset_buffer, data_buffer = values.buffers()
        offsets = np.frombuffer(offset_buffer, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
        columns, bad = _read(memoryview(data_buffer or b""), offsets.astype(np.int64), body_offset, schema, plan)
        rows, odd = np.flatnonzero(~bad), np.flatnonzero(bad)
        if not len(odd):
            return Decoded(columns, rows, ())
        decided = self._reference.decode(values.take(pa.array(odd)), body_offset, schema)
        return _merged(Decoded(columns, rows, ()), decided, lambda found: odd[found])

    def decode_block(self, block: bytes, count: int, schema: WriterSchema) -> Decoded:
        """See :meth:`k2beam.codec.writer_schema.Decoder.decode_block`."""
        return self.decode_blocks([(block, count)], schema)

    def decode_blocks(self, blocks: Sequence[tuple[bytes, int]], schema: WriterSchema) -> Decoded:
        """See :meth:`k2beam.codec.writer_schema.Decoder.decode_blocks`; blocks with an odd row go to the reference."""
        plan = self._plan(schema)
        lies = any(not 0 < count <= len(block) for block, count in blocks)
        if plan is None or lies or sum(count for _, count in blocks) < max(self._min_rows, 1):
            return self._reference.decode_blocks(blocks, schema)
        counts = np.array([count for _, count in blocks], dtype=np.int64)
        first = np.cumsum(counts) - counts
        walk = walk_blocks(blocks, plan.path)
        columns, bad = _read(memoryview(walk.data), walk.offsets, 0, schema, plan)
        rows = first[walk.numbers] + walk.places
        whole = np.setdiff1d(walk.numbers, walk.numbers[bad])
        odd = np.setdiff1d(np.arange(len(blocks)), whole)
        if not len(odd):
            return Decoded(columns, rows, ())
        good = np.isin(walk.numbers, whole)
        decided = self._reference.decode_blocks([blocks[number] for number in odd.tolist()], schema)
        odd_first = np.cumsum(counts[odd]) - counts[odd]

        def place(found: Ints) -> Ints:
            number = np.searchsorted(odd_first, found, side="right") - 1
            return np.asarray(first[odd[number]] + found - odd_first[number])

        read = Decoded(columns.filter(pa.array(good[~bad])), rows[good], ())
        return _merged(read, decided, place)

    def _plan(self, schema: WriterSchema) -> ColumnarPlan | None:
        if schema not in self._plans:
            self._plans[schema] = plan_of(schema)
        return self._plans[schema]


def _merged(read: Decoded, decided: Decoded, place: Callable[[Ints], Ints]) -> Decoded:
    """What was read and, in its place, what the reference made of the rest; ``place`` gives the rows that it had."""
    errors = tuple(replace(error, row=int(place(np.array([error.row]))[0])) for error in decided.errors)
    if not len(decided.rows):
        return Decoded(read.columns, read.rows, errors)
    rows = np.concatenate((read.rows, place(decided.rows)))
    order = np.argsort(rows)
    columns = _joined([read.columns, decided.columns]).take(pa.array(order))
    return Decoded(columns, rows[order], errors)


def _read(
    data: memoryview, offsets: Ints, body_offset: int, schema: WriterSchema, plan: ColumnarPlan
) -> tuple[pa.RecordBatch, Mask]:
    """The rows that are read here, and which rows are not."""
    chunks = [
        _chunk(data, offsets[first : last + 1], body_offset, schema, plan)
        for first, last in chunk_bounds(offsets, _CHUNK_ROWS, _CHUNK_BYTES)
    ]
    if not chunks:
        return pa.RecordBatch.from_pylist([], schema.arrow_schema), np.zeros(0, dtype=np.bool_)
    return _joined([batch for batch, _ in chunks]), np.concatenate([bad for _, bad in chunks])


def _chunk(
    data: memoryview, offsets: Ints, body_offset: int, schema: WriterSchema, plan: ColumnarPlan
) -> tuple[pa.RecordBatch, Mask]:
    """The rows of one chunk that are read here, and which are not."""
    base = int(offsets[0])
    buffer = Buffer(data[base : int(offsets[-1])])
    end = offsets[1:] - base
    start = offsets[:-1] - base + body_offset
    # A payload that is shorter than its frame is an empty lane, in which the first field finds nothing.
    lanes = Lanes(buffer, np.minimum(start, end), end)
    arrays = {name: field.decode(lanes) for name, field in plan.fields}
    lanes.close()
    columns = []
    for rule in schema.rules:
        found = None if rule.field is None else arrays[rule.field]
        if found is not None and rule.text_of is not None and lanes.bad.any():
            # What the others hold may be no text.
            found = found.take(pa.array(np.arange(len(lanes)), mask=lanes.bad))
        column, faults = rule.apply(found, len(lanes))
        columns.append(column)
        if faults:
            lanes.bad[[fault.row for fault in faults]] = True
    batch = pa.RecordBatch.from_arrays(columns, schema=schema.arrow_schema)
    return batch.filter(pa.array(~lanes.bad)) if lanes.bad.any() else batch, lanes.bad


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches(batches).combine_chunks()
    whole = table.to_batches()
    return whole[0] if whole else batches[0]
