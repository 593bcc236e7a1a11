"""Compaction beside jobs and other compactions, and whatever fails: no row is lost, and nothing is half done."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.table import Table

from k2beam.config import NAMESPACE, RetryPolicy
from k2beam.errors import CommitConflict, CommitUnknown, LakeError, UnreadableFile
from k2beam.lake import transaction
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.transaction import Append, replaces
from k2beam.lake.writer import DataFileWriter
from k2beam.maintain import rewrite
from k2beam.maintain.compact import Compaction, compact_group, plan_compaction
from tests.compact_helpers import (
    NAME,
    NEVER_BUSY,
    TARGET,
    commit,
    compacted,
    fill,
    opened,
    orphaned,
    paths,
)
from tests.lake_helpers import QUICK, lake_config, offsets_in


def during(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None], times: int = 1) -> None:
    """Do something after a compaction has planned its commit, and before it commits."""
    real = transaction.append
    left = [action] * times

    def append(table: Table, change: Append) -> None:
        if change.replaced and left:
            left.pop()()
        real(table, change)

    monkeypatch.setattr(transaction, "append", append)


def test_what_a_job_commits_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    offsets = iter(range(60, 90, 10))

    def job() -> None:
        first = next(offsets)
        commit(tmp_path, range(first, first + 10))

    during(monkeypatch, job, times=3)
    (done,) = compacted(tmp_path)
    assert done.result == "compacted"
    assert offsets_in(tmp_path) == list(range(90))
    assert len(paths(opened(tmp_path))) == 4
    assert list(read_coverage(open_catalog(lake_config(tmp_path)), NAMESPACE)["archive:a", 0]) == list(range(90))


def test_a_job_whose_commit_loses_to_a_compaction_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    real = transaction.append
    waiting = [lambda: compacted(tmp_path)]

    def append(table: Table, change: Append) -> None:
        if waiting:
            waiting.pop()()
        real(table, change)

    monkeypatch.setattr(transaction, "append", append)
    commit(tmp_path, range(60, 70))
    assert offsets_in(tmp_path) == list(range(70))
    assert len(paths(opened(tmp_path))) == 2


@pytest.mark.parametrize("when", ["while it writes", "while it commits"])
def test_of_two_compactions_of_the_same_files_one_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    fill(tmp_path)
    first: list[Compaction] = []
    if when == "while it commits":
        during(monkeypatch, lambda: first.extend(compacted(tmp_path)))
        (done,) = compacted(tmp_path)
    else:
        catalog = open_catalog(lake_config(tmp_path))
        ((planned, group),) = plan_compaction(catalog, NAMESPACE, NAME, TARGET, NEVER_BUSY)
        first = compacted(tmp_path)
        done = compact_group(catalog, NAMESPACE, planned, group, TARGET, QUICK)
    assert [one.result for one in first] == ["compacted"]
    assert (done.result, done.bytes_after) == ("gone", None)
    assert offsets_in(tmp_path) == list(range(60))
    assert orphaned(tmp_path) == (1 if when == "while it commits" else 0), "what was offered is not deleted"


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception, *, landed: bool, times: int = 1) -> None:
    """The next commits raise ``error``, after or instead of landing."""
    real = SqlCatalog.commit_table
    left = [error] * times

    def commit_table(self: SqlCatalog, *args: Any, **kwargs: Any) -> Any:
        if not left:
            return real(self, *args, **kwargs)
        if landed:
            real(self, *args, **kwargs)
        raise left.pop()

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize(
    "error", [CommitStateUnknownException("504"), CommitFailedException("conflict"), ConnectionResetError("lost")]
)
def test_whatever_the_catalog_says_the_rows_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, landed: bool
) -> None:
    fill(tmp_path)
    fails(monkeypatch, error, landed=landed)
    (done,) = compacted(tmp_path)
    assert done.result == "compacted"
    assert offsets_in(tmp_path) == list(range(60))
    table = opened(tmp_path)
    assert len(paths(table)) == 1
    assert sum(map(replaces, table.snapshots())) == 1


@pytest.mark.parametrize(
    ("error", "raised"),
    [(CommitFailedException("conflict"), CommitConflict), (CommitStateUnknownException("504"), CommitUnknown)],
)
@pytest.mark.parametrize("landed", [True, False])
def test_files_that_may_have_landed_are_never_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[LakeError], landed: bool
) -> None:
    fill(tmp_path)
    fails(monkeypatch, error, landed=landed)
    with pytest.raises(raised):
        compacted(tmp_path, policy=RetryPolicy(attempts=1))
    assert offsets_in(tmp_path) == list(range(60))
    assert orphaned(tmp_path) == (0 if landed else 1)
    assert [done.result for done in compacted(tmp_path)] == ([] if landed else ["compacted"])


@pytest.mark.parametrize("step", ["reading", "sorting", "writing", "ending a file", "reading back"])
def test_an_error_at_any_step_leaves_the_table_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    fill(tmp_path)
    home, name = {
        "reading": (rewrite, "_read"),
        "sorting": (rewrite, "sort_order"),
        "writing": (DataFileWriter, "write"),
        "ending a file": (DataFileWriter, "close"),
        "reading back": (rewrite, "_digest_file"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(home, name, _raising)
        with pytest.raises(LakeError, match=r"exchange=BINANCE: 6 files could not be compacted \(.*no room"):
            compacted(tmp_path)
    assert orphaned(tmp_path) == 0
    assert len(opened(tmp_path).snapshots()) == 6
    assert [done.result for done in compacted(tmp_path)] == ["compacted"]
    assert offsets_in(tmp_path) == list(range(60))


_KILLED = """
import os, signal, sys
from k2beam.cli.main import main
from k2beam.lake import transaction
from k2beam.lake.writer import DataFileWriter

