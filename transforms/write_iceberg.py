"""WriteIceberg: rows become data files, and data files become commits, exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder, TupleCoder, VarIntCoder
from apache_beam.metrics import Metrics as BeamMetrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.clock import now_us
from k2beam.config import LakeConfig, WriteConfig
from k2beam.lake.buffer import Group, GroupKey, RowBuffer
from k2beam.lake.catalog import Catalog, open_catalog
from k2beam.lake.evolve import with_columns
from k2beam.lake.files import StagedFile, write_rows
from k2beam.lake.observe import failures_counted
from k2beam.lake.publish import Publisher, Staged, weight
from k2beam.lake.rows import RowBatch, event_rows
from k2beam.lake.tables import SEQUENCE_GAPS, Table, open_table
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import CommitReceipt, EventBatch


class WriteIceberg(beam.PTransform):  # type: ignore[misc]
    """A sequence of PCollections of EventBatch or RowBatch, and one of gap changes -> CommitReceipt.

    Rows are written to Parquet in the bundle in which they come (a file never outlives its
    bundle, and never holds rows of two windows or partitions); only descriptors of files are
    shuffled, keyed by table, and coalesced into commits. The tables are made on first use.

    Guarantee: exactly once for each (source, partition, offset), on any runner, through the
    coverage that each commit carries; a repeated or zombie commit adds nothing. Raises
    CommitConflict or CommitUnknown when a commit's retries are used up: the runner retries the
    bundle or fails the job, and nothing is lost.

    Beam counters: ``rows_written_<table>``, ``data_files_<table>``, ``left_out_<table>`` (offsets) and
    ``commits_<table>``; the distribution ``commit_ms`` has the milliseconds that commits took. By ``metrics`` the same
    in Prometheus, with the time that files take.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import LakeConfig, WriteConfig
        >>> from transforms.decode_avro import DecodeAvro
        >>> from transforms.read_archive import ReadArchive
        >>> from transforms.write_iceberg import WriteIceberg
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/asx/trades.avro"])
        ...     receipts = (read.batches | DecodeAvro()).events | WriteIceberg(LakeConfig("lake"), WriteConfig())
        ...     _ = receipts | beam.Map(lambda receipt: (receipt.table, receipt.rows)) | beam.Map(print)
        ('trades_v2', 243)
    """

    def __init__(self, lake: LakeConfig, config: WriteConfig, metrics: MetricsConfig = DEFAULT_METRICS) -> None:
        super().__init__()
        self._lake = lake
        self._config = config
        self._metrics = metrics

    def expand(self, inputs: Sequence[beam.PCollection] | beam.PCollection) -> beam.PCollection:
        rows, gaps = _rows_and_gaps(inputs)
        write_files = [
            batches
            | f"WriteFiles{index}"
            >> beam.ParDo(_WriteFilesFn(self._lake, self._config, self._metrics)).with_output_types(tuple[str, Any])
            for index, batches in enumerate(rows)
        ]
        if gaps is not None:
            write_files.append(gaps | "StageGaps" >> beam.Map(_by_ledger).with_output_types(tuple[str, Any]))
        commit = _CommitFn if self._config.bounded else _CommitByAgeFn
        return (
            write_files
            | "Staged" >> beam.Flatten()
            | "ByTable" >> beam.Reshuffle()
            | "Commit" >> beam.ParDo(commit(self._lake, self._config, self._metrics)).with_output_types(CommitReceipt)
        )

    def _extract_input_pvalues(self, inputs: Any) -> Any:
        rows, gaps = _rows_and_gaps(inputs)
        return inputs, (*rows, gaps) if gaps is not None else tuple(rows)


def _rows_and_gaps(inputs: Any) -> tuple[Sequence[beam.PCollection], beam.PCollection | None]:
    """The inputs apart; a PCollection alone is one of rows."""
    return inputs if isinstance(inputs, tuple) else ((inputs,), None)


def _by_ledger(gaps: Any) -> tuple[str, Any]:
    return SEQUENCE_GAPS, gaps


class _WriteFilesFn(beam.DoFn):  # type: ignore[misc]
    """Buffers the rows of a bundle and writes them; yields (table, StagedFile)."""

    def __init__(self, lake: LakeConfig, config: WriteConfig, metrics: MetricsConfig) -> None:
        self._lake = lake
        self._config = config
        self._metrics_config = metrics

    def setup(self) -> None:
        self._catalog: Catalog = open_catalog(self._lake)
        self._tables: dict[str, Table] = {}
        self._metrics = self._metrics_config.open("write_files")

    def start_bundle(self) -> None:
        config = self._config
        self._buffer = RowBuffer(config.window_us, config.target_file_bytes, config.memory_bytes)
        self._latest = MIN_TIMESTAMP
        self._begun_at = now_us()

    def process(
        self, batch: EventBatch | RowBatch, timestamp: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterator[tuple[str, StagedFile]]:
        self._latest = max(self._latest, timestamp)
        rows = event_rows(batch) if isinstance(batch, EventBatch) else batch
        for key, group in self._buffer.add(rows):
            yield from self._write(key, group)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for key, group in self._buffer.drain():
            for element in self._write(key, group):
                yield WindowedValue(element, self._latest, (GlobalWindow(),))

    def _write(self, key: GroupKey, group: Group) -> list[tuple[str, StagedFile]]:
        with failures_counted(self._metrics, key.table, "write"):
            if key.table not in self._tables:
                self._tables[key.table] = open_table(self._catalog, self._lake.namespace, key.table)
            started, rows = time.monotonic(), group.rows()
            table = self._tables[key.table] = with_columns(self._catalog, self._tables[key.table], rows.schema)
            staged = write_rows(table, rows, key.window, group.extents.values())
        self._metrics.histogram("k2_write_duration_seconds", time.monotonic() - started, table=key.table)
        return [
            (key.table, replace(file, oldest=group.oldest, newest=group.newest, begun_at=self._begun_at))
            for file in staged
        ]


class _Commits(beam.DoFn):  # type: ignore[misc]
    """Keyed by table: coalesces what is staged and commits it by rows and bytes."""

    STAGED = BagStateSpec("staged", PickleCoder())
    WEIGHT = ReadModifyWriteStateSpec("weight", TupleCoder((VarIntCoder(), VarIntCoder())))

    def __init__(self, lake: LakeConfig, config: WriteConfig, metrics: MetricsConfig) -> None:
        self._lake = lake
        self._config = config
        self._metrics_config = metrics

    def setup(self) -> None:
        self._publisher = Publisher(self._lake, self._config, self._metrics_config)

    def _take(self, element: tuple[str, Staged], staged: Any, total: Any, end: Any) -> Iterator[CommitReceipt]:
        table, item = element
        rows, nbytes = map(sum, zip(total.read() or (0, 0), weight(item), strict=True))
        staged.add(item)
        total.write((rows, nbytes))
        end.set(GlobalWindow().max_timestamp())
        if rows >= self._config.commit_rows or nbytes >= self._config.commit_bytes:
            yield from self._commit(table, staged, total)

    def _commit(self, table: str, staged: Any, total: Any) -> Iterator[CommitReceipt]:
        items = list(staged.read())
        if items:
            receipt = self._publisher.publish(table, items)
            _count(receipt)
            yield receipt
        # Cleared after the commit: a crash in between repeats the commit, which then adds nothing.
        staged.clear()
        total.clear()


class _CommitFn(_Commits):
    """Commits at the end too."""

    END = TimerSpec("end", TimeDomain.WATERMARK)

    def process(
        self,
        element: tuple[str, Staged],
        staged: Any = beam.DoFn.StateParam(_Commits.STAGED),
        total: Any = beam.DoFn.StateParam(_Commits.WEIGHT),
        end: Any = beam.DoFn.TimerParam(END),
    ) -> Iterator[CommitReceipt]:
        yield from self._take(element, staged, total, end)

    @on_timer(END)
    def at_end(
        self,
        table: str = beam.DoFn.KeyParam,
        staged: Any = beam.DoFn.StateParam(_Commits.STAGED),
        total: Any = beam.DoFn.StateParam(_Commits.WEIGHT),
    ) -> Iterator[CommitReceipt]:
        yield from self._commit(table, staged, total)


class _CommitByAgeFn(_Commits):
    """For unbounded input: commits are also due by age, and at the end of a job that comes to one.

    A timer belongs to one class, so that what is alike in the two is above them.
    """

    END = TimerSpec("end", TimeDomain.WATERMARK)
    AGE = TimerSpec("age", TimeDomain.REAL_TIME)

    def process(
        self,
        element: tuple[str, Staged],
        staged: Any = beam.DoFn.StateParam(_Commits.STAGED),
        total: Any = beam.DoFn.StateParam(_Commits.WEIGHT),
        end: Any = beam.DoFn.TimerParam(END),
        age: Any = beam.DoFn.TimerParam(AGE),
    ) -> Iterator[CommitReceipt]:
        if total.read() is None:
            _, item = element
            now = Timestamp.now()
            # What waited in its bundle is as old already; the clock of who wrote it may be ahead.
            began = min(now, Timestamp(micros=item.begun_at)) if isinstance(item, StagedFile) else now
            age.set(began + self._config.commit_age)
        yield from self._take(element, staged, total, end)

    @on_timer(END)
    def at_end(
        self,
        table: str = beam.DoFn.KeyParam,
        staged: Any = beam.DoFn.StateParam(_Commits.STAGED),
        total: Any = beam.DoFn.StateParam(_Commits.WEIGHT),
        age: Any = beam.DoFn.TimerParam(AGE),
    ) -> Iterator[CommitReceipt]:
        age.clear()  # a runner would wait for it, with nothing to do
        yield from self._commit(table, staged, total)

    @on_timer(AGE)
    def at_age(
        self,
        table: str = beam.DoFn.KeyParam,
        staged: Any = beam.DoFn.StateParam(_Commits.STAGED),
        total: Any = beam.DoFn.StateParam(_Commits.WEIGHT),
    ) -> Iterator[CommitReceipt]:
        yield from self._commit(table, staged, total)


def _count(receipt: CommitReceipt) -> None:
    BeamMetrics.counter("k2beam", f"rows_written_{receipt.table}").inc(receipt.rows)
    BeamMetrics.counter("k2beam", f"data_files_{receipt.table}").inc(receipt.files)
    BeamMetrics.counter("k2beam", f"commits_{receipt.table}").inc(1 if receipt.rows else 0)
    BeamMetrics.counter("k2beam", f"left_out_{receipt.table}").inc(receipt.offsets_left_out)
    BeamMetrics.distribution("k2beam", "commit_ms").update(receipt.duration_us // 1000)
