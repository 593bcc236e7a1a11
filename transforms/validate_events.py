"""ValidateEvents: events that break a rule become dead letters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import TaggedOutput

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.clock import now_us
from k2beam.codec.batches import dead_letters_of_events
from k2beam.codec.dead_letters import Failure, record_texts
from k2beam.model import PROVENANCE_FIELDS, DeadLetter, DeadLetterBatch, EventBatch, Kind
from k2beam.validation import ExchangeBound, Violation, violations

_Clock = Callable[[], int]

_PROVENANCE = frozenset(field.name for field in PROVENANCE_FIELDS)


class ValidateResult(NamedTuple):
    """``events``: EventBatch without the rows that break a rule. ``errs``: DeadLetterBatch with them."""

    events: beam.PCollection[EventBatch]
    errs: beam.PCollection[DeadLetterBatch]


def _no_exchanges(kind: Kind) -> Collection[str]:
    """There are none yet."""
    del kind
    return ()


class ValidateEvents(beam.PTransform):  # type: ignore[misc]
    """PCollection of EventBatch -> ValidateResult, by the rules of :data:`k2beam.validation.RULES`.

    Each row comes out once. A dead letter has stage ``validate``, the rule's name, the v2 record as JSON, and the
    message as it was read. ``clock`` gives microseconds, UTC; ``stored`` are the columns of tables, which may have
    less room than a batch. A worker takes :data:`k2beam.validation.MOST_EXCHANGES` names of exchanges, and those that
    ``exchanges`` gives of a kind.

    Beam counters: ``dead_letters`` and ``dead_letter_offsets``, by one for each row that fails.

    Examples:
        >>> import apache_beam as beam
        >>> from transforms.decode_avro import DecodeAvro
        >>> from transforms.read_archive import ReadArchive
        >>> from transforms.validate_events import ValidateEvents
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/crypto/trades-00001.avro"])
        ...     validated = (read.batches | DecodeAvro()).events | ValidateEvents()
        ...     refused = validated.errs | beam.FlatMap(lambda batch: {one.error_class for one in batch.dead_letters})
        ...     _ = refused | beam.combiners.ToList() | beam.Map(sorted) | beam.Map(print)
        ['empty_symbol', 'negative_price', 'timestamp_in_future']
    """

    def __init__(
        self,
        clock: _Clock = now_us,
        stored: Mapping[Kind, pa.Schema] = MappingProxyType({}),
        exchanges: Callable[[Kind], Collection[str]] = _no_exchanges,
    ) -> None:
        super().__init__()
        self._fn = _ValidateFn(clock, dict(stored), exchanges)

    def expand(self, batches: beam.PCollection) -> ValidateResult:
        validated = batches | "Validate" >> beam.ParDo(self._fn).with_output_types(
            EventBatch, errs=DeadLetterBatch
        ).with_outputs("errs", main="events")
        return ValidateResult(events=validated.events, errs=validated.errs)


class _ValidateFn(beam.DoFn):  # type: ignore[misc]
    def __init__(
        self, clock: _Clock, stored: Mapping[Kind, pa.Schema], exchanges: Callable[[Kind], Collection[str]]
    ) -> None:
        self._clock = clock
        self._stored = stored
        self._exchanges = exchanges

    def setup(self) -> None:
        self._bound = ExchangeBound(self._exchanges)

    def process(self, batch: EventBatch) -> Iterator[Any]:
        now = self._clock()
        found = violations(batch.kind, batch.data, now, self._stored.get(batch.kind))
        names = batch.data.column("exchange")
        if found:  # what is refused for another reason takes no name of an exchange
            names = pc.if_else(_good(batch, found), names, None)
        found += self._bound.refused(batch.kind, names)
        if not found:
            yield replace(batch, origin=None)
            return
        dead_letters = _dead_letters(batch, tuple(sorted(found, key=lambda one: one.row)), now)
        for name in ("dead_letters", "dead_letter_offsets"):
            beam.metrics.Metrics.counter("k2beam", name).inc(len(dead_letters))
        kept = _without(batch, found)
        if kept.num_rows:
            yield kept
        yield TaggedOutput("errs", DeadLetterBatch(dead_letters, () if kept.num_rows else batch.extents))


def _good(batch: EventBatch, found: tuple[Violation, ...]) -> pa.BooleanArray:
    good = np.ones(batch.num_rows, dtype=np.bool_)
    good[[violation.row for violation in found]] = False
    return pa.array(good)


def _without(batch: EventBatch, found: tuple[Violation, ...]) -> EventBatch:
    mask = _good(batch, found)
    element_time = None if batch.element_time is None else batch.element_time.filter(mask)
    return replace(batch, data=batch.data.filter(mask), element_time=element_time, origin=None)


def _dead_letters(batch: EventBatch, found: tuple[Violation, ...], now: int) -> tuple[DeadLetter, ...]:
    assert batch.origin is not None, "DecodeAvro says where the rows came from"
    record = batch.data.select([name for name in batch.data.schema.names if name not in _PROVENANCE])
    texts = record_texts(record, (violation.row for violation in found))
    failures = [
        Failure(violation.row, "validate", violation.error_class, violation.message, text)
        for violation, text in zip(found, texts, strict=True)
    ]
    return dead_letters_of_events(batch.origin, failures, now)
