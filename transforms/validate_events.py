"""ValidateEvents: events that break a rule become dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.codec.clock import now_us
from k2beam.codec.encode import encode_event
from k2beam.jsonable import to_json
from k2beam.model import PROVENANCE_FIELDS, DeadLetter, DeadLetterBatch, EventBatch, Kind
from k2beam.validation import Violation, violations

Clock = Callable[[], int]

PAYLOAD_HEADERS: tuple[tuple[str, bytes | None], ...] = (("k2.payload", b"v2"),)
"""Says that a payload is the event in v2 Avro without framing, not the bytes of the log."""

_PROVENANCE = frozenset(field.name for field in PROVENANCE_FIELDS)


class ValidateResult(NamedTuple):
    """``events``: EventBatch without the rows that break a rule. ``errs``: DeadLetterBatch with them."""

    events: beam.PCollection[EventBatch]
    errs: beam.PCollection[DeadLetterBatch]


class ValidateEvents(beam.PTransform):  # type: ignore[misc]
    """PCollection of EventBatch -> ValidateResult, by the rules of :data:`k2beam.validation.RULES`.

    Each row comes out once. A letter has stage ``validate``, the rule's name, the record as JSON,
    and as payload the event in v2 Avro (header ``k2.payload``: ``v2``), as the log's bytes are gone by
    then. ``clock`` gives microseconds, UTC.

    Beam counters: ``dead_letters`` and ``dead_letter_offsets``, by one for each row that fails.
    """

    def __init__(self, clock: Clock = now_us) -> None:
        super().__init__()
        self._clock = clock

    def expand(self, batches: beam.PCollection) -> ValidateResult:
        validated = batches | "Validate" >> beam.ParDo(_ValidateFn(self._clock)).with_output_types(
            EventBatch, errs=DeadLetterBatch
        ).with_outputs("errs", main="events")
        return ValidateResult(events=validated.events, errs=validated.errs)


class _ValidateFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def process(self, batch: EventBatch) -> Iterator[Any]:
        now = self._clock()
        found = violations(batch.kind, batch.data, now)
        if not found:
            yield batch
            return
        letters = _letters(batch, found, now)
        for name in ("dead_letters", "dead_letter_offsets"):
            beam.metrics.Metrics.counter("k2beam", name).inc(len(letters))
        kept = _without(batch, found)
        if kept.num_rows:
            yield kept
        yield TaggedOutput("errs", DeadLetterBatch(letters, () if kept.num_rows else batch.extents))


def _without(batch: EventBatch, found: tuple[Violation, ...]) -> EventBatch:
    good = np.ones(batch.num_rows, dtype=np.bool_)
    good[[violation.row for violation in found]] = False
    mask = pa.array(good)
    element_time = None if batch.element_time is None else batch.element_time.filter(mask)
    return replace(batch, data=batch.data.filter(mask), element_time=element_time)


def _letters(batch: EventBatch, found: tuple[Violation, ...], now: int) -> tuple[DeadLetter, ...]:
    taken = batch.data.take(pa.array([violation.row for violation in found], type=pa.int64()))
    records = taken.to_pylist(maps_as_pydicts="strict")
    return tuple(_letter(batch.kind, violation, record, now) for violation, record in zip(found, records, strict=True))


def _letter(kind: Kind, violation: Violation, row: dict[str, Any], now: int) -> DeadLetter:
    record = {name: value for name, value in row.items() if name not in _PROVENANCE}
    return DeadLetter(
        source=row["_source"],
        partition=row["_partition"],
        offset=row["_offset"],
        stage="validate",
        error_class=violation.error_class,
        error_message=violation.message,
        payload=encode_event(kind, record),
        headers=PAYLOAD_HEADERS,
        record_json=to_json(record),
        failed_at=now,
    )
