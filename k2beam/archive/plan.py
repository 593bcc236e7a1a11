"""How a container is split: one framing scan, then chunks that workers can take independently."""

from __future__ import annotations

from dataclasses import dataclass

from k2beam.archive.files import file_size, open_archive
from k2beam.archive.header import ArchiveHeader, ArchiveLimits, read_header
from k2beam.archive.scan import Frame, ReadProblem, Scanner, source_id
from k2beam.archive.stores import Stores, object_version


@dataclass(frozen=True, slots=True)
class ArchiveChunk:
    """A part of a container that begins and ends between blocks; small, it is all that is shuffled.

    ``start`` and ``end`` are bytes, ``first`` is the number of its first record, ``records`` how many numbers
    it has, ``total`` how many the whole file has. ``sync`` tells whether the file is still the same one, and of an
    object in a store ``version`` does, which may not even grow.

    Examples:
        >>> from k2beam.archive.plan import plan_archive
        >>> [chunk] = plan_archive("samples/asx/trades.avro").chunks
        >>> chunk.first, chunk.records, chunk.total
        (0, 243, 243)
    """

    path: str
    root: str | None
    source: str
    sync: bytes
    start: int
    end: int
    first: int
    records: int
    total: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What the framing scan of one container found; ``records`` counts a damaged stretch as one.

    Examples:
        >>> from k2beam.archive.plan import plan_archive
        >>> plan = plan_archive("samples/asx/trades.avro")
        >>> plan.records, len(plan.chunks), plan.problems
        (243, 1, ())
    """

    header: ArchiveHeader
    source: str
    records: int
    chunks: tuple[ArchiveChunk, ...]
    problems: tuple[ReadProblem, ...]


def plan_archive(
    path: str, root: str | None = None, limits: ArchiveLimits | None = None, stores: Stores | None = None
) -> ArchivePlan:
    """Scan the framing of a container (block data is stepped over, not read) and split it into chunks.

    Raises UsageError and ArchiveRefused like :func:`k2beam.archive.header.check_archives`.

    Examples:
        >>> from k2beam.archive.plan import plan_archive
        >>> from k2beam.archive.reading import ArchiveReader
        >>> plan = plan_archive("samples/asx/trades.avro")
        >>> [batch.num_rows for chunk in plan.chunks for batch in ArchiveReader().read(chunk)]
        [243]
    """
    limits = limits or ArchiveLimits()
    problems: list[ReadProblem] = []
    parts: list[tuple[int, int, int, int]] = []
    with open_archive(path, root, stores) as file:
        header = read_header(file, path, limits)
        size = file_size(file)
        first_frame: Frame | None = None
        start, first, end, total = header.size, 0, header.size, 0
        for frame in Scanner(file, header, size).frames(header.size, size, 0):
            if isinstance(frame, ReadProblem):
                problems.append(frame)
                break
            first_frame = first_frame or frame
            end, total = frame.end, frame.first + frame.records
            if end - start >= limits.chunk_bytes or total - first >= limits.chunk_records:
                parts.append((start, end, first, total - first))
                start, first = end, total
        if end > start:
            parts.append((start, end, first, total - first))
        source = source_id(file, header, first_frame)
        version = object_version(file)
    if not header.size:
        message = f"{path}: the file is empty; if it is still being written, read it again later"
        problems.append(ReadProblem(path, 0, "truncated_tail", message))
    elif first_frame is None and not problems:
        problems.append(ReadProblem(path, header.size, "empty", f"{path}: the file has a header and no records"))
    chunks = (ArchiveChunk(path, root, source, header.sync, *part, total, version) for part in parts)
    return ArchivePlan(header, source, total, tuple(chunks), tuple(problems))
