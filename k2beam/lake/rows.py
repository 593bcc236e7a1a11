"""Rows on their way to a table: which table, which columns, which window each row belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from k2beam.clock import now_us
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS, EVENT_TABLES
from k2beam.model import TIMESTAMP, DeadLetter, DeadLetterBatch, EventBatch, Extent
from k2beam.schemas import EVENT_TIME_COLUMN


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows of one table in its own columns; ``element_time`` (one for each row) gives the window."""

    table: str
    data: pa.RecordBatch
    element_time: pa.Array
    extents: tuple[Extent, ...] = ()

    @property
    def num_rows(self) -> int:
        return int(self.data.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)


def event_rows(batch: EventBatch) -> RowBatch:
    """The rows of a batch of events; the event's own time counts where no other is given."""
    element_time = batch.element_time
    if element_time is None:
        element_time = batch.data.column(EVENT_TIME_COLUMN[batch.kind])
    return RowBatch(EVENT_TABLES[batch.kind], batch.data, element_time, batch.extents)


def dead_letter_rows(batch: DeadLetterBatch) -> RowBatch:
    """The rows of dead letters; a letter without a log timestamp is windowed by ``failed_at``."""
    letters = batch.letters
    now = now_us()
    failed_at = [now if letter.failed_at is None else letter.failed_at for letter in letters]
    element_time = [
        failed if letter.timestamp is None else letter.timestamp
        for letter, failed in zip(letters, failed_at, strict=True)
    ]
    data = pa.RecordBatch.from_arrays(
        [
            pa.array(column, type=field.type)
            for column, field in zip(_columns(letters, failed_at), DEAD_LETTER_SCHEMA, strict=True)
        ],
        schema=DEAD_LETTER_SCHEMA,
    )
    return RowBatch(DEAD_LETTERS, data, pa.array(element_time, type=TIMESTAMP), batch.extents)


def _columns(letters: Sequence[DeadLetter], failed_at: list[int]) -> list[list[object]]:
    return [
        [letter.source for letter in letters],
        [letter.partition for letter in letters],
        [letter.offset for letter in letters],
        [letter.last for letter in letters],
        [letter.timestamp for letter in letters],
        [letter.key for letter in letters],
        [letter.payload for letter in letters],
        [[{"key": key, "value": value} for key, value in letter.headers] for letter in letters],
        [letter.schema_id for letter in letters],
        [letter.stage for letter in letters],
        [letter.error_class for letter in letters],
        [letter.error_message for letter in letters],
        [letter.record_json for letter in letters],
        list(failed_at),
    ]
