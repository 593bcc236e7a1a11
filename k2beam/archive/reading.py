"""Reading one chunk of a container: blocks or raw records out, broken blocks as dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from k2beam.archive.codecs import decompress
from k2beam.archive.envelope import EnvelopeColumns, decode_envelopes
from k2beam.archive.files import file_size, open_archive
from k2beam.archive.header import ArchiveHeader, ArchiveLimits, read_header
from k2beam.archive.plan import ArchiveChunk
from k2beam.archive.scan import Frame, ReadProblem, Scanner
from k2beam.archive.stores import Stores, object_version
from k2beam.errors import ArchiveError, BlockTooLarge, BrokenBlock, UsageError
from k2beam.model import Block, BlockBatch, DeadLetter, DeadLetterBatch, Extent, RawBatch

MAX_DEAD_LETTER_BYTES = 1 << 20
"""How much of a damaged stretch, or of a block that is larger than the limit, a dead letter keeps."""

_MAX_BATCH_BYTES = 1 << 30  # Arrow's binary columns have 32-bit offsets


@dataclass(frozen=True, slots=True)
class ArchiveReader:
    """Reads chunks into batches of about ``rows_per_batch`` records and ``bytes_per_batch`` decompressed bytes.

    A single block may be larger than a BlockBatch is meant to be; a RawBatch never has more rows. ``stores`` opens what
    is named by a URI.

    Raises UsageError for sizes out of range.

    Examples:
        >>> from k2beam.archive.plan import plan_archive
        >>> from k2beam.archive.reading import ArchiveReader
        >>> [chunk] = plan_archive("samples/crypto/trades-00001.avro").chunks
        >>> [(type(batch).__name__, batch.num_rows) for batch in ArchiveReader().read(chunk)]
        [('RawBatch', 3000)]
    """

    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    rows_per_batch: int = 50_000
    bytes_per_batch: int = 16 << 20
    stores: Stores | None = None

    def __post_init__(self) -> None:
        if self.rows_per_batch < 1:
            raise UsageError(f"rows_per_batch must be at least 1, not {self.rows_per_batch}")
        if not 1 <= self.bytes_per_batch <= _MAX_BATCH_BYTES:
            raise UsageError(f"bytes_per_batch must be 1 to {_MAX_BATCH_BYTES}, not {self.bytes_per_batch}")

    def read(self, chunk: ArchiveChunk) -> Iterator[RawBatch | BlockBatch | DeadLetterBatch]:
        """The content of ``chunk``: each of its numbers is in exactly one batch.

        The same file gives the same batches each time. Raises ArchiveError when the file is no longer the one that was
        planned.
        """
        with open_archive(chunk.path, chunk.root, self.stores) as file:
            header = read_header(file, chunk.path, self.limits)
            if header.sync != chunk.sync or object_version(file) != chunk.version:
                raise _changed(chunk)
            if header.raw:
                yield from self._read_raw(file, header, chunk)
            else:
                yield from self._read_plain(file, header, chunk)

    def _read_plain(
        self, file: BinaryIO, header: ArchiveHeader, chunk: ArchiveChunk
    ) -> Iterator[BlockBatch | DeadLetterBatch]:
        extent = Extent(chunk.source, 0, chunk.total, chunk.path)
        blocks: list[Block] = []
        rows = size = 0
        for frame in self._frames(file, header, chunk):
            try:
                payload = self._content(header, frame)
            except BrokenBlock as error:
                yield self._dead_letter(file, header, chunk, frame, error, extents=(extent,))
                continue
            if blocks and (rows + frame.records > self.rows_per_batch or size + len(payload) > self.bytes_per_batch):
                yield BlockBatch(chunk.source, 0, chunk.path, header.schema_json, tuple(blocks), extent)
                blocks, rows, size = [], 0, 0
            blocks.append(Block(frame.first, frame.records, frame.position, payload))
            rows += frame.records
            size += len(payload)
        if blocks:
            yield BlockBatch(chunk.source, 0, chunk.path, header.schema_json, tuple(blocks), extent)

    def _read_raw(
        self, file: BinaryIO, header: ArchiveHeader, chunk: ArchiveChunk
    ) -> Iterator[RawBatch | DeadLetterBatch]:
        pending = EnvelopeColumns()
        size = 0
        for frame in self._frames(file, header, chunk):
            try:
                payload = self._content(header, frame)
                pending.extend(decode_envelopes(payload, frame.records))
            except BrokenBlock as error:
                yield self._dead_letter(file, header, chunk, frame, error, extents=())
                continue
            size += len(payload)
            if len(pending) >= self.rows_per_batch or size >= self.bytes_per_batch:
                yield from self._raw_batches(pending, header)
                pending, size = EnvelopeColumns(), 0
        yield from self._raw_batches(pending, header)

    def _raw_batches(self, columns: EnvelopeColumns, header: ArchiveHeader) -> Iterator[RawBatch]:
        for start in range(0, len(columns), self.rows_per_batch):
            part = columns.slice(start, start + self.rows_per_batch)
            yield RawBatch(part.to_arrow(), header.path, header.schemas)

    def _frames(self, file: BinaryIO, header: ArchiveHeader, chunk: ArchiveChunk) -> Iterator[Frame]:
        """The frames of the chunk but for empty blocks, checked against the plan."""
        scanner = Scanner(file, header, file_size(file))
        end, numbered = chunk.start, chunk.first
        for frame in scanner.frames(chunk.start, chunk.end, chunk.first, keep=block_limit(header, self.limits)):
            if isinstance(frame, ReadProblem):
                break
            end, numbered = frame.end, frame.first + frame.records
            if frame.records:
                yield frame
        if end != chunk.end or numbered != chunk.first + chunk.records:
            raise _changed(chunk)

    def _content(self, header: ArchiveHeader, frame: Frame) -> bytes:
        return block_content(header, frame, self.limits)

    def _dead_letter(
        self,
        file: BinaryIO,
        header: ArchiveHeader,
        chunk: ArchiveChunk,
        frame: Frame,
        error: BrokenBlock,
        *,
        extents: tuple[Extent, ...],
    ) -> DeadLetterBatch:
        """One dead letter for all numbers of a frame, with its bytes as they are stored."""
        payload = frame.data
        if payload is None:
            file.seek(frame.data_position)
            payload = file.read(min(frame.data_size, MAX_DEAD_LETTER_BYTES))
        kept = "" if len(payload) == frame.data_size else f"; kept are the first {len(payload)} bytes"
        dead_letter = DeadLetter(
            source=chunk.source,
            partition=0,
            offset=frame.first,
            offset_last=frame.first + frame.records - 1,
            stage="read",
            error_class="block_too_large" if isinstance(error, BlockTooLarge) else "broken_block",
            error_message=f"{header.path}, byte {frame.position}, {frame.data_size} bytes: {error}{kept}",
            payload=payload,
            headers=(
                ("k2.path", header.path.encode()),
                ("k2.position", str(frame.position).encode()),
                ("k2.codec", header.codec.encode()),
                ("k2.length", str(frame.data_size).encode()),
            ),
        )
        return DeadLetterBatch((dead_letter,), extents)


def block_limit(header: ArchiveHeader, limits: ArchiveLimits) -> int:
    """How many bytes a block of this container may have, stored or decompressed."""
    return min(limits.max_block_bytes, limits.max_envelope_bytes) if header.raw else limits.max_block_bytes


def block_content(header: ArchiveHeader, frame: Frame, limits: ArchiveLimits) -> bytes:
    """The decompressed bytes of a block that was scanned with its data.

    Raises BlockTooLarge above the limit, BrokenBlock for a damaged stretch or block.
    """
    if frame.damage:
        raise BrokenBlock(f"damaged up to the next sync marker: {frame.damage}")
    limit = block_limit(header, limits)
    if frame.data is None:
        raise BlockTooLarge(f"the block has more than {limit} bytes")
    content = decompress(header.codec, frame.data, limit)
    if len(content) < frame.records:  # a record takes at least a byte: its fields do
        raise BrokenBlock(f"{len(content)} bytes can't hold {frame.records} records")
    return content


def _changed(chunk: ArchiveChunk) -> ArchiveError:
    return ArchiveError(
        f"{chunk.path}: bytes {chunk.start} to {chunk.end} are not what they were when the file was planned; "
        "an archive may grow while it is read, but not change: run again"
    )
