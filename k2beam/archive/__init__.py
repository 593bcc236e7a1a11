"""Avro object container files: found, checked, split, read, counted, written.

Local files only; :mod:`k2beam.archive.files` is the one place that opens them. Nothing here decodes
an event: a plain container becomes blocks (:class:`k2beam.model.BlockBatch`), a container in the
raw_record envelope becomes the messages that it keeps (:class:`k2beam.model.RawBatch`).
"""

from k2beam.archive.count import ArchiveCount, count_archive
from k2beam.archive.files import expand_paths, open_archive
from k2beam.archive.header import ArchiveHeader, ArchiveLimits, check_archives
from k2beam.archive.plan import ArchiveChunk, ArchivePlan, plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.scan import Frame, ReadProblem
from k2beam.archive.write import write_raw_archive

__all__ = [
    "ArchiveChunk",
    "ArchiveCount",
    "ArchiveHeader",
    "ArchiveLimits",
    "ArchivePlan",
    "ArchiveReader",
    "Frame",
    "ReadProblem",
    "check_archives",
    "count_archive",
    "expand_paths",
    "open_archive",
    "plan_archive",
    "write_raw_archive",
]
