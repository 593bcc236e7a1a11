"""Workers that would write into another warehouse than that of their job."""

from dataclasses import replace
from pathlib import Path

import pytest

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.identity import settled


def made(place: str) -> LakeConfig:
    lake = LakeConfig(place)
    return settled(lake, open_catalog(lake))


def test_a_relative_path_is_that_of_whoever_started_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lake = made("./lake")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_catalog(lake).properties["warehouse"] == str(tmp_path / "lake")
    assert not any(Path.cwd().iterdir())


def test_another_warehouse_is_refused_with_the_machine_and_the_folder(tmp_path: Path) -> None:
    lake, other = made(str(tmp_path / "lake")), made(str(tmp_path / "other"))
    with pytest.raises(UsageError, match=rf"a worker on .+, in .+, has another warehouse {other.warehouse} than"):
        open_catalog(replace(other, identity=lake.identity))


def test_a_warehouse_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    lake = made(str(tmp_path / "lake"))
    with pytest.raises(UsageError, match=r"a worker on .+ can't open what its job writes to: no warehouse at"):
        open_catalog(replace(lake, warehouse=str(tmp_path / "nowhere")))
    assert not (tmp_path / "nowhere").exists()


def test_a_warehouse_without_tables_is_another_one(tmp_path: Path) -> None:
    lake, other = made(str(tmp_path / "lake")), LakeConfig(str(tmp_path / "other"))
    open_catalog(other)
    with pytest.raises(UsageError, match="has another warehouse"):
        open_catalog(replace(other, identity=lake.identity))
