"""The commit: exactly once under repeats, races, lies of the catalog and expired snapshots."""

from __future__ import annotations

import errno
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.table import Table
from sqlalchemy.exc import OperationalError

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE, Retention, RetryPolicy
from k2beam.coverage import Coverage
from k2beam.errors import CommitConflict, CommitUnknown, LakeError, StoreRefused, UnreadableFile
from k2beam.lake import commit as commit_module
from k2beam.lake import transaction
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files, read_coverage
from k2beam.lake.files import StagedFile, write_rows
from k2beam.lake.runs import RUN_ID
from k2beam.lake.tables import EVENT_TABLES, open_table
from k2beam.lake.transaction import Append
from k2beam.model import CommitReceipt, Kind
from tests.audit_helpers import Row, event_table
from tests.lake_helpers import QUICK, answered, lake_config, offsets_in, stage


def commit(
    folder: Path,
    *files: StagedFile,
    policy: RetryPolicy = QUICK,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> CommitReceipt:
    """Commit the files; every row that came for them is in the table, or counted as left out."""
    catalog = open_catalog(lake_config(folder))
    receipt = commit_files(catalog, NAMESPACE, "trades_v2", files, run_id="r1", policy=policy, on_retry=on_retry)
    assert receipt.rows + receipt.rows_left_out == sum(file.came for file in files)
    return receipt


def snapshots(folder: Path) -> int:
    return len(open_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2").snapshots())


def current_snapshot(folder: Path) -> int | None:
    return open_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2").metadata.current_snapshot_id


def covered(folder: Path) -> Coverage:
    return read_coverage(open_catalog(lake_config(folder)), NAMESPACE)


def test_one_snapshot_with_rows_coverage_and_summary(tmp_path: Path) -> None:
    receipt = commit(tmp_path, stage(tmp_path, range(100)), stage(tmp_path, range(100, 150)))
    assert (receipt.rows, receipt.files, receipt.rows_left_out, receipt.snapshot_before) == (150, 2, 0, None)
    assert offsets_in(tmp_path) == list(range(150))
    assert list(covered(tmp_path)["archive:a", 0]) == list(range(150))
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2")
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.snapshot_id == receipt.snapshot_after
    assert snapshot.summary is not None
    assert snapshot.summary.additional_properties[RUN_ID] == "r1"
    assert snapshot.summary.additional_properties["k2.coverage-digest"] == receipt.coverage_digest


def test_a_repeated_commit_adds_nothing(tmp_path: Path) -> None:
    file = stage(tmp_path, range(10))
    commit(tmp_path, file)
    again = commit(tmp_path, file)
    assert (again.rows, again.rows_left_out, snapshots(tmp_path)) == (0, 10, 1)
    assert Path(file.path).exists()


def test_a_file_named_twice_is_committed_once(tmp_path: Path) -> None:
    file = stage(tmp_path, range(10))
    assert commit(tmp_path, file, file).rows == 10
    assert offsets_in(tmp_path) == list(range(10))


def test_a_coverage_whose_table_has_lost_its_metadata_is_no_coverage(tmp_path: Path) -> None:
    commit(tmp_path, stage(tmp_path, range(10)))
    for path in tmp_path.rglob("*.metadata.json"):
        path.unlink()
    with pytest.raises(UnreadableFile, match=r"market_data.trades_v2: file .*metadata.json is gone"):
        covered(tmp_path)


def test_a_partly_covered_file_is_rewritten(tmp_path: Path) -> None:
    commit(tmp_path, stage(tmp_path, range(10)))
    receipt = commit(tmp_path, stage(tmp_path, range(5, 15)), stage(tmp_path, range(12, 20)))
    assert (receipt.rows, receipt.rows_left_out) == (10, 8)
    assert offsets_in(tmp_path) == list(range(20))


def test_an_offset_repeated_within_a_file_is_written_once(tmp_path: Path) -> None:
    file = stage(tmp_path, [1, 2, 2, 3, 1])
    assert (file.rows, file.came) == (3, 5)
    receipt = commit(tmp_path, file)
    assert (receipt.rows, receipt.rows_left_out) == (3, 2)
    again = commit(tmp_path, file, stage(tmp_path, [3, 4, 4]))
    assert (again.rows, again.rows_left_out) == (1, 7)
    assert offsets_in(tmp_path) == [1, 2, 3, 4]


def test_partitions_and_sources_are_apart(tmp_path: Path) -> None:
    commit(tmp_path, stage(tmp_path, [1]), stage(tmp_path, [1], partition=1), stage(tmp_path, [1], source="archive:b"))
    assert offsets_in(tmp_path) == [1, 1, 1]


def failing_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception, *, landed: bool, times: int = 1
) -> Callable[[], int]:
    """The next ``times`` commits raise ``error``, after (or instead of) landing; returns a counter of failures."""
    real = SqlCatalog.commit_table
    failures = [0]

    def commit_table(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        if failures[0] < times:
            failures[0] += 1
            if landed:
                real(self, *args, **kwargs)  # type: ignore[arg-type]
            raise error
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    return lambda: failures[0]


LOCKED = OperationalError("UPDATE", {}, Exception("database is locked"))


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize(
    "error",
    [CommitStateUnknownException("504"), LOCKED, ConnectionResetError("lost"), CommitFailedException("conflict")],
    ids=["504", "locked", "connection lost", "conflict"],
)
def test_whatever_the_catalog_says_the_rows_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, landed: bool
) -> None:
    earlier = commit(tmp_path, stage(tmp_path, range(10, 15)))
    file = stage(tmp_path, range(10))
    failures = failing_once(monkeypatch, error, landed=landed)
    receipt = commit(tmp_path, file)
    assert failures() == 1
    assert offsets_in(tmp_path) == list(range(15))
    assert snapshots(tmp_path) == 2
    assert receipt.attempts == 2
    assert receipt.rows == 10, "a try that landed unseen is still this commit's"
    assert receipt.snapshot_before == earlier.snapshot_after
    assert receipt.snapshot_after == current_snapshot(tmp_path) != receipt.snapshot_before


@pytest.mark.parametrize("landed", [True, False])
def test_the_receipt_names_its_own_snapshot_and_not_a_later_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, landed: bool
) -> None:
    file, rivals = stage(tmp_path, range(10)), stage(tmp_path, range(10, 20))
    failing_once(monkeypatch, CommitStateUnknownException("504"), landed=landed)
    committed: list[CommitReceipt] = []
    receipt = commit(tmp_path, file, on_retry=lambda reason: committed.append(commit(tmp_path, rivals)))
    (rival,) = committed
    ids = (None, receipt.snapshot_after, rival.snapshot_after) if landed else (None, rival.snapshot_after)
    assert rival.snapshot_before == (receipt.snapshot_after if landed else None)
    assert receipt.snapshot_before == (None if landed else rival.snapshot_after)
    assert (receipt.snapshot_after == current_snapshot(tmp_path)) is not landed
    assert len(set(ids)) == len(ids)
    assert offsets_in(tmp_path) == list(range(20))


