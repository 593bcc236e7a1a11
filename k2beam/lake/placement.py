"""Where rows belong: to which partition of a table, and whether a file has the rows that its manifest says.

A partition spec may be ours, or what another engine has made of it. The rules are Iceberg's ("Partitioning", "Partition
Transforms", "Manifests"); the transforms are pyiceberg's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionFieldValue, PartitionKey, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from pyiceberg.types import IntegerType, LongType, NestedField

from k2beam.lake.tables import SPECS


def by_partition(table: Table, rows: pa.Table) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """The rows of each partition, with its key by the table's current spec; all of them with None where it has none."""
    spec, schema = table.spec(), table.schema()
    if not spec.fields:
        yield None, rows
        return
    for values, numbers in _groups(spec, schema, rows):
        yield _key(spec, schema, values), rows if len(numbers) == rows.num_rows else rows.take(numbers)


def placing_columns(table: Table, file: DataFile) -> list[str]:
    """The columns of k2beam's that say where a row of a file belongs: of its partition, and those that rows are sought
    by."""
    spec, schema = SPECS[table.name()[-1]], table.schema()
    partition = (schema.find_column_name(field.source_id) for field in table.specs()[file.spec_id].fields)
    names = {spec.day_column, spec.identity_column, *spec.sort_columns, *partition}
    return [name for name in spec.schema.names if name in names]


def misplaced(table: Table, file: DataFile, rows: pa.RecordBatch) -> str | None:
    """What is wrong with what the manifest says of a file: its partition, or the bounds of a column; None if nothing.

    ``rows`` are some of the file's, with the :func:`placing_columns`. Columns that were dropped say nothing any more.
    """
    spec, schema = table.specs()[file.spec_id], table.schema()
    told = [
        (field, file.partition[number])
        for number, field in enumerate(spec.fields)
        if schema.find_column_name(field.source_id) in rows.schema.names
    ]
    fields = PartitionSpec(*(field for field, _ in told), spec_id=spec.spec_id)
    expected = Record(*(value for _, value in told))
    if told and any(_key(fields, schema, values).partition != expected for values, _ in _groups(fields, schema, rows)):
        path = spec.partition_to_path(file.partition, schema)
        return f"has rows of other partitions than its own, {path}"
    for name in rows.schema.names:
        field = schema.find_field(name)
        least, most = _ends(rows.column(name))
        lower, upper = (_bound(field, bounds) for bounds in (file.lower_bounds, file.upper_bounds))
        if least is not None and ((lower is not None and least < lower) or (upper is not None and most > upper)):
            return f"has rows outside the bounds of its column {name}"
    return None


def _key(spec: PartitionSpec, schema: Schema, values: Sequence[object]) -> PartitionKey:
    pairs = zip(spec.fields, values, strict=True)
    return PartitionKey([PartitionFieldValue(field, value) for field, value in pairs], spec, schema)


def _groups(
    spec: PartitionSpec, schema: Schema, rows: pa.Table | pa.RecordBatch
) -> Iterator[tuple[list[object], pa.Array]]:
    """The partition values that the rows have, each with the numbers of its rows."""
    values = {f"{number}": _values(field, schema, rows) for number, field in enumerate(spec.fields)}
    numbered = pa.table({**values, "row": pa.array(np.arange(rows.num_rows))})
    found = numbered.group_by(list(values), use_threads=False).aggregate([("row", "list")])
    for group in zip(*(found.column(name).to_pylist() for name in values), found.column("row_list"), strict=True):
        yield list(group[:-1]), group[-1].values


def _values(field: PartitionField, schema: Schema, rows: pa.Table | pa.RecordBatch) -> pa.ChunkedArray | pa.Array:
    """What the partition field is of each row; null of a column that the rows don't have."""
    source = schema.find_field(field.source_id)
    if source.name not in rows.schema.names:
        return pa.nulls(rows.num_rows)
    return field.transform.pyarrow_transform(source.field_type)(_plain(rows.column(source.name)))


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _ends(column: pa.Array) -> tuple[Any, Any]:
    """The least and the greatest value of a column; of times in microseconds. None of what has no order."""
    values = _plain(column.unique()) if pa.types.is_dictionary(column.type) else column
    if pa.types.is_nested(values.type):
        return None, None
    ends = pc.min_max(values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values)
    return ends["min"].as_py(), ends["max"].as_py()


def _bound(field: NestedField, bounds: Mapping[int, bytes] | None) -> Any:
    """What a manifest says of a column; None if nothing. A number may have been of fewer bytes then than it is now."""
    data = (bounds or {}).get(field.field_id)
    if data is None or not isinstance(field.field_type, IntegerType | LongType):
        return None if data is None else from_bytes(field.field_type, data)  # type: ignore[arg-type]
    return int.from_bytes(data, "little", signed=True)
