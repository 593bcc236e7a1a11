"""Tables whose decimals have 18 digits, as older versions made them: they are promoted, read, and written to."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import DecimalType

from k2beam import Lake
from k2beam.audit.compare import compare
from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.digest import digest_rows
from k2beam.lake.files import write_rows
from k2beam.lake.scan import load_readable, read_whole
from k2beam.lake.tables import open_table
from k2beam.model import DECIMAL
from k2beam.validation import violations
from tests.lake_helpers import QUICK, START, lake_config, older_version, trades

NAME = "trades_v2"


def add(folder: Path, first: int, *quantities: str) -> None:
    """Commit trades of these quantities, from the offset ``first`` on."""
    catalog = open_catalog(lake_config(folder))
    rows = trades(range(first, first + len(quantities)))
    numbers = pa.array([Decimal(text) for text in quantities], DECIMAL)
    place = rows.schema.get_field_index("quantity")
    rows = rows.set_column(place, rows.schema.field(place), numbers)
    table = open_table(catalog, NAMESPACE, NAME)
    files = write_rows(table, pa.Table.from_batches([rows]), START)
    commit_files(catalog, NAMESPACE, NAME, files, run_id=f"r{first}", policy=QUICK)


def quantities(folder: Path, **options: Any) -> list[Decimal]:
    found = Lake(str(folder)).trades("BTC", columns=["quantity"], **options)
    return sorted(found.column("quantity").to_pylist())


def test_it_is_promoted_and_takes_more_digits_before_the_point(tmp_path: Path) -> None:
    with older_version():
        add(tmp_path, 0, "2")
        old = load_readable(open_catalog(lake_config(tmp_path)), NAMESPACE, NAME)
        assert old.schema().find_type("quantity") == DecimalType(18, 8)
    add(tmp_path, 1, "18500000000")
    table = load_readable(open_catalog(lake_config(tmp_path)), NAMESPACE, NAME)
    assert table.schema().find_type("quantity") == DecimalType(38, 8)
    assert quantities(tmp_path) == [Decimal(2), Decimal(18_500_000_000)]
    for task in table.scan().plan_files():
        for rows in read_whole(table, task.file):
            assert rows.schema.field("quantity").type == pa.decimal128(38, 8)


def test_a_number_with_more_places_is_a_violation_that_says_what_to_do() -> None:
    rows = trades(range(3))
    numbers = pa.array([Decimal(2), Decimal("0.000012345"), Decimal(18_500_000_000)], DECIMAL)
    place = rows.schema.get_field_index("quantity")
    rows = rows.set_column(place, rows.schema.field(place), numbers)
    stored = rows.schema.set(place, pa.field("quantity", pa.decimal128(38, 8)))
    (found,) = violations("trades", rows, 2 * START, stored)
    assert (found.row, found.error_class) == (1, "decimal_overflow")
    assert "quantity has more digits than its column" in found.message
    assert "k2beam warehouse upgrade" in found.message
    assert violations("trades", rows, 2 * START) == ()


def test_one_row_has_one_digest_in_both_and_compares_as_the_same(tmp_path: Path) -> None:
    with older_version():
        add(tmp_path / "old", 0, "2", "0.00000001")
    add(tmp_path / "new", 0, "2", "0.00000001")
    rows = [
        load_readable(open_catalog(lake_config(tmp_path / name)), NAMESPACE, NAME).scan().to_arrow()
        for name in ("old", "new")
    ]
    assert [found.schema.field("quantity").type for found in rows] == [pa.decimal128(18, 8), DECIMAL]
    first, second = (digest_rows(found.drop_columns(["_ingested_at"])) for found in rows)
    assert first == second
    catalogs = [open_catalog(lake_config(tmp_path / name)) for name in ("old", "new")]
    assert compare(*catalogs, NAMESPACE).same


@pytest.mark.parametrize("other", ["0.000000011", "0.00000001", "1.00000001"])
def test_digits_behind_the_eighth_place_count(other: str) -> None:
    def digest(text: str) -> Any:
        return digest_rows(pa.table({"price": pa.array([Decimal(text), None], DECIMAL)}))

    assert digest(other) != digest("0.000000012")