def test_a_commit_that_landed_unseen_and_was_expired_since_is_still_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, file, rivals, more = (stage(tmp_path, range(begin, begin + 10)) for begin in (0, 10, 20, 30))
    catalog = open_catalog(lake_config(tmp_path))

    def keep_one(
        staged: StagedFile, run_id: str, on_retry: Callable[[str], None] = lambda reason: None
    ) -> CommitReceipt:
        keep = Retention(snapshots=1)
        return commit_files(
            catalog, NAMESPACE, "trades_v2", [staged], run_id=run_id, policy=QUICK, retention=keep, on_retry=on_retry
        )

    before = keep_one(first, "ours")
    failing_once(monkeypatch, CommitStateUnknownException("504"), landed=True)
    committed: list[CommitReceipt] = []
    receipt = keep_one(file, "ours", lambda reason: committed.extend(keep_one(one, "theirs") for one in (rivals, more)))
    rival, later = committed
    assert snapshots(tmp_path) == 2
    assert receipt.snapshot_after not in {rival.snapshot_after, later.snapshot_after}
    assert (receipt.rows, receipt.rows_left_out) == (10, 0)
    assert (receipt.snapshot_before, receipt.snapshot_after) == (before.snapshot_after, rival.snapshot_before)


@pytest.mark.parametrize(("rivals", "left"), [(range(10), 0), (range(4), 6), (range(5, 30), 5)])
def test_two_committers_with_the_same_file_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rivals: range, left: int
) -> None:
    """The rival commits after this one has planned, and before it commits."""
    file = stage(tmp_path, range(10))
    theirs = file if rivals == range(10) else stage(tmp_path, rivals)
    real = transaction.append
    waiting = [theirs]

    def append(table: Table, change: Append) -> None:
        if waiting:
            commit(tmp_path, waiting.pop())
        real(table, change)

    monkeypatch.setattr(transaction, "append", append)
    reasons: list[str] = []
    receipt = commit(tmp_path, file, on_retry=reasons.append)
    assert (receipt.rows, receipt.attempts, reasons) == (left, 2, ["conflict"])
    assert snapshots(tmp_path) == (2 if left else 1)
    assert offsets_in(tmp_path) == sorted({*range(10), *rivals})
    assert list(covered(tmp_path)["archive:a", 0]) == offsets_in(tmp_path)


