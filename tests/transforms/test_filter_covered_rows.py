"""FilterCoveredRows: rows that are covered go, the others keep all that belongs to them."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.model import EventBatch, Origin
from tests.lake_helpers import QUICK, lake_config, raw_batch, stage, trade_batch
from transforms.filter_covered_rows import FilterCoveredRows, rows_without_covered


def offsets(batch: EventBatch) -> list[int]:
    return list(batch.data.column("_offset").to_pylist())


def test_what_belongs_to_a_row_stays_with_it() -> None:
    batch = trade_batch(range(4), source="s")
    rows = pa.array([10, 11, 12, 13])
    times = pa.array([0, 1, 2, 3], pa.timestamp("us", "UTC"))
    whole = EventBatch("trades", batch.data, times, origin=Origin(raw_batch([("s", 0, 0)]), rows))
    taken = Coverage()
    taken.add_range("s", 0, 1, 2)
    kept = rows_without_covered(whole, taken)
    assert offsets(kept) == [0, 3]
    assert kept.element_time is not None
    assert kept.element_time.cast(pa.int64()).to_pylist() == [0, 3]
    assert kept.origin is not None
    assert kept.origin.rows.to_pylist() == [10, 13]
    assert rows_without_covered(whole, Coverage()) is whole


def test_the_pipeline_reads_the_tables_and_counts(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [stage(tmp_path, range(5), source="s")], run_id="r", policy=QUICK)
    pipeline = TestPipeline(runner="FnApiRunner")
    given = [trade_batch(range(3, 8), source="s"), trade_batch(range(2), source="s")]
    batches = pipeline | beam.Create(given).with_output_types(EventBatch)
    kept = batches | FilterCoveredRows(lake_config(tmp_path))
    assert_that(kept | beam.Map(offsets), equal_to([[5, 6, 7]]))
    result = pipeline.run()
    result.wait_until_finish()
    found = {metric.key.metric.name: metric.result for metric in result.metrics().query()["counters"]}
    assert found["already_covered"] == 4
