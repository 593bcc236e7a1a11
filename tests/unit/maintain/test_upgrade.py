"""``k2beam warehouse upgrade``: tables of an older version get the columns of new ones, and keep all that they have."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import DecimalType
from typer.testing import CliRunner

from k2beam import Lake
from k2beam.audit.audit import audit
from k2beam.audit.pins import check_pin
from k2beam.cli.main import app
from k2beam.config import NAMESPACE
from k2beam.errors import LakeError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.pins import pin_tables
from k2beam.lake.scan import load_readable
from k2beam.lake.tables import open_table
from k2beam.maintain.upgrade import upgrade_tables
from tests.lake_helpers import QUICK, lake_config, older_version, stage
from tests.unit.lake.test_older_decimals import NAME, add, quantities

TARGET = 1 << 20


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with older_version():
        add(tmp_path, 0, "2", "3")
        add(tmp_path, 2, "0.00000001")
    return tmp_path


def upgrade(folder: Path) -> dict[str, tuple[str, ...]]:
    done = upgrade_tables(open_catalog(lake_config(folder)), NAMESPACE, TARGET)
    return {one.table: one.columns for one in done}


def test_the_rows_stay_and_the_columns_are_wide(old: Path) -> None:
    before = Lake(str(old)).trades("BTC").drop_columns(["price", "quantity"])
    assert upgrade(old) == {NAME: ("price", "quantity")}
    table = load_readable(open_catalog(lake_config(old)), NAMESPACE, NAME)
    assert table.schema().find_type("quantity") == DecimalType(38, 18)
    with older_version():
        names = [field.name for field in table.schema().fields]
    assert names == open_names(old)
    assert Lake(str(old)).trades("BTC").drop_columns(["price", "quantity"]) == before
    assert quantities(old) == [Decimal("0.00000001"), Decimal(2), Decimal(3)]
    add(old, 3, "0.000012345")
    assert quantities(old)[1] == Decimal("0.000012345")
    assert upgrade(old) == {NAME: ()}


def open_names(folder: Path) -> list[str]:
    """The names of the columns of a new table, in their order."""
    new = open_table(open_catalog(lake_config(folder / "new")), NAMESPACE, NAME)
    return [field.name for field in new.schema().fields]


def test_older_snapshots_and_pins_are_read_as_they_were(old: Path) -> None:
    catalog = open_catalog(lake_config(old))
    table = load_readable(catalog, NAMESPACE, NAME)
    snapshot = table.metadata.current_snapshot_id
    pin_tables(catalog, NAMESPACE, "close")
    upgrade(old)
    assert quantities(old, as_of=snapshot) == [Decimal("0.00000001"), Decimal(2), Decimal(3)]
    assert [found.problem for found in check_pin(catalog, NAMESPACE, "close")] == [None]
    assert audit(catalog, NAMESPACE).ok


def test_what_was_written_for_the_old_columns_is_refused(old: Path) -> None:
    late = stage(old, [7])
    upgrade(old)
    with pytest.raises(LakeError, match=r"columns of table .*trades_v2 were changed while rows were written for it"):
        commit_files(open_catalog(lake_config(old)), NAMESPACE, NAME, [late], run_id="late", policy=QUICK)
    assert len(quantities(old)) == 3


def test_what_another_writer_commits_meanwhile_is_upgraded_too(old: Path) -> None:
    late = [stage(old, [3])]

    def commit(_rows: int) -> None:
        if late:
            catalog = open_catalog(lake_config(old))
            commit_files(catalog, NAMESPACE, NAME, [late.pop()], run_id="late", policy=QUICK)

    (done,) = upgrade_tables(open_catalog(lake_config(old)), NAMESPACE, TARGET, commit)
    assert (done.rows, len(quantities(old))) == (4, 4)
    assert audit(open_catalog(lake_config(old)), NAMESPACE).ok


def test_a_table_that_is_partitioned_by_such_a_column_is_refused(old: Path) -> None:
    catalog = open_catalog(lake_config(old))
    with load_readable(catalog, NAMESPACE, NAME).update_spec() as spec:
        spec.add_field("price", BucketTransform(4), "price_bucket")
    with pytest.raises(LakeError, match="is partitioned or sorted by price: nothing was changed"):
        upgrade(old)
    assert len(quantities(old)) == 3


def test_the_command_tells_what_it_did(old: Path) -> None:
    words = ["warehouse", "upgrade", "--warehouse", str(old), "--output", "json"]
    first, second = (CliRunner().invoke(app, words) for _ in range(2))
    (done,) = json.loads(first.stdout)
    assert (done["table"], done["columns"], done["rows"]) == (NAME, ["price", "quantity"], 3)
    assert (done["files"], done["files_after"]) == (2, 1)
    assert len(done["digest"]) == 32
    (again,) = json.loads(second.stdout)
    assert (again["columns"], again["files"], again["digest"]) == ([], 0, None)
