"""Tables of older versions get the columns that new ones have: what Iceberg can't promote is written anew."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update import AddSchemaUpdate, SetCurrentSchemaUpdate, TableUpdate

from k2beam.config import RetryPolicy
from k2beam.errors import LakeError
from k2beam.lake.digest import RowDigest
from k2beam.lake.lean import LeanTransaction
from k2beam.lake.scan import find_readable, load_readable, table_name
from k2beam.lake.tables import EVENT_TABLES, own_types, stored_schema
from k2beam.lake.transaction import COMMIT_ID, Append, commit_loop
from k2beam.maintain.candidates import live_files
from k2beam.maintain.rewrite import Rewritten, rewrite_files
from k2beam.model import DECIMAL


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What became of a table: its ``columns`` that have another type now (none: it was up to date), and its files.

    ``digest`` (32 hex digits) is that of the rows, which is the same before and after; None where nothing was done.
    """

    table: str
    columns: tuple[str, ...]
    rows: int = 0
    files: int = 0
    bytes: int = 0
    files_after: int = 0
    bytes_after: int = 0
    digest: str | None = None


def upgrade_tables(
    catalog: Catalog, namespace: str, target: int, on_read: Callable[[int], None] = lambda rows: None
) -> Iterator[Upgrade]:
    """Give the tables of events the decimals of :data:`k2beam.model.DECIMAL`, each in one commit.

    The old column leaves the schema and a new one of the same name and place comes, all data files are written anew
    (of ``target`` bytes, about) and read back, and both become visible together. Rows, coverage and older snapshots
    stay as they are; a pin still has its digest. No job should write meanwhile: what one has written for the old
    columns is refused when it commits. Raises LakeError where a column is part of the partitioning or of the sort
    order, CommitConflict, CommitUnknown and UnreadableFile.
    """
    for name in EVENT_TABLES.values():
        table = find_readable(catalog, namespace, name)
        if table is not None:
            yield _upgrade(catalog, namespace, name, target, on_read) if narrow_columns(table) else Upgrade(name, ())


def narrow_columns(table: Table) -> tuple[str, ...]:
    """The columns of decimals with another scale than new tables have."""
    return tuple(field.name for field in stored_schema(table) if _is_narrow(field.type))


def _is_narrow(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(data_type)) and data_type != DECIMAL


def _upgrade(catalog: Catalog, namespace: str, name: str, target: int, on_read: Callable[[int], None]) -> Upgrade:
    commit_id = uuid.uuid4().hex
    done = Upgrade(name, ())

    def plan(table: Table) -> Append | None:
        nonlocal done
        columns = narrow_columns(table)
        if not columns:
            return None
        updates, wide = _widened(table, columns)
        old = live_files(table)
        new = [
            rewrite_files(table, [one.file for one in files], target, on_read, into=wide)
            for _, files in groupby(sorted(old, key=lambda one: one.partition), key=lambda one: one.partition)
        ]
        done = _done(name, columns, [one.file for one in old], new)
        return Append(
            [file for one in new for file in one.files],
            summary={COMMIT_ID: commit_id, "k2.upgraded": ",".join(columns)},
            replaced=[one.file for one in old],
            updates=updates,
        )

    commit_loop(lambda: load_readable(catalog, namespace, name), plan, RetryPolicy())
    return done


def _widened(table: Table, columns: Sequence[str]) -> tuple[Sequence[TableUpdate], Table]:
    """The changes of the schema, and the table as it is after them."""
    _check_unused(table, columns)
    own, ids = own_types(table.name()[-1]), count(table.metadata.last_column_id + 1)
    fields = [
        field.model_copy(update={"field_id": next(ids), "field_type": own[field.name]})
        if field.name in columns
        else field
        for field in table.schema().fields
    ]
    schema = Schema(
        *fields,
        schema_id=max(one.schema_id for one in table.metadata.schemas) + 1,
        identifier_field_ids=table.schema().identifier_field_ids,
    )
    updates = (AddSchemaUpdate(schema=schema), SetCurrentSchemaUpdate.model_validate({"schema-id": -1}))
    transaction = LeanTransaction(table)
    transaction._stage(updates)
    after = Table(table.name(), transaction.table_metadata, table.metadata_location, table.io, table.catalog)
    return updates, after


def _check_unused(table: Table, columns: Sequence[str]) -> None:
    used = {one.source_id for one in table.spec().fields} | {one.source_id for one in table.sort_order().fields}
    found = [column for column in columns if table.schema().find_field(column).field_id in used]
    if found:
        raise LakeError(
            f"table {table_name(table)} is partitioned or sorted by {', '.join(found)}: nothing was changed. "
            "Take that out of its partition spec and sort order first"
        )


def _done(name: str, columns: tuple[str, ...], old: Sequence[DataFile], new: Sequence[Rewritten]) -> Upgrade:
    digest = sum((one.digest for one in new), RowDigest())
    return Upgrade(
        table=name,
        columns=columns,
        rows=digest.rows,
        files=len(old),
        bytes=sum(int(file.file_size_in_bytes) for file in old),
        files_after=sum(len(one.files) for one in new),
        bytes_after=sum(one.nbytes for one in new),
        digest=str(digest),
    )
