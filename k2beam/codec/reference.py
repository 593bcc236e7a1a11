"""The reference decoder: fastavro, made strict without decoding twice.

fastavro reads physical values under an armed schema (see :mod:`k2beam.codec.physical`). A record
is good if reading it ended where it ends and its values, encoded canonically, take exactly the
bytes that it took. Any other record goes to :mod:`k2beam.codec.strict`, whose word is final: it
gives the record (a legal encoding in several blocks, say) or the error.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Mask
from k2beam.codec.assemble import Assembler, Chunk, chunk_bounds
from k2beam.codec.physical import armed_schema
from k2beam.codec.strict import decode_many
from k2beam.codec.writer_schema import BROKEN_BLOCK, Decoded, RowError, WriterSchema
from k2beam.errors import StrictError

CHUNK_ROWS = 2048
_CHUNK_BYTES = 1 << 19
"""A hostile length makes fastavro copy the rest of its input, so that its input is kept small."""

_FASTAVRO_ERRORS = (EOFError, StopIteration, LookupError, ValueError, OverflowError, TypeError)
"""What hostile bytes make fastavro raise; the strict decoder then says what is wrong."""


class ReferenceDecoder:
    """The :class:`k2beam.codec.writer_schema.Decoder` over fastavro."""

    def __init__(self) -> None:
        self._armed: WeakKeyDictionary[WriterSchema, dict[str, Any]] = WeakKeyDictionary()

    def decode(self, payloads: pa.BinaryArray | Sequence[bytes], body_offset: int, schema: WriterSchema) -> Decoded:
        """See :meth:`k2beam.codec.writer_schema.Decoder.decode`."""
        values = payloads if isinstance(payloads, pa.BinaryArray) else pa.array(payloads, type=pa.binary())
        assembler = Assembler(schema, body_offset)
        if len(values):
            _, offset_buffer, data_buffer = values.buffers()
            offsets = np.frombuffer(offset_buffer, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
            data = memoryview(data_buffer or b"")
            for first, last in chunk_bounds(offsets.astype(np.int64), CHUNK_ROWS, _CHUNK_BYTES):
                assembler.add(self._framed_chunk(data, offsets, first, last, body_offset, schema))
        return assembler.result()

    def decode_block(self, block: bytes, count: int, schema: WriterSchema) -> Decoded:
        """See :meth:`k2beam.codec.writer_schema.Decoder.decode_block`."""
        return self.decode_blocks([(block, count)], schema)

    def decode_blocks(self, blocks: Sequence[tuple[bytes, int]], schema: WriterSchema) -> Decoded:
        """See :meth:`k2beam.codec.writer_schema.Decoder.decode_blocks`."""
        first_rows = [0, *accumulate(max(count, 0) for _, count in blocks)]
        assembler = Assembler(schema)
        doubtful: set[int] = set()
        armed = self._armed_schema(schema)
        chunk = Chunk()
        for number, (block, count) in enumerate(blocks):
            stream = _BlockStream(block, count, armed)
            while not stream.done:
                stream.read_into(chunk, first_rows[number], CHUNK_ROWS - len(chunk))
                if len(chunk) >= CHUNK_ROWS:
                    doubtful.update(_blocks_of(assembler.add(chunk), first_rows))
                    chunk = Chunk()
            if not stream.whole:
                doubtful.add(number)
        doubtful.update(_blocks_of(assembler.add(chunk), first_rows))
        read = assembler.result()
        if not doubtful:
            return read
        # Where a record of such a block ends is not known until all of the block was read strictly.
        strictly = Assembler(schema)
        broken = [
            error
            for number in sorted(doubtful)
            if (error := _read_strictly(strictly, *blocks[number], first_rows[number], schema))
        ]
        return _merged(_without_blocks(read, doubtful, first_rows), strictly.result(), broken)

    def _armed_schema(self, schema: WriterSchema) -> dict[str, Any]:
        armed = self._armed.get(schema)
        if armed is None:
            armed = self._armed[schema] = armed_schema(schema.tree)
        return armed

    def _framed_chunk(
        self, data: memoryview, offsets: npt.NDArray[np.int32], first: int, last: int, body: int, schema: WriterSchema
    ) -> Chunk:
        base = int(offsets[first])
        chunk_data = bytes(data[base : int(offsets[last])])
        starts = (offsets[first:last] - (base - body)).tolist()
        ends = (offsets[first + 1 : last + 1] - base).tolist()
        if schema.columnar:
            records, reached = _read_each(chunk_data, starts, self._armed_schema(schema))
        else:
            records, reached = [None] * len(starts), ends
        count = last - first
        return Chunk(list(range(first, last)), [chunk_data] * count, starts, ends, records, reached)


def _read_each(data: bytes, starts: list[int], armed: dict[str, Any]) -> tuple[list[dict[str, Any] | None], list[int]]:
    """Each record of ``data``, None where fastavro can't read it, and the position after it."""
    records: list[dict[str, Any] | None] = []
    reached: list[int] = []
    stream = io.BytesIO(data)
    read, seek, tell = fastavro.schemaless_reader, stream.seek, stream.tell
    for start in starts:
        seek(start)
        try:
            records.append(read(stream, armed, None))
        except _FASTAVRO_ERRORS:
            records.append(None)
        reached.append(tell())
    return records, reached


