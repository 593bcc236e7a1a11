"""The ledger's writer: revisions, only changes, and two writers at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.ledger import append_gaps, changed, read_ledger
from k2beam.lake.tables import SEQUENCE_GAPS, open_table
from k2beam.model import CommitReceipt, Gap, GapStatus
from tests.lake_helpers import QUICK, lake_config


def gap(first: int, last: int, status: GapStatus = "OPEN", **changes: object) -> Gap:
    fields = {
        "exchange": "X", "symbol": "S", "kind": "trades", "epoch": 0, "first_missing": first, "last_missing": last,
        "status": status, "opened_at": 5, "gap_id": f"id{first}",
    }  # fmt: skip
    return Gap(**{**fields, **changes})  # type: ignore[arg-type]


def write(folder: Path, *gaps: Gap) -> CommitReceipt:
    return append_gaps(open_catalog(lake_config(folder)), NAMESPACE, gaps, detected_at=99, policy=QUICK)


def ledger(folder: Path) -> dict[str, Gap]:
    table = open_table(open_catalog(lake_config(folder)), NAMESPACE, SEQUENCE_GAPS)
    return {found.gap_id: found for found in read_ledger(table)}


def test_revisions_count_up_and_the_highest_counts(tmp_path: Path) -> None:
    write(tmp_path, gap(5, 9), gap(20, 20))
    write(tmp_path, gap(5, 7, "PARTIAL"))
    write(tmp_path, gap(5, 5, "FILLED"))
    found = ledger(tmp_path)
    assert (found["id5"].revision, found["id5"].status, found["id5"].last_missing) == (2, "FILLED", 5)
    assert (found["id20"].revision, found["id20"].status, found["id20"].detected_at) == (0, "OPEN", 99)


def test_what_is_there_already_is_not_written(tmp_path: Path) -> None:
    assert write(tmp_path, gap(5, 9)).rows == 1
    again = write(tmp_path, gap(5, 9), gap(5, 9, "PARTIAL"))
    assert (again.rows, again.files, again.snapshot_after) == (0, 0, again.snapshot_before)


def test_of_several_states_the_last_counts() -> None:
    assert [found.last_missing for found in changed([gap(5, 9), gap(5, 7)], {})] == [7]
    assert changed([gap(5, 9), gap(5, 9, "FILLED")], {}) == [], "opened and closed unseen"


def test_a_reopened_gap_gets_a_new_revision() -> None:
    known = gap(5, 9, "FILLED", revision=3)
    assert [found.revision for found in changed([gap(5, 9)], {"id5": known})] == [4]


def test_what_another_job_has_written_meanwhile_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = SqlCatalog.commit_table, [0]

    def commit_table(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == 1:
            assert write(tmp_path, gap(5, 9), gap(20, 20)).rows == 2
            raise CommitFailedException("the other one won")
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    receipt = write(tmp_path, gap(5, 9), gap(20, 20))
    assert (receipt.rows, receipt.files, receipt.bytes, receipt.rows_left_out) == (0, 0, 0, 2)
    assert receipt.snapshot_after == receipt.snapshot_before
    assert receipt.attempts == 2
    assert {found.revision for found in ledger(tmp_path).values()} == {0}


@pytest.mark.parametrize("error", [CommitFailedException("conflict"), CommitStateUnknownException("504")])
@pytest.mark.parametrize("landed", [True, False])
def test_a_lying_catalog_gives_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, landed: bool
) -> None:
    write(tmp_path, gap(1, 1))
    real, calls = SqlCatalog.commit_table, [0]

    def commit_table(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == 1:
            if landed:
                real(self, *args, **kwargs)  # type: ignore[arg-type]
            raise error
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    receipt = write(tmp_path, gap(5, 9))
    assert (receipt.rows, receipt.files, receipt.rows_left_out) == (1, 1, 0), "landed unseen, it is still this commit's"
    assert receipt.bytes > 0
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, SEQUENCE_GAPS)
    rows = table.scan().to_arrow().to_pylist()
    assert sorted((row["gap_id"], row["revision"]) for row in rows) == [("id1", 0), ("id5", 0)]