def test_a_staged_file_that_is_gone_is_told_at_once(tmp_path: Path) -> None:
    commit(tmp_path, stage(tmp_path, range(5)))
    file = stage(tmp_path, range(10))
    Path(file.path).unlink()
    reasons: list[str] = []
    with pytest.raises(FileNotFoundError, match=Path(file.path).name):
        commit(tmp_path, file, on_retry=reasons.append)
    assert reasons == []


@pytest.mark.parametrize("hours", [0, 2])
def test_a_file_that_waited_long_is_looked_for_before_its_commit(tmp_path: Path, hours: int) -> None:
    commit(tmp_path, stage(tmp_path, range(5)))
    file = stage(tmp_path, range(5, 10))
    file = replace(file, written_at=file.written_at - hours * 3_600_000_000)
    Path(file.path).unlink()
    if not hours:
        assert commit(tmp_path, file).rows == 5
        return
    with pytest.raises(UnreadableFile, match=rf"{Path(file.path).name} waited so long .*; start the job anew"):
        commit(tmp_path, file)
    assert list(covered(tmp_path)["archive:a", 0]) == list(range(5))
    assert commit(tmp_path, stage(tmp_path, range(5, 10))).rows == 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.ENOENT])
def test_a_store_without_room_or_place_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file = stage(tmp_path, range(3))
    failures = failing_once(monkeypatch, OSError(code, "not written"), landed=False, times=5)
    with pytest.raises(OSError, match="not written"):
        commit(tmp_path, file)
    assert failures() == 1


