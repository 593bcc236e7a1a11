"""Reading CSV files: planned by a count of their line ends, read in parallel, chunk by chunk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.archive import ReadProblem
from k2beam.errors import UsageError
from k2beam.ingest.csv.files import CsvChunk, CsvFile, FileVariables, check_files, plan_csv
from k2beam.ingest.csv.mapping import CsvMapping
from k2beam.ingest.csv.reader import CsvReader
from k2beam.model import BlockBatch, DeadLetterBatch

_LOGGER = logging.getLogger(__name__)
_NAMESPACE = "k2beam"
_ERRS = "errs"
_PROBLEMS = "problems"


class ReadCsvResult(NamedTuple):
    """The outputs of :class:`ReadCsv`.

    ``batches``: BlockBatch, v2 Avro records. ``errs``: DeadLetterBatch, for lines that gave none. ``problems``:
    ReadProblem, for last lines without a line end and files without lines; they have no offsets and are logged.
    """

    batches: beam.PCollection[BlockBatch]
    errs: beam.PCollection[DeadLetterBatch]
    problems: beam.PCollection[ReadProblem]


class ReadCsv(beam.PTransform):  # type: ignore[misc]
    """Read CSV files from the local filesystem under a mapping (:mod:`k2beam.ingest.csv.mapping`).

    Lines become v2 Avro records in BlockBatches, as if the file were a plain Avro container, so that everything after
    is the same. ``loaded_at`` (microseconds UTC) is the time of the load for events that have no other. A
    file larger than memory works: it is read in pieces of about ``piece_bytes``.

    All files are looked at when the pipeline is built: UsageError, naming the file, where one is not there, is no text,
    lacks a column or variable, or can't be told from another (:func:`k2beam.ingest.csv.files.check_files`).

    Delivery: a bounded source. Each line after the header has one offset and is in exactly one batch, as a record or as
    a dead letter; a retried bundle gives the same batches again; exactly once is then made by the coverage at the
    commit. A last line without a line end has no offset and is reported, unless the files are ``complete``.

    Counters (namespace k2beam): records_read (handed on), broken_lines (dead letters), truncated_tails.
    """

    def __init__(
        self,
        paths: Sequence[str],
        mapping: CsvMapping,
        *,
        loaded_at: int,
        variables: FileVariables | None = None,
        complete: bool = False,
        chunk_bytes: int = 8 << 20,
        piece_bytes: int = 2 << 20,
    ) -> None:
        super().__init__()
        if chunk_bytes < 1:
            raise UsageError(f"chunk_bytes must be at least 1, not {chunk_bytes}")
        self._paths = tuple(paths)
        self._reader = CsvReader(mapping, piece_bytes)
        self._variables = variables or FileVariables()
        self._loaded_at = loaded_at
        self._complete = complete
        self._chunk_bytes = chunk_bytes

    def expand(self, pbegin: Any) -> ReadCsvResult:
        mapping = self._reader.mapping
        files = check_files(self._paths, mapping, self._variables, self._loaded_at, complete=self._complete)
        planned = (
            pbegin
            | "Files" >> beam.Create(files)
            | "Plan"
            >> beam.ParDo(_Plan(self._chunk_bytes, self._complete))
            .with_output_types(CsvChunk, **{_PROBLEMS: ReadProblem})
            .with_outputs(_PROBLEMS, main="chunks")
        )
        read = (
            planned.chunks
            | "Spread" >> beam.Reshuffle()
            | "Read"
            >> beam.ParDo(_Read(self._reader))
            .with_output_types(BlockBatch, **{_ERRS: DeadLetterBatch})
            .with_outputs(_ERRS, main="batches")
        )
        return ReadCsvResult(read.batches, read[_ERRS], planned[_PROBLEMS])


class _Plan(beam.DoFn):  # type: ignore[misc]
    """One file to its chunks; problems are tagged, logged and counted."""

    def __init__(self, chunk_bytes: int, complete: bool) -> None:
        self._chunk_bytes = chunk_bytes
        self._complete = complete
        self._tails = beam.metrics.Metrics.counter(_NAMESPACE, "truncated_tails")

    def process(self, file: CsvFile) -> Iterator[Any]:
        plan = plan_csv(file, self._chunk_bytes, complete=self._complete)
        for problem in plan.problems:
            _LOGGER.warning("%s: %s", problem.kind, problem.message)
            if problem.kind == "truncated_tail":
                self._tails.inc()
            yield pvalue.TaggedOutput(_PROBLEMS, problem)
        yield from plan.chunks


class _Read(beam.DoFn):  # type: ignore[misc]
    """One chunk to its batches; dead letters are tagged."""

    def __init__(self, reader: CsvReader) -> None:
        self._reader = reader
        self._records = beam.metrics.Metrics.counter(_NAMESPACE, "records_read")
        self._broken = beam.metrics.Metrics.counter(_NAMESPACE, "broken_lines")

    def process(self, chunk: CsvChunk) -> Iterator[Any]:
        for batch in self._reader.read(chunk):
            if isinstance(batch, DeadLetterBatch):
                self._broken.inc(batch.num_rows)
                yield pvalue.TaggedOutput(_ERRS, batch)
            else:
                self._records.inc(batch.num_rows)
                yield batch
