"""Counts source offsets from the rows of a table: which are there, and which are there twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyiceberg.table import Table
from pyroaring import BitMap64

from k2beam.arrays import Ints
from k2beam.coverage import Coverage, SourcePartition
from k2beam.errors import UnreadableFile
from k2beam.lake.placement import misplaced, placing_columns
from k2beam.lake.scan import file_rows, other_rows, plan_files, read_file, table_name
from k2beam.lake.tables import DEAD_LETTERS

SPARSE = 4
"""Offsets in runs shorter than this are added one by one, longer ones as ranges."""


@dataclass
class OffsetCount:
    """What the rows of one table say about source offsets.

    ``doubled`` are the offsets that more than one row stands for; ``surplus`` counts the rows beyond
    the first of an offset. ``misplaced`` has the paths of files whose rows are not what the manifests say of them, with
    what is wrong.
    """

    offsets: dict[SourcePartition, BitMap64] = field(default_factory=lambda: defaultdict(BitMap64))
    doubled: dict[SourcePartition, BitMap64] = field(default_factory=lambda: defaultdict(BitMap64))
    surplus: Counter[SourcePartition] = field(default_factory=Counter)
    misplaced: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    files: int = 0
    bytes: int = 0

    def add(self, key: SourcePartition, offsets: Ints) -> None:
        """Count rows that stand for one offset each."""
        offsets = np.sort(offsets)
        repeated = offsets[1:][offsets[1:] == offsets[:-1]]
        if len(repeated):
            self.surplus[key] += len(repeated)
            self.doubled[key] |= BitMap64(repeated.astype(np.uint64))
        self._add_distinct(key, _bitmap(np.unique(offsets) if len(repeated) else offsets))

    def add_range(self, key: SourcePartition, first: int, last: int) -> None:
        """Count a row that stands for the offsets ``first`` to ``last``, both included."""
        bitmap = BitMap64()
        bitmap.add_range(first, last + 1)
        self._add_distinct(key, bitmap)

    def add_rows(self, batch: pa.RecordBatch) -> None:
        """Count rows by their columns ``_source``, ``_partition``, ``_offset`` and, if it's there, ``_offset_last``."""
        source = batch.column("_source").dictionary_encode()
        partitions, offsets = batch.column("_partition").to_numpy(), batch.column("_offset").to_numpy()
        lasts = batch.column("_offset_last").to_numpy() if "_offset_last" in batch.schema.names else offsets
        names, codes = source.dictionary.to_pylist(), source.indices.to_numpy()
        single = lasts == offsets
        for code, name in enumerate(names):
            of_source = codes == code
            for partition in np.unique(partitions[of_source]).tolist():
                key = SourcePartition(name, partition)
                mine = of_source & (partitions == partition)
                self.add(key, offsets[mine & single])
                ranges = mine & ~single
                for first, last in zip(offsets[ranges].tolist(), lasts[ranges].tolist(), strict=True):
                    self.add_range(key, first, last)

    def _add_distinct(self, key: SourcePartition, found: BitMap64) -> None:
        known = self.offsets[key]
        if known.intersect(found):
            again = known & found
            self.surplus[key] += len(again)
            self.doubled[key] |= again
        known.update(found)


def count_offsets(table: Table, name: str, on_unreadable: Callable[[UnreadableFile], None]) -> OffsetCount:
    """Count the offsets of ``table`` (one of the covered tables, ``name``) from its rows, file by file.

    ``on_unreadable`` is called with each file that is gone, damaged or has not the rows that the
    snapshot says; the count goes on with the others.
    """
    count = OffsetCount()
    origins = ["_source", "_partition", "_offset", *(["_offset_last"] if name == DEAD_LETTERS else [])]
    try:
        tasks = plan_files(table)
    except UnreadableFile as error:
        on_unreadable(error)
        return count
    for task in tasks:
        count.files += 1
        count.bytes += int(task.file.file_size_in_bytes)
        rows = 0
        try:
            columns = [*origins, *(column for column in placing_columns(table, task.file) if column not in origins)]
            for batch in read_file(table, task, columns, dictionaries=True):
                rows += batch.num_rows
                count.add_rows(batch)
                if wrong := misplaced(table, task.file, batch):
                    count.misplaced[task.file.file_path] = wrong
        except UnreadableFile as error:
            on_unreadable(error)
        else:
            promised = file_rows(task)
            if promised is not None and rows != promised:
                on_unreadable(UnreadableFile(table_name(table), task.file.file_path, other_rows(rows, promised)))
        count.rows += rows
    return count


def may_cover(own: Mapping[str, Coverage], holes: Coverage | None = None) -> dict[str, Coverage]:
    """What each table may cover by what is each one's own: event tables what any of them has, as they share coverage.

    They may cover recorded legal ``holes`` too. The dead letters only what they have themselves.
    """
    events = Coverage() if holes is None else holes.copy()
    for name, coverage in own.items():
        if name != DEAD_LETTERS:
            events.update(coverage)
    return {name: coverage if name == DEAD_LETTERS else events for name, coverage in own.items()}


def _bitmap(offsets: Ints) -> BitMap64:
    """A bitmap of sorted, distinct offsets."""
    cuts = np.flatnonzero(np.diff(offsets) != 1)
    if len(cuts) * SPARSE > len(offsets):
        return BitMap64(offsets.astype(np.uint64))
    bitmap = BitMap64()
    if len(offsets):
        firsts, lasts = offsets[np.r_[0, cuts + 1]], offsets[np.r_[cuts, len(offsets) - 1]]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            bitmap.add_range(first, last + 1)
    return bitmap
