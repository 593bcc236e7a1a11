"""The stats of a run come from the tables, whatever was expired meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from apache_beam.metrics.execution import MetricKey, MetricResult
from apache_beam.metrics.metricbase import MetricName

from k2beam.config import NAMESPACE, Retention
from k2beam.errors import K2BeamError
from k2beam.job import bounded
from k2beam.job.bounded import counters
from k2beam.job.config import IngestConfig, LiveConfig
from k2beam.job.stats import check_sum, ingest_stats, without_lost_counts
from k2beam.kafka.config import KafkaConfig
from k2beam.lake import sweep
from k2beam.lake.catalog import open_catalog
from k2beam.lake.publish import Publisher
from k2beam.lake.tables import open_table
from tests.lake_helpers import lake_config, stage, write_config
from transforms.read_archive import ReadArchive


@pytest.mark.parametrize("keep", [None, Retention(1), Retention(3)])
def test_a_runs_rows_are_counted_and_its_snapshots_that_are_left(tmp_path: Path, keep: Retention | None) -> None:
    ours, theirs = (
        Publisher(lake_config(tmp_path), write_config(run_id=run, retention=keep)) for run in ("ours", "theirs")
    )
    receipts = []
    for number in range(0, 40, 10):
        receipts.append(ours.publish("trades_v2", [stage(tmp_path, range(number, number + 6))]))
        theirs.publish("trades_v2", [stage(tmp_path, range(number + 6, number + 10))])
    catalog = open_catalog(lake_config(tmp_path))
    stats = [ingest_stats(catalog, NAMESPACE, run, {}, 1.0) for run in ("ours", "theirs", "nobody")]
    assert [one.written["trades_v2"] for one in stats] == [24, 16, 0]
    left = {snapshot.snapshot_id for snapshot in open_table(catalog, NAMESPACE, "trades_v2").snapshots()}
    mine = [receipt.snapshot_after for receipt in receipts if receipt.snapshot_after in left]
    assert stats[0].snapshots.get("trades_v2", []) == mine


@pytest.mark.parametrize(("lost", "said"), [(1, "1 are nowhere"), (-2, "2 are in two places"), (0, None)])
def test_a_run_that_does_not_add_up_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, said: str | None
) -> None:
    """As if some transform had lost messages, or had given them out twice."""
    as_told = bounded.counters

    def more(result: Any) -> dict[str, int]:
        return {**as_told(result), "consumed": as_told(result)["consumed"] + lost}

    monkeypatch.setattr(bounded, "counters", more)
    config = IngestConfig(lake_config(tmp_path))
    if said is None:
        assert bounded.run_ingest(ReadArchive(["samples/crypto"]), config).pending == 0
        return
    with pytest.raises(K2BeamError, match=rf"the run does not add up: of \d,\d{{3}} messages that were read, {said}"):
        bounded.run_ingest(ReadArchive(["samples/crypto"]), config)


def test_what_a_live_job_leaves_is_pending_and_counters_that_do_not_tell_are_no_error(tmp_path: Path) -> None:
    stats = ingest_stats(open_catalog(lake_config(tmp_path)), NAMESPACE, "nobody", {"consumed": 5}, 1.0)
    assert stats.pending == 5
    check_sum(stats, bounded=False)
    with pytest.raises(K2BeamError, match="5 are nowhere"):
        check_sum(stats, bounded=True)
    Publisher(lake_config(tmp_path), write_config(run_id="us")).publish("trades_v2", [stage(tmp_path, range(3))])
    untold = ingest_stats(open_catalog(lake_config(tmp_path)), NAMESPACE, "us", {"consumed": 5}, 1.0)
    assert untold.pending is None
    check_sum(untold, bounded=True)


def test_counts_that_a_runner_lost_are_no_error_where_each_row_is_there_once(tmp_path: Path) -> None:
    """What Prism does now and then: a bundle's rows are in the table, and its messages were not counted as read."""
    catalog = open_catalog(lake_config(tmp_path))
    Publisher(lake_config(tmp_path), write_config(run_id="us")).publish("trades_v2", [stage(tmp_path, range(30))])
    counted = {"consumed": 25, "rows_written_trades_v2": 30}
    stats = ingest_stats(catalog, NAMESPACE, "us", counted, 1.0)
    assert stats.pending == -5
    found = without_lost_counts(catalog, NAMESPACE, stats)
    assert (found.pending, found.written["trades_v2"]) == (None, 30)
    check_sum(found, bounded=False)
    right = ingest_stats(catalog, NAMESPACE, "us", {**counted, "consumed": 32}, 1.0)
    assert without_lost_counts(catalog, NAMESPACE, right) is right


def test_rows_that_are_there_twice_are_an_error_whatever_was_counted(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    Publisher(lake_config(tmp_path), write_config(run_id="us")).publish("trades_v2", [stage(tmp_path, range(30))])
    table = open_table(catalog, NAMESPACE, "trades_v2")
    table.append(table.scan(limit=5).to_arrow())
    stats = ingest_stats(catalog, NAMESPACE, "us", {"consumed": 25, "rows_written_trades_v2": 30}, 1.0)
    kept = without_lost_counts(catalog, NAMESPACE, stats)
    assert kept.pending == -5
    with pytest.raises(K2BeamError, match="5 are in two places"):
        check_sum(kept, bounded=False)


def test_only_a_job_that_expires_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[str] = []
    monkeypatch.setattr(sweep.Sweeper, "sweep", lambda self, name, load: swept.append(load().name()[-1]) or 0)
    for keep in (None, Retention()):
        publisher = Publisher(lake_config(tmp_path), write_config(retention=keep))
        publisher.publish("trades_v2", [stage(tmp_path, [0 if keep is None else 1])])
    assert swept == ["trades_v2"]


def test_a_live_job_expires_unless_it_is_told_otherwise() -> None:
    kafka, mine = KafkaConfig("localhost:9092"), Retention(5, 60)
    assert LiveConfig(kafka, "localhost:8097").of(write_config()).retention == Retention(100, 7 * 86_400)
    assert LiveConfig(kafka, "localhost:8097", retention=None).of(write_config()).retention is None
    assert LiveConfig(kafka, "localhost:8097").of(write_config(retention=mine)).retention == mine


def test_counters_are_asked_anew_of_a_job_that_runs_on() -> None:
    class Running:
        """Beam's own, which keeps its first answer, over a runner whose counter goes up."""

        _metrics: Any = None
        asked = 0

        def __init__(self) -> None:
            """Without a job service."""

        def metrics(self) -> Any:
            if not self._metrics:
                self.asked += 1
                self._metrics = Answer(self.asked)
            return self._metrics

    class Answer:
        def __init__(self, number: int) -> None:
            key = MetricKey("step", MetricName("k2beam", "consumed"))
            self.found = MetricResult(key, committed=None, attempted=number)

        def query(self, _filter: Any) -> dict[str, list[MetricResult]]:
            return {"counters": [self.found], "distributions": []}

    running = Running()
    assert [counters(running)["consumed"] for _ in range(2)] == [1, 2]
