"""Streams chosen columns of a table, one data file at a time.

What reads a whole table (the audit, the recount of sequences) never holds more than the chosen
columns of one file. Deletes are honoured; a file that can't be read is an error with its path, so that
the caller decides whether to stop or to report it and go on.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.visitors import bind, extract_field_ids
from pyiceberg.io import InputStream
from pyiceberg.io.pyarrow import ArrowScan, expression_to_pyarrow, schema_to_pyarrow
from pyiceberg.manifest import DataFile, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import DecimalType

from k2beam.errors import LakeError, StoreRefused, StoreUnavailable, UnreadableFile, first_line
from k2beam.lake.lean import LeanPlanner
from k2beam.lake.patience import is_away, is_refused
from k2beam.lake.tables import find_table, own_types, stored_schema

EVERYTHING = AlwaysTrue()

_FEW_VALUES = ("symbol", "exchange", "asset_class", "currency", "side", "_source")
_FILES_AT_ONCE = min(4, os.cpu_count() or 1)
_BYTES_AT_ONCE = 32 << 20

_KEY = re.compile(r"key '([^\n]*?)' in bucket '([^'\n]*)'")
_PATH = re.compile(r"'([^\n]*/[^\n]*)'|: (\S*/\S*)$", re.MULTILINE)


def table_name(table: Table) -> str:
    """The dotted name: ``market_data.trades_v2``."""
    return ".".join(table.name())


@contextmanager
def blaming(table: str, path: str) -> Iterator[None]:
    """While metadata or manifests of ``table`` (its dotted name) are read: says which file is gone or damaged.

    Raises UnreadableFile with the path that the error names, or else ``path``.
    """
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        raise read_error(table, _path_in(error) or path, error) from error


def find_readable(catalog: Catalog, namespace: str, name: str) -> Table | None:
    """Open a table for reading; None where it was never made.

    Raises UnreadableFile when its metadata is gone or damaged.
    """
    with blaming(f"{namespace}.{name}", "of its metadata"):
        return find_table(catalog, namespace, name)


def load_readable(catalog: Catalog, namespace: str, name: str) -> Table:
    """Open a table that was made. Raises UnreadableFile as :func:`find_readable` does, LakeError where it's gone."""
    table = find_readable(catalog, namespace, name)
    if table is None:
        raise LakeError(f"table {namespace}.{name} is gone: it was dropped meanwhile")
    return table


def plan_files(
    table: Table, row_filter: BooleanExpression = EVERYTHING, snapshot: Snapshot | None = None
) -> list[FileScanTask]:
    """The data files of a snapshot (None: the current one) that may hold rows of ``row_filter``.

    Raises UnreadableFile when a manifest is gone or damaged.
    """
    planned = snapshot or table.current_snapshot()
    if planned is None:
        return []
    with blaming(table_name(table), "of its manifests"):
        planner = LeanPlanner(table.metadata, table.io, row_filter)
        return list(planner.plan_files(planned.manifests(table.io)))


def read_file(
    table: Table,
    task: FileScanTask,
    columns: Sequence[str],
    row_filter: BooleanExpression = EVERYTHING,
    snapshot: Snapshot | None = None,
    dictionaries: bool = False,
) -> Iterator[pa.RecordBatch]:
    """The rows of one data file that pass ``row_filter``, without deleted rows, as the columns named.

    Columns have the types of the table's schema, or of the one that ``snapshot`` was committed with. A file as
    k2beam writes it now is read as it is; with ``dictionaries`` its texts of few values come as such, which takes
    less time. Any other is read by pyiceberg, which knows what has become of the table's columns since. Raises
    UnreadableFile when the file or one of its delete files is gone or damaged.
    """
    try:
        with table.io.new_input(task.file.file_path).open() as stream:
            batches = _as_written(table, task, stream, columns, row_filter, snapshot, dictionaries)
            for batch in _projected(table, task, columns, row_filter, snapshot) if batches is None else batches:
                if batch.num_rows:
                    yield batch.replace_schema_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise read_error(table_name(table), _blamed(error, task), error) from error