@pytest.mark.parametrize("error", [LOCKED, ConnectionRefusedError("down")], ids=["locked", "down"])
def test_a_catalog_that_gives_no_table_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    file = stage(tmp_path, range(3))
    away = [error] * 2

    def away_first(*arguments: str) -> Table:
        if away:
            raise away.pop()
        return open_table(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(commit_module, "open_table", away_first)
    reasons: list[str] = []
    assert commit(tmp_path, file, on_retry=reasons.append).attempts == 3
    assert reasons == ["unreachable"] * 2
    away += [error] * 2
    with pytest.raises(LakeError, match=r"gave no table in 2 tries[\s\S]*nothing of this commit landed") as told:
        commit(tmp_path, file, policy=RetryPolicy(2, 0.001))
    assert not isinstance(told.value, CommitUnknown)


@pytest.mark.parametrize(
    "error",
    [
        answered(413),
        answered(403),
        OSError("When initiating multiple part upload for key 'x' in bucket 'lake': AWS Error ACCESS_DENIED"),
    ],
    ids=["413", "403", "s3"],
)
def test_what_the_catalog_or_the_store_refuses_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    file = stage(tmp_path, range(3))
    failures = failing_once(monkeypatch, error, landed=False, times=5)
    with pytest.raises(StoreRefused, match=r"table market_data\.trades_v2: nothing of this commit landed"):
        commit(tmp_path, file)
    assert failures() == 1


def test_a_catalog_that_goes_away_after_a_commit_leaves_its_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stage(tmp_path, range(3))
    failing_once(monkeypatch, CommitStateUnknownException("504"), landed=True)
    opened = [0]

    def once(*arguments: str) -> Table:
        opened[0] += 1
        if opened[0] > 1:
            raise LOCKED
        return open_table(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(commit_module, "open_table", once)
    with pytest.raises(CommitUnknown, match="no file was deleted"):
        commit(tmp_path, file, policy=RetryPolicy(3, 0.001))


def test_used_up_retries_say_which_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage(tmp_path, range(3))
    policy = RetryPolicy(attempts=2, first_wait=0.001)
    failing_once(monkeypatch, CommitFailedException("x"), landed=False, times=2)
    with pytest.raises(CommitConflict, match="2 times"):
        commit(tmp_path, file, policy=policy)
    failing_once(monkeypatch, CommitStateUnknownException("x"), landed=False, times=2)
    with pytest.raises(CommitUnknown, match="no file was deleted"):
        commit(tmp_path, file, policy=policy)
    assert Path(file.path).exists()


def test_a_defect_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage(tmp_path, range(3))
    failures = failing_once(monkeypatch, ZeroDivisionError(), landed=False, times=5)
    with pytest.raises(ZeroDivisionError):
        commit(tmp_path, file)
    assert failures() == 1


def test_coverage_survives_expired_snapshots_and_foreign_commits(tmp_path: Path) -> None:
    file = stage(tmp_path, range(10))
    commit(tmp_path, file)
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2")
    table.delete("_offset = 3")
    table.refresh()
    current = table.current_snapshot()
    assert current is not None
    for snapshot in table.snapshots():
        if snapshot.snapshot_id != current.snapshot_id:
            table.maintenance.expire_snapshots().by_id(snapshot.snapshot_id).commit()
    assert commit(tmp_path, file, stage(tmp_path, range(8, 12))).rows == 2
    assert offsets_in(tmp_path) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]


def scattered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool) -> dict[str, int]:
    """The lengths of the coverage of trades and quotes that have every second offset each, at random; all committed."""
    monkeypatch.setattr(commit_module, "LARGE_PROPERTY", 300 if shared else 1 << 30)
    catalog, rng = open_catalog(lake_config(tmp_path)), random.Random(7)
    kinds: tuple[Kind, Kind] = ("trades", "quotes")
    for first in range(0, 24_000, 600):
        picked = set(rng.sample(range(first, first + 600), 300))
        for kind, offsets in zip(kinds, (picked, {*range(first, first + 600)} - picked), strict=True):
            name = EVENT_TABLES[kind]
            table = open_table(catalog, NAMESPACE, name)
            rows = event_table(kind, [Row(offset) for offset in sorted(offsets)])
            commit_files(catalog, NAMESPACE, name, write_rows(table, rows, 0), run_id="r", policy=QUICK)
    assert len(read_coverage(catalog, NAMESPACE)["archive:a", 0]) == 24_000
    assert audit(catalog, NAMESPACE, mend=False).problems == ()
    tables = (open_table(catalog, NAMESPACE, name) for name in ("trades_v2", "quotes_v2"))
    return {table.name()[-1]: len(table.properties["k2.coverage.0.archive:a"]) for table in tables}


def test_coverage_of_two_kinds_that_are_mixed_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = scattered(tmp_path / "apart", monkeypatch, shared=False)
    shared = scattered(tmp_path / "shared", monkeypatch, shared=True)
    assert all(shared[name] < length / 3 for name, length in apart.items()), (apart, shared)


def test_a_table_with_retries_is_refused(tmp_path: Path) -> None:
    file = stage(tmp_path, range(3))
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2")
    with table.transaction() as transaction:
        transaction.set_properties({"commit.retry.num-retries": "4"})
    with pytest.raises(LakeError, match="num-retries=4"):
        commit(tmp_path, file)


def _writer(folder: str, number: int, shared: StagedFile) -> None:
    """Commits its own files and the shared one, with a locked database thrown in before each commit."""
    real, calls = SqlCatalog.commit_table, [0]

    def sometimes_locked(self: SqlCatalog, *args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] % 3 == number % 3:
            if number % 2:
                real(self, *args, **kwargs)  # type: ignore[arg-type]
            raise LOCKED
        return real(self, *args, **kwargs)  # type: ignore[arg-type]

    SqlCatalog.commit_table = sometimes_locked  # type: ignore[method-assign,assignment]
    path = Path(folder)
    for step in range(4):
        first = 1000 * (number + 1) + step * 10
        commit(path, shared, stage(path, range(first, first + 10)), policy=RetryPolicy(200, 0.005, 0.1))


def test_eight_writers_with_a_locked_database(tmp_path: Path) -> None:
    shared = stage(tmp_path, range(50))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_writer, args=(str(tmp_path), number, shared)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    expected = [*range(50), *(1000 * (number + 1) + index for number in range(8) for index in range(40))]
    assert offsets_in(tmp_path) == sorted(expected)
    assert list(covered(tmp_path)["archive:a", 0]) == sorted(expected)
