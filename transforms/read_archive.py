"""Reading Avro containers: planned by their framing, read in parallel, chunk by chunk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from k2beam.archive import ArchiveChunk, ArchiveLimits, ArchiveReader, ReadProblem, check_archives, plan_archive
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch

_LOGGER = logging.getLogger(__name__)
_NAMESPACE = "k2beam"
_ERRS = "errs"
_PROBLEMS = "problems"
_TAILS = ("truncated_tail", "damaged_tail")


class ReadArchiveResult(NamedTuple):
    """The outputs of :class:`ReadArchive`.

    ``batches``: RawBatch and BlockBatch. ``errs``: DeadLetterBatch, for broken blocks and damaged stretches.
    ``problems``: ReadProblem, for tails and empty files; they have no offsets and are logged as warnings too.
    """

    batches: beam.PCollection[RawBatch | BlockBatch]
    errs: beam.PCollection[DeadLetterBatch]
    problems: beam.PCollection[ReadProblem]


class ReadArchive(beam.PTransform):  # type: ignore[misc]
    """Read Avro containers from the local filesystem: files, globs (with ``**``) and folders (``*.avro`` below).

    Plain containers become BlockBatches, containers in the raw_record envelope RawBatches with the original source,
    partition and offset. A batch has up to ``rows_per_batch`` records and about ``bytes_per_batch`` decompressed bytes.

    All headers are checked when the pipeline is built: UsageError when a path, glob or folder has no file,
    ArchiveRefused naming the file when one is outside ``root``, no Avro container or not supported. Then nothing is
    read.

    Delivery: a bounded source. Each number of a file's framing is in exactly one batch, as a record or as a dead
    letter, and a retried bundle gives the same batches again; exactly once is then made by the coverage at the
    commit. A truncated tail is reported and has no offsets. An archive may grow while it is read; what was there
    when it was planned is read.

    Counters (namespace k2beam): records_read (handed on), broken_blocks (dead letters), truncated_tails.
    """

    def __init__(
        self,
        paths: Sequence[str],
        root: str | None = None,
        limits: ArchiveLimits | None = None,
        rows_per_batch: int = 50_000,
        bytes_per_batch: int = 16 << 20,
    ) -> None:
        super().__init__()
        self._paths = tuple(paths)
        self._root = root
        self._reader = ArchiveReader(limits or ArchiveLimits(), rows_per_batch, bytes_per_batch)

    def expand(self, pbegin: Any) -> ReadArchiveResult:
        headers = check_archives(self._paths, self._root, self._reader.limits)
        planned = (
            pbegin
            | "Paths" >> beam.Create([header.path for header in headers])
            | "Plan"
            >> beam.ParDo(_Plan(self._root, self._reader.limits))
            .with_output_types(ArchiveChunk, **{_PROBLEMS: ReadProblem})
            .with_outputs(_PROBLEMS, main="chunks")
        )
        read = (
            planned.chunks
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.ParDo(_Read(self._reader))
            .with_output_types(RawBatch | BlockBatch, **{_ERRS: DeadLetterBatch})
            .with_outputs(_ERRS, main="batches")
        )
        return ReadArchiveResult(read.batches, read[_ERRS], planned[_PROBLEMS])


class _Plan(beam.DoFn):  # type: ignore[misc]
    """One path to its chunks; problems are tagged, logged and counted."""

    def __init__(self, root: str | None, limits: ArchiveLimits) -> None:
        self._root = root
        self._limits = limits
        self._tails = beam.metrics.Metrics.counter(_NAMESPACE, "truncated_tails")

    def process(self, path: str) -> Iterator[Any]:
        plan = plan_archive(path, self._root, self._limits)
        for problem in plan.problems:
            _LOGGER.warning("%s: %s", problem.kind, problem.message)
            if problem.kind in _TAILS:
                self._tails.inc()
            yield pvalue.TaggedOutput(_PROBLEMS, problem)
        yield from plan.chunks


class _Read(beam.DoFn):  # type: ignore[misc]
    """One chunk to its batches; dead letters are tagged."""

    def __init__(self, reader: ArchiveReader) -> None:
        self._reader = reader
        self._records = beam.metrics.Metrics.counter(_NAMESPACE, "records_read")
        self._broken = beam.metrics.Metrics.counter(_NAMESPACE, "broken_blocks")

    def process(self, chunk: ArchiveChunk) -> Iterator[Any]:
        for batch in self._reader.read(chunk):
            if isinstance(batch, DeadLetterBatch):
                self._broken.inc(batch.num_rows)
                yield pvalue.TaggedOutput(_ERRS, batch)
            else:
                self._records.inc(batch.num_rows)
                yield batch
