"""Every file of every snapshot is looked at once, and what is wrong with one is said."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from k2beam.config import NAMESPACE
from k2beam.lake import lean
from k2beam.maintain.verify import verify
from tests.maintain_helpers import TABLE, KeptLake


@pytest.fixture
def lake(tmp_path: Path) -> KeptLake:
    lake = KeptLake(tmp_path)
    lake.commit(4, rows=3)
    return lake


def problems(lake: KeptLake) -> list[tuple[str, str]]:
    found = list(verify(lake.table()))
    assert all(damage.table == TABLE for damage in found)
    return [(Path(damage.path).name, damage.problem) for damage in found]


def data_file(lake: KeptLake) -> Path:
    return min(lake.folder.rglob("*.parquet"))


def fewer_rows(path: Path) -> None:
    """A file of as many bytes, with other rows."""
    size = path.stat().st_size
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    content = path.read_bytes()
    assert len(content) < size
    path.write_bytes(b"PAR1" + b"\0" * (size - len(content)) + content[4:])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"has [\d,]+ bytes, but the snapshot says [\d,]+"),
        (lambda path: path.write_bytes(b"\0" * path.stat().st_size), "can't be read: "),
        (fewer_rows, "has 1 rows, but the snapshot says 3"),
    ],
    ids=["gone", "shorter", "overwritten", "fewer rows"],
)
def test_a_damaged_data_file_is_named(lake: KeptLake, damage: Callable[[Path], None], problem: str) -> None:
    assert problems(lake) == []
    path = data_file(lake)
    damage(path)
    ((name, said),) = problems(lake)
    assert name == path.name
    assert re.match(problem, said)


@pytest.mark.parametrize("pattern", ["snap-*.avro", "*-m0.avro"])
def test_a_damaged_manifest_or_list_is_named_and_the_others_are_looked_at(lake: KeptLake, pattern: str) -> None:
    path, other = min(lake.folder.rglob(pattern)), data_file(lake)
    path.write_bytes(b"x")
    other.unlink()
    assert {name for name, _ in problems(lake)} >= {path.name}
    path.unlink()
    assert (path.name, "is gone") in problems(lake)


def test_old_snapshots_and_tags_are_looked_at_too(lake: KeptLake) -> None:
    lake.table().delete("_offset >= 0")
    path = data_file(lake)
    path.unlink()
    assert problems(lake) == [(path.name, "is gone")]


def test_each_file_is_looked_at_once(lake: KeptLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "MERGED_AT_ONCE", 2)
    lake.commit(4)
    seen: list[str] = []
    assert list(verify(lake.table(), lambda file: seen.append(file.file_path))) == []
    assert len(seen) == len(set(seen)) == 8


def test_a_file_outside_the_tables_folder_is_found(lake: KeptLake, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = elsewhere / "added.parquet"
    shutil.copy(data_file(lake), path)
    table = lake.table()
    table.add_files([f"file://{path}"], check_duplicate_files=False)
    assert problems(lake) == []
    path.unlink()
    assert problems(lake) == [(path.name, "is gone")]


def test_what_was_expired_meanwhile_is_not_missed(lake: KeptLake) -> None:
    loaded, lost = lake.table(), data_file(lake)
    lake.commit(2, keep=1)
    expired = loaded.current_snapshot()
    assert expired is not None
    (lake.folder / NAMESPACE / TABLE / "metadata" / Path(expired.manifest_list).name).unlink()
    assert list(verify(loaded)) == []
    lost.unlink()
    assert [(Path(damage.path), damage.problem) for damage in verify(loaded)] == [(lost, "is gone")]
