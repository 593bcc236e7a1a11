"""Avro object container files: found, checked, split, read, counted, copied.

Local files only; :mod:`k2beam.archive.files` is the one place that opens them. Nothing here decodes
an event: a plain container becomes blocks (:class:`k2beam.model.BlockBatch`), a container in the
raw_record envelope becomes the messages that it keeps (:class:`k2beam.model.RawBatch`).
"""

from k2beam.archive.copy import CopyResult, copy_as_raw, write_raw_archive
from k2beam.archive.count import ArchiveCount, archive_coverage, count_archive
from k2beam.archive.files import expand_paths, open_archive
from k2beam.archive.header import ArchiveHeader, ArchiveLimits, check_archives
from k2beam.archive.plan import ArchiveChunk, ArchivePlan, plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.scan import Frame, ReadProblem

__all__ = [
    "ArchiveChunk",
    "ArchiveCount",
    "ArchiveHeader",
    "ArchiveLimits",
    "ArchivePlan",
    "ArchiveReader",
    "CopyResult",
    "Frame",
    "ReadProblem",
    "archive_coverage",
    "check_archives",
    "copy_as_raw",
    "count_archive",
    "expand_paths",
    "open_archive",
    "plan_archive",
    "write_raw_archive",
]
