"""Tables that an older version made, and the rows of dead letters with values at the edge."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import IntegerType, LongType

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.lake import tables
from k2beam.lake.catalog import open_catalog
from k2beam.lake.files import rewrite_without, write_rows
from k2beam.lake.rows import dead_letter_rows
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS, SPECS, TableSpec, find_table, open_table, own_types
from k2beam.model import DeadLetter, DeadLetterBatch
from k2beam.query.dead_letters import show_dead_letter
from tests.lake_helpers import START, lake_config, trades

NARROW = DEAD_LETTER_SCHEMA.set(DEAD_LETTER_SCHEMA.get_field_index("schema_id"), pa.field("schema_id", pa.int32()))


def dead_letters(*schema_ids: int | None) -> pa.Table:
    found = (
        DeadLetter("s", 0, offset, "schema", "unknown_schema_id", "m", b"p", schema_id=schema_id, failed_at=START)
        for offset, schema_id in enumerate(schema_ids)
    )
    return pa.Table.from_batches([dead_letter_rows(DeadLetterBatch(tuple(found))).data])


def old_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A catalog with dead letters whose schema ids have 32 bits, and a row."""
    catalog = open_catalog(lake_config(folder))
    spec = SPECS[DEAD_LETTERS]
    old = TableSpec(spec.name, NARROW, spec.day_column, spec.identity_column, spec.sort_columns)
    with monkeypatch.context() as patched:
        patched.setitem(SPECS, DEAD_LETTERS, old)
        own_types.cache_clear()
        table = open_table(catalog, NAMESPACE, DEAD_LETTERS)
    own_types.cache_clear()
    assert table.schema().find_type("schema_id") == IntegerType()
    table.append(dead_letters(7).cast(NARROW))
    return catalog


def ids(catalog: Catalog) -> list[Any]:
    table = find_table(catalog, NAMESPACE, DEAD_LETTERS)
    assert table is not None
    return sorted(table.scan().to_arrow().column("schema_id").to_pylist())


def test_ids_of_32_bits_unsigned_are_stored(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    open_table(catalog, NAMESPACE, DEAD_LETTERS).append(dead_letters(0, 2**31, 2**32 - 1))
    assert ids(catalog) == [0, 2**31, 2**32 - 1]


def test_the_column_of_an_older_table_is_widened_once_and_its_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = old_table(tmp_path, monkeypatch)
    table = open_table(catalog, NAMESPACE, DEAD_LETTERS)
    assert table.schema().find_type("schema_id") == LongType()
    assert open_table(catalog, NAMESPACE, DEAD_LETTERS).metadata_location == table.metadata_location
    table.append(dead_letters(1, 2**31 + 1))
    assert ids(catalog) == [1, 7, 2**31 + 1]
    assert show_dead_letter(catalog, NAMESPACE, "s", 0, 1)["schema_id"] == 2**31 + 1


def test_an_older_file_is_rewritten_with_the_wide_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = old_table(tmp_path, monkeypatch)
    narrow = find_table(catalog, NAMESPACE, DEAD_LETTERS)
    assert narrow is not None
    (staged,) = write_rows(narrow, dead_letters(7, 8).cast(NARROW), window=0)
    wide = open_table(catalog, NAMESPACE, DEAD_LETTERS)
    taken = Coverage()
    taken.add_range("s", 0, 1, 1)
    (fresh,) = rewrite_without(wide, staged, taken)
    assert fresh is not None
    assert fresh.rows == 1


def test_many_that_open_an_older_table_at_once_widen_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = old_table(tmp_path, monkeypatch)
    with ThreadPoolExecutor(6) as pool:
        catalogs = [open_catalog(lake_config(tmp_path)) for _ in range(6)]
        opened = list(pool.map(lambda each: open_table(each, NAMESPACE, DEAD_LETTERS), catalogs))
    assert {str(table.schema().find_type("schema_id")) for table in opened} == {"long"}
    table = find_table(catalog, NAMESPACE, DEAD_LETTERS)
    assert table is not None
    assert len(table.metadata.schemas) == 2


def test_a_table_of_our_own_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.Table, "update_schema", lambda *_: pytest.fail("the schema is as it should be"))
    for name in SPECS:
        open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, name)
        open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, name)


@pytest.mark.parametrize("symbol", ["\ud7ff" * 20, "x" * 15 + "\ud7ff" + "y", "\U0010ffff" * 20, "x" * 1_000_000])
def test_a_text_whose_upper_bound_is_hard_to_tell_is_written_and_found(tmp_path: Path, symbol: str) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    table = open_table(catalog, NAMESPACE, "trades_v2")
    (staged,) = write_rows(table, pa.Table.from_batches([trades([1, 2], symbol=symbol)]), window=START)
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as snapshot:
        snapshot.append_data_file(staged.data_file())
    assert table.scan(f"symbol = '{symbol}'").to_arrow().column("_offset").to_pylist() == [1, 2]
    bounds = staged.data_file().upper_bounds or {}
    assert table.schema().find_field("_offset").field_id in bounds, "numbers keep their bounds"
    assert len(list((tmp_path).rglob("*.parquet"))) == 1
