"""What a commit counts, read back from the process's Prometheus registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

from k2beam.clock import now_us
from k2beam.config import RetryPolicy
from k2beam.errors import CommitConflict
from k2beam.lake.publish import Publisher
from k2beam.lake.tables import SEQUENCE_GAPS
from k2beam.model import Gap
from k2beam.sequence import GapBatch
from tests.lake_helpers import DAY, START, lake_config, stage, write_config
from tests.metrics_recorder import Samples

GAP = Gap("X", "S", "trades", 0, 5, 9, "OPEN", START, "id5")


def publisher(folder: Path) -> Publisher:
    return Publisher(lake_config(folder), write_config())


def failing_once(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """The next commits raise these errors, and do not land."""
    real, left = SqlCatalog.commit_table, list(errors)

    def commit_table(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        if left:
            raise left.pop(0)
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)


def test_a_commit_of_files_counts_rows_files_and_bytes(tmp_path: Path) -> None:
    files = [stage(tmp_path, range(10)), stage(tmp_path, range(10, 15))]
    samples = Samples("commit")
    receipt = publisher(tmp_path).publish("trades_v2", files)
    assert samples.changed() == {
        "k2_commit_duration_seconds_count{table=trades_v2}": 1,
        "k2_iceberg_transactions_total{table=trades_v2}": 1,
        "k2_iceberg_transaction_rows_count{table=trades_v2}": 1,
        "k2_iceberg_transaction_rows_sum{table=trades_v2}": 15,
        "k2_rows_written_total{table=trades_v2}": 15,
        "k2_data_files_written_total{table=trades_v2}": 2,
        "k2_data_bytes_written_total{table=trades_v2}": receipt.bytes,
    }
    assert receipt.bytes == sum(file.nbytes for file in files) > 0


def test_a_commit_that_adds_nothing_is_no_transaction(tmp_path: Path) -> None:
    file = stage(tmp_path, range(10))
    committing = publisher(tmp_path)
    committing.publish("trades_v2", [file])
    samples = Samples("commit")
    committing.publish("trades_v2", [file])
    assert samples.changed() == {"k2_commit_duration_seconds_count{table=trades_v2}": 1}


def test_each_retry_counts_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage(tmp_path, range(3))
    committing = publisher(tmp_path)
    failing_once(monkeypatch, CommitFailedException("x"), CommitStateUnknownException("x"), CommitFailedException("x"))
    samples = Samples("commit")
    committing.publish("trades_v2", [file])
    changed = samples.changed()
    assert {name: count for name, count in changed.items() if "retries" in name} == {
        "k2_commit_retries_total{reason=conflict,table=trades_v2}": 2,
        "k2_commit_retries_total{reason=unknown,table=trades_v2}": 1,
    }
    assert changed["k2_iceberg_transactions_total{table=trades_v2}"] == 1


def test_a_commit_that_is_given_up_is_a_failure_and_its_last_try_no_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stage(tmp_path, range(3))
    three = RetryPolicy(attempts=3, first_wait=0.001)
    committing = Publisher(lake_config(tmp_path), write_config(retry=three))
    failing_once(monkeypatch, *(CommitFailedException("x") for _ in range(3)))
    samples = Samples("commit")
    with pytest.raises(CommitConflict):
        committing.publish("trades_v2", [file])
    assert samples.changed() == {
        "k2_commit_retries_total{reason=conflict,table=trades_v2}": 2,
        "k2_write_failures_total{stage=commit,table=trades_v2}": 1,
    }


@pytest.mark.parametrize("table", ["trades_v2", SEQUENCE_GAPS])
def test_an_error_that_is_not_tried_again_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    items = [stage(tmp_path, range(3))] if table == "trades_v2" else [GapBatch((GAP,))]
    committing = publisher(tmp_path)
    failing_once(monkeypatch, ZeroDivisionError())
    samples = Samples("commit")
    with pytest.raises(ZeroDivisionError):
        committing.publish(table, items)
    assert samples.changed() == {f"k2_write_failures_total{{stage=commit,table={table}}}": 1}


def test_a_live_commit_says_how_old_its_messages_are(tmp_path: Path) -> None:
    """Times of the log that are still to come count as no age."""
    files = [
        replace(stage(tmp_path, range(3)), oldest=START, newest=START),
        replace(stage(tmp_path, range(3, 5)), oldest=START, newest=now_us() + DAY),
    ]
    samples = Samples("commit")
    Publisher(lake_config(tmp_path), write_config(bounded=False)).publish("trades_v2", files)
    changed = samples.changed()
    assert changed["k2_end_to_end_latency_seconds_count{table=trades_v2}"] == 2
    labels = {"service": "k2beam", "environment": "", "component": "commit", "table": "trades_v2"}
    assert REGISTRY.get_sample_value("k2_freshness_seconds", labels) == 0
    stale = replace(stage(tmp_path, range(5, 9)), oldest=START, newest=START)
    Publisher(lake_config(tmp_path), write_config(bounded=False)).publish("trades_v2", [stale])
    assert samples.changed()["k2_freshness_seconds{table=trades_v2}"] > DAY / 1e6


def test_a_commit_to_the_ledger_counts_its_table(tmp_path: Path) -> None:
    samples = Samples("commit")
    publisher(tmp_path).publish(SEQUENCE_GAPS, [GapBatch((GAP,))])
    changed = samples.changed()
    assert changed[f"k2_rows_written_total{{table={SEQUENCE_GAPS}}}"] == 1
    assert changed[f"k2_iceberg_transactions_total{{table={SEQUENCE_GAPS}}}"] == 1
