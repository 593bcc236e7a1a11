"""Columns that messages bring along: added to a table as optional ones, and widened, as Iceberg allows it.

The rules are Iceberg's ("Schema Evolution"): old rows read null, and a running job that does not know of a
column goes on.
"""

from __future__ import annotations

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.types import IcebergType

from k2beam.codec.extras import together
from k2beam.codec.writer_schema import WriterSchema
from k2beam.errors import LakeError, SchemaError
from k2beam.lake.scan import find_readable, table_name
from k2beam.lake.tables import EVENT_TABLES, again_on_conflict, is_promoted, own_types
from k2beam.model import Kind
from k2beam.schemas import iceberg_schema


def column_changes(table: Table, rows: pa.Schema) -> dict[str, IcebergType]:
    """The columns of ``rows`` that the table lacks, or has with a narrower type, and the type that they are to have.

    Raises LakeError, with both types, for one that the table has with a type that can't become the other.
    """
    own = own_types(table.name()[-1])
    brought = [field.with_nullable(True) for field in rows if field.name not in own]
    if not brought:
        return {}
    there = {field.name.lower(): field for field in table.schema().fields}
    changes = {}
    for field in iceberg_schema(pa.schema(brought)).fields:
        found = there.get(field.name.lower())
        if found is None:
            changes[field.name] = field.field_type
        elif found.name != field.name or not _fit(field.field_type, found.field_type):
            raise LakeError(
                f"the messages have a field {field.name} of type {field.field_type}, and table {table_name(table)} has "
                f"the column {found.name} of type {found.field_type}: nothing of them was written. Without --evolve it "
                "is kept in vendor_data"
            )
        elif not is_promoted(field.field_type, found.field_type):
            changes[field.name] = field.field_type
    return changes


def _fit(brought: IcebergType, found: IcebergType) -> bool:
    return is_promoted(brought, found) or is_promoted(found, brought)


class ColumnCheck:
    """Sees that tables can have the columns that messages bring along, before anything is written."""

    def __init__(self, catalog: Catalog, namespace: str) -> None:
        self._tables = {kind: find_readable(catalog, namespace, name) for kind, name in EVENT_TABLES.items()}
        self._seen: dict[Kind, pa.RecordBatch] = {}

    def see(self, kind: Kind, rows: pa.Schema) -> None:
        """Take note of the columns of some messages.

        Raises LakeError as :func:`column_changes` does, and SchemaError for two fields of one name in messages whose
        types do not widen to one.
        """
        table, nothing = self._tables[kind], pa.RecordBatch.from_pylist([], rows)
        if table is not None:
            column_changes(table, rows)
        seen = [self._seen[kind], nothing] if kind in self._seen else [nothing]
        self._seen[kind] = pa.RecordBatch.from_pylist([], together(seen).schema)

    def see_writer(self, text: str) -> None:
        """The same of a writer's schema; one that can't be read as ours brings nothing."""
        try:
            schema = WriterSchema.parse(text, evolve=True)
        except SchemaError:
            return
        if schema.known.kind is not None:
            self.see(schema.known.kind, pa.schema([schema.arrow_schema.field(name) for name in schema.added]))


@again_on_conflict
def with_columns(catalog: Catalog, table: Table, rows: pa.Schema) -> Table:
    """The table, with a column for each of ``rows``: one change of its schema, whoever else makes the same.

    Raises LakeError as :func:`column_changes` does.
    """
    if not column_changes(table, rows):
        return table
    fresh = catalog.load_table(table.name())
    if changes := column_changes(fresh, rows):
        names = fresh.schema().column_names
        with fresh.update_schema() as update:
            for name, data_type in changes.items():
                if name in names:
                    update.update_column(name, data_type)
                else:
                    update.add_column(name, data_type)
    return catalog.load_table(table.name())
