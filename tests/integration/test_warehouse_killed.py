"""``k2beam warehouse`` as a process of its own, killed by the system at several moments."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.place import UNFINISHED
from k2beam.maintain.warehouse import copy_warehouse, finish
from tests.lake_helpers import lake_config
from tests.warehouse_helpers import assert_holds, everything, made

pytestmark = pytest.mark.integration

COMMITS = 40
PATIENCE_SECONDS = 120

Seen = Callable[[Path], bool]


def has(pattern: str, count: int) -> Seen:
    return lambda new: sum(1 for _ in new.rglob(pattern)) >= count


def rewritten(new: Path) -> bool:
    """More manifests than commits: some of them are there twice, as they were and as they are to be."""
    return sum(1 for _ in new.rglob("*-m0.avro")) > COMMITS


def command(verb: str, old: Path, new: Path) -> list[str]:
    return [sys.executable, "-m", "k2beam.cli.main", "warehouse", verb, str(old), str(new)]


def killed(verb: str, old: Path, new: Path, moment: Seen) -> int:
    """Start the command, kill it when ``moment`` is seen in the new folder, and give how it ended."""
    process = subprocess.Popen(command(verb, old, new), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and not moment(new) and time.monotonic() < give_up:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse that no test changes."""
    return made(tmp_path_factory.mktemp("old") / "old", COMMITS)


@pytest.mark.parametrize(
    "moment", [Path.exists, has("*.parquet", 3), has("*-m0.avro", 3), has("snap-*.avro", 3), has("catalog.db", 1)]
)
@pytest.mark.parametrize("verb", ["copy", "backup"])
def test_a_copy_that_is_killed_is_completed_by_repeating_it(tmp_path: Path, old: Path, verb: str, moment: Seen) -> None:
    new, before = tmp_path / "new", everything(old)
    assert killed(verb, old, new, moment) == -signal.SIGKILL
    with pytest.raises(UsageError, match=r"no warehouse at|k2beam warehouse (copy|backup)"):
        open_catalog(lake_config(new), create=False)
    subprocess.run(command(verb, old, new), check=True, stdout=subprocess.DEVNULL)
    assert everything(old) == before
    assert not (new / UNFINISHED).exists()
    assert_holds(new, COMMITS)


@pytest.mark.parametrize("moment", [Path.exists, rewritten, has("snap-*.avro", COMMITS + 3)])
def test_a_move_that_is_killed_is_completed_by_repeating_it(tmp_path: Path, old: Path, moment: Seen) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    finish(copy_warehouse(old, here, lambda _: None))
    assert killed("move", here, there, moment) == -signal.SIGKILL
    assert here.exists() != there.exists()
    subprocess.run(command("move", here, there), check=True, stdout=subprocess.DEVNULL)
    assert not here.exists()
    assert_holds(there, COMMITS)
