"""A table as one Arrow dataset, of which an engine reads the files, row groups and columns that it needs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.manifest import FileFormat
from pyiceberg.table import FileScanTask

from k2beam.lake.scan import is_own, read_error, table_name
from k2beam.lake.storage import store_of
from k2beam.model import TIMESTAMP
from k2beam.query.selection import PlannedRead

_FILES_AT_ONCE = 8
_FORMAT = ds.ParquetFileFormat()


def dataset_of(reading: PlannedRead, schema: pa.Schema, folder: str) -> ds.Dataset:
    """The rows of a reading, which has all columns of ``schema`` and no filter.

    Files as k2beam writes them are left where they are; any other (with deletes, or of columns that have changed since)
    is written anew into ``folder``. Bounds of the time column, where it has no nulls, say which files are needed.
    Raises UnreadableFile for a file that is gone or damaged at its end.
    """
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        fragments = list(pool.map(partial(_fragment, reading, schema), reading.tasks))
    own = [fragment for fragment in fragments if fragment is not None]
    parts = [ds.FileSystemDataset(own, schema, _FORMAT)]
    others = [task for task, fragment in zip(reading.tasks, fragments, strict=True) if fragment is None]
    if others:
        path = Path(folder) / f"{reading.table.name()[-1]}.parquet"
        with pq.ParquetWriter(path, schema) as writer:
            for batch in reading.only(others).batches():
                writer.write_batch(batch.cast(schema))
        parts.append(ds.dataset(path, schema, format=_FORMAT))
    return ds.dataset(parts) if others else parts[0]


def _fragment(reading: PlannedRead, schema: pa.Schema, task: FileScanTask) -> ds.ParquetFileFragment | None:
    """A file as it is, if it is as k2beam writes it now."""
    if task.delete_files or task.file.file_format != FileFormat.PARQUET or reading.former is not None:
        return None
    table, location = reading.table, task.file.file_path
    try:
        system, path = store_of(table, location)
        fragment = _FORMAT.make_fragment(path, system, _within(reading, task), file_size=task.file.file_size_in_bytes)
        # A dataset reads by the names of columns alone, and does not widen decimals.
        found = fragment.physical_schema
        as_is = is_own(table, found, schema.names) and all(found.field(one.name).type == one.type for one in schema)
    except (OSError, pa.ArrowInvalid) as error:
        raise read_error(table_name(table), location, error) from error
    return fragment if as_is else None


def _within(reading: PlannedRead, task: FileScanTask) -> pc.Expression | None:
    """What holds of all rows of a file, by its statistics."""
    time = reading.time_column
    if not time or not reading.table.schema().find_field(time).required:
        return None
    ((_, low, high),) = reading.only([task]).spans()
    if low is None or high is None:
        return None
    column = pc.field(time)
    return (column >= pa.scalar(low, TIMESTAMP)) & (column <= pa.scalar(high, TIMESTAMP))
