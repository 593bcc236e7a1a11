"""Rewrites data files of one partition into fewer, sorted ones, and proves that they hold the same rows.

An external merge sort: rows are read once and sorted in pieces, and the pieces, kept in temporary files where there are
several, are merged a row group at a time. Memory is bounded by the target size of a file, not by what is rewritten.
"""

from __future__ import annotations

import bisect
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2beam.errors import LakeError
from k2beam.lake.buffer import PARQUET_RATIO
from k2beam.lake.digest import RowDigest, digest_rows
from k2beam.lake.files import sort_order
from k2beam.lake.placement import by_partition
from k2beam.lake.scan import read_whole, table_name, whole_schema
from k2beam.lake.tables import sort_columns
from k2beam.lake.writer import DataFileWriter

ROW_GROUP_ROWS = 1 << 15
"""Rows of a row group, about: the least that a query of one symbol's hour reads."""

_SAMPLED = 1 << 10
"""Of so many sorted rows one is looked at to find where row groups begin."""
_STORED_ROWS = 1 << 13
"""Rows that are read at once from each of the sorted pieces."""
_THREADS = min(4, os.cpu_count() or 1)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Data files that were written and belong to no snapshot yet, and the digest of their rows."""

    files: tuple[DataFile, ...]
    digest: RowDigest

    @property
    def nbytes(self) -> int:
        return sum(int(file.file_size_in_bytes) for file in self.files)


def rewrite_files(
    table: Table,
    files: Sequence[DataFile],
    target: int,
    on_read: Callable[[int], None] = lambda rows: None,
    *,
    into: Table | None = None,
) -> Rewritten:
    """Write the rows of ``files``, all of one partition, as files of ``target`` bytes, the last perhaps smaller.

    Rows are in the table's sort order, over all files; no row is left out, and no column, of others either. The files
    are read back: where the digest of their rows, or that of (source, partition, offset), is not that of what was read,
    they are deleted, and LakeError names the partition. They are deleted as well when anything else fails.
    ``on_read`` is told the rows of each file that was read. ``into`` is the table with the columns that they are to
    have (None: those that they have). Raises UnreadableFile, and what the file system raises.
    """
    columns = sort_columns(table)
    with (
        tempfile.TemporaryDirectory(prefix="k2beam-compact-") as folder,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="compact") as threads,
        _Outputs(into or table, target, threads) as outputs,
    ):
        runs = _SortedRuns(columns, Path(folder), target * PARQUET_RATIO // 4)
        read = RowDigest()
        for rows, digest in _ahead(threads, lambda bunch: _read(table, bunch), _bunches(files, target // 32)):
            runs.add(rows)
            read += digest
            on_read(rows.num_rows)
        for group in _ahead(threads, lambda pieces: _merge(pieces, columns), runs.merged()):
            outputs.write(group)
        written = outputs.close()
        if written.digest != read or any(file.partition != files[0].partition for file in written.files):
            raise LakeError(_mismatch(table, files, read, written))
        outputs.keep()
    return written


def _mismatch(table: Table, files: Sequence[DataFile], read: RowDigest, written: Rewritten) -> str:
    partition = table.spec().partition_to_path(files[0].partition, table.schema())
    paths = ", ".join(file.file_path for file in written.files)
    return (
        f"table {table_name(table)}, partition {partition or '-'}: {len(files)} files have {read.rows:,} rows "
        f"(digest {read}), but written again and read back they are {written.digest.rows:,} ({written.digest}); "
        f"nothing was committed, and what was written is deleted: {paths}"
    )


def _bunches(files: Sequence[DataFile], most: int) -> Iterator[list[DataFile]]:
    """The files in their order, a few at a time: of ``most`` bytes together, or a single one."""
    bunch: list[DataFile] = []
    nbytes = 0
    for file in files:
        if bunch and nbytes + file.file_size_in_bytes > most:
            yield bunch
            bunch, nbytes = [], 0
        bunch.append(file)
        nbytes += file.file_size_in_bytes
    if bunch:
        yield bunch


def _read(table: Table, files: Sequence[DataFile]) -> tuple[pa.Table, RowDigest]:
    nothing = whole_schema(table).empty_table()
    rows = pa.concat_tables([nothing, *(part for file in files for part in read_whole(table, file))]).combine_chunks()
    return rows, digest_rows(rows)


def _in_order(pieces: Sequence[pa.Table], columns: Sequence[str]) -> pa.Table:
    rows = pa.concat_tables(pieces).combine_chunks()
    return rows.take(pa.array(sort_order(rows, columns)))


def _merge(pieces: Sequence[pa.Table], columns: Sequence[str]) -> pa.Table:
    """One table of pieces each of which is sorted."""
    return pieces[0] if len(pieces) == 1 else _in_order(pieces, columns)


def _ahead(threads: Executor, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results in the order of ``items``, of which a few are worked at ahead."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > _THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _SortedRuns:
    """Rows in sorted pieces of at most ``run_bytes`` (Arrow) each; all but the last are kept in files of ``folder``."""

    def __init__(self, columns: Sequence[str], folder: Path, run_bytes: int) -> None:
        self._columns, self._folder, self._run_bytes = columns, folder, run_bytes
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._paths: list[Path] = []
        self._samples: list[tuple[Any, ...]] = []

    def add(self, rows: pa.Table) -> None:
        self._pending.append(rows)
        self._pending_bytes += rows.nbytes
        if self._pending_bytes >= self._run_bytes:
            path = self._folder / f"{len(self._paths)}.arrow"
            run = self._take_pending()
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, run.schema) as stream:
                stream.write_table(run, max_chunksize=_STORED_ROWS)
            self._paths.append(path)

    def merged(self) -> Iterator[list[pa.Table]]:
        """The rows of each row group to be, in order: what each run has of it."""
        last = [iter(self._take_pending().to_batches(_STORED_ROWS))] if self._pending else []
        runs = [_Run(batches, self._columns) for batches in (*map(_stored_batches, self._paths), *last)]
        each = ROW_GROUP_ROWS // _SAMPLED
        for cut in (*sorted(self._samples)[each::each], None):
            pieces = [pa.Table.from_batches(found) for run in runs if (found := list(run.below(cut)))]
            if pieces:
                yield pieces

    def _take_pending(self) -> pa.Table:
        run = _in_order(self._pending, self._columns)
        self._pending, self._pending_bytes = [], 0
        sampled = _SortKey(run.take(pa.array(range(_SAMPLED - 1, run.num_rows, _SAMPLED), pa.int64())), self._columns)
        self._samples += map(sampled, range(len(sampled)))
        return run


class _Run:
    """The rest of one sorted run."""

    def __init__(self, batches: Iterator[pa.RecordBatch], columns: Sequence[str]) -> None:
        self._batches, self._columns = batches, columns
        self._batch: pa.RecordBatch | None = next(batches, None)

    def below(self, cut: tuple[Any, ...] | None) -> Iterator[pa.RecordBatch]:
        """Take away the rows that sort before ``cut`` (None: all)."""
        while self._batch is not None:
            batch = self._batch
            end = batch.num_rows
            if cut is not None:
                end = bisect.bisect_left(range(end), cut, key=_SortKey(batch, self._columns))
            if end:
                yield batch.slice(0, end)
            if end < batch.num_rows:
                self._batch = batch.slice(end)
                return
            self._batch = next(self._batches, None)


class _SortKey:
    """What the rows sort by: the values of a row by its number."""

    def __init__(self, rows: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> None:
        last = ["_offset"] if "_offset" in rows.schema.names and "_offset" not in columns else []
        keys = [rows.column(name) for name in (*columns, *last)]
        self._keys = [one.cast(pa.int64()) if pa.types.is_timestamp(one.type) else one for one in keys]

    def __len__(self) -> int:
        return len(self._keys[0])

    def __call__(self, row: int) -> tuple[Any, ...]:
        return tuple(key[row].as_py() for key in self._keys)


class _Outputs:
    """The files that are written, each read back as soon as it is closed. They are deleted at the end, unless kept."""

    def __init__(self, table: Table, target: int, threads: Executor) -> None:
        self._table, self._target, self._threads = table, target, threads
        self._writers: list[DataFileWriter] = []
        self._open: DataFileWriter | None = None
        self._files: list[DataFile] = []
        self._digests: list[Future[RowDigest]] = []
        self._kept = False

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in () if self._kept else self._writers:
            writer.discard()

    def write(self, rows: pa.Table) -> None:
        """Write a row group. Raises LakeError where its rows are of more partitions than one."""
        (partition, _), *others = by_partition(self._table, rows)
        if others:
            raise LakeError(f"table {table_name(self._table)}: a file has rows outside its partition; audit the tables")
        if self._open is None:
            self._open = DataFileWriter(self._table, partition)
            self._writers.append(self._open)
        if self._open.write(rows) >= self._target:
            self._finish(self._open)

    def close(self) -> Rewritten:
        """End the last file, and wait until all are read back."""
        if self._open is not None:
            self._finish(self._open)
        return Rewritten(tuple(self._files), sum((digest.result() for digest in self._digests), RowDigest()))

    def keep(self) -> None:
        """From now on they may be part of the table."""
        self._kept = True

    def _finish(self, writer: DataFileWriter) -> None:
        self._open = None
        file = writer.close()
        self._files.append(file)
        self._digests.append(self._threads.submit(_digest_file, self._table, file))


def _digest_file(table: Table, file: DataFile) -> RowDigest:
    return sum((digest_rows(rows) for rows in read_whole(table, file, dictionaries=True)), RowDigest())


def _stored_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream
