"""A warehouse knows its own place: what was copied or moved by other means is refused, with what mends it."""

from __future__ import annotations

import shlex
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2beam.errors import LakeError, UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.place import (
    UNFINISHED,
    TablePlace,
    check_place,
    command_line,
    home_of,
    lies_in,
    local_path,
    read_places,
)
from tests.lake_helpers import lake_config, offsets_in
from tests.warehouse_helpers import ODD_NAMES, committed, copied, everything, made


@pytest.mark.parametrize("prefix", ["file://", "file:", ""])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_location_has_one_path_however_it_is_written(prefix: str, name: str) -> None:
    assert local_path(f"{prefix}/data/{name}/t") == f"/data/{name}/t"


@pytest.mark.parametrize("location", ["s3://bucket/data/t", "hdfs://host/data/t", "data/t", "file://host/data/t"])
def test_what_is_not_on_this_machine_has_no_path(location: str) -> None:
    assert local_path(location) is None


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_a_location_lies_in_its_folder_and_in_no_other_that_begins_alike(name: str) -> None:
    folder = Path(f"/nowhere/n{name}")
    for prefix in ("file://", "file:", ""):
        assert lies_in(f"{prefix}/nowhere/n{name}/t", folder)
        assert not lies_in(f"{prefix}/nowhere/n{name}2/t", folder)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_warehouse_at_its_own_place_opens(tmp_path: Path, name: str) -> None:
    assert offsets_in(made(tmp_path / name, 1)) == list(range(10))


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("verb", ["copy", "move"])
def test_one_that_was_copied_or_moved_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, name: str, verb: str
) -> None:
    old, new = made(tmp_path / f"{name} old", 1), tmp_path / name
    copied(old, new) if verb == "copy" else old.rename(new)
    before = everything(tmp_path)
    with pytest.raises(UsageError) as refused:
        open_catalog(lake_config(new))
    said = str(refused.value)
    assert ("is a copy of" if verb == "copy" else "was moved from") in said
    assert shlex.split(said[said.index("k2beam warehouse") :]) == ["k2beam", "warehouse", verb, str(old), str(new)]
    assert everything(tmp_path) == before


def test_a_link_to_a_warehouse_is_the_warehouse(tmp_path: Path) -> None:
    made(tmp_path / "real", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    committed(tmp_path / "link", range(10, 20))
    assert offsets_in(tmp_path / "real") == list(range(20))


def test_a_folder_that_became_a_link_to_where_the_warehouse_is_now_is_right(tmp_path: Path) -> None:
    made(tmp_path / "disk1" / "w", 1)
    (tmp_path / "disk1").rename(tmp_path / "disk2")
    (tmp_path / "disk1").symlink_to(tmp_path / "disk2")
    assert offsets_in(tmp_path / "disk1" / "w") == list(range(10))


def test_a_new_warehouse_where_the_old_one_was_does_not_make_the_moved_one_a_copy(tmp_path: Path) -> None:
    made(tmp_path / "old", 1).rename(tmp_path / "new")
    open_catalog(lake_config(tmp_path / "old"))
    with pytest.raises(UsageError, match="was moved from"):
        check_place(tmp_path / "new")


def test_a_namespace_with_a_location_of_its_own_must_lie_in_the_folder(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path / "w"))
    catalog.create_namespace("near", {"location": str(tmp_path / "w" / "near")})
    check_place(tmp_path / "w")
    catalog.create_namespace("far", {"location": f"file://{tmp_path}/elsewhere/far"})
    with pytest.raises(UsageError, match=f"was moved from {tmp_path}/elsewhere: "):
        check_place(tmp_path / "w")


def test_a_table_outside_of_any_layout_is_named(tmp_path: Path) -> None:
    made(tmp_path / "w", 1)
    with sqlite3.connect(tmp_path / "w" / "catalog.db") as connection:
        connection.execute("UPDATE iceberg_tables SET metadata_location = 's3://bucket/x/1.metadata.json'")
    with pytest.raises(
        UsageError, match=r"has market_data.trades_v2 at s3://bucket/x/1.metadata.json, which is outside"
    ):
        check_place(tmp_path / "w")


def test_one_that_is_not_whole_is_refused_with_the_command_that_completes_it(tmp_path: Path) -> None:
    (tmp_path / UNFINISHED).write_text("k2beam warehouse copy a b\n")
    with pytest.raises(UsageError, match="run it again: k2beam warehouse copy a b"):
        open_catalog(lake_config(tmp_path))
    assert not (tmp_path / "catalog.db").exists()


def test_a_catalog_that_is_being_made_has_no_places(tmp_path: Path) -> None:
    assert read_places(tmp_path) == []
    (tmp_path / "catalog.db").touch()
    assert read_places(tmp_path) == []


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"no database at all, but of some length" * 100)
    with pytest.raises(LakeError, match=f"the catalog {tmp_path}/catalog.db can't be read"):
        check_place(tmp_path)


def test_the_home_of_tables_is_clear_only_where_they_agree() -> None:
    trades = TablePlace("a.b", "trades", "file:///x/a.b/trades/a.b/trades/metadata/1.json")
    assert home_of([trades]) == Path("/x/a.b/trades")
    assert home_of([trades, TablePlace("a.b", "quotes", "/y/a.b/quotes/metadata/1.json")]) is None
    assert home_of([TablePlace("a", "b", "s3://bucket/a/b/metadata/1.json")]) is None
    assert home_of([]) is None


def test_a_command_can_be_typed_as_it_is_shown() -> None:
    assert command_line("warehouse", "copy", Path("/a b"), "/c'd") == "k2beam warehouse copy '/a b' '/c'\"'\"'d'"
