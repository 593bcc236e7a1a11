"""Dead letters as the messages that they were, to be decoded again with today's code, schemas and rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.table import FileScanTask, Table

from k2beam.archive.scan import ReadProblem
from k2beam.config import LakeConfig
from k2beam.coverage import Coverage
from k2beam.errors import LakeError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.scan import find_readable, load_readable, plan_files, read_file
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES
from k2beam.model import RAW_BATCH_SCHEMA, RawBatch
from k2beam.query.dead_letters import letter_filter, unresolved
from k2beam.query.selections import DeadLetterSelection

OF_FILES = ("archive:", "csv:")
"""What the sources of records in files begin with: without the head of its file no record can be read again."""

_MESSAGE = ("_source", "_partition", "_offset", "timestamp", "key", "payload", "headers")
_COLUMNS = (*_MESSAGE, "_offset_last", "error_class")


class LetterPlan(NamedTuple):
    """The data files that may have some of a selection, as paths."""

    chunks: Sequence[str]
    problems: Sequence[ReadProblem] = ()


@dataclass(frozen=True)
class StoredLetters:
    """The dead letters of a selection in one snapshot (None: there are none), for :mod:`transforms.planned`.

    Left out is what has become an event, and what is of :data:`OF_FILES`: those files are to be read again.
    """

    lake: LakeConfig
    selection: DeadLetterSelection
    snapshot_id: int | None
    rows_per_batch: int = 10_000

    @classmethod
    def of_now(cls, lake: LakeConfig, selection: DeadLetterSelection) -> StoredLetters:
        """Those that there are now. Raises UnreadableFile where the table's metadata is gone or damaged."""
        table = find_readable(open_catalog(lake), lake.namespace, DEAD_LETTERS)
        snapshot = None if table is None else table.current_snapshot()
        return cls(lake, selection, None if snapshot is None else snapshot.snapshot_id)

    def plan(self, _: object = None) -> LetterPlan:
        """The files. Raises LakeError where the snapshot is gone, and for an unreadable manifest."""
        return LetterPlan(list(self._tasks))

    def letters(self, path: str) -> Iterator[pa.RecordBatch]:
        """The dead letters of one file, with their payloads and error classes. Raises LakeError as :meth:`plan`."""
        rows = read_file(self._table, self._tasks[path], _COLUMNS, letter_filter(self.selection))
        for batch in unresolved(rows, self._events):
            yield batch.filter(_is_message(batch))

    def read(self, chunk: str) -> Iterator[RawBatch]:
        """The messages of one file. Raises LakeError as :meth:`plan`."""
        for letters in self.letters(chunk):
            for begin in range(0, letters.num_rows, self.rows_per_batch):
                yield as_messages(letters.slice(begin, self.rows_per_batch))

    def __reduce__(self) -> tuple[Any, ...]:
        """Without what was opened: a worker opens it for itself."""
        return StoredLetters, (self.lake, self.selection, self.snapshot_id, self.rows_per_batch)

    @cached_property
    def _catalog(self) -> Catalog:
        return open_catalog(self.lake)

    @cached_property
    def _table(self) -> Table:
        return load_readable(self._catalog, self.lake.namespace, DEAD_LETTERS)

    @cached_property
    def _tasks(self) -> dict[str, FileScanTask]:
        if self.snapshot_id is None:
            return {}
        snapshot = self._table.metadata.snapshot_by_id(self.snapshot_id)
        if snapshot is None:
            raise LakeError(
                f"snapshot {self.snapshot_id} of table {self.lake.namespace}.{DEAD_LETTERS} was expired while its "
                "dead letters were read; run it again: what is an event by now is left out"
            )
        tasks = plan_files(self._table, letter_filter(self.selection), snapshot)
        return {task.file.file_path: task for task in tasks}

    @cached_property
    def _events(self) -> Coverage:
        return read_coverage(self._catalog, self.lake.namespace, EVENT_TABLES.values())


def as_messages(letters: pa.RecordBatch) -> RawBatch:
    """The messages that letters keep, each with its source, partition and offset."""
    columns = [letters.column(name).cast(field.type) for name, field in zip(_MESSAGE, RAW_BATCH_SCHEMA, strict=True)]
    return RawBatch(pa.RecordBatch.from_arrays(columns, schema=RAW_BATCH_SCHEMA), path=f"table {DEAD_LETTERS}")


def _is_message(letters: pa.RecordBatch) -> pa.Array:
    source = letters.column("_source")
    archived, csv = (pc.starts_with(source, prefix) for prefix in OF_FILES)
    return pc.and_(
        pc.invert(pc.or_(archived, csv)), pc.equal(letters.column("_offset"), letters.column("_offset_last"))
    )
