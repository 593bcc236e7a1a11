"""The tables of the lake: names, schemas, partitioning, sort orders and properties.

Schemas are derived from the Avro schemas. A table is made on first use, with pyiceberg's own
commit retries off from the start: they would repeat an append without looking at the coverage.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    ResolveError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema, promote
from pyiceberg.table import Table as Table  # noqa: PLC0414 - for the layers above
from pyiceberg.table.sorting import SortDirection, SortField, SortOrder
from pyiceberg.transforms import (
    DayTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    UnknownTransform,
    VoidTransform,
)
from pyiceberg.types import DecimalType, IcebergType, IntegerType, LongType
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

RETRIES = "commit.retry.num-retries"
PROPERTIES = {
    "format-version": "2",
    RETRIES: "0",
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


_SORTABLE = (pa.string(), pa.int32(), pa.int64(), TIMESTAMP)


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

    Raises LakeError as :func:`find_table` and :func:`verified` do.
    """
    return _widened(catalog, verified(_load_or_create(catalog, namespace, name)))


def find_table(catalog: Catalog, namespace: str, name: str) -> Table | None:
    """Open a table for reading; None where it was never made.

    Others may have added columns. Raises LakeError where one that k2beam needs was renamed, dropped or given a type
    that its own can't be promoted to (Iceberg, "Schema Evolution").
    """
    try:
        table = catalog.load_table((namespace, name))
    except NoSuchTableError:
        return None
    found = {field.name: field.field_type for field in table.schema().fields}
    for column, own in own_types(name).items():
        if column not in found:
            raise LakeError(
                f"table {namespace}.{name} has no column {column}{_renamed(table, column)}: nothing was read or "
                "written. Give it back with the program that changed the table"
            )
        decimals = isinstance(own, DecimalType) and isinstance(found[column], DecimalType)
        if not (decimals or is_promoted(own, found[column]) or is_promoted(found[column], own)):
            raise LakeError(
                f"column {column} of table {namespace}.{name} is of type {found[column]}, and k2beam writes {own}: "
                "nothing was read or written. Change its type back, or use another warehouse"
            )
    return table


def verified(table: Table) -> Table:
    """The table, if it may be written to.

    Raises LakeError where pyiceberg's own commit retries are on: two committers with the same files would then both
    succeed. So does a column of others that must not be null, and a partition field whose transform isn't known.
    """
    name, own = ".".join(table.name()), own_types(table.name()[-1])
    retries = table.properties.get(RETRIES)
    if retries != "0":
        raise LakeError(
            f"table {name} has {RETRIES}={retries or 'default'}; "
            "with retries two committers can write the same rows. `k2beam ingest --adopt` takes over a table that "
            "another program has made"
        )
    needed = [field.name for field in table.schema().fields if field.required and field.name not in own]
    if needed:
        raise LakeError(
            f"table {name} has columns that must not be null and that k2beam doesn't know: {', '.join(needed)}; "
            "make them optional before anything is written"
        )
    for partition in table.spec().fields:
        # pyiceberg can't write the null of a void transform where the column may not be null.
        void = (
            isinstance(partition.transform, VoidTransform) and table.schema().find_field(partition.source_id).required
        )
        if void or isinstance(partition.transform, UnknownTransform):
            raise LakeError(
                f"the partition field {partition.name} of table {name} is made by a transform ({partition.transform}) "
                "that k2beam can't write: remove it from the partition spec"
            )
    return table


@functools.cache
def own_types(name: str) -> Mapping[str, IcebergType]:
    """The types of a table's columns as k2beam makes it, by their names."""
    return {field.name: field.field_type for field in iceberg_schema(SPECS[name].schema).fields}


def stored_schema(table: Table) -> pa.Schema:
    """The columns that k2beam gives a table, in Arrow's types; decimals as the table has them: they may be narrower."""
    decimals = {
        field.name: pa.decimal128(field.field_type.precision, field.field_type.scale)
        for field in table.schema().fields
        if isinstance(field.field_type, DecimalType)
    }
    return pa.schema(field.with_type(decimals.get(field.name, field.type)) for field in SPECS[table.name()[-1]].schema)


def in_own_types(schema: Schema, name: str) -> Schema:
    """The schema of a table, with k2beam's types in the place of those that others have promoted them to.

    Decimals stay as the table has them.
    """
    plain = ((column, type_) for column, type_ in own_types(name).items() if type_.is_primitive)
    own = {column: type_ for column, type_ in plain if not isinstance(type_, DecimalType)}
    fields = [
        field.model_copy(update={"field_type": own[field.name]})
        if field.name in own and is_promoted(own[field.name], field.field_type)
        else field
        for field in schema.fields
    ]
    return Schema(*fields)


def sort_columns(table: Table) -> tuple[str, ...]:
    """What the table's rows are sorted by: the columns of its own order, where it goes up by columns that k2beam has.

    Any other order is left to who wants it: k2beam sorts as it would its own table, and no file claims to be sorted.
    """
    spec = SPECS[table.name()[-1]]
    sortable = {field.name for field in spec.schema if not field.nullable and field.type in _SORTABLE}
    names = [table.schema().find_column_name(field.source_id) for field in table.sort_order().fields]
    plain = all(
        isinstance(field.transform, IdentityTransform) and field.direction == SortDirection.ASC
        for field in table.sort_order().fields
    )
    return tuple(map(str, names)) if names and plain and sortable.issuperset(names) else spec.sort_columns


def is_promoted(one: IcebergType, other: IcebergType) -> bool:
    """Whether values of one type are read as the other; what nested types hold is not compared."""
    if not (one.is_primitive and other.is_primitive):
        return type(one) is type(other)
    try:
        return one == other or promote(one, other) == other
    except ResolveError:
        return False


def _renamed(table: Table, column: str) -> str:
    """What the column is called now, if a schema of before tells."""
    for schema in table.metadata.schemas:
        if column in schema.column_names:
            now = table.schema().find_column_name(schema.find_field(column).field_id)
            return f" (it was renamed to {now})" if now else " (it was dropped)"
    return ""


def _wider(found: IcebergType, own: IcebergType) -> IcebergType:
    """What a column's type can be promoted to, toward the one that it would have."""
    if found == IntegerType() and own == LongType():
        return own
    if isinstance(found, DecimalType) and isinstance(own, DecimalType):
        return DecimalType(max(found.precision, own.precision), found.scale)
    return found


again_on_conflict = retry(
    retry=retry_if_exception_type((CommitFailedException, OperationalError)),
    stop=stop_after_attempt(10),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)
"""Does a change of a table's schema again where another process was first."""


@again_on_conflict
def _widened(catalog: Catalog, table: Table) -> Table:
    """The table, its int columns made long where :data:`SPECS` has 64 bits, and its decimals as long as they can be.

    Iceberg, "Schema Evolution": ints are promoted, and so is the precision of decimals; the scale stays. Files with the
    narrow column stay readable. Another process may do the same, or commit, at the same time: then the
    catalog refuses, and the table is looked at again.
    """
    own = own_types(table.name()[-1])
    wider = {
        field.name: wide
        for field in table.schema().fields
        if field.name in own and (wide := _wider(field.field_type, own[field.name])) != field.field_type
    }
    if not wider:
        return table
    fresh = catalog.load_table(table.name())
    with fresh.update_schema() as update:
        for name, wide in wider.items():
            update.update_column(name, wide)
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
