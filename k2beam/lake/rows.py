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
    """The rows of dead letters; a dead letter without a log timestamp is windowed by ``failed_at``."""
    dead_letters = batch.dead_letters
    now = now_us()
    failed_at = [now if dead_letter.failed_at is None else dead_letter.failed_at for dead_letter in dead_letters]
    element_time = [
        failed if dead_letter.timestamp is None else dead_letter.timestamp
        for dead_letter, failed in zip(dead_letters, failed_at, strict=True)
    ]
    data = pa.RecordBatch.from_arrays(
        [
            pa.array(column, type=field.type)
            for column, field in zip(_columns(dead_letters, failed_at), DEAD_LETTER_SCHEMA, strict=True)
        ],
        schema=DEAD_LETTER_SCHEMA,
    )
    return RowBatch(DEAD_LETTERS, data, pa.array(element_time, type=TIMESTAMP), batch.extents)


def _columns(dead_letters: Sequence[DeadLetter], failed_at: list[int]) -> list[list[object]]:
    return [
        [dead_letter.source for dead_letter in dead_letters],
        [dead_letter.partition for dead_letter in dead_letters],
        [dead_letter.offset for dead_letter in dead_letters],
        [dead_letter.last for dead_letter in dead_letters],
        [dead_letter.timestamp for dead_letter in dead_letters],
        [dead_letter.key for dead_letter in dead_letters],
        [dead_letter.payload for dead_letter in dead_letters],
        [[{"key": key, "value": value} for key, value in dead_letter.headers] for dead_letter in dead_letters],
        [dead_letter.schema_id for dead_letter in dead_letters],
        [dead_letter.stage for dead_letter in dead_letters],
        [dead_letter.error_class for dead_letter in dead_letters],
        [dead_letter.error_message for dead_letter in dead_letters],
        [dead_letter.record_json for dead_letter in dead_letters],
        list(failed_at),
    ]
