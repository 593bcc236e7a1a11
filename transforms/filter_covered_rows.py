"""FilterCoveredRows: what of a block is covered is left out once the block is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import apache_beam as beam
import pyarrow as pa

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.config import LakeConfig
from k2beam.coverage import Coverage
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.files import covered_rows
from k2beam.model import EventBatch


class FilterCoveredRows(beam.PTransform):  # type: ignore[misc]
    """PCollection of EventBatch -> the same without the rows whose offsets the tables cover.

    :class:`transforms.filter_covered.FilterCovered` lets a block through whole where some of it is covered, and the
    commit leaves the rest out by writing files anew. Where much of each block is covered, this is cheaper.

    Beam counters: ``already_covered``, source offsets.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import LakeConfig
        >>> from transforms.decode_avro import DecodeAvro
        >>> from transforms.filter_covered_rows import FilterCoveredRows
        >>> from transforms.read_archive import ReadArchive
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/asx/trades.avro"])
        ...     fresh = (read.batches | DecodeAvro()).events | FilterCoveredRows(LakeConfig("lake"))
        ...     _ = fresh | beam.Map(lambda batch: batch.num_rows) | beam.Map(print)
        243
    """

    def __init__(self, lake: LakeConfig) -> None:
        super().__init__()
        self._lake = lake

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | "FilterRows" >> beam.ParDo(_FilterRowsFn(self._lake)).with_output_types(EventBatch)


class _FilterRowsFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, lake: LakeConfig) -> None:
        self._lake = lake
        self._coverage = Coverage()
        self._already_covered = beam.metrics.Metrics.counter("k2beam", "already_covered")

    def setup(self) -> None:
        self._coverage = read_coverage(open_catalog(self._lake), self._lake.namespace)

    def process(self, batch: EventBatch) -> Iterator[EventBatch]:
        kept = rows_without_covered(batch, self._coverage)
        self._already_covered.inc(batch.num_rows - kept.num_rows)
        if kept.num_rows:
            yield kept


def rows_without_covered(batch: EventBatch, coverage: Coverage) -> EventBatch:
    """The events of a batch whose offsets ``coverage`` lacks."""
    covered = covered_rows(batch.data, coverage)
    if not covered.any():
        return batch
    fresh = pa.array(~covered)
    origin = None if batch.origin is None else replace(batch.origin, rows=batch.origin.rows.filter(fresh))
    element_time = None if batch.element_time is None else batch.element_time.filter(fresh)
    return replace(batch, data=batch.data.filter(fresh), element_time=element_time, origin=origin)
