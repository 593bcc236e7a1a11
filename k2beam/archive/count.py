"""Counting what there is to expect of a container, for the audit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from k2beam.archive.envelope import EnvelopeColumns, decode_envelopes
from k2beam.archive.files import file_size, open_archive
from k2beam.archive.header import ArchiveHeader, ArchiveLimits, read_header
from k2beam.archive.plan import ArchivePlan, plan_archive
from k2beam.archive.reading import block_content, block_limit
from k2beam.archive.scan import ReadProblem, Scanner
from k2beam.archive.stores import Stores
from k2beam.coverage import Coverage
from k2beam.errors import BrokenBlock


@dataclass(frozen=True, slots=True)
class ArchiveCount:
    """What one container holds, however often and whenever it is read.

    ``records`` are its numbers: the records of all blocks, and one for each damaged stretch. ``coverage`` is what a
    complete read of it takes: for a plain container the offsets 0 to ``records - 1`` of ``source``, for a raw_record
    container the offsets that its messages came with, and numbers of ``source`` for its broken blocks only.

    Examples:
        >>> from k2beam.archive.count import count_archive
        >>> counted = count_archive("samples/asx/trades.avro")
        >>> counted.raw, counted.records, counted.source.partition(":")[0]
        (False, 243, 'archive')
    """

    path: str
    raw: bool
    source: str
    partition: int
    records: int
    coverage: Coverage
    problems: tuple[ReadProblem, ...]


def count_archive(
    path: str, limits: ArchiveLimits | None = None, root: str | None = None, stores: Stores | None = None
) -> ArchiveCount:
    """Count a container: a plain one by its framing alone, a raw_record one by its messages.

    Raises UsageError and ArchiveRefused like :func:`k2beam.archive.header.check_archives`.

    Examples:
        >>> from k2beam.archive.count import count_archive
        >>> counted = count_archive("samples/crypto/trades-00001.avro")
        >>> counted.raw, counted.records, len(counted.coverage)
        (True, 3000, 3000)
    """
    limits = limits or ArchiveLimits()
    plan = plan_archive(path, root, limits, stores)
    if plan.header.raw:
        coverage = _raw_coverage(plan, limits, root, stores)
    else:
        coverage = Coverage()
        if plan.records:
            coverage.add_range(plan.source, 0, 0, plan.records - 1)
    return ArchiveCount(path, plan.header.raw, plan.source, 0, plan.records, coverage, plan.problems)


def _raw_coverage(plan: ArchivePlan, limits: ArchiveLimits, root: str | None, stores: Stores | None) -> Coverage:
    coverage = Coverage()
    with open_archive(plan.header.path, root, stores) as file:
        header: ArchiveHeader = read_header(file, plan.header.path, limits)
        stop = plan.chunks[-1].end if plan.chunks else header.size
        scanner = Scanner(file, header, file_size(file))
        for frame in scanner.frames(header.size, stop, 0, keep=block_limit(header, limits)):
            if isinstance(frame, ReadProblem) or not frame.records:
                continue
            try:
                _add(coverage, decode_envelopes(block_content(header, frame, limits), frame.records))
            except BrokenBlock:
                # what the reader makes a dead letter of is expected as one
                coverage.add_range(plan.source, 0, frame.first, frame.first + frame.records - 1)
    return coverage


def _add(coverage: Coverage, columns: EnvelopeColumns) -> None:
    start = 0
    for (source, partition), run in groupby(zip(columns.source, columns.partition, strict=True)):
        stop = start + sum(1 for _ in run)
        coverage.add_many(source, partition, np.array(columns.offset[start:stop], dtype=np.int64))
        start = stop
