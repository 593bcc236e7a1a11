"""Data files: rows become sorted Parquet files, described by small :class:`StagedFile` values.

A file holds rows of one table, one window and one partition of the table as it is. It is written before its commit and
is invisible until then; a file that is never committed is an orphan, not a loss.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionKey
from pyiceberg.table import Table

from k2beam.arrays import Ints, Mask
from k2beam.clock import now_us
from k2beam.coverage import Coverage
from k2beam.lake.placement import by_partition
from k2beam.lake.tables import sort_columns, stored_schema
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
    ``spec_id`` names the partition spec that it was written by.
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
    spec_id: int = 0

    @property
    def came(self) -> int:
        """How many rows came for it."""
        return self.rows + self.repeated

    def data_file(self) -> DataFile:
        """The entry for a manifest."""
        entry: DataFile = pickle.loads(self.entry)  # noqa: S301 - our own bytes, made by write_rows
        entry.spec_id = self.spec_id  # which pyiceberg does not pickle
        return entry


def write_rows(table: Table, rows: pa.Table, window: int, expected: Iterable[Extent] = ()) -> list[StagedFile]:
    """Write rows of one window as data files, one for each partition of the table; a repeated offset is written once.

    ``rows`` has the columns of the table's :class:`TableSpec`. Rows of one day and exchange are of one partition where
    the partition spec is the one that k2beam gave the table. Raises what the file system raises.
    """
    came, offsets = rows.num_rows, _offsets(rows)
    rows, coverage = _distinct_offsets(rows)
    parts = [
        _write_part(table, key, part, coverage if part is rows else row_coverage(part), window, expected)
        for key, part in by_partition(table, rows)
    ]
    # What is repeated is counted with the first.
    offsets -= sum(part.offsets for part in parts[1:])
    return [replace(parts[0], repeated=came - rows.num_rows, offsets=offsets), *parts[1:]]


def write_file(table: Table, partition: PartitionKey | None, rows: pa.Table) -> DataFile:
    """Write rows of one partition as one data file, in the order of the table. Raises what the file system raises."""
    writer = DataFileWriter(table, partition)
    writer.write(rows.take(pa.array(sort_order(rows, sort_columns(table)))))
    return writer.close()


def _write_part(
    table: Table,
    partition: PartitionKey | None,
    rows: pa.Table,
    coverage: Coverage,
    window: int,
    expected: Iterable[Extent],
) -> StagedFile:
    covered, entry = coverage.to_bytes(), write_file(table, partition, rows)
    return StagedFile(
        table=table.name()[-1],
        path=entry.file_path,
        window=window,
        rows=rows.num_rows,
        nbytes=entry.file_size_in_bytes,
        coverage=covered,
        entry=pickle.dumps(entry, protocol=5),
        expected=tuple(extent for extent in expected if (extent.source, extent.partition) in covered),
        offsets=_offsets(rows),
        written_at=now_us(),
        spec_id=entry.spec_id,
    )


def rewrite_without(table: Table, staged: StagedFile, taken: Coverage) -> list[StagedFile]:
    """Write the rows of ``staged`` that are not in ``taken`` anew, as the table is partitioned now; none may be left.

    The old file stays where it is: another commit may have made it live.
    """
    import pyarrow.parquet as pq

    with table.io.new_input(staged.path).open() as stream:
        rows = pq.read_table(stream)
    own = stored_schema(table)
    # Columns that messages brought along come after those of the table's own.
    brought = [field.remove_metadata() for field in rows.schema if field.name not in own.names]
    schema = pa.schema([*own, *brought])
    rows = rows.select(schema.names).cast(schema)
    kept = rows.filter(pa.array(~covered_rows(rows, taken)))
    if kept.num_rows == 0:
        return []
    # Element time is no column, so the bounds of the whole file stand for what is left of it.
    return [
        replace(fresh, oldest=staged.oldest, newest=staged.newest)
        for fresh in write_rows(table, kept, staged.window, staged.expected)
    ]


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


def covered_rows(rows: pa.Table | pa.RecordBatch, taken: Coverage) -> Mask:
    """Which rows have an offset in ``taken``."""
    result = np.zeros(rows.num_rows, dtype=np.bool_)
    offsets = rows.column("_offset").to_numpy(zero_copy_only=False)
    for source, partition, index in _by_source_partition(rows):
        where = slice(None) if index is None else index
        result[where] = taken.covered(source, partition, offsets[where])
    return result


def sort_order(rows: pa.Table, columns: Sequence[str]) -> Ints:
    """The row numbers in the order of ``columns`` (:func:`k2beam.lake.tables.sort_columns`), then by offset."""
    keys: list[Ints] = []
    if "_offset" in rows.schema.names:
        keys.append(rows.column("_offset").to_numpy())
    keys.extend(_rank(rows.column(name)) for name in reversed(columns))
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
