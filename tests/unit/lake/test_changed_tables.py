"""Tables whose partition spec, sort order, columns or properties are not those that k2beam gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import EqualTo
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import SortDirection
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    UnknownTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.types import DecimalType, IntegerType, LongType, NestedField, StringType, TimestampType

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.errors import LakeError
from k2beam.lake.adopt import check_tables
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.scan import plan_files, read_file
from k2beam.lake.tables import RETRIES, SPECS, open_table, sort_columns
from k2beam.lake.transaction import Append, append
from k2beam.maintain.compact import compact_group, plan_compaction
from k2beam.schemas import iceberg_schema
from tests.lake_helpers import DAY, QUICK, START, lake_config, trades, written_by_the_first_row

TRADES = "trades_v2"
HOUR = DAY // 24


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = open_catalog(lake_config(tmp_path))
    open_table(made, NAMESPACE, TRADES)
    return made


def opened(catalog: Catalog) -> Table:
    return open_table(catalog, NAMESPACE, TRADES)


def many(first: int = 0, symbols: int = 7) -> pa.Table:
    """Rows of some symbols over three days, two of them of other exchanges."""
    parts = [
        trades(
            range(first + 6 * number, first + 6 * number + 6),
            symbol=f"S{number}",
            exchange="BINANCE" if number % 3 else "ASX",
            times=[START + step * 11 * HOUR for step in range(6)],
        )
        for number in range(symbols)
    ]
    return pa.Table.from_batches(parts)


def committed(catalog: Catalog, rows: pa.Table) -> None:
    files = write_rows(opened(catalog), rows, window=START)
    commit_files(catalog, NAMESPACE, TRADES, files, run_id="r", policy=QUICK)


def problems(catalog: Catalog) -> list[str]:
    return list(audit(catalog, NAMESPACE).problems)


def sorted_rows(rows: pa.Table) -> list[dict[str, Any]]:
    return rows.select(["_offset", "symbol", "exchange", "timestamp"]).sort_by("_offset").to_pylist()


def plain(value: pa.Scalar) -> Any:
    return value.value if isinstance(value, pa.TimestampScalar) else value.as_py()


@pytest.mark.parametrize(
    ("column", "transform"),
    [
        ("symbol", BucketTransform(4)),
        ("symbol", IdentityTransform()),
        ("symbol", TruncateTransform(1)),
        ("price", BucketTransform(3)),
        ("price", TruncateTransform(50)),
        ("price", IdentityTransform()),
        ("source_sequence", BucketTransform(5)),
        ("source_sequence", TruncateTransform(20)),
        ("ingestion_timestamp", YearTransform()),
        ("ingestion_timestamp", MonthTransform()),
        ("ingestion_timestamp", DayTransform()),
        ("ingestion_timestamp", HourTransform()),
        ("ingestion_timestamp", IdentityTransform()),
        ("ingestion_timestamp", BucketTransform(4)),
        ("platform_sequence", IdentityTransform()),
        ("platform_sequence", BucketTransform(4)),
        ("platform_sequence", VoidTransform()),
        ("_source", IdentityTransform()),
    ],
    ids=str,
)
def test_rows_go_to_files_by_the_tables_own_partition_spec(
    catalog: Catalog, column: str, transform: Transform[Any, Any]
) -> None:
    with opened(catalog).update_spec() as update:
        update.add_field(column, transform, "theirs")
    rows = many()
    committed(catalog, rows)
    table, source = opened(catalog), opened(catalog).schema().find_field(column)
    for task in plan_files(table):
        values = {
            transform.transform(source.field_type)(plain(value))
            for batch in read_file(table, task, [column])
            for value in batch.column(column)
        }
        assert {task.file.partition[2]} == values or transform == VoidTransform()
    assert sorted_rows(table.scan().to_arrow()) == sorted_rows(rows)
    for symbol in ("S0", "S3"):
        assert table.scan(EqualTo("symbol", symbol)).to_arrow().num_rows == 6
    assert problems(catalog) == []


@pytest.mark.parametrize("partitioned", [True, False])
def test_a_table_may_have_no_partitions_or_fewer(catalog: Catalog, partitioned: bool) -> None:
    with opened(catalog).update_spec() as update:
        update.remove_field("timestamp_day")
        if not partitioned:
            update.remove_field("exchange")
    committed(catalog, many())
    assert opened(catalog).inspect.files().num_rows <= (4 if partitioned else 1) * 3
    assert sorted_rows(opened(catalog).scan().to_arrow()) == sorted_rows(many())
    assert problems(catalog) == []


def test_what_was_written_before_the_spec_changed_is_written_anew_at_its_commit(catalog: Catalog) -> None:
    files = write_rows(opened(catalog), many(), window=START)
    with opened(catalog).update_spec() as update:
        update.add_field("symbol", BucketTransform(4), "theirs")
    receipt = commit_files(catalog, NAMESPACE, TRADES, files, run_id="r", policy=QUICK)
    table = opened(catalog)
    assert (receipt.rows, {task.file.spec_id for task in plan_files(table)}) == (42, {table.metadata.default_spec_id})
    assert problems(catalog) == []
    with pytest.raises(LakeError, match=r"partition spec of table market_data\.trades_v2 was changed while"):
        append(table, Append([files[0].data_file()]))


def test_an_offset_that_comes_twice_is_written_once_in_any_partition(catalog: Catalog) -> None:
    with opened(catalog).update_spec() as update:
        update.add_field("symbol", IdentityTransform(), "theirs")
    twice = pa.Table.from_batches([trades([1, 2], symbol="A"), trades([2, 3], symbol="B")])
    files = write_rows(opened(catalog), twice, window=START)
    assert [(file.rows, file.repeated, file.offsets) for file in files] == [(2, 1, 3), (1, 0, 1)]


@pytest.mark.parametrize("transform", [UnknownTransform("zorder[2]"), VoidTransform()], ids=str)
def test_a_transform_that_can_not_be_written_is_refused(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, transform: Transform[Any, Any]
) -> None:
    spec = PartitionSpec(PartitionField(3, 1000, transform, "theirs"), spec_id=0)
    monkeypatch.setattr(Table, "spec", lambda self: spec)
    with pytest.raises(LakeError, match=r"the partition field theirs of table .*trades_v2 is made by a transform"):
        check_tables(catalog, NAMESPACE)


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([("timestamp", SortDirection.ASC)], ("timestamp",)),
        ([("exchange", SortDirection.ASC), ("source_sequence", SortDirection.ASC)], None),
        ([("_offset", SortDirection.ASC)], ("_offset",)),
        ([("timestamp", SortDirection.DESC)], None),
        ([("price", SortDirection.ASC)], None),
    ],
)
def test_rows_are_sorted_by_the_tables_own_order_where_it_goes_up_by_columns_without_nulls(
    catalog: Catalog, orders: list[tuple[str, SortDirection]], expected: tuple[str, ...] | None
) -> None:
    with opened(catalog).update_sort_order() as update:
        for column, direction in orders:
            (update.asc if direction == SortDirection.ASC else update.desc)(column, IdentityTransform())
    assert sort_columns(opened(catalog)) == (expected or ("symbol", "timestamp"))
    committed(catalog, pa.Table.from_batches([trades([3, 1, 2], times=[START, START + 2, START + 1])]))
    found = opened(catalog).scan().to_arrow().column("_offset").to_pylist()
    assert found == ([1, 2, 3] if expected == ("_offset",) else [3, 2, 1])
    assert problems(catalog) == []


def test_an_optional_column_of_others_is_null_in_new_rows_and_kept_by_a_compaction(catalog: Catalog) -> None:
    committed(catalog, many())
    with opened(catalog).update_schema() as update:
        update.add_column("desk_note", StringType())
        update.move_first("desk_note")
    noted = pa.Table.from_batches([trades([900, 901])]).append_column("desk_note", pa.array(["kept", None]))
    opened(catalog).append(noted)
    for number in range(6):
        committed(catalog, pa.Table.from_batches([trades([1000 + number])]))
    rows = opened(catalog).scan(selected_fields=("_offset", "desk_note")).to_arrow().sort_by("_offset").to_pylist()
    assert [row["_offset"] for row in rows if row["desk_note"]] == [900]
    assert len(rows) == 42 + 2 + 6
    done = [
        compact_group(catalog, NAMESPACE, planned, group, 1 << 20)
        for planned, group in plan_compaction(catalog, NAMESPACE, TRADES, 1 << 20, 1 << 62)
    ]
    assert [one.result for one in done] == ["compacted"]
    after = opened(catalog).scan(selected_fields=("_offset", "desk_note")).to_arrow().sort_by("_offset").to_pylist()
    assert after == rows


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda u: u.rename_column("symbol", "ticker"), r"has no column symbol \(it was renamed to ticker\)"),
        (lambda u: u.delete_column("platform_sequence"), r"has no column platform_sequence \(it was dropped\)"),
        (
            lambda u: u.delete_column("currency").add_column("currency", IntegerType()),
            r"column currency of table market_data\.trades_v2 is of type int, and k2beam writes string",
        ),
        (
            lambda u: u.delete_column("ingestion_timestamp").add_column("ingestion_timestamp", TimestampType()),
            r"column ingestion_timestamp .* is of type timestamp, and k2beam writes timestamptz",
        ),
        (lambda u: u.add_column("desk", StringType(), required=True), "must not be null .* doesn't know: desk"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(catalog: Catalog, update: Callable[[Any], None], message: str) -> None:
    committed(catalog, many())
    table = opened(catalog)
    with table.update_spec() as spec:
        spec.remove_field("timestamp_day")
    with opened(catalog).update_schema(allow_incompatible_changes=True) as schema:
        update(schema)
    with pytest.raises(LakeError, match=message):
        check_tables(catalog, NAMESPACE)


def test_types_that_others_promoted_are_written_as_they_are_now(catalog: Catalog) -> None:
    committed(catalog, many())
    with opened(catalog).update_schema() as update:
        update.update_column("price", DecimalType(38, 8))
        update.update_column("_partition", LongType())
    committed(catalog, many(first=42))
    assert opened(catalog).scan().to_arrow().schema.field("price").type == pa.decimal128(38, 8)
    assert len(opened(catalog).scan().to_arrow()) == 84
    assert problems(catalog) == []


def test_the_audit_names_a_file_with_rows_of_other_partitions(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(catalog).update_spec() as update:
        update.add_field("symbol", BucketTransform(4), "theirs")
    rows = many().filter(pc.equal(many().column("exchange"), "ASX")).slice(0, 18)
    one_day = rows.filter(pc.less(rows.column("timestamp").cast(pa.int64()), START + DAY))
    files = written_by_the_first_row(opened(catalog), one_day, monkeypatch)
    commit_files(catalog, NAMESPACE, TRADES, files, run_id="r", policy=QUICK)
    message = f"table trades_v2: file {files[0].path} has rows of other partitions than its own"
    assert any(message in problem for problem in problems(catalog))


@pytest.mark.parametrize("column", ["symbol", "timestamp", "exchange"])
def test_the_audit_names_a_file_with_rows_outside_its_bounds(catalog: Catalog, column: str) -> None:
    (staged,) = write_rows(opened(catalog), pa.Table.from_batches([trades([1, 2], symbol="MID")]), window=START)
    file = staged.data_file()
    number = opened(catalog).schema().find_field(column).field_id
    file.lower_bounds[number] = (START + DAY).to_bytes(8, "little") if column == "timestamp" else b"ZZZ"
    append(opened(catalog), Append([file], Coverage.from_bytes(staged.coverage).to_properties()))
    assert any(f"has rows outside the bounds of its column {column}" in problem for problem in problems(catalog))


def in_columns_of(table: Table, rows: pa.Table) -> pa.Table:
    schema = table.schema().as_arrow()
    noted = rows.append_column("desk", pa.nulls(rows.num_rows, pa.string()))
    return noted.select(schema.names).cast(schema)


def made_by_others(catalog: Catalog, *without: str, rows: pa.Table | None = None) -> Table:
    """A table as another program makes it: other ids, partitions and properties."""
    catalog.drop_table((NAMESPACE, TRADES))
    fields = reversed([field for field in iceberg_schema(SPECS[TRADES].schema).fields if field.name not in without])
    schema = Schema(*fields, NestedField(900, "desk", StringType(), required=False))
    table = catalog.create_table((NAMESPACE, TRADES), schema, properties={"write.parquet.compression-codec": "gzip"})
    with table.update_spec() as update:
        update.add_field("currency", TruncateTransform(2), "theirs")
    if rows is not None:
        table.append(in_columns_of(table, rows))
    return table


def test_a_table_of_others_is_refused_until_it_is_taken_over(catalog: Catalog) -> None:
    table = made_by_others(catalog, rows=pa.Table.from_batches([trades([1, 2])]))
    with pytest.raises(LakeError, match=r"num-retries=default; .* `k2beam ingest --adopt` takes over a table"):
        check_tables(catalog, NAMESPACE)
    check_tables(catalog, NAMESPACE, adopt=True)
    check_tables(catalog, NAMESPACE)
    properties = opened(catalog).properties
    assert (properties[RETRIES], properties["write.parquet.compression-codec"]) == ("0", "gzip")
    files = write_rows(opened(catalog), pa.Table.from_batches([trades([1, 2, 3])]), window=START)
    receipt = commit_files(catalog, NAMESPACE, TRADES, files, run_id="r", policy=QUICK)
    assert (receipt.rows, receipt.offsets_left_out) == (1, 2)
    assert problems(catalog) == []
    assert opened(catalog).spec() == table.spec()
    version = opened(catalog).metadata_location
    check_tables(catalog, NAMESPACE, adopt=True)
    assert opened(catalog).metadata_location == version


def test_columns_that_may_be_null_are_added_when_a_table_is_taken_over(catalog: Catalog) -> None:
    made_by_others(catalog, "platform_sequence")
    check_tables(catalog, NAMESPACE, adopt=True)
    committed(catalog, many())
    assert problems(catalog) == []
    made_by_others(catalog, "symbol", "_offset")
    with pytest.raises(LakeError, match="can't be taken over: it has no symbol, _offset, which no row is without"):
        check_tables(catalog, NAMESPACE, adopt=True)


def test_a_table_with_rows_of_no_offset_is_not_taken_over(catalog: Catalog) -> None:
    table = made_by_others(catalog)
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.make_column_optional("_offset")
    rows = pa.Table.from_batches([trades([1])])
    rows = rows.set_column(rows.schema.get_field_index("_offset"), "_offset", pa.nulls(1, pa.int64()))
    table.append(in_columns_of(table, rows))
    with pytest.raises(LakeError, match="can't be taken over: it has rows without _source, _partition and _offset"):
        check_tables(catalog, NAMESPACE, adopt=True)
    assert RETRIES not in catalog.load_table((NAMESPACE, TRADES)).properties
