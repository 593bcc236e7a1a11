"""Small warehouses for the tests of what moves and copies them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.maintain.warehouse import (
    Relocated,
    back_up,
    copy_warehouse,
    file_problems,
    finish,
    restore_warehouse,
)
from tests.lake_helpers import QUICK, lake_config, offsets_in, stage

ODD_NAMES = ("plain", "per%20cent, two words", "ha#sh?Grüße'")
"""Names of folders in which some way of writing an address has a meaning for a character."""


Operation = Callable[[Path, Path, Callable[[str], None]], Relocated]
COPIES: tuple[Operation, ...] = (copy_warehouse, back_up, restore_warehouse)


def committed(folder: Path, offsets: range) -> None:
    """Commit one file of trades with these offsets."""
    files = [stage(folder, offsets)]
    commit_files(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2", files, run_id="r", policy=QUICK)


def made(folder: Path, commits: int = 2) -> Path:
    """A warehouse of ``commits`` snapshots, with ten trades each."""
    for number in range(commits):
        committed(folder, range(10 * number, 10 * number + 10))
    return folder


def copied(old: Path, new: Path) -> Path:
    """What ``cp -r`` does."""
    shutil.copytree(old, new, symlinks=True)
    return new


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_holds(folder: Path, commits: int) -> None:
    """The folder is a warehouse with these commits of :func:`made`, and the audit passes."""
    assert offsets_in(folder) == list(range(10 * commits))
    report = audit(open_catalog(lake_config(folder), create=False), NAMESPACE, mend=False)
    assert report.ok, report.problems


def silent(step: str) -> None:
    """Hears of the steps."""


def done(operation: Operation, old: Path, new: Path) -> Relocated:
    """The whole of a command: the operation, what checks it, and the end."""
    relocated = operation(old, new, silent)
    assert file_problems(new, silent) == []
    finish(relocated)
    return relocated
