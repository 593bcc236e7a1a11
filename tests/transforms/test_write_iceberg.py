"""WriteIceberg on both local runners: windows, coalescing, exactly once."""

from __future__ import annotations

import time
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to

from k2beam.config import NAMESPACE, WriteConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.ledger import read_ledger
from k2beam.lake.rows import RowBatch
from k2beam.lake.tables import SEQUENCE_GAPS, find_table, open_table
from k2beam.model import EventBatch, Gap
from k2beam.sequence import GapBatch
from tests.lake_helpers import START, lake_config, offsets_in, trade_batch, trades, write_config
from transforms.write_iceberg import WriteIceberg

WINDOW = 2
WINDOW_US = WINDOW * 1_000_000


def run(folder: Path, batches: list[EventBatch], config: WriteConfig) -> None:
    with TestPipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create(batches, reshuffle=False).with_output_types(EventBatch)
        receipts = rows | WriteIceberg(lake_config(folder), config)
        assert_that(receipts | beam.Map(lambda receipt: receipt.table) | beam.Distinct(), equal_to(["trades_v2"]))


def snapshots(folder: Path) -> int:
    table = find_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2")
    return len(table.snapshots()) if table else 0


def windows_of_files(folder: Path) -> list[set[int]]:
    """The windows of the rows of each live data file, by their event times."""
    table = open_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2")
    result = []
    for task in table.scan().plan_files():
        micros = pq.read_table(task.file.file_path).column("timestamp").cast(pa.int64()).to_pylist()
        result.append({value - value % WINDOW_US for value in micros})
    return result


def test_a_bounded_run_is_one_commit_a_table(tmp_path: Path) -> None:
    run(tmp_path, [trade_batch(range(first, first + 10)) for first in range(0, 100, 10)], write_config())
    assert offsets_in(tmp_path) == list(range(100))
    assert snapshots(tmp_path) == 1


def test_rows_bound_a_commit(tmp_path: Path) -> None:
    batches = [trade_batch(range(first, first + 10)) for first in range(0, 100, 10)]
    run(tmp_path, batches, write_config(commit_rows=25, target_file_bytes=1))
    assert offsets_in(tmp_path) == list(range(100))
    assert snapshots(tmp_path) == 4


@pytest.mark.parametrize(("files", "commits"), [(3, 4), (5, 2), (100, 1)])
def test_bytes_bound_a_commit(tmp_path: Path, files: int, commits: int) -> None:
    """Ten files of about the same size, and a bound that so many of them reach."""
    batches = [trade_batch(range(first, first + 10)) for first in range(0, 100, 10)]
    run(tmp_path / "sizes", batches, write_config(target_file_bytes=1))
    sizes = [path.stat().st_size for path in (tmp_path / "sizes").rglob("*.parquet")]
    assert len(sizes) == 10
    assert max(sizes) - min(sizes) < min(sizes) / 20
    bound = round((files - 0.5) * sum(sizes) / len(sizes))
    run(tmp_path / "wh", batches, write_config(target_file_bytes=1, commit_bytes=bound))
    assert offsets_in(tmp_path / "wh") == list(range(100))
    assert snapshots(tmp_path / "wh") == commits


@pytest.mark.parametrize(("age", "waited", "commits"), [(600, 0, 2), (86_400, 0, 1), (600, 700, 3), (86_400, 700, 1)])
def test_age_bounds_a_commit_of_unbounded_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, waited: int, commits: int
) -> None:
    """An hour passes after two batches, so that they share a commit; a third one comes later.

    What waited in its bundle for longer than the age is committed at once.
    """
    monkeypatch.setattr("transforms.write_iceberg.now_us", lambda: int((time.time() - waited) * 1e6))
    stream = (
        TestStream()
        .advance_watermark_to(START // 1_000_000)
        .advance_processing_time(int(time.time()))
        .add_elements([trade_batch(range(5))])
        .add_elements([trade_batch(range(5, 10))])
        .advance_processing_time(3600)
        .add_elements([trade_batch(range(10, 30))])
        .advance_watermark_to_infinity()
    )
    config = write_config(bounded=False, commit_age_seconds=age)
    with TestPipeline(runner="BundleBasedDirectRunner", options=PipelineOptions(streaming=True)) as pipeline:
        pipeline | stream | WriteIceberg(lake_config(tmp_path), config)
    assert offsets_in(tmp_path) == list(range(30))
    assert snapshots(tmp_path) == commits


def test_a_text_that_is_hard_to_bound_does_not_stop_the_job(tmp_path: Path) -> None:
    run(tmp_path, [trade_batch(range(3), symbol="\ud7ff" * 17), trade_batch([3])], write_config())
    assert offsets_in(tmp_path) == [0, 1, 2, 3]


def test_the_same_batches_twice_in_a_run_and_in_two_runs(tmp_path: Path) -> None:
    batches = [trade_batch(range(10)), trade_batch(range(5, 15)), trade_batch(range(10))]
    for _ in range(2):
        run(tmp_path, batches, write_config())
    assert offsets_in(tmp_path) == list(range(15))
    assert snapshots(tmp_path) == 1


def test_no_file_holds_rows_of_two_windows_late_panes_included(tmp_path: Path) -> None:
    def at(second: float) -> list[int]:
        return [START + int(second * 1e6) + step for step in range(5)]

    stream = (
        TestStream()
        .advance_watermark_to(START // 1_000_000)
        .add_elements([trade_batch(range(5), times=at(0.5)), trade_batch(range(5, 10), times=at(3.0))])
        .advance_watermark_to(START // 1_000_000 + 60)
        .add_elements([trade_batch(range(10, 15), times=at(0.9)), trade_batch(range(15, 20), times=at(61))])
        .add_elements([trade_batch(range(20, 30), times=at(1.999998) + at(4.0))])
        .advance_watermark_to_infinity()
    )
    options = PipelineOptions(streaming=True)
    config = write_config(window_seconds=WINDOW, bounded=False, commit_age_seconds=0)
    with TestPipeline(runner="BundleBasedDirectRunner", options=options) as pipeline:
        pipeline | stream | WriteIceberg(lake_config(tmp_path), config)
    assert offsets_in(tmp_path) == list(range(30))
    windows = windows_of_files(tmp_path)
    assert all(len(found) == 1 for found in windows)
    assert {start for found in windows for start in found} == {START + second * 1_000_000 for second in (0, 2, 4, 60)}


def test_gap_changes_are_committed_to_the_ledger(tmp_path: Path) -> None:
    gap = Gap("X", "S", "trades", 0, 5, 9, "OPEN", START, "id5")
    with TestPipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | "Rows" >> beam.Create([trade_batch(range(3))]).with_output_types(EventBatch)
        gaps = pipeline | "Gaps" >> beam.Create([GapBatch((gap,)), GapBatch((gap,))])
        ((rows,), gaps) | WriteIceberg(lake_config(tmp_path), write_config())
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, SEQUENCE_GAPS)
    assert [(found.gap_id, found.revision) for found in read_ledger(table)] == [("id5", 0)]
    assert offsets_in(tmp_path) == [0, 1, 2]


def test_element_time_and_not_event_time_gives_the_window(tmp_path: Path) -> None:
    late = pa.array([START + WINDOW_US * index for index in range(3)], type=pa.timestamp("us", tz="UTC"))
    batch = RowBatch("trades_v2", trades(range(3), times=[START] * 3), late)
    with TestPipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create([batch]).with_output_types(RowBatch)
        rows | WriteIceberg(lake_config(tmp_path), write_config(window_seconds=WINDOW))
    assert len(windows_of_files(tmp_path)) == 3