def _as_written(
    table: Table,
    task: FileScanTask,
    stream: InputStream,
    columns: Sequence[str],
    row_filter: BooleanExpression,
    snapshot: Snapshot | None,
    dictionaries: bool,
) -> Iterator[pa.RecordBatch] | None:
    """The rows of a file as k2beam writes it now, by Arrow alone; None for any other file."""
    metadata = table.metadata
    of_now = snapshot is None or snapshot.schema_id in (None, metadata.current_schema_id)
    if task.delete_files or task.file.file_format != FileFormat.PARQUET or not of_now:
        return None
    encoded = _FEW_VALUES if dictionaries else ()
    file = ds.ParquetFileFormat(dictionary_columns=encoded, pre_buffer=True).make_fragment(stream)
    condition = bind(metadata.schema(), row_filter, case_sensitive=True)
    asked = {*columns, *(metadata.schema().find_field(number).name for number in extract_field_ids(condition))}
    if not is_own(table, file.physical_schema, asked):
        return None
    rows = None if row_filter == EVERYTHING else expression_to_pyarrow(condition)
    batches = file.to_batches(columns=list(columns), filter=rows, use_threads=False)
    stored = stored_schema(table)
    return (_with_decimals_of(stored, batch) for batch in batches)


def _projected(
    table: Table, task: FileScanTask, columns: Sequence[str], row_filter: BooleanExpression, snapshot: Snapshot | None
) -> Iterator[pa.RecordBatch]:
    scan = table.scan(selected_fields=tuple(columns), snapshot_id=snapshot.snapshot_id if snapshot else None)
    reader = ArrowScan(table.metadata, table.io, scan.projection(), row_filter)
    return (batch.select(list(columns)) for batch in reader.to_record_batches([task]))


def is_own(table: Table, found: pa.Schema, names: Iterable[str]) -> bool:
    """Whether columns of a file are those of the table, by their ids too (a name may have been given anew), in the
    types that k2beam gives them and the table has kept; decimals in those of the table."""
    spec, types = stored_schema(table), own_types(table.name()[-1])
    for name in names:
        if name not in found.names or name not in types:
            return False
        field, stored = table.schema().find_field(name), _decoded(found.field(name))
        same_id = (stored.metadata or {}).get(b"PARQUET:field_id") == str(field.field_id).encode()
        # The ids within lists and maps are the table's own; nothing is promoted there.
        as_stored = isinstance(field.field_type, DecimalType) or not field.field_type.is_primitive
        kept = field.field_type == types[name] or as_stored
        same_type = stored.equals(spec.field(name)) or _is_narrower(stored.type, spec.field(name).type)
        if not (same_id and kept and same_type):
            return False
    return True


def _is_narrower(found: pa.DataType, stored: pa.DataType) -> bool:
    """Whether a file has decimals of before their column was given a higher precision."""
    decimals = pa.types.is_decimal(found) and pa.types.is_decimal(stored)
    return bool(decimals and found.scale == stored.scale and found.precision < stored.precision)


def _with_decimals_of(stored: pa.Schema, rows: Any) -> Any:
    """Rows of a file with decimals of the precision that they have in the table's columns, ``stored``."""
    for number, field in enumerate(rows.schema):
        if field.name in stored.names and _is_narrower(field.type, stored.field(field.name).type):
            wide = field.with_type(stored.field(field.name).type)
            rows = rows.set_column(number, wide, rows.column(number).cast(wide.type))
    return rows


def _decoded(field: pa.Field) -> pa.Field:
    """The field with its values' type in the place of a dictionary."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def read_ahead(
    table: Table,
    tasks: Iterable[FileScanTask],
    columns: Sequence[str],
    row_filter: BooleanExpression = EVERYTHING,
    snapshot: Snapshot | None = None,
) -> Iterator[tuple[FileScanTask, Callable[[], list[pa.RecordBatch]]]]:
    """Each file, in order, and what gives its rows as :func:`read_file` does with dictionaries, or raises its error.

    A few files are read at once, small ones only: what is not taken yet comes from no more than 32 MiB of files, or
    from one file.
    """

    def rows(task: FileScanTask) -> list[pa.RecordBatch]:
        return list(read_file(table, task, columns, row_filter, snapshot, dictionaries=True))

    ahead: deque[tuple[FileScanTask, Future[list[pa.RecordBatch]]]] = deque()
    size = 0
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for task in tasks:
            while ahead and (len(ahead) == _FILES_AT_ONCE or size + task.file.file_size_in_bytes > _BYTES_AT_ONCE):
                first, future = ahead.popleft()
                size -= first.file.file_size_in_bytes
                yield first, future.result
            ahead.append((task, pool.submit(rows, task)))
            size += task.file.file_size_in_bytes
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result


def whole_schema(table: Table) -> pa.Schema:
    """All columns of a table in Arrow's types: those of its spec, and then those that others have added."""
    spec = stored_schema(table)
    further = [field for field in table.schema().fields if field.name not in spec.names]
    return pa.schema([*spec, *schema_to_pyarrow(Schema(*further), include_field_ids=False)])


