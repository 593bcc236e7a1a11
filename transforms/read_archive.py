"""Reading Avro containers: planned by their framing, read in parallel, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from k2beam.archive.header import ArchiveHeader, ArchiveLimits, check_archives
from k2beam.archive.plan import ArchiveChunk, ArchivePlan, plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.stores import Stores
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch
from transforms.planned import PlannedBatches, ReadPlanned, batches_of


class ReadArchive(beam.PTransform):  # type: ignore[misc]
    """Read Avro containers: files, globs (with ``**``) and folders (``*.avro`` below), of this machine or as URIs.

    Plain containers become BlockBatches, containers in the raw_record envelope RawBatches with the original source,
    partition and offset. A batch has up to ``rows_per_batch`` records and about ``bytes_per_batch`` decompressed bytes.

    All headers are checked when the pipeline is built: UsageError when a path, glob or folder has no file,
    ArchiveRefused naming the file when one is outside ``root``, no Avro container or not supported. Then nothing is
    read.

    Delivery: a bounded source. Each number of a file's framing is in exactly one batch, as a record or as a
    dead letter, and a retried bundle gives the same batches again; exactly once is then made by the coverage at the
    commit. A truncated tail is reported and has no offsets. An archive may grow while it is read; what was there
    when it was planned is read. An object that ``stores`` opens is the one that was planned, by its size and ETag.

    Counters (namespace k2beam): records_read (handed on), broken_blocks (dead letters), truncated_tails.

    Examples:
        >>> import apache_beam as beam
        >>> from transforms.read_archive import ReadArchive
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/crypto/trades-*.avro"])
        ...     _ = read.batches | beam.Map(lambda batch: batch.num_rows) | beam.Map(print)
        3000
    """

    def __init__(
        self,
        paths: Sequence[str],
        root: str | None = None,
        limits: ArchiveLimits | None = None,
        rows_per_batch: int = 50_000,
        bytes_per_batch: int = 16 << 20,
        stores: Stores | None = None,
    ) -> None:
        super().__init__()
        self._paths = tuple(paths)
        self._root = root
        self._source = _Archives(
            root, ArchiveReader(limits or ArchiveLimits(), rows_per_batch, bytes_per_batch, stores)
        )

    def expand(self, pbegin: Any) -> PlannedBatches:
        read: PlannedBatches = pbegin | ReadPlanned(self._source, self._files(), broken="broken_blocks")
        return read

    def local_batches(self) -> Iterator[RawBatch | BlockBatch | DeadLetterBatch]:
        """What there is to be read, without a pipeline. Raises what is raised when one is built."""
        return batches_of(self._source, self._files())

    def writer_schemas(self) -> Iterator[str]:
        """The writers' schemas in the headers. Raises what is raised when a pipeline is built."""
        for header in self._headers():
            yield from (text for _, text in header.schemas) if header.raw else (header.schema_json,)

    def _files(self) -> list[str]:
        return [header.path for header in self._headers()]

    def _headers(self) -> list[ArchiveHeader]:
        return check_archives(self._paths, self._root, self._source.reader.limits, self._source.reader.stores)


@dataclass(frozen=True, slots=True)
class _Archives:
    """Avro containers, for :class:`transforms.planned.ReadPlanned`."""

    root: str | None
    reader: ArchiveReader

    def plan(self, path: str) -> ArchivePlan:
        return plan_archive(path, self.root, self.reader.limits, self.reader.stores)

    def read(self, chunk: ArchiveChunk) -> Iterator[RawBatch | BlockBatch | DeadLetterBatch]:
        return self.reader.read(chunk)
