"""Buffers rows until they are worth a data file: one group for each table, window and partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.clock import MICROS_PER_DAY
from k2beam.codec.extras import together
from k2beam.lake.rows import RowBatch
from k2beam.lake.tables import SPECS, TableSpec
from k2beam.model import Extent

PARQUET_RATIO = 4
"""Arrow bytes for one byte of zstd Parquet of such rows; only steers when a file is closed."""


class GroupKey(NamedTuple):
    """What all rows of a data file share; ``window`` is its start in microseconds."""

    table: str
    window: int
    day: int
    identity: str


@dataclass(slots=True)
class Group:
    """The buffered rows of one data file to be."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    nbytes: int = 0
    extents: dict[tuple[str, int], Extent] = field(default_factory=dict)
    oldest: int | None = None
    newest: int | None = None

    def add(self, batch: pa.RecordBatch, times: Ints, extents: tuple[Extent, ...]) -> None:
        """Take rows in; ``times`` are their element times (microseconds)."""
        self.batches.append(batch)
        if len(times):
            first, last = int(times.min()), int(times.max())
            self.oldest = first if self.oldest is None else min(self.oldest, first)
            self.newest = last if self.newest is None else max(self.newest, last)
        self.nbytes += batch.nbytes
        for extent in extents:
            self.extents[extent.source, extent.partition] = extent

    def rows(self) -> pa.Table:
        return together(self.batches)


class RowBuffer:
    """Groups of rows within a limit of memory.

    ``window_us`` is the length of a window, ``target_file_bytes`` the Parquet size at which a
    group is closed, ``memory_bytes`` what all groups together may hold (Arrow bytes).
    """

    def __init__(self, window_us: int, target_file_bytes: int, memory_bytes: int) -> None:
        self._window_us = window_us
        self._target_bytes = target_file_bytes * PARQUET_RATIO
        self._memory_bytes = memory_bytes
        self._groups: dict[GroupKey, Group] = {}
        self._nbytes = 0

    def add(self, rows: RowBatch) -> Iterator[tuple[GroupKey, Group]]:
        """Take rows in; yields the groups that must be written now."""
        for key, batch, times in _parts(rows, self._window_us):
            group = self._groups.setdefault(key, Group())
            group.add(batch, times, rows.extents)
            self._nbytes += batch.nbytes
            if group.nbytes >= self._target_bytes:
                yield key, self._pop(key)
        while self._nbytes > self._memory_bytes:
            largest = max(self._groups, key=lambda key: self._groups[key].nbytes)
            yield largest, self._pop(largest)

    def drain(self) -> Iterator[tuple[GroupKey, Group]]:
        """Yield every group that is left and forget it."""
        for key in sorted(self._groups):
            yield key, self._pop(key)

    def _pop(self, key: GroupKey) -> Group:
        group = self._groups.pop(key)
        self._nbytes -= group.nbytes
        return group


def _parts(rows: RowBatch, window_us: int) -> list[tuple[GroupKey, pa.RecordBatch, Ints]]:
    """Rows by window and partition, with the element times of each part; the order within a part is kept."""
    spec = SPECS[rows.table]
    micros = _micros(rows.element_time)
    windows = micros - micros % window_us
    days = _micros(rows.data.column(spec.day_column)) // MICROS_PER_DAY if spec.day_column else np.zeros_like(windows)
    codes, names = _identities(rows.data, spec)
    if rows.num_rows and _constant(windows) and _constant(days) and _constant(codes):
        return [(GroupKey(rows.table, int(windows[0]), int(days[0]), names[int(codes[0])]), rows.data, micros)]
    order = np.lexsort((codes, days, windows))
    stacked = np.stack((windows[order], days[order], codes[order]))
    cuts = np.flatnonzero(np.any(stacked[:, 1:] != stacked[:, :-1], axis=0)) + 1
    parts = []
    for index in np.split(order, cuts):
        if len(index):
            first = index[0]
            key = GroupKey(rows.table, int(windows[first]), int(days[first]), names[int(codes[first])])
            parts.append((key, rows.data.take(pa.array(index)), micros[index]))
    return parts


def _identities(data: pa.RecordBatch, spec: TableSpec) -> tuple[Ints, list[str]]:
    if spec.identity_column is None:
        return np.zeros(data.num_rows, dtype=np.int64), [""]
    encoded = data.column(spec.identity_column).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _micros(column: pa.Array) -> Ints:
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)


def _constant(values: Ints) -> bool:
    return bool((values == values[0]).all())