def read_whole(table: Table, file: DataFile, dictionaries: bool = False) -> Iterator[pa.Table]:
    """All rows of a data file that no delete file applies to, in all columns of the table (:func:`whole_schema`).

    A file as k2beam writes it now is read as it is, a row group at a time; any other by pyiceberg, which knows what
    has become of the table's columns since. With ``dictionaries`` the texts that the file has in dictionaries come as
    such, which takes less time. Raises UnreadableFile when the file is gone, damaged or has not the rows that the
    snapshot says.
    """
    schema, rows = whole_schema(table), 0
    try:
        with table.io.new_input(file.file_path).open() as stream:
            parquet = pq.ParquetFile(stream)
            if dictionaries:
                parquet = pq.ParquetFile(stream, metadata=parquet.metadata, read_dictionary=_dictionaries(parquet))
            if is_own(table, parquet.schema_arrow, schema.names):
                numbers = range(parquet.num_row_groups)
                read = (parquet.read_row_group(number, schema.names, use_threads=False) for number in numbers)
                groups = (_with_decimals_of(schema, group) for group in read)
            else:
                batches = read_file(table, FileScanTask(file), schema.names)
                groups = (pa.Table.from_batches([batch]).cast(schema) for batch in batches)
            for group in groups:
                rows += group.num_rows
                yield group.replace_schema_metadata()
    except (OSError, pa.ArrowInvalid) as error:
        raise read_error(table_name(table), file.file_path, error) from error
    if rows != file.record_count:
        raise UnreadableFile(table_name(table), file.file_path, other_rows(rows, file.record_count))


def _dictionaries(parquet: pq.ParquetFile) -> list[str]:
    """The columns of texts that are in a file as dictionaries."""
    group, schema = parquet.metadata.row_group(0), parquet.schema_arrow
    columns = (group.column(number) for number in range(group.num_columns))
    names = {column.path_in_schema for column in columns if column.has_dictionary_page}
    return [field.name for field in schema if field.name in names and pa.types.is_string(field.type)]


def stop_at_unreadable(error: UnreadableFile) -> None:
    """What most do at a file that can't be read: without its rows a recount finds gaps, and an audit losses."""
    raise error


def file_rows(task: FileScanTask) -> int | None:
    """How many rows the file must give: None where deletes make that unknown before reading."""
    return None if task.delete_files else int(task.file.record_count)


def bound_of(table: Table, bounds: Mapping[int, bytes] | None, column: str) -> int | None:
    """A bound of a time column by a file's statistics (microseconds UTC); None where they don't say."""
    field = table.schema().find_field(column)
    bound = (bounds or {}).get(field.field_id)
    return None if bound is None else int(from_bytes(field.field_type, bound))  # type: ignore[arg-type]


def partition_value(table: Table, task: FileScanTask, column: str, transform: str = "identity") -> Any:
    """The file's partition by a ``transform`` of ``column``, as Iceberg counts it; None where it has no such one."""
    spec = table.metadata.specs().get(task.file.spec_id)
    field_id = table.schema().find_field(column).field_id
    for position, field in enumerate(spec.fields if spec else ()):
        if field.source_id == field_id and str(field.transform) == transform:
            return task.file.partition[position]
    return None


def other_rows(found: int, promised: int) -> str:
    """What is wrong with a file of ``found`` rows of which the snapshot promises another number."""
    return f"has {found:,} rows, but the snapshot says {promised:,}"


def read_error(table: str, path: str, error: Exception) -> LakeError:
    """The error for a file of ``table`` (its dotted name) that could not be read: it's damaged only if nothing else is.

    UnreadableFile, or StoreUnavailable and StoreRefused, which say nothing of the file.
    """
    said = first_line(error)
    if is_away(error):
        return StoreUnavailable(f"table {table}: the store did not answer for file {path}: {said}; run it again")
    if is_refused(error):
        return StoreRefused(f"table {table}: the store refuses file {path}: {said}; look at its credentials and rights")
    return UnreadableFile(table, path, "is gone" if isinstance(error, FileNotFoundError) else f"can't be read: {said}")


def _blamed(error: Exception, task: FileScanTask) -> str:
    """The delete file where the error names it, else the data file."""
    for delete in task.delete_files:
        if _local(delete.file_path) in str(error):
            return str(delete.file_path)
    return str(task.file.file_path)


def _path_in(error: Exception) -> str | None:
    """The path that an error is about: Arrow's and pyiceberg's have it in their text only."""
    named = getattr(error, "filename", None)
    if key := _KEY.search(str(error)):
        return f"s3://{key[2]}/{key[1]}"
    found = _PATH.search(str(error)) if named is None else None
    return str(named) if named is not None else next(filter(None, found.groups()), None) if found else None


def _local(path: str) -> str:
    parts = urlsplit(path)
    return unquote(parts.path) if parts.scheme else path
