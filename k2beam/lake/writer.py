"""Writes one data file, whole or in steps: what ``write_file`` of pyiceberg does, which takes all rows at once."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.fileformat import FileFormatFactory
from pyiceberg.io.pyarrow import (
    _get_parquet_writer_kwargs,
    _to_requested_schema,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionKey
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.locations import load_location_provider
from pyiceberg.typedef import Properties, Record
from pyiceberg.types import StringType

from k2beam.lake.tables import in_own_types, stored_schema

_FORMAT = FileFormatFactory.get(FileFormat.PARQUET)
_SAMPLE_ROWS = 1 << 12
"""The first rows of a file, by which its columns are judged."""


class DataFileWriter:
    """A data file that is being written, at its place from the beginning and of no snapshot.

    All rows must be of ``partition`` (None: the table has none). Raises what the file system raises.
    """

    def __init__(self, table: Table, partition: PartitionKey | None) -> None:
        self._table, self._partition = table, partition
        places = load_location_provider(table.location(), table.properties)
        self.path = places.new_data_location(f"00000-0-{uuid.uuid4()}.parquet", partition)
        self._output = table.io.new_output(self.path)
        self._stream = self._output.create(overwrite=True)
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> int:
        """Write rows as a row group (or more, by the limit in the table's properties). Gives the bytes so far."""
        if self._writer is None:
            # Columns that others added are left out: Iceberg reads null, or their default, where a file lacks them.
            self._schema = self._table.schema().select(*rows.column_names)
            self._as_made = in_own_types(self._schema, self._table.name()[-1])
            self._types = self._stored(rows.schema)
        rows = rows.cast(self._types)
        group = pa.Table.from_batches(
            _to_requested_schema(self._schema, self._as_made, batch, include_field_ids=True, format_model=_FORMAT)
            for batch in rows.to_batches()
        )
        if self._writer is None:
            distinct = _distinct(group)
            self._writer = pq.ParquetWriter(
                self._stream,
                group.schema,
                store_decimal_as_integer=True,
                use_dictionary=[path for path in parquet_path_to_id_mapping(self._schema) if path not in distinct],
                **_get_parquet_writer_kwargs(self._table.properties),
            )
        limit = self._table.properties.get(
            TableProperties.PARQUET_ROW_GROUP_LIMIT, TableProperties.PARQUET_ROW_GROUP_LIMIT_DEFAULT
        )
        self._writer.write_table(group, row_group_size=int(limit))
        return int(self._stream.tell())

    def _stored(self, rows: pa.Schema) -> pa.Schema:
        """The columns of rows, decimals and those that messages brought along in the types that the table has."""
        known = {field.name for field in stored_schema(self._table) if not pa.types.is_decimal(field.type)}
        types = schema_to_pyarrow(self._schema, include_field_ids=False)
        return pa.schema(field if field.name in known else types.field(field.name) for field in rows)

    def close(self) -> DataFile:
        """End the file, of at least one row, and describe it for a manifest."""
        writer = self._writer
        if writer is None:
            raise ValueError("a data file without rows")
        with self._stream:
            writer.close()
        try:
            statistics = self._statistics(writer, self._table.properties)
        except UnicodeEncodeError:
            # pyiceberg shortens a column's greatest text to 16 characters and raises the last: U+D7FF to half a
            # character. A file without the bounds of its texts is read like any other.
            texts = [field.name for field in self._schema.fields if field.field_type == StringType()]
            counted = {f"{TableProperties.METRICS_MODE_COLUMN_CONF_PREFIX}.{name}": "counts" for name in texts}
            statistics = self._statistics(writer, {**self._table.properties, **counted})
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=self.path,
            file_format=FileFormat.PARQUET,
            partition=self._partition.partition if self._partition else Record(),
            file_size_in_bytes=len(self._output),
            sort_order_id=None,
            equality_ids=None,
            key_metadata=None,
            **statistics,
        )
        file.spec_id = self._table.metadata.default_spec_id
        return file

    def discard(self) -> None:
        """Delete the file: only while nobody was told of it."""
        with contextlib.suppress(OSError, pa.ArrowInvalid), self._stream:
            if self._writer is not None:
                self._writer.close()
        self._table.io.delete(self.path)

    def _statistics(self, writer: pq.ParquetWriter, properties: Properties) -> dict[str, Any]:
        schema = self._schema
        found = data_file_statistics_from_parquet_metadata(
            parquet_metadata=writer.writer.metadata,
            stats_columns=compute_statistics_plan(schema, properties),
            parquet_column_mapping=parquet_path_to_id_mapping(schema),
        )
        return found.to_serialized_dict()


def _distinct(rows: pa.Table) -> set[str]:
    """The columns in which most values are there once. A dictionary of them is dear to make, and makes files larger."""
    sample = rows.slice(0, _SAMPLE_ROWS)
    flat = [name for name in sample.schema.names if not pa.types.is_nested(sample.schema.field(name).type)]
    return {name for name in flat if pc.count_distinct(sample.column(name)).as_py() > sample.num_rows / 2}
