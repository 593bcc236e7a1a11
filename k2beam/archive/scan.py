"""The framing scan: where the blocks of a container are, and how its records are numbered.

A block is framed by its count of records, its size in bytes and, after the data, the sync marker (Avro 1.11
specification, "Object Container Files"). Only the framing decides the numbers, never the content and
never a limit, so that every reader of a file numbers it alike:

- a well-framed block (marker where the size says) has the next ``count`` numbers, whether or not it decompresses;
- a damaged stretch, up to the next marker, has one number;
- what follows the last marker has none: the file may still grow, and then it is read again.

Every decision rests on bytes up to a marker that is there, so a file that grows keeps its numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

from k2beam.archive.codecs import decompress
from k2beam.archive.header import SYNC_BYTES, ArchiveHeader
from k2beam.archive.varint import MAX_BYTES, read_long
from k2beam.errors import BrokenBlock

MAX_BLOCK_RECORDS = 1 << 24
"""A count above this is damage. Fixed, because the numbers of all later records depend on it."""

_FRAMING_BYTES = 2 * MAX_BYTES
_EMPTY_BLOCK_BYTES = 16
_PIECE = 1 << 20

ProblemKind = Literal["truncated_tail", "damaged_tail", "empty"]


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """Something about a file that has no offset, from byte ``position`` on.

    ``truncated_tail``: the last block is not complete, or the file is of 0 bytes. ``damaged_tail``: no block can be
    made out up to the end of the file. ``empty``: a header and nothing else.

    Examples:
        >>> from pathlib import Path
        >>> from k2beam.archive.plan import plan_archive
        >>> whole = Path("samples/asx/trades.avro").read_bytes()
        >>> _ = Path("growing.avro").write_bytes(whole[:-100])
        >>> [problem.kind for problem in plan_archive("growing.avro").problems]
        ['truncated_tail']
    """

    path: str
    position: int
    kind: ProblemKind
    message: str


class Frame(NamedTuple):
    """A block, or a damaged stretch (``damage`` says why), from byte ``position`` up to ``end``.

    It has the numbers ``first`` to ``first + records - 1``; an empty block has none.
    ``data``: the bytes as stored, where they were asked for and are not more than asked for.

    Examples:
        >>> import os
        >>> from k2beam.archive.files import open_archive
        >>> from k2beam.archive.header import check_archives
        >>> from k2beam.archive.scan import Scanner
        >>> [header] = check_archives(["samples/asx/trades.avro"])
        >>> with open_archive(header.path) as file:
        ...     scanner = Scanner(file, header, os.path.getsize(header.path))
        ...     frames = list(scanner.frames(header.size, os.path.getsize(header.path), first=0))
        >>> [(frame.first, frame.records, frame.damage) for frame in frames]
        [(0, 147, ''), (147, 96, '')]
    """

    position: int
    end: int
    first: int
    records: int
    data_position: int
    data_size: int
    damage: str = ""
    data: bytes | None = None


class _Framing(NamedTuple):
    records: int
    data_position: int
    size: int

    @property
    def marker(self) -> int:
        """Where the sync marker has to be."""
        return self.data_position + self.size


class Scanner:
    """Walks over the frames of an open file of ``size`` bytes."""

    def __init__(self, file: BinaryIO, header: ArchiveHeader, size: int) -> None:
        self._file = file
        self._header = header
        self._size = size

    def frames(self, start: int, stop: int, first: int, keep: int = -1) -> Iterator[Frame | ReadProblem]:
        """The frames from byte ``start`` up to ``stop``, numbered from ``first``; a tail's problem comes last.

        Blocks of at most ``keep`` bytes come with their data (-1: none does).
        """
        position = start
        while position < stop:
            frame = self._frame(position, first, keep)
            yield frame
            if isinstance(frame, ReadProblem):
                return
            position, first = frame.end, first + frame.records

    def _frame(self, position: int, first: int, keep: int) -> Frame | ReadProblem:
        framing, reason = self._framing(position)
        if framing is not None and framing.marker + SYNC_BYTES <= self._size:
            wanted = framing.size if framing.size <= keep else -1
            data, marker = self._data_and_marker(framing, wanted)
            if marker == self._header.sync and (framing.records or self._is_empty(framing)):
                end = framing.marker + SYNC_BYTES
                return Frame(position, end, first, framing.records, framing.data_position, framing.size, "", data)
            reason = "the sync marker is not where the block's size says" if framing.records else "its count is 0"
        found = self._find_marker(position)
        if found < 0:
            return self._tail(position, framing)
        end = self._stretch_end(framing, found)
        return Frame(position, end, first, 1, position, end - position, reason or "its size leads past the next marker")

    def _framing(self, position: int) -> tuple[_Framing | None, str]:
        """The count and size at ``position``, or None and why they can't be right."""
        data = self._read(position, _FRAMING_BYTES)
        try:
            count, used = read_long(data, 0)
            size, used = read_long(data, used)
        except IndexError:
            return None, "the file ends within a block's framing"
        except ValueError as error:
            return None, f"a block's framing is damaged: {error}"
        if not 0 <= count <= MAX_BLOCK_RECORDS:
            return None, f"a block's count of records is {count}"
        if size < 0:
            return None, f"a block's size is {size}"
        return _Framing(count, position + used, size), ""

    def _data_and_marker(self, framing: _Framing, wanted: int) -> tuple[bytes | None, bytes]:
        if wanted < 0:
            return None, self._read(framing.marker, SYNC_BYTES)
        data = self._read(framing.data_position, wanted + SYNC_BYTES)
        return data[:wanted], data[wanted:]

    def _is_empty(self, framing: _Framing) -> bool:
        """Whether a block with a count of 0 is truly empty, and not one whose count was damaged."""
        if framing.size > _EMPTY_BLOCK_BYTES:
            return False
        try:
            return not decompress(
                self._header.codec, self._read(framing.data_position, framing.size), _EMPTY_BLOCK_BYTES
            )
        except BrokenBlock:
            return False

    def _stretch_end(self, framing: _Framing | None, found: int) -> int:
        """Where the damaged stretch ends, whose next marker is at ``found``.

        When only the marker between two blocks is damaged, the marker found is the second block's; that
        block is good and must be kept, so the stretch ends before it.
        """
        if framing is not None:
            boundary = framing.marker + SYNC_BYTES
            if boundary < found:
                following, _ = self._framing(boundary)
                if following is not None and following.records and following.marker == found:
                    return boundary
        return found + SYNC_BYTES

    def _find_marker(self, position: int) -> int:
        """Where the next sync marker begins; -1 where there is none up to the end."""
        sync = self._header.sync
        overlap = b""
        while position < self._size:
            piece = self._read(position, _PIECE)
            if not piece:
                break
            window = overlap + piece
            found = window.find(sync)
            if found >= 0:
                return position - len(overlap) + found
            position += len(piece)
            overlap = window[-(SYNC_BYTES - 1) :]
        return -1

    def _tail(self, position: int, framing: _Framing | None) -> ReadProblem:
        left = self._size - position
        cut = left < _FRAMING_BYTES if framing is None else framing.marker + SYNC_BYTES > self._size
        kind: ProblemKind = "truncated_tail" if cut else "damaged_tail"
        what = "the last block is not complete" if cut else "no block can be made out"
        message = (
            f"{self._header.path}: {what}: the last {left} bytes, from byte {position} on, were not read and have no "
            "offsets; if the file is still being written, read it again later, otherwise restore it"
        )
        return ReadProblem(self._header.path, position, kind, message)

    def _read(self, position: int, count: int) -> bytes:
        self._file.seek(position)
        return self._file.read(max(0, min(count, self._size - position)))


def source_id(file: BinaryIO, header: ArchiveHeader, first: Frame | None) -> str:
    """The source that the records of a container count in: ``archive:`` and 32 hex digits.

    SHA-256 over the header and the first block (framing and data), so that a file that grows, or is moved,
    keeps its offsets. Without a first block there is nothing to count: the header's digest only.
    """
    end = header.size
    if first is not None:
        end = first.end if first.damage else first.data_position + first.data_size
    sha = hashlib.sha256()
    file.seek(0)
    while end > 0 and (piece := file.read(min(end, _PIECE))):
        sha.update(piece)
        end -= len(piece)
    return f"archive:{sha.hexdigest()[:32]}"
