"""How a data file is read: as k2beam writes it by Arrow alone, otherwise by pyiceberg, with the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import EqualTo
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import FileScanTask, Table
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, StringType

from k2beam.config import NAMESPACE, RetryPolicy
from k2beam.lake import scan
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.scan import plan_files, read_file
from k2beam.lake.tables import SPECS, open_table
from tests.query_fixtures import DAY, append_events, make_catalog, rows_of, trade

ROWS = [trade(0, 1), trade(1, 2), trade(2, 3, side="SELL"), trade(3, 4, symbol="ETHUSDT")]
NAME = "trades_v2"


def written(tmp_path: Path) -> tuple[Catalog, Table]:
    """A table with one file of :data:`ROWS`, as a job writes it."""
    catalog = make_catalog(tmp_path)
    table = open_table(catalog, NAMESPACE, NAME)
    (file,) = write_rows(table, rows_of("trades", ROWS), DAY)
    commit_files(catalog, NAMESPACE, NAME, [file], run_id="run", policy=RetryPolicy())
    return catalog, opened(catalog)


def opened(catalog: Catalog) -> Table:
    return catalog.load_table((NAMESPACE, NAME))


def read(table: Table, *columns: str, **options: Any) -> pa.Table:
    (task,) = plan_files(table)
    return pa.Table.from_batches(read_file(table, task, columns, **options))


def rename(table: Table, **names: str) -> None:
    """Give columns other names, one after the other."""
    for old, new in names.items():
        with table.update_schema() as update:
            update.rename_column(old, new)


def paths(table: Table) -> set[str]:
    return {task.file.file_path for task in plan_files(table)}


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("pyiceberg was asked")


def test_a_file_of_ours_is_read_as_it_is_whatever_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, table = written(tmp_path)
    expected = table.scan().to_arrow()
    monkeypatch.setattr(scan, "ArrowScan", refuse)
    schema = SPECS[NAME].schema
    found = read(table, *schema.names)
    assert found.cast(schema).equals(expected.cast(schema))
    assert found.schema.equals(schema)


def test_texts_of_few_values_come_as_dictionaries_when_asked_for(tmp_path: Path) -> None:
    _, table = written(tmp_path)
    found = read(table, "symbol", "message_id", dictionaries=True)
    assert pa.types.is_dictionary(found.schema.field("symbol").type)
    assert found.to_pydict() == {
        "symbol": ["BTCUSDT", "BTCUSDT", "BTCUSDT", "ETHUSDT"],
        "message_id": ["m0", "m1", "m2", "m3"],
    }


@pytest.mark.parametrize("dictionaries", [False, True])
def test_a_filter_of_other_columns_than_those_asked_for(tmp_path: Path, dictionaries: bool) -> None:
    _, table = written(tmp_path)
    row_filter = EqualTo("symbol", "BTCUSDT") & EqualTo("side", "BUY")
    found = read(table, "_offset", row_filter=row_filter, dictionaries=dictionaries)
    assert found.to_pydict() == {"_offset": [0, 1]}


def test_a_file_of_another_writer_has_the_same_rows(tmp_path: Path) -> None:
    table = append_events(make_catalog(tmp_path), "trades", ROWS)
    found = read(table, "_offset", "side", row_filter=EqualTo("symbol", "BTCUSDT"), dictionaries=True)
    assert found.to_pydict() == {"_offset": [0, 1, 2], "side": ["BUY", "BUY", "SELL"]}


def test_a_column_whose_name_was_given_anew_is_not_that_of_old_files(tmp_path: Path) -> None:
    catalog, table = written(tmp_path)
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("side")
    with opened(catalog).update_schema() as update:
        update.add_column("side", StringType())
    found = read(opened(catalog), "_offset", "side", dictionaries=True)
    assert found.to_pydict() == {"_offset": [0, 1, 2, 3], "side": [None] * 4}
    (task,) = plan_files(opened(catalog))
    assert not list(read_file(opened(catalog), task, ["_offset"], EqualTo("side", "BUY")))


def test_a_renamed_column_is_read_by_its_new_name(tmp_path: Path) -> None:
    catalog, table = written(tmp_path)
    with table.update_schema() as update:
        update.rename_column("side", "aggressor")
    assert read(opened(catalog), "aggressor").to_pydict() == {"aggressor": ["BUY", "BUY", "SELL", "BUY"]}


def test_a_promoted_column_has_the_type_of_the_table(tmp_path: Path) -> None:
    catalog, table = written(tmp_path)
    with table.update_schema() as update:
        update.update_column("_partition", LongType())
    assert read(opened(catalog), "_partition").schema.field("_partition").type == pa.int64()


def test_names_are_those_of_the_snapshot(tmp_path: Path) -> None:
    catalog, table = written(tmp_path)
    rename(table, side="aggressor", currency="side")
    names = [field.name for field in opened(catalog).schema().fields]
    opened(catalog).append(rows_of("trades", ROWS).rename_columns(names))
    snapshot = opened(catalog).current_snapshot()
    rename(opened(catalog), side="currency", aggressor="side")
    task = next(task for task in plan_files(opened(catalog)) if task.file.file_path in paths(table))
    (batch,) = read_file(opened(catalog), task, ["side"], snapshot=snapshot)
    assert batch.to_pydict() == {"side": ["USDT"] * 4}


def test_deleted_rows_are_left_out(tmp_path: Path) -> None:
    _, table = written(tmp_path)
    (task,) = plan_files(table)
    path = tmp_path / "deletes.parquet"
    pq.write_table(pa.table({"file_path": [task.file.file_path] * 2, "pos": pa.array([1, 2], pa.int64())}), path)
    deletes = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=2,
        file_size_in_bytes=path.stat().st_size,
    )
    with_deletes = FileScanTask(task.file, {deletes})
    found = pa.Table.from_batches(read_file(table, with_deletes, ["_offset"], dictionaries=True))
    assert found.to_pydict() == {"_offset": [0, 3]}
