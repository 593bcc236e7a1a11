"""The ledger is brought to what the rows say, once, and only where it differs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

from k2beam.config import NAMESPACE
from k2beam.errors import UnreadableFile
from k2beam.lake.ledger import append_gaps, read_ledger
from k2beam.lake.reconcile import compare_ledger, missing_intervals, reconcile
from k2beam.lake.recount import recount_keys
from k2beam.lake.tables import CERTIFIED_DAYS, SEQUENCE_GAPS, find_table
from k2beam.logs import configure_logging
from k2beam.metrics.config import MetricsConfig
from k2beam.model import Gap
from k2beam.sequence import gap_id
from tests.audit_helpers import START, Row, SmallLake
from tests.lake_helpers import QUICK
from tests.metrics_recorder import Samples


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path)


def with_gaps(lake: SmallLake) -> None:
    """BTC misses 11 and 13 to 15, ETH misses 21."""
    lake.add([Row(0, 10), Row(1, 12), Row(2, 16), Row(3, 20, symbol="ETH"), Row(4, 22, symbol="ETH")])


def ledger(lake: SmallLake) -> set[tuple[str, int, int, str, int]]:
    rows = read_ledger(lake.table(SEQUENCE_GAPS))
    return {(gap.symbol, gap.first_missing, gap.last_missing, gap.status, gap.revision) for gap in rows}


def test_an_empty_ledger_gets_every_gap_of_the_rows(lake: SmallLake) -> None:
    with_gaps(lake)
    result = reconcile(lake.catalog, NAMESPACE)
    assert (result.keys, result.diff.unfilled, result.diff.recounted) == (2, 0, 3)
    assert result.receipt is not None
    assert result.receipt.rows == 3
    assert ledger(lake) == {("BTC", 11, 11, "OPEN", 0), ("BTC", 13, 15, "OPEN", 0), ("ETH", 21, 21, "OPEN", 0)}
    opened = {gap.first_missing: gap.opened_at for gap in read_ledger(lake.table(SEQUENCE_GAPS))}
    assert opened == {11: START + 1000, 13: START + 2000, 21: START + 4000}


def test_a_second_reconcile_writes_nothing(lake: SmallLake) -> None:
    with_gaps(lake)
    reconcile(lake.catalog, NAMESPACE)
    before = lake.table(SEQUENCE_GAPS).metadata_location
    again = reconcile(lake.catalog, NAMESPACE)
    assert (again.diff.unfilled, again.diff.changes, again.receipt) == (3, (), None)
    assert lake.table(SEQUENCE_GAPS).metadata_location == before


def test_its_commit_is_counted_and_logged_as_any_other(lake: SmallLake, capsys: pytest.CaptureFixture[str]) -> None:
    with_gaps(lake)
    samples = Samples("commit")
    configure_logging("INFO", json=True)
    receipt = reconcile(lake.catalog, NAMESPACE, run_id="r").receipt
    reconcile(lake.catalog, NAMESPACE, run_id="r")
    assert receipt is not None
    changed = samples.changed()
    assert {name: value for name, value in changed.items() if SEQUENCE_GAPS in name} == {
        "k2_commit_duration_seconds_count{table=sequence_gaps}": 1,
        "k2_iceberg_transactions_total{table=sequence_gaps}": 1,
        "k2_iceberg_transaction_rows_count{table=sequence_gaps}": 1,
        "k2_iceberg_transaction_rows_sum{table=sequence_gaps}": 3,
        "k2_rows_written_total{table=sequence_gaps}": 3,
        "k2_data_files_written_total{table=sequence_gaps}": 1,
        "k2_data_bytes_written_total{table=sequence_gaps}": receipt.bytes,
    }
    lines = list(map(json.loads, capsys.readouterr().err.splitlines()))
    told = [("commit", SEQUENCE_GAPS, 3), ("commit", CERTIFIED_DAYS, 1)]
    assert [(line["event"], line["table"], line["rows"]) for line in lines] == told
    for line in lines:
        assert line["snapshot_after"] == lake.table(line["table"]).metadata.current_snapshot_id
    assert changed[f"k2_iceberg_transactions_total{{table={CERTIFIED_DAYS}}}"] == 1


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (CommitFailedException("x"), "k2_commit_retries_total{reason=conflict,table=sequence_gaps}"),
        (ZeroDivisionError(), "k2_write_failures_total{stage=commit,table=sequence_gaps}"),
    ],
)
def test_its_retries_and_failures_count_too(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, error: Exception, counted: str
) -> None:
    with_gaps(lake)
    real, left = SqlCatalog.commit_table, [error]

    def commit_table(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        if left:
            raise left.pop()
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    samples = Samples("commit")
    with nullcontext() if isinstance(error, CommitFailedException) else pytest.raises(ZeroDivisionError):
        reconcile(lake.catalog, NAMESPACE, policy=QUICK)
    assert samples.changed()[counted] == 1


def test_metrics_that_are_off_count_nothing(lake: SmallLake) -> None:
    with_gaps(lake)
    samples = Samples("commit")
    assert reconcile(lake.catalog, NAMESPACE, metrics=MetricsConfig(enabled=False)).receipt is not None
    assert samples.changed() == {}


def test_a_clean_feed_does_not_even_make_the_ledger(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 11)])
    assert reconcile(lake.catalog, NAMESPACE).receipt is None
    assert find_table(lake.catalog, NAMESPACE, SEQUENCE_GAPS) is None


def test_fills_and_remnants_are_mended(lake: SmallLake) -> None:
    with_gaps(lake)
    reconcile(lake.catalog, NAMESPACE)
    lake.add([Row(5, 11, time=START + 500), Row(6, 15, time=START + 1500)])
    result = reconcile(lake.catalog, NAMESPACE)
    assert result.diff.recounted == 2
    unfilled = {row[:3] for row in ledger(lake) if row[3] != "FILLED"}
    assert unfilled == {("BTC", 13, 14), ("ETH", 21, 21)}
    assert ("BTC", 11, 11, "FILLED", 1) in ledger(lake)
    again = reconcile(lake.catalog, NAMESPACE).diff
    assert (again.unfilled, again.changes) == (2, ())


def test_a_gap_that_the_rows_do_not_have_is_closed(lake: SmallLake) -> None:
    with_gaps(lake)
    name = gap_id("BINANCE", "XRP", "trades", 0, 5)
    invented = Gap("BINANCE", "XRP", "trades", 0, 5, 9, "OPEN", START, name)
    append_gaps(lake.catalog, NAMESPACE, [invented], detected_at=START)
    reconcile(lake.catalog, NAMESPACE)
    assert ("XRP", 5, 9, "FILLED", 1) in ledger(lake)


def test_a_lost_file_never_becomes_a_gap(lake: SmallLake) -> None:
    lake.add([Row(0, 10)])
    lake.add([Row(1, 11)])
    lake.add([Row(2, 12)])
    next(path for path in lake.data_files()).unlink()
    with pytest.raises(UnreadableFile, match="is gone"):
        reconcile(lake.catalog, NAMESPACE)
    assert find_table(lake.catalog, NAMESPACE, SEQUENCE_GAPS) is None


def test_a_lost_file_of_the_ledger_is_named(lake: SmallLake) -> None:
    with_gaps(lake)
    reconcile(lake.catalog, NAMESPACE)
    (victim,) = lake.data_files(SEQUENCE_GAPS)
    victim.unlink()
    with pytest.raises(UnreadableFile, match=victim.name):
        compare_ledger(lake.catalog, NAMESPACE, [])


def test_missing_intervals_are_ledger_rows(lake: SmallLake) -> None:
    with_gaps(lake)
    rows = [gap for found in recount_keys(lake.catalog, NAMESPACE) for gap in missing_intervals(found)]
    assert {(gap.exchange, gap.kind, gap.epoch, gap.status) for gap in rows} == {("BINANCE", "trades", 0, "OPEN")}
    assert len({gap.gap_id for gap in rows}) == 3
