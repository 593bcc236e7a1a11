"""Which data files a compaction would put together: a plan by metadata alone, of a table's files at one snapshot."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2beam.lake.scan import bound_of, plan_files
from k2beam.lake.tables import SPECS

MIN_FILES = 5
"""Fewer small files than this are left as they are."""
SMALL_SHARE = 0.75
"""A file below this share of the target is small."""
GROUP_TARGETS = 16
"""So many files of the target's size are written and committed at once, at most."""

_WRITTEN_AT = ("_ingested_at", "failed_at", "detected_at", "certified_at", "found_at")
"""The column of a table that says when a row was made: one of these."""


@dataclass(frozen=True, slots=True)
class LiveFile:
    """A data file as the plan sees it.

    ``oldest`` is its first time in the column that the table's days are made from (0: there is none), ``written`` the
    last time at which a row of it was made (None: not known), both in microseconds UTC.
    """

    file: DataFile
    partition: str
    oldest: int
    written: int | None

    @property
    def nbytes(self) -> int:
        return int(self.file.file_size_in_bytes)


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Small files of one partition that become fewer; ``busy``: the partition was written to a short while ago."""

    partition: str
    files: tuple[DataFile, ...]
    busy: bool
    files_after: int
    """How many files there will be, at most: sorted together, rows take fewer bytes."""

    @property
    def rows(self) -> int:
        return sum(int(file.record_count) for file in self.files)

    @property
    def nbytes(self) -> int:
        return sum(int(file.file_size_in_bytes) for file in self.files)


def live_files(table: Table) -> list[LiveFile]:
    """The data files of the current snapshot, of the table's own partitioning and without delete files.

    A file that delete files apply to is left alone, and so is one from before the partitioning was changed. Raises
    UnreadableFile when a manifest is gone or damaged.
    """
    spec = SPECS[table.name()[-1]]
    written_at = next(name for name in _WRITTEN_AT if name in spec.schema.names)
    return [
        LiveFile(
            task.file,
            table.spec().partition_to_path(task.file.partition, table.schema()),
            0 if spec.day_column is None else bound_of(table, task.file.lower_bounds, spec.day_column) or 0,
            bound_of(table, task.file.upper_bounds, written_at),
        )
        for task in plan_files(table)
        if task.file.spec_id == table.metadata.default_spec_id and not task.delete_files
    ]


def plan_groups(candidates: Sequence[LiveFile], target: int, quiet_since: int) -> list[FileGroup]:
    """The groups of small files worth rewriting to files of ``target`` bytes, by partition and then by time.

    A partition of whose files one has rows made after ``quiet_since`` (microseconds UTC) is busy. A group is left out
    where it has fewer than :data:`MIN_FILES` or would not become fewer files.
    """
    groups = []
    ordered = sorted(candidates, key=lambda one: (one.partition, one.oldest, one.file.file_path))
    for partition, of_partition in itertools.groupby(ordered, key=lambda one: one.partition):
        members = list(of_partition)
        busy = any(one.written is not None and one.written > quiet_since for one in members)
        small = [one for one in members if one.nbytes < target * SMALL_SHARE]
        for part in _parts(small, target * GROUP_TARGETS):
            files_after = -(-sum(one.nbytes for one in part) // target)
            if len(part) >= MIN_FILES and files_after < len(part):
                groups.append(FileGroup(partition, tuple(one.file for one in part), busy, files_after))
    return groups


def _parts(files: Sequence[LiveFile], most: int) -> list[list[LiveFile]]:
    """The files, in their order, cut into parts of about as many bytes each, ``most`` at most."""
    total = sum(one.nbytes for one in files)
    share = total / max(1, -(-total // most))
    parts: list[list[LiveFile]] = []
    taken = 0
    for one in files:
        if int(taken // share) >= len(parts):
            parts.append([])
        parts[-1].append(one)
        taken += one.nbytes
    return parts
