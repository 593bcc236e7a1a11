"""Reading CSV files: planned by a count of their line ends, read in parallel, chunk by chunk."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from k2beam.coverage import Coverage
from k2beam.csv.beginning import Beginning, taken_as
from k2beam.csv.files import CsvChunk, CsvFile, CsvPlan, FileVariables, check_files, plan_csv
from k2beam.csv.mapping import CsvMapping
from k2beam.csv.reader import CsvReader
from k2beam.errors import UsageError
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch
from transforms.planned import PlannedBatches, ReadPlanned, batches_of

_LOGGER = logging.getLogger(__name__)


class ReadCsv(beam.PTransform):  # type: ignore[misc]
    """Read CSV files from the local filesystem under a mapping (:mod:`k2beam.csv.mapping`).

    Lines become v2 Avro records in BlockBatches, as if the file were a plain Avro container, so that everything after
    is the same. ``loaded_at`` (microseconds UTC) is the time of the load for events that have no other. A
    file larger than memory works: it is read in pieces of about ``piece_bytes``. ``corrected``: they take the place of
    files that were taken before, where run_ingest runs it.

    All files are looked at when the pipeline is built: UsageError, naming the file, where one is not there, is no text,
    lacks a column or variable, or can't be told from another (:func:`k2beam.csv.files.check_files`).

    Delivery: a bounded source. Each line after the header has one offset and is in exactly one batch, as a record or as
    a dead letter; a retried bundle gives the same batches again; exactly once is then made by the coverage at the
    commit. A last line without a line end has no offset and is reported, unless the files are ``complete``.

    Counters (namespace k2beam): records_read (handed on), broken_lines (dead letters), truncated_tails.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam.csv.files import FileVariables
        >>> from k2beam.csv.mapping import load_mapping
        >>> from transforms.read_csv import ReadCsv
        >>> trades, mapping = ["samples/asx/csv/asx_trades_7181.csv"], load_mapping("asx-trades")
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadCsv(trades, mapping, loaded_at=0, variables=FileVariables((("symbol", "DVN"),)))
        ...     _ = read.batches | beam.Map(lambda batch: batch.num_rows) | beam.Map(print)
        232
    """

    def __init__(
        self,
        paths: Sequence[str],
        mapping: CsvMapping,
        *,
        loaded_at: int,
        variables: FileVariables | None = None,
        complete: bool = False,
        corrected: bool = False,
        evolve: bool = False,
        chunk_bytes: int = 8 << 20,
        piece_bytes: int = 2 << 20,
    ) -> None:
        super().__init__()
        if chunk_bytes < 1:
            raise UsageError(f"chunk_bytes must be at least 1, not {chunk_bytes}")
        self._paths = tuple(paths)
        self._source = _CsvFiles(CsvReader(mapping, piece_bytes, evolve), chunk_bytes, complete)
        self._variables = variables or FileVariables()
        self._corrected = corrected
        self._beginnings: dict[str, Beginning] = {}
        self._loaded_at = loaded_at

    def expand(self, pbegin: Any) -> PlannedBatches:
        files = self._files()
        for columns in dict.fromkeys(file.context.columns for file in files):
            added = self._source.reader.added(columns)
            unnamed = [name for name in self._source.reader.mapping.unnamed(columns) if name not in added]
            if unnamed:
                _LOGGER.info("columns %s: no field of the mapping is made of them; vendor_data has them", unnamed)
        read: PlannedBatches = pbegin | ReadPlanned(self._source, files, broken="broken_lines")
        return read

    def local_batches(self) -> Iterator[RawBatch | BlockBatch | DeadLetterBatch]:
        """What there is to be read, without a pipeline. Raises what is raised when one is built."""
        return batches_of(self._source, self._files())

    def writer_schemas(self) -> Iterator[str]:
        """The schemas of the rows, by the columns of the files. Raises what is raised when a pipeline is built."""
        columns = dict.fromkeys(file.context.columns for file in self._told())
        return (json.dumps(self._source.reader.schema(names)) for names in columns)

    def verified(self, known: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
        """The beginnings of the files, by source, and the sources whose rows they take the place of.

        Raises UsageError for a file that isn't the one that is ``known``, unless it is to replace it.
        """
        before = {source: Beginning.from_json(text) for source, text in known.items()}
        self._beginnings = {
            file.source: taken_as(file, before, complete=self._source.complete, correct=self._corrected)
            for file in self._told()
            if file.source
        }
        found = {source: beginning.to_json() for source, beginning in self._beginnings.items()}
        return found, {one for beginning in self._beginnings.values() for one in beginning.replaced}

    def left_out(self) -> Coverage:
        """The offsets of lines that the mapping does not take: they are no loss, and no rows."""
        reader, found = self._source.reader, Coverage()
        if reader.mapping.only or reader.mapping.without:
            for file in self._files():
                for chunk in self._source.plan(file).chunks:
                    for offsets in reader.left_out(chunk):
                        found.add_many(file.source, 0, offsets)
        return found

    def _files(self) -> list[CsvFile]:
        """The files with the sources of their rows."""
        return [
            replace(file, source=self._beginnings[file.source].source(file.source))
            if file.source in self._beginnings
            else file
            for file in self._told()
        ]

    def _told(self) -> list[CsvFile]:
        mapping = self._source.reader.mapping
        return check_files(self._paths, mapping, self._variables, self._loaded_at, complete=self._source.complete)


@dataclass(frozen=True, slots=True)
class _CsvFiles:
    """CSV files, for :class:`transforms.planned.ReadPlanned`."""

    reader: CsvReader
    chunk_bytes: int
    complete: bool

    def plan(self, file: CsvFile) -> CsvPlan:
        return plan_csv(file, self.chunk_bytes, complete=self.complete)

    def read(self, chunk: CsvChunk) -> Iterator[BlockBatch | DeadLetterBatch]:
        return self.reader.read(chunk)
