"""What the bounded sources share: files are planned into chunks, and the chunks are read in parallel."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
from apache_beam import pvalue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.archive.scan import ReadProblem
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch

_LOGGER = logging.getLogger(__name__)
_NAMESPACE = "k2beam"
_ERRS = "errs"
_PROBLEMS = "problems"
_TAILS = ("truncated_tail", "damaged_tail")


class ReadPlan(Protocol):
    """What is to be read of one file."""

    @property
    def chunks(self) -> Iterable[Any]:
        """The parts that are read apart."""

    @property
    def problems(self) -> Iterable[ReadProblem]:
        """What of the file has no offset and is not read."""


class PlannedSource(Protocol):
    """A format of files; it goes to the workers, so that it pickles. Planning twice gives the same chunks."""

    def plan(self, file: Any) -> ReadPlan:
        """The chunks of one file."""

    def read(self, chunk: Any) -> Iterator[RawBatch | BlockBatch | DeadLetterBatch]:
        """The records and dead letters of one chunk."""


def batches_of(source: PlannedSource, files: Iterable[Any]) -> Iterator[RawBatch | BlockBatch | DeadLetterBatch]:
    """What there is in the files, in their order, read here and now."""
    for file in files:
        for chunk in source.plan(file).chunks:
            yield from source.read(chunk)


class PlannedBatches(NamedTuple):
    """The outputs of :class:`ReadPlanned`.

    ``batches``: RawBatch and BlockBatch. ``errs``: DeadLetterBatch, for what could not be read. ``problems``:
    ReadProblem, for tails and empty files; they have no offsets and are logged as warnings too.
    """

    batches: beam.PCollection[RawBatch | BlockBatch]
    errs: beam.PCollection[DeadLetterBatch]
    problems: beam.PCollection[ReadProblem]


class ReadPlanned(beam.PTransform):  # type: ignore[misc]
    """Read files of one format, planned once and read in parallel, chunk by chunk.

    ``broken`` names the counter of what became a dead letter.

    Delivery: bounded; a retried bundle gives the same batches again.

    Counters (namespace k2beam): records_read (handed on), ``broken``, truncated_tails.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam.archive.plan import plan_archive
        >>> from k2beam.archive.reading import ArchiveReader
        >>> from transforms.planned import ReadPlanned
        >>> class Containers:
        ...     plan = staticmethod(plan_archive)
        ...     read = staticmethod(ArchiveReader().read)
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadPlanned(Containers(), ["samples/asx/trades.avro"], broken="broken_blocks")
        ...     _ = read.batches | beam.Map(lambda batch: batch.num_rows) | beam.Map(print)
        243
    """

    def __init__(self, source: PlannedSource, files: Sequence[Any], *, broken: str) -> None:
        super().__init__()
        self._source = source
        self._files = files
        self._broken = broken

    def expand(self, pbegin: Any) -> PlannedBatches:
        planned = (
            pbegin
            | "Files" >> beam.Create(self._files)
            | "Plan"
            >> beam.ParDo(_Plan(self._source))
            .with_output_types(Any, **{_PROBLEMS: ReadProblem})
            .with_outputs(_PROBLEMS, main="chunks")
        )
        read = (
            planned.chunks
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.ParDo(_Read(self._source, self._broken))
            .with_output_types(RawBatch | BlockBatch, **{_ERRS: DeadLetterBatch})
            .with_outputs(_ERRS, main="batches")
        )
        return PlannedBatches(read.batches, read[_ERRS], planned[_PROBLEMS])


class _Plan(beam.DoFn):  # type: ignore[misc]
    """One file to its chunks; problems are tagged, logged and counted."""

    def __init__(self, source: PlannedSource) -> None:
        self._source = source
        self._tails = beam.metrics.Metrics.counter(_NAMESPACE, "truncated_tails")

    def process(self, file: Any) -> Iterator[Any]:
        plan = self._source.plan(file)
        for problem in plan.problems:
            _LOGGER.warning("%s: %s", problem.kind, problem.message)
            if problem.kind in _TAILS:
                self._tails.inc()
            yield pvalue.TaggedOutput(_PROBLEMS, problem)
        yield from plan.chunks


class _Read(beam.DoFn):  # type: ignore[misc]
    """One chunk to its batches; dead letters are tagged."""

    def __init__(self, source: PlannedSource, broken: str) -> None:
        self._source = source
        self._records = beam.metrics.Metrics.counter(_NAMESPACE, "records_read")
        self._broken = beam.metrics.Metrics.counter(_NAMESPACE, broken)

    def process(self, chunk: Any) -> Iterator[Any]:
        for batch in self._source.read(chunk):
            if isinstance(batch, DeadLetterBatch):
                self._broken.inc(batch.num_rows)
                yield pvalue.TaggedOutput(_ERRS, batch)
            else:
                self._records.inc(batch.num_rows)
                yield batch
