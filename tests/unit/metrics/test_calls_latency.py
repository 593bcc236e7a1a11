"""How old messages are when their commit lands: from the rows' element times to the metrics of the commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from prometheus_client import REGISTRY

from k2beam.config import NAMESPACE
from k2beam.lake import publish
from k2beam.lake.buffer import RowBuffer
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.publish import Publisher
from k2beam.lake.rows import event_rows
from k2beam.metrics.config import MetricsConfig
from k2beam.model import TIMESTAMP, EventBatch
from tests.lake_helpers import DAY, QUICK, START, lake_config, stage, trades, write_config
from transforms.write_iceberg import WriteIceberg

SECOND = 1_000_000
NOW = START + 1000 * SECOND
LATENCY = "k2_end_to_end_latency_seconds"


def sample(name: str, environment: str, **labels: str) -> float | None:
    standard = {"service": "k2beam", "environment": environment, "component": "commit", "table": "trades_v2"}
    return REGISTRY.get_sample_value(name, {**standard, **labels})


def live_events(offsets: range, element_times: list[int]) -> EventBatch:
    return EventBatch("trades", trades(offsets), pa.array(element_times, type=TIMESTAMP))


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "now_us", lambda: NOW)


def test_a_live_commit_observes_each_file_and_its_newest_message(tmp_path: Path) -> None:
    files = [
        replace(stage(tmp_path, range(3)), oldest=NOW - 40 * SECOND, newest=NOW - 20 * SECOND),
        replace(stage(tmp_path, range(3, 6)), oldest=NOW - 4 * SECOND, newest=NOW - 2 * SECOND),
    ]
    Publisher(lake_config(tmp_path), write_config(bounded=False), MetricsConfig(environment="live")).publish(
        "trades_v2", files
    )
    assert sample(f"{LATENCY}_count", "live") == 2
    assert sample(f"{LATENCY}_sum", "live") == 44
    assert sample(f"{LATENCY}_bucket", "live", le="5.0") == 1
    assert sample("k2_freshness_seconds", "live") == 2


def test_what_is_left_out_has_no_latency_and_no_log_is_ahead_of_us(tmp_path: Path) -> None:
    old = replace(stage(tmp_path, range(3)), oldest=NOW - 40 * SECOND, newest=NOW - 20 * SECOND)
    commit_files(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2", [old], run_id="r", policy=QUICK)
    new = replace(stage(tmp_path, range(3, 6)), oldest=NOW + SECOND, newest=NOW + SECOND)
    publisher = Publisher(lake_config(tmp_path), write_config(bounded=False), MetricsConfig(environment="left out"))
    publisher.publish("trades_v2", [old])
    assert sample(f"{LATENCY}_count", "left out") is None
    publisher.publish("trades_v2", [old, new])
    assert sample(f"{LATENCY}_count", "left out") == 1
    assert sample(f"{LATENCY}_sum", "left out") == 0
    assert sample("k2_freshness_seconds", "left out") == 0


def test_a_bounded_job_has_none(tmp_path: Path) -> None:
    file = replace(stage(tmp_path, range(3)), oldest=NOW - SECOND, newest=NOW)
    Publisher(lake_config(tmp_path), write_config(), MetricsConfig(environment="bounded")).publish("trades_v2", [file])
    assert sample("k2_rows_written_total", "bounded") == 3
    assert sample(f"{LATENCY}_count", "bounded") is None
    assert sample("k2_freshness_seconds", "bounded") is None


def test_groups_know_the_bounds_of_their_own_rows() -> None:
    buffer = RowBuffer(60 * SECOND, 1 << 30, 1 << 30)
    for times in ([START + 9, START + 60 * SECOND], [START + 5, START + 70 * SECOND], [START + 7, START + 7]):
        assert list(buffer.add(event_rows(live_events(range(2), times)))) == []
    found = [(key.window, group.oldest, group.newest) for key, group in buffer.drain()]
    assert found == [
        (START, START + 5, START + 9),
        (START + 60 * SECOND, START + 60 * SECOND, START + 70 * SECOND),
    ]


def test_the_receipt_of_a_pipeline_tells_windows_sources_and_element_times(tmp_path: Path) -> None:
    times = np.array([START + DAY + 5, START + DAY + 9, START + DAY + 7]).tolist()
    with TestPipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create([live_events(range(3), times)], reshuffle=False).with_output_types(EventBatch)
        receipts = rows | WriteIceberg(lake_config(tmp_path), write_config())
        told = receipts | beam.Map(lambda one: (one.windows, one.sources, one.element_times))
        expected = ((START + DAY,), ("archive:a",), ((START + DAY + 5, START + DAY + 9),))
        assert_that(told, equal_to([expected]))


def test_what_is_left_of_a_file_keeps_its_bounds(tmp_path: Path) -> None:
    first = stage(tmp_path, range(3))
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [first], run_id="r", policy=QUICK)
    partly = replace(stage(tmp_path, range(2, 5)), oldest=START, newest=START + 1)
    receipt = commit_files(catalog, NAMESPACE, "trades_v2", [partly], run_id="r", policy=QUICK)
    assert (receipt.rows, receipt.element_times) == (2, ((START, START + 1),))
