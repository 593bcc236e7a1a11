"""The tables of the lake: names, schemas, partitioning, sort orders and properties.

Schemas are derived from the Avro schemas. A table is made on first use, with pyiceberg's own
commit retries off from the start: they would repeat an append without looking at the coverage.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.table import Table as Table  # noqa: PLC0414 - for the layers above
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform, MonthTransform, Transform
from pyiceberg.types import IntegerType, LongType
from sqlalchemy.exc import IntegrityError, OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from k2beam.errors import LakeError
from k2beam.model import KINDS, TIMESTAMP, Kind
from k2beam.schemas import EVENT_TIME_COLUMN, event_arrow_schema, iceberg_schema

EVENT_TABLES: dict[Kind, str] = {
    "trades": "trades_v2",
    "quotes": "quotes_v2",
    "reference_data": "reference_data_v2",
}
DEAD_LETTERS = "dead_letters"
SEQUENCE_GAPS = "sequence_gaps"
CERTIFIED_DAYS = "certified_days"
LEGAL_HOLES = "legal_holes"
COVERED_TABLES: tuple[str, ...] = (*EVENT_TABLES.values(), DEAD_LETTERS)
"""The tables whose rows stand for source offsets."""

EXPECTED_PREFIX = "k2.expected."
"""Table properties ``k2.expected.<partition>.<source>``: the end offset (exclusive) that a reader found."""

PROPERTIES = {
    "format-version": "2",
    "commit.retry.num-retries": "0",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("_source", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_offset_last", pa.int64(), nullable=False),
        pa.field("timestamp", TIMESTAMP),
        pa.field("key", pa.binary()),
        pa.field("payload", pa.binary()),
        pa.field(
            "headers",
            pa.list_(
                pa.field(
                    "element",
                    pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())]),
                    nullable=False,
                )
            ),
            nullable=False,
        ),
        pa.field("schema_id", pa.int64()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_class", pa.string(), nullable=False),
        pa.field("error_message", pa.string(), nullable=False),
        pa.field("record_json", pa.string()),
        pa.field("failed_at", TIMESTAMP, nullable=False),
    ]
)

GAP_SCHEMA = pa.schema(
    [
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("first_missing", pa.int64(), nullable=False),
        pa.field("last_missing", pa.int64(), nullable=False),
        pa.field("missing_count", pa.int64(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("opened_at", TIMESTAMP, nullable=False),
        pa.field("detected_at", TIMESTAMP, nullable=False),
        pa.field("gap_id", pa.string(), nullable=False),
        pa.field("revision", pa.int32(), nullable=False),
    ]
)

CERTIFIED_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("day", TIMESTAMP, nullable=False),
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("snapshot_id", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("unsequenced", pa.int64(), nullable=False),
        pa.field("symbols", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("slices", pa.list_(pa.field("element", pa.binary(), nullable=False)), nullable=False),
        pa.field("certified_at", TIMESTAMP, nullable=False),
        pa.field("checksum", pa.string(), nullable=False),
    ]
)

HOLE_SCHEMA = pa.schema(
    [
        pa.field("_source", pa.string(), nullable=False),
        pa.field("_partition", pa.int32(), nullable=False),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_offset_last", pa.int64(), nullable=False),
        pa.field("log_compacted", pa.bool_(), nullable=False),
        pa.field("found_at", TIMESTAMP, nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """What a table is made of: its columns, and what it is partitioned and sorted by."""

    name: str
    schema: pa.Schema
    day_column: str | None
    identity_column: str | None
    sort_columns: tuple[str, ...]
    month_column: str | None = None


def _event_spec(kind: Kind) -> TableSpec:
    day = EVENT_TIME_COLUMN[kind]
    identity = None if kind == "reference_data" else "exchange"
    return TableSpec(EVENT_TABLES[kind], event_arrow_schema(kind), day, identity, ("symbol", day))


SPECS: dict[str, TableSpec] = {
    **{EVENT_TABLES[kind]: _event_spec(kind) for kind in KINDS},
    DEAD_LETTERS: TableSpec(DEAD_LETTERS, DEAD_LETTER_SCHEMA, "failed_at", None, ("_source", "_partition", "_offset")),
    SEQUENCE_GAPS: TableSpec(SEQUENCE_GAPS, GAP_SCHEMA, None, None, ("exchange", "symbol", "kind", "first_missing")),
    CERTIFIED_DAYS: TableSpec(CERTIFIED_DAYS, CERTIFIED_SCHEMA, None, "kind", ("day", "exchange"), month_column="day"),
    LEGAL_HOLES: TableSpec(LEGAL_HOLES, HOLE_SCHEMA, "found_at", None, ("_source", "_partition", "_offset")),
}


def open_table(catalog: Catalog, namespace: str, name: str) -> Table:
    """Open a table, making it on first use; columns that were of 32 bits in an older version are widened.

    Raises LakeError where pyiceberg's own commit retries are on: two committers with the same
    files would then both succeed.
    """
    return _widened(catalog, verified(_load_or_create(catalog, namespace, name)))


def find_table(catalog: Catalog, namespace: str, name: str) -> Table | None:
    """Open a table for reading; None where it was never made."""
    try:
        return catalog.load_table((namespace, name))
    except NoSuchTableError:
        return None


def verified(table: Table) -> Table:
    """The table, if its own commit retries are off; else LakeError."""
    retries = table.properties.get("commit.retry.num-retries")
    if retries != "0":
        raise LakeError(
            f"table {'.'.join(table.name())} has commit.retry.num-retries={retries or 'default'}; "
            "set it to 0 before anything is written: with retries two committers can write the same rows"
        )
    return table


@retry(
    retry=retry_if_exception_type((CommitFailedException, OperationalError)),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)
def _widened(catalog: Catalog, table: Table) -> Table:
    """The table, its int columns made long where :data:`SPECS` has 64 bits (Iceberg, "Schema Evolution": promotion).

    Files with the narrow column stay readable. Another process may do the same, or commit, at the same time: then the
    catalog refuses, and the table is looked at again.
    """
    wide = {field.name for field in SPECS[table.name()[-1]].schema if field.type == pa.int64()}
    narrow = [field.name for field in table.schema().fields if field.name in wide and field.field_type == IntegerType()]
    if not narrow:
        return table
    fresh = catalog.load_table(table.name())
    with fresh.update_schema() as update:
        for name in narrow:
            update.update_column(name, LongType())
    return catalog.load_table(table.name())


@retry(
    retry=retry_if_exception_type((TableAlreadyExistsError, IntegrityError, OperationalError)),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)
def _load_or_create(catalog: Catalog, namespace: str, name: str) -> Table:
    found = find_table(catalog, namespace, name)
    if found is not None:
        return found
    with contextlib.suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace_if_not_exists(namespace)
    spec = SPECS[name]
    schema = iceberg_schema(spec.schema)
    return catalog.create_table(
        (namespace, name),
        schema=schema,
        partition_spec=PartitionSpec(*_partition_fields(spec, schema)),
        sort_order=SortOrder(
            *(
                SortField(source_id=schema.find_field(column).field_id, transform=IdentityTransform())
                for column in spec.sort_columns
            )
        ),
        properties=PROPERTIES,
    )


def _partition_fields(spec: TableSpec, schema: object) -> list[PartitionField]:
    wanted: list[tuple[str | None, Transform, str]] = [  # type: ignore[type-arg]
        (spec.day_column, DayTransform(), "_day"),
        (spec.identity_column, IdentityTransform(), ""),
        (spec.month_column, MonthTransform(), "_month"),
    ]
    return [
        PartitionField(
            source_id=schema.find_field(column).field_id,  # type: ignore[attr-defined]
            field_id=1000 + index,
            transform=transform,
            name=f"{column}{suffix}",
        )
        for index, (column, transform, suffix) in enumerate(wanted)
        if column is not None
    ]
