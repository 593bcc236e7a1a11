"""Data files: rows become sorted Parquet files, described by small :class:`StagedFile` values.

A file holds rows of one table, one window and one partition. It is written before its commit and
is invisible until then; a file that is never committed is an orphan, not a loss.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionFieldValue, PartitionKey
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from k2beam.arrays import Ints, Mask
from k2beam.clock import now_us
from k2beam.coverage import Coverage
from k2beam.lake.tables import SPECS, TableSpec
from k2beam.lake.writer import DataFileWriter
from k2beam.model import Extent


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A data file that is written and not committed: small enough to be shuffled.

    ``coverage`` holds the offsets of its rows as serialised bitmaps, ``entry`` pyiceberg's own
    description of the file (path, counts, bounds), ``window`` the start of its window in
    microseconds, ``expected`` the extents of its sources. ``oldest`` and ``newest`` are the least and
    greatest element time of its rows (microseconds; the log's time where a job is live), if known. ``repeated`` rows
    came for it with an offset that another of its rows has, and were not written. ``offsets`` are all source offsets
    that the rows which came stand for, repeated ones each time (a dead letter may stand for many). ``written_at`` is
    when the file was written, ``begun_at`` when the bundle of its rows began (microseconds UTC).
    """

    table: str
    path: str
    window: int
    rows: int
    nbytes: int
    coverage: dict[tuple[str, int], bytes]
    entry: bytes
    expected: tuple[Extent, ...] = ()
    oldest: int | None = None
    newest: int | None = None
    repeated: int = 0
    offsets: int = 0
    written_at: int = 0
    begun_at: int = 0

    @property
    def came(self) -> int:
        """How many rows came for it."""
        return self.rows + self.repeated

    def data_file(self) -> DataFile:
        """The entry for a manifest."""
        entry: DataFile = pickle.loads(self.entry)  # noqa: S301 - our own bytes, made by write_rows
        return entry


def write_rows(table: Table, rows: pa.Table, window: int, expected: Iterable[Extent] = ()) -> StagedFile:
    """Write rows of one partition and one window as one data file; a repeated offset is written once.

    ``rows`` has the columns of the table's :class:`TableSpec`. Raises what the file system raises.
    """
    spec = SPECS[table.name()[-1]]
    came, offsets = rows.num_rows, _offsets(rows)
    rows, coverage = _distinct_offsets(rows)
    covered = coverage.to_bytes()
    rows = rows.take(pa.array(sort_order(rows, spec)))
    writer = DataFileWriter(table, partition_key(table, rows))
    writer.write(rows)
    entry = writer.close()
    return StagedFile(
        table=spec.name,
        path=entry.file_path,
        window=window,
        rows=rows.num_rows,
        nbytes=entry.file_size_in_bytes,
        coverage=covered,
        entry=pickle.dumps(entry, protocol=5),
        expected=tuple(extent for extent in expected if (extent.source, extent.partition) in covered),
        repeated=came - rows.num_rows,
        offsets=offsets,
        written_at=now_us(),
    )


def rewrite_without(table: Table, staged: StagedFile, taken: Coverage) -> StagedFile | None:
    """Write the rows of ``staged`` that are not in ``taken`` as a new file; None where none is left.

    The old file stays where it is: another commit may have made it live.
    """
    import pyarrow.parquet as pq

    with table.io.new_input(staged.path).open() as stream:
        rows = pq.read_table(stream)
    rows = rows.cast(SPECS[staged.table].schema)
    kept = rows.filter(pa.array(~covered_rows(rows, taken)))
    if kept.num_rows == 0:
        return None
    fresh = write_rows(table, kept, staged.window)
    # Element time is no column, so the bounds of the whole file stand for what is left of it.
    return replace(fresh, expected=staged.expected, oldest=staged.oldest, newest=staged.newest)


def row_coverage(rows: pa.Table | pa.RecordBatch) -> Coverage:
    """The offsets that the rows stand for (a dead letter may stand for more than one)."""
    if "_offset_last" not in rows.schema.names:
        return _first_offsets(rows)
    coverage = Coverage()
    firsts, lasts = (rows.column(name).to_numpy(zero_copy_only=False) for name in ("_offset", "_offset_last"))
    for source, partition, index in _by_source_partition(rows):
        where = slice(None) if index is None else index
        coverage.add_ranges(source, partition, firsts[where], lasts[where])
    return coverage