home, name = {"written": (DataFileWriter, "close"), "committed": (transaction, "append")}[sys.argv[1]]
real = getattr(home, name)

def kill_after(*arguments):
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(home, name, kill_after)
main(["maintain", "compact", "--apply", "--warehouse", sys.argv[2]])
"""


@pytest.mark.parametrize(("moment", "files", "left"), [("written", 6, ["compacted"]), ("committed", 1, [])])
def test_a_kill_loses_nothing_and_the_same_again_completes_it(
    tmp_path: Path, moment: str, files: int, left: list[str]
) -> None:
    fill(tmp_path)
    killed = subprocess.run([sys.executable, "-c", _KILLED, moment, str(tmp_path)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (offsets_in(tmp_path), len(paths(opened(tmp_path)))) == (list(range(60)), files)
    assert orphaned(tmp_path) == (1 if moment == "written" else 0)
    assert [done.result for done in compacted(tmp_path)] == left
    assert (offsets_in(tmp_path), len(paths(opened(tmp_path)))) == (list(range(60)), 1)


def _raising(*_: Any, **__: Any) -> Any:
    raise OSError("no room")


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    lost = Path(paths(opened(tmp_path))[3].removeprefix("file://"))
    lost.unlink()
    with pytest.raises(UnreadableFile, match=f"{lost.name} is gone"):
        compacted(tmp_path)
    assert orphaned(tmp_path) == 0


def test_a_file_that_has_not_the_rows_that_the_snapshot_says_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    short = Path(paths(opened(tmp_path))[3].removeprefix("file://"))
    pq.write_table(pq.ParquetFile(short).read().slice(1), short)
    with pytest.raises(UnreadableFile, match=f"{short.name} has 9 rows, but the snapshot says 10"):
        compacted(tmp_path)
    assert len(opened(tmp_path).snapshots()) == 6


def _dropped(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


def _twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(1), rows.slice(1, 1)])


def _dearer(rows: pa.Table) -> pa.Table:
    position = rows.schema.get_field_index("price")
    prices = rows.column("price").to_pylist()
    changed = pa.array([*prices[:-1], prices[-1] * 2], rows.schema.field("price").type)
    return rows.set_column(position, rows.schema.field("price"), changed)


@pytest.mark.parametrize("tamper", [_dropped, _twice, _dearer])
def test_files_whose_rows_are_not_the_same_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Callable[[pa.Table], pa.Table]
) -> None:
    fill(tmp_path)
    real = DataFileWriter.write
    with monkeypatch.context() as patch:
        patch.setattr(DataFileWriter, "write", lambda self, rows: real(self, tamper(rows)))
        with pytest.raises(LakeError, match=r"partition timestamp_day=2024-10-04/exchange=BINANCE: 6 files have 60"):
            compacted(tmp_path)
    assert orphaned(tmp_path) == 0
    assert len(opened(tmp_path).snapshots()) == 6
    assert offsets_in(tmp_path) == list(range(60))
