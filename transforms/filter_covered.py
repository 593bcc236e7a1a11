"""FilterCovered: what the tables have already is left out before it is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.config import LakeConfig
from k2beam.coverage import Coverage
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.tables import COVERED_TABLES
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch

Batch = RawBatch | BlockBatch | DeadLetterBatch

SOURCE_KINDS = ("kafka", "archive", "csv", "fill")
"""The kinds of sources that the readers name."""
OTHER = "other"
"""The label of every other source."""


class FilterCovered(beam.PTransform):  # type: ignore[misc]
    """PCollection of RawBatch, BlockBatch or DeadLetterBatch -> the same without covered offsets.

    The coverage is read once a worker, from ``tables`` of the namespace: where the dead letters are not among them,
    what is one is taken once more. This is the cheap path: the commit checks again, so an offset that is covered
    meanwhile is still taken once. A block of a container goes on whole unless all of its records are covered.

    Beam counters: ``consumed`` (offsets that came in) and ``already_covered`` (left out here); the
    same in Prometheus by kind of source, as ``metrics`` says. Of dead letters, which a reader has made,
    also ``dead_letters`` and ``dead_letter_offsets``: those that go on.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import LakeConfig
        >>> from transforms.filter_covered import FilterCovered
        >>> from transforms.read_archive import ReadArchive
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/crypto", "samples/asx/trades.avro"])
        ...     fresh = read.batches | FilterCovered(LakeConfig("warehouse"))
        ...     _ = fresh | beam.Map(lambda batch: (batch.path, batch.num_rows)) | beam.Map(print)
        ('samples/asx/trades.avro', 243)
    """

    def __init__(
        self, lake: LakeConfig, metrics: MetricsConfig = DEFAULT_METRICS, tables: Sequence[str] = COVERED_TABLES
    ) -> None:
        super().__init__()
        self._lake = lake
        self._metrics = metrics
        self._tables = tuple(tables)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        element_type = batches.element_type
        fn = _FilterCoveredFn(self._lake, self._metrics, self._tables)
        return batches | "Filter" >> beam.ParDo(fn).with_output_types(element_type)


class _FilterCoveredFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, lake: LakeConfig, metrics: MetricsConfig, tables: tuple[str, ...]) -> None:
        self._lake = lake
        self._tables = tables
        self._metrics_config = metrics
        self._coverage = Coverage()
        self._consumed = beam.metrics.Metrics.counter("k2beam", "consumed")
        self._already_covered = beam.metrics.Metrics.counter("k2beam", "already_covered")
        self._dead_letters = beam.metrics.Metrics.counter("k2beam", "dead_letters")
        self._dead_letter_offsets = beam.metrics.Metrics.counter("k2beam", "dead_letter_offsets")

    def setup(self) -> None:
        self._coverage = read_coverage(open_catalog(self._lake), self._lake.namespace, self._tables)
        self._metrics = self._metrics_config.open("filter_covered")

    def process(self, batch: Batch) -> Iterator[Batch]:
        kept = without_covered(batch, self._coverage)
        before = offsets_by_kind(batch)
        after = before if kept is batch else offsets_by_kind(kept)
        self._consumed.inc(before.total())
        self._already_covered.inc(before.total() - after.total())
        for kind, offsets in before.items():
            self._metrics.increment("k2_messages_consumed_total", offsets, source_kind=kind)
            self._metrics.increment("k2_already_covered_total", offsets - after[kind], source_kind=kind)
        if isinstance(kept, DeadLetterBatch):
            self._dead_letters.inc(len(kept.dead_letters))
            self._dead_letter_offsets.inc(after.total())
        if after.total():
            yield kept


def source_kind(source: str) -> str:
    """What stands before the first colon of a source, if it is one of :data:`SOURCE_KINDS`; else ``other``.

    The envelope of an archived message may name any source, and a label's values must be few.
    """
    kind = source.partition(":")[0]
    return kind if kind in SOURCE_KINDS else OTHER


def offsets_by_kind(batch: Batch) -> Counter[str]:
    """How many source offsets a batch stands for, by the kind of their source."""
    offsets: Counter[str] = Counter()
    if isinstance(batch, BlockBatch):
        offsets[source_kind(batch.source)] += batch.num_rows
    elif isinstance(batch, RawBatch):
        for source in pc.value_counts(batch.data.column("source")).to_pylist():
            offsets[source_kind(source["values"])] += source["counts"]
    else:
        for dead_letter in batch.dead_letters:
            offsets[source_kind(dead_letter.source)] += dead_letter.last - dead_letter.offset + 1
    return offsets


def without_covered(batch: Any, coverage: Coverage) -> Any:
    """The batch without the records (or whole blocks, or dead letters) that ``coverage`` has."""
    if isinstance(batch, RawBatch):
        return _raw_without(batch, coverage)
    if isinstance(batch, BlockBatch):
        bitmap = coverage[batch.source, batch.partition]
        blocks = tuple(
            block
            for block in batch.blocks
            if not (bitmap and bitmap.contains_range(block.first_offset, block.first_offset + block.count))
        )
        return batch if len(blocks) == len(batch.blocks) else replace(batch, blocks=blocks)
    dead_letters = tuple(
        dead_letter
        for dead_letter in batch.dead_letters
        if not coverage[dead_letter.source, dead_letter.partition].contains_range(
            dead_letter.offset, dead_letter.last + 1
        )
    )
    return replace(batch, dead_letters=dead_letters)


def _raw_without(batch: RawBatch, coverage: Coverage) -> RawBatch:
    if not coverage:
        return batch
    sources = batch.data.column("source").dictionary_encode()
    codes = sources.indices.to_numpy()
    partitions = batch.data.column("partition").to_numpy()
    offsets = batch.data.column("offset").to_numpy()
    covered = np.zeros(len(offsets), dtype=np.bool_)
    for code, partition in {*zip(codes.tolist(), partitions.tolist(), strict=True)}:
        where = np.flatnonzero((codes == code) & (partitions == partition))
        covered[where] = coverage.covered(sources.dictionary[code].as_py(), partition, offsets[where])
    return batch if not covered.any() else replace(batch, data=batch.data.filter(pa.array(~covered)))
