"""Reading a chunk of a CSV file: blocks of v2 Avro records out, and dead letters of lines that gave none.

From here on a CSV file is like a plain Avro container: a block's records have offsets one after another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa

from k2beam.archive.reading import MAX_DEAD_LETTER_BYTES
from k2beam.arrays import Ints
from k2beam.csv.convert import Converter
from k2beam.csv.encode import encode_events
from k2beam.csv.files import CsvChunk, same_file
from k2beam.csv.lines import LineFault, split_lines
from k2beam.csv.mapping import CsvMapping
from k2beam.csv.streams import open_csv
from k2beam.errors import CsvError, UsageError
from k2beam.model import Block, BlockBatch, DeadLetter, DeadLetterBatch, Extent
from k2beam.schemas import avro_schema, event_arrow_schema, latest_name

MAX_LINE_BYTES = 1 << 16
"""A longer line is a dead letter. Fixed, so that every reader judges a line alike."""

BLOCK_LINES = 4096
"""A block ends at a multiple of this offset: a file that has grown is cut as it was before."""

_SHOWN = 200
_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Piece(NamedTuple):
    """Whole lines from byte ``position`` on; or, where ``length`` is given, the beginning of a line of that length."""

    position: int
    data: bytes
    length: int | None = None


class Part(NamedTuple):
    """Lines that were read together: the events, the offset and byte of each, and the dead letters of others.

    ``left_out`` are the offsets of lines that the mapping does not take.
    """

    events: pa.RecordBatch
    offsets: Ints
    positions: Ints
    dead_letters: tuple[DeadLetter, ...]
    left_out: Ints


@dataclass(frozen=True, slots=True)
class CsvReader:
    """Reads chunks in pieces of about ``piece_bytes``, which bounds the memory. Picklable."""

    mapping: CsvMapping
    piece_bytes: int = 2 << 20
    evolve: bool = False

    def __post_init__(self) -> None:
        if self.piece_bytes < MAX_LINE_BYTES:
            raise UsageError(f"piece_bytes must be at least {MAX_LINE_BYTES}, not {self.piece_bytes}")

    def added(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Those of a file's columns that become columns of the table: no field names them, and Avro could."""
        own = event_arrow_schema(self.mapping.kind).names
        wanted = self.mapping.unnamed(columns) if self.evolve else ()
        return tuple(name for name in wanted if _AVRO_NAME.fullmatch(name) and name not in own)

    def schema(self, columns: Iterable[str]) -> dict[str, Any]:
        """The Avro schema of the rows of a file with these columns."""
        schema = avro_schema(latest_name(self.mapping.kind))
        schema["fields"] += [{"name": name, "type": ["null", "string"]} for name in self.added(columns)]
        return schema

    def read(self, chunk: CsvChunk) -> Iterator[BlockBatch | DeadLetterBatch]:
        """The content of ``chunk``: each of its offsets is in exactly one batch, and the same file gives the same ones.

        Raises CsvError when the file is no longer the one that was planned.
        """
        file = chunk.file
        extent = Extent(file.source, 0, chunk.total, file.path)
        schema = json.dumps(self.schema(file.context.columns))
        for part in self.parts(chunk):
            if part.dead_letters:
                yield DeadLetterBatch(part.dead_letters, (extent,))
            if part.events.num_rows:
                blocks = tuple(_blocks(self.mapping, part))
                yield BlockBatch(file.source, 0, file.path, schema, blocks, extent)

    def parts(self, chunk: CsvChunk) -> Iterator[Part]:
        """The same as events in columns. Raises CsvError likewise."""
        file = chunk.file
        converter = Converter(self.mapping, file.context, self.added(file.context.columns))
        offset = chunk.first
        with open_csv(file.path) as stream:
            if not same_file(stream, file, self.mapping):
                raise _changed(chunk)
            for piece in _pieces(stream, chunk, self.piece_bytes):
                part, lines = self._part(converter, chunk, piece, offset)
                offset += lines
                yield part
        if offset != chunk.first + chunk.lines:
            raise _changed(chunk)

    def left_out(self, chunk: CsvChunk) -> Iterator[Ints]:
        """The offsets of the lines that the mapping does not take; it costs less than to read them."""
        converter, offset = Converter(self.mapping, chunk.file.context), chunk.first
        with open_csv(chunk.file.path) as stream:
            for piece in _pieces(stream, chunk, self.piece_bytes):
                lines = [b""] if piece.length is not None else split_lines(piece.data)
                yield converter.left_out(lines) + offset
                offset += len(lines)

    def _part(self, converter: Converter, chunk: CsvChunk, piece: Piece, first: int) -> tuple[Part, int]:
        lines = [piece.data] if piece.length is not None else split_lines(piece.data)
        lengths = [piece.length] if piece.length is not None else [len(line) for line in lines]
        positions = piece.position + np.concatenate([[0], np.cumsum(np.array(lengths[:-1], np.int64) + 1)])
        long = [row for row, length in enumerate(lengths) if length > MAX_LINE_BYTES]
        short = lines if not long else [b"" if row in set(long) else line for row, line in enumerate(lines)]
        converted = converter.convert(short, first + 1 + self.mapping.header_lines)
        faults = {fault.row: fault for fault in converted.faults}
        for row in long:
            problem = f"the line has {lengths[row]} bytes, at most {MAX_LINE_BYTES} are taken; kept is up to 1 MiB"
            faults[row] = LineFault(row, "read", "line_too_long", problem)
        dead_letters = tuple(
            self._dead_letter(chunk, fault, first + row, int(positions[row]), lines[row])
            for row, fault in sorted(faults.items())
        )
        rows, left_out = converted.rows, converted.left_out + first
        return Part(converted.events, rows + first, positions[rows], dead_letters, left_out), len(lines)

    def _dead_letter(self, chunk: CsvChunk, fault: LineFault, offset: int, position: int, line: bytes) -> DeadLetter:
        path, number = chunk.file.path, offset + 1 + self.mapping.header_lines
        shown = line[:_SHOWN].rstrip(b"\r").decode(self.mapping.encoding, "backslashreplace")
        return DeadLetter(
            source=chunk.file.source,
            partition=0,
            offset=offset,
            stage=fault.stage,
            error_class=fault.error_class,
            error_message=f"{path}, line {number}: {fault.message}: {shown!r}",
            payload=line[:MAX_DEAD_LETTER_BYTES],
            headers=(
                ("k2.path", path.encode()),
                ("k2.line", str(number).encode()),
                ("k2.position", str(position).encode()),
                ("k2.mapping", self.mapping.name.encode()),
            ),
        )


