"""The data files of an event table by day and exchange, as they are partitioned: what a recount takes at once.

The days of a key follow each other in event time, so what each of them holds can be counted by itself, and remembered
for as long as the day has the same files (:mod:`k2beam.lake.certified`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from pyiceberg.table import FileScanTask, Table

from k2beam.lake.scan import partition_value
from k2beam.model import Kind
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import Slice

_LAYOUT = "k2beam certified day 1"
"""Part of every digest: what is remembered in another form is not found."""

SymbolName = tuple[str, str]
"""Exchange and the name of a key (:class:`k2beam.sequence.KeyName`): its symbol, where no rule says otherwise."""

DaySlices = Mapping[SymbolName, Slice]
"""What a day holds of each symbol."""


@dataclass(frozen=True)
class DayFiles:
    """The data files of one day (counted from 1970, UTC) of one exchange, in the order of their paths.

    Both are None where files don't say of which they are; then these are all files of the table. ``rules``: those of
    the kind's sequences, as they are kept; empty where there are none.
    """

    kind: Kind
    day: int | None
    exchange: str | None
    files: tuple[FileScanTask, ...]
    rules: str = ""

    @property
    def rows(self) -> int:
        """How many rows the files have, deleted ones too."""
        return sum(int(task.file.record_count) for task in self.files)

    @cached_property
    def digest(self) -> str:
        """Names the rows: 32 hex digits over the files, their record counts and specs, and their delete files."""
        told = hashlib.sha256(repr((_LAYOUT, self.kind, self.day, self.exchange)).encode())
        if self.rules:
            told.update(self.rules.encode())
        for task in self.files:
            deletes = sorted(str(file.file_path) for file in task.delete_files)
            told.update(repr((task.file.file_path, task.file.record_count, task.file.spec_id, deletes)).encode())
        return told.hexdigest()[:32]


def divide(table: Table, kind: Kind, tasks: Iterable[FileScanTask], rules: str = "") -> list[DayFiles]:
    """The files by day and exchange, in order of days."""
    groups: dict[tuple[int | None, str | None], list[FileScanTask]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: str(task.file.file_path)):
        day = partition_value(table, task, EVENT_TIME_COLUMN[kind], "day")
        groups[day, partition_value(table, task, "exchange")].append(task)
    if any(None in group for group in groups):
        return [DayFiles(kind, None, None, tuple(task for files in groups.values() for task in files), rules)]
    return [DayFiles(kind, *group, tuple(groups[group]), rules) for group in sorted(groups)]
