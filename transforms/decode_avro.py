"""DecodeAvro: raw batches become event batches, one for each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.clock import now_us
from k2beam.codec.batches import BatchDecoder
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import BlockBatch, DeadLetterBatch, EventBatch, Extent, Kind, RawBatch, SchemaRef

_Clock = Callable[[], int]


class SchemaResolver(Protocol):
    """Finds writer schemas by Confluent id or GUID. Picklable until opened; opened and closed on each worker."""

    def open(self) -> None: ...

    def resolve(self, ref: SchemaRef) -> str:
        """The schema's JSON text. Raises SchemaError for an id or GUID that does not exist.

        Anything else that it raises fails the bundle, which is tried again: a registry that can't
        be reached makes no dead letters.
        """

    def close(self) -> None: ...


class DecodeResult(NamedTuple):
    """``events``: EventBatch. ``errs``: DeadLetterBatch."""

    events: beam.PCollection[EventBatch]
    errs: beam.PCollection[DeadLetterBatch]


class DecodeAvro(beam.PTransform):  # type: ignore[misc]
    """PCollection of RawBatch or BlockBatch -> DecodeResult.

    Each offset comes out once: in an event batch (at most one for each kind and input batch), or
    in a dead letter, whose classes :mod:`k2beam.codec.batches` lists. Extents go on with the first
    event batch, or with the dead letters where there is none. Schemas that came with a batch win over
    ``resolver``. With ``evolve`` fields that no column has become columns of the batches, if their type is plain;
    without, entries of ``vendor_data``. Pure but for ``clock`` (microseconds, UTC), so a bundle that is retried gives
    the same events.

    Beam counters: ``decoded_<kind>`` (rows), ``dead_letters``, ``dead_letter_offsets``, ``unknown_field_values`` (of
    fields that no column has, kept in vendor_data). In Prometheus, as ``metrics`` says: events and such values by kind,
    dead letters by class.

    Examples:
        >>> import apache_beam as beam
        >>> from transforms.decode_avro import DecodeAvro
        >>> from transforms.read_archive import ReadArchive
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/asx/trades.avro"])
        ...     decoded = read.batches | DecodeAvro()
        ...     _ = decoded.events | beam.Map(lambda batch: (batch.kind, batch.num_rows)) | beam.Map(print)
        ('trades', 243)
    """

    def __init__(
        self,
        resolver: SchemaResolver | None = None,
        clock: _Clock = now_us,
        metrics: MetricsConfig = DEFAULT_METRICS,
        *,
        evolve: bool = False,
    ) -> None:
        super().__init__()
        self._evolve = evolve
        self._resolver = resolver
        self._clock = clock
        self._metrics = metrics

    def expand(self, batches: beam.PCollection) -> DecodeResult:
        fn = _DecodeFn(self._resolver, self._clock, self._metrics, self._evolve)
        decoded = batches | "Decode" >> beam.ParDo(fn).with_output_types(EventBatch, errs=DeadLetterBatch).with_outputs(
            "errs", main="events"
        )
        return DecodeResult(events=decoded.events, errs=decoded.errs)


class _DecodeFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, resolver: SchemaResolver | None, clock: _Clock, metrics: MetricsConfig, evolve: bool) -> None:
        self._evolve = evolve
        self._resolver = resolver
        self._clock = clock
        self._metrics_config = metrics
        self._decoder: BatchDecoder | None = None

    def setup(self) -> None:
        if self._resolver is not None:
            self._resolver.open()
        self._metrics = self._metrics_config.open("decode")
        lookup = None if self._resolver is None else self._resolver.resolve
        self._decoder = BatchDecoder(ColumnarDecoder(), self._clock, lookup, self._count_unknown, evolve=self._evolve)

    def _count_unknown(self, kind: Kind, values: int) -> None:
        _count("unknown_field_values", values)
        self._metrics.increment("k2_unknown_field_values_total", values, kind=kind)

    def teardown(self) -> None:
        if self._resolver is not None:
            self._resolver.close()

    def process(self, batch: RawBatch | BlockBatch) -> Iterator[Any]:
        assert self._decoder is not None, "setup() runs before process()"
        events, dead_letters = self._decoder.decode(batch)
        extents = _extents(batch)
        for event_batch in events:
            _count(f"decoded_{event_batch.kind}", event_batch.num_rows)
            self._metrics.increment("k2_events_decoded_total", event_batch.num_rows, kind=event_batch.kind)
            yield replace(event_batch, extents=extents)
            extents = ()
        if dead_letters or extents:
            for error_class, count in Counter(dead_letter.error_class for dead_letter in dead_letters).items():
                self._metrics.increment("k2_decode_errors_total", count, error_class=error_class)
            _count("dead_letters", len(dead_letters))
            _count(
                "dead_letter_offsets", sum(dead_letter.last - dead_letter.offset + 1 for dead_letter in dead_letters)
            )
            yield TaggedOutput("errs", DeadLetterBatch(dead_letters, extents))


def _extents(batch: RawBatch | BlockBatch) -> tuple[Extent, ...]:
    if isinstance(batch, RawBatch):
        return batch.extents
    return () if batch.extent is None else (batch.extent,)


def _count(name: str, amount: int) -> None:
    beam.metrics.Metrics.counter("k2beam", name).inc(amount)