def _first_offsets(rows: pa.Table | pa.RecordBatch) -> Coverage:
    coverage = Coverage()
    offsets = rows.column("_offset").to_numpy(zero_copy_only=False)
    for source, partition, index in _by_source_partition(rows):
        coverage.add_many(source, partition, offsets if index is None else offsets[index])
    return coverage


def covered_rows(rows: pa.Table, taken: Coverage) -> Mask:
    """Which rows have an offset in ``taken``."""
    result = np.zeros(rows.num_rows, dtype=np.bool_)
    offsets = rows.column("_offset").to_numpy(zero_copy_only=False)
    for source, partition, index in _by_source_partition(rows):
        where = slice(None) if index is None else index
        result[where] = taken.covered(source, partition, offsets[where])
    return result


def sort_order(rows: pa.Table, spec: TableSpec) -> Ints:
    """The row numbers in the order of the table's sort columns, then by offset."""
    keys: list[Ints] = []
    if "_offset" in rows.schema.names:
        keys.append(rows.column("_offset").to_numpy())
    keys.extend(_rank(rows.column(name)) for name in reversed(spec.sort_columns))
    return np.lexsort(keys).astype(np.int64)


def _rank(column: pa.ChunkedArray) -> Ints:
    if not pa.types.is_string(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
    encoded = column.combine_chunks().dictionary_encode()
    ranks = np.empty(len(encoded.dictionary), dtype=np.int64)
    ranks[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(ranks))
    return np.asarray(ranks[encoded.indices.to_numpy()])


def _by_source_partition(
    rows: pa.Table | pa.RecordBatch,
) -> Iterable[tuple[str, int, Ints | None]]:
    """Each source partition with the numbers of its rows; None stands for all rows."""
    column = rows.column("_source")
    sources = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
    partitions = rows.column("_partition").to_numpy(zero_copy_only=False).astype(np.int64)
    codes = sources.indices.to_numpy(zero_copy_only=False).astype(np.int64) * 2**32 + partitions
    distinct = np.unique(codes)
    for code in distinct:
        index = None if len(distinct) == 1 else np.flatnonzero(codes == code)
        yield sources.dictionary[int(code) >> 32].as_py(), int(code) & (2**32 - 1), index


def _offsets(rows: pa.Table) -> int:
    """How many source offsets the rows stand for, repeated ones each time; 0 where the table has none."""
    if "_offset" not in rows.schema.names:
        return 0
    if "_offset_last" not in rows.schema.names:
        return int(rows.num_rows)
    further = pc.sum(pc.subtract(rows.column("_offset_last"), rows.column("_offset"))).as_py() or 0
    return int(rows.num_rows + further)


def _distinct_offsets(rows: pa.Table) -> tuple[pa.Table, Coverage]:
    """The rows with each offset once (the first counts), and their coverage."""
    if "_offset" not in rows.schema.names:
        return rows, Coverage()
    first_offsets = _first_offsets(rows)
    if len(first_offsets) == rows.num_rows:
        return rows, row_coverage(rows) if "_offset_last" in rows.schema.names else first_offsets
    seen = np.zeros(rows.num_rows, dtype=np.bool_)
    offsets = rows.column("_offset").to_numpy(zero_copy_only=False)
    for _, _, index in _by_source_partition(rows):
        numbers = np.arange(rows.num_rows) if index is None else index
        _, first = np.unique(offsets[numbers], return_index=True)
        seen[numbers[first]] = True
    rows = rows.filter(pa.array(seen))
    return rows, row_coverage(rows)


def partition_key(table: Table, rows: pa.Table) -> PartitionKey | None:
    """The partition of the first row by the table's partitioning; None where it has none."""
    spec, schema = table.spec(), table.schema()
    if spec.is_unpartitioned():
        return None
    values = [PartitionFieldValue(field=field, value=_partition_value(field, schema, rows)) for field in spec.fields]
    return PartitionKey(field_values=values, partition_spec=spec, schema=schema)


def _partition_value(field: PartitionField, schema: Schema, rows: pa.Table) -> object:
    source = schema.find_field(field.source_id)
    first = rows.column(source.name)[0]
    value = first.value if pa.types.is_timestamp(first.type) else first.as_py()
    return field.transform.transform(source.field_type)(value)