class _BlockStream:
    """Reads the records of one block, some at a time; ``whole`` once they were read and filled it."""

    def __init__(self, block: bytes, count: int, armed: dict[str, Any]) -> None:
        # No record takes no bytes: a count beyond the bytes is a lie, and not worth the reading.
        self.done = not 0 <= count <= len(block)
        self._block = block
        self._stream = io.BytesIO(block)
        self._armed = armed
        self._count = count
        self._next = 0
        self.whole = False
        if count == 0:
            self._end()

    def read_into(self, chunk: Chunk, first_row: int, limit: int) -> None:
        """Adds up to ``limit`` records to ``chunk``; those of a broken block are taken out in the end."""
        last = min(self._next + limit, self._count)
        positions = [self._stream.tell()]
        records: list[dict[str, Any] | None] = []
        read, tell = fastavro.schemaless_reader, self._stream.tell
        try:
            for _ in range(self._next, last):
                records.append(read(self._stream, self._armed, None))
                positions.append(tell())
        except _FASTAVRO_ERRORS:
            self.done = True
        chunk.rows.extend(range(first_row + self._next, first_row + self._next + len(records)))
        chunk.data.extend([self._block] * len(records))
        chunk.starts.extend(positions[:-1])
        chunk.ends.extend(positions[1:])
        chunk.reached.extend(positions[1:])
        chunk.records.extend(records)
        self._next += len(records)
        if self._next == self._count:
            self._end()

    def _end(self) -> None:
        self.done = True
        self.whole = self._stream.tell() == len(self._block)


def _blocks_of(errors: list[RowError], first_rows: list[int]) -> set[int]:
    """The blocks of the rows that are no encoding."""
    return {int(np.searchsorted(first_rows, error.row, side="right")) - 1 for error in errors}


def _read_strictly(
    assembler: Assembler, block: bytes, count: int, first_row: int, schema: WriterSchema
) -> RowError | None:
    """Gives ``assembler`` the records of a block, read strictly; the error of a block whose records are not known."""
    try:
        if not 0 <= count <= len(block):
            raise StrictError("truncated", f"the block announces {count} records in {len(block)} bytes")
        records, ends = decode_many(block, count, schema.tree)
    except StrictError as error:
        message = f"{error.error_class}: {error} (the block has {count} records)"
        return RowError(first_row, BROKEN_BLOCK, message, block)
    rows, starts = list(range(first_row, first_row + count)), [0, *ends[:-1]]
    # The records that could not be read are decoded once more by the assembler, which then tells their errors.
    assembler.add(Chunk(rows, [block] * count, starts, ends, records, ends))
    return None


def _without_blocks(decoded: Decoded, numbers: set[int], first_rows: list[int]) -> Decoded:
    """What came of the other blocks."""

    def others(rows: Any) -> Mask:
        return ~np.isin(np.searchsorted(first_rows, rows, side="right") - 1, list(numbers))

    good = others(decoded.rows)
    errors = tuple(error for error in decoded.errors if others(error.row))
    return Decoded(decoded.columns.filter(pa.array(good)), decoded.rows[good], errors)


def _merged(one: Decoded, other: Decoded, broken: list[RowError]) -> Decoded:
    """Both in the order of their rows, and the errors of broken blocks."""
    rows = np.concatenate((one.rows, other.rows))
    order = np.argsort(rows)
    columns = pa.concat_batches([one.columns, other.columns]).take(pa.array(order))
    errors = sorted((*one.errors, *other.errors, *broken), key=lambda error: error.row)
    return Decoded(columns, rows[order], tuple(errors))