def _blocks(mapping: CsvMapping, part: Part) -> Iterator[Block]:
    """The events as blocks: offsets that follow each other, cut at multiples of BLOCK_LINES."""
    records = encode_events(mapping.kind, part.events)
    ends = np.frombuffer(records.buffers()[1], np.int32)[records.offset : records.offset + len(records) + 1]
    data = records.buffers()[2]
    begins = np.flatnonzero((np.diff(part.offsets) != 1) | (part.offsets[1:] % BLOCK_LINES == 0)) + 1
    bounds = [0, *begins.tolist(), len(records)]
    for start, end in pairwise(bounds):
        payload = data[int(ends[start]) : int(ends[end])].to_pybytes()
        yield Block(int(part.offsets[start]), end - start, int(part.positions[start]), payload)


def _pieces(stream: BinaryIO, chunk: CsvChunk, size: int) -> Iterator[Piece]:
    """Whole lines of the chunk, about ``size`` bytes at a time."""
    position, rest = chunk.start, b""
    stream.seek(position)
    left = chunk.end - chunk.start
    while left:
        data = stream.read(min(size, left))
        if not data:
            raise _changed(chunk)
        left -= len(data)
        data = rest + data
        cut = data.rfind(b"\n") + 1 if left else len(data)
        if cut:
            yield Piece(position, data[:cut])
            position, rest = position + cut, data[cut:]
        elif len(data) > MAX_DEAD_LETTER_BYTES:
            long, rest, left = _long_line(stream, position, data, left)
            yield long
            position += (long.length or 0) + 1
            if rest and not left:
                yield Piece(position, rest)
        else:
            rest = data


def _long_line(stream: BinaryIO, position: int, data: bytes, left: int) -> tuple[Piece, bytes, int]:
    """A line that no piece can hold: its beginning and length, what was read after it, and how much is left."""
    length = len(data)
    while left:
        more = stream.read(min(MAX_DEAD_LETTER_BYTES, left))
        if not more:
            break
        left -= len(more)
        line, feed, rest = more.partition(b"\n")
        length += len(line)
        if feed:
            return Piece(position, data[:MAX_DEAD_LETTER_BYTES], length), rest, left
    return Piece(position, data[:MAX_DEAD_LETTER_BYTES], length), b"", left


def _changed(chunk: CsvChunk) -> CsvError:
    return CsvError(
        f"{chunk.file.path}: bytes {chunk.start} to {chunk.end} are not what they were when the file was planned; a "
        "file may grow while it is read, but not change: run again"
    )
