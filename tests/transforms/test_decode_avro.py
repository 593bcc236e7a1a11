"""DecodeAvro in a pipeline."""

from __future__ import annotations

import json
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.errors import SchemaError
from k2beam.model import RAW_BATCH_SCHEMA, Block, BlockBatch, DeadLetterBatch, EventBatch, Extent, RawBatch
from k2beam.schemas import avro_schema
from tests.codec_samples import encode, encode_as, evolved, framed, quote, trade
from transforms.coders import BatchCoder
from transforms.decode_avro import DecodeAvro

NOW = 1_700_000_000_000_000
SOURCE = "kafka:c/t/i"
TRADES = (1, json.dumps(avro_schema("trade_v2")))


def clock() -> int:
    return NOW


class Registry:
    """Knows quotes as 2; open and close are checked by resolve."""

    def __init__(self) -> None:
        self._opened = False

    def open(self) -> None:
        self._opened = True

    def resolve(self, schema_id: int) -> str:
        assert self._opened
        if schema_id != 2:
            raise SchemaError(f"schema id {schema_id} does not exist")
        return json.dumps(avro_schema("quote_v2"))

    def close(self) -> None:
        self._opened = False


def raw(*values: bytes | None, first: int = 0, extents: tuple[Extent, ...] = ()) -> RawBatch:
    count = len(values)
    rows = [
        {
            "source": SOURCE,
            "partition": 0,
            "offset": first + i,
            "timestamp": None,
            "key": None,
            "value": values[i],
            "headers": [],
        }
        for i in range(count)
    ]
    return RawBatch(pa.RecordBatch.from_pylist(rows, schema=RAW_BATCH_SCHEMA), schemas=(TRADES,), extents=extents)


def summary(batch: EventBatch | DeadLetterBatch) -> tuple[Any, ...]:
    extents = tuple(extent.end for extent in batch.extents)
    if isinstance(batch, EventBatch):
        return batch.kind, tuple(batch.data.column("_offset").to_pylist()), extents
    return tuple(
        (dead_letter.offset, dead_letter.last, dead_letter.error_class) for dead_letter in batch.dead_letters
    ), extents


def check(
    batches: list[Any], events: list[Any], errs: list[Any], counters: dict[str, int], resolver: Any = None
) -> None:
    """Run the transform over the batches; compare summaries and counters."""
    pipeline = TestPipeline(runner="FnApiRunner")
    result = pipeline | beam.Create(batches) | "DecodeAvro" >> DecodeAvro(resolver=resolver, clock=clock)
    assert_that(result.events | "Events" >> beam.Map(summary), equal_to(events), label="events")
    assert_that(result.errs | "Errs" >> beam.Map(summary), equal_to(errs), label="errs")
    ran = pipeline.run()
    ran.wait_until_finish()
    query = beam.metrics.MetricsFilter().with_namespace("k2beam")
    assert {counter.key.metric.name: counter.result for counter in ran.metrics().query(query)["counters"]} == counters


def good(i: int) -> bytes:
    return framed(encode_as("trade_v2", trade(i)), 1)


def test_events_and_errors_part_and_are_counted() -> None:
    other = framed(encode_as("quote_v2", quote(0)), 2)
    check(
        [raw(good(0), None, other, framed(b"", 3)), raw(b"", first=50), raw(good(1), first=60)],
        [("trades", (0,), ()), ("quotes", (2,), ()), ("trades", (60,), ())],
        [(((1, 1, "tombstone"), (3, 3, "unknown_schema_id")), ()), (((50, 50, "empty_payload"),), ())],
        {"decoded_trades": 2, "decoded_quotes": 1, "dead_letters": 3, "dead_letter_offsets": 3},
        Registry(),
    )


def test_values_of_fields_that_no_column_has_are_counted() -> None:
    schema = evolved("trade_v2", flag={"name": "flag", "type": ["null", "int"]})
    payload = b"".join(encode(schema, {**trade(i), "flag": flag}) for i, flag in enumerate([1, None, 3]))
    check(
        [BlockBatch("archive:x", 0, "a.avro", json.dumps(schema), (Block(0, 3, 0, payload),))],
        [("trades", (0, 1, 2), ())],
        [],
        {"decoded_trades": 3, "unknown_field_values": 2},
    )


def test_a_broken_block_counts_its_offsets() -> None:
    payload = encode_as("trade_v2", trade(0))
    made = (Block(0, 2, 0, payload * 2), Block(2, 3, 99, payload * 2))
    check(
        [BlockBatch("archive:x", 0, "a.avro", TRADES[1], made, Extent("archive:x", 0, 5))],
        [("trades", (0, 1), (5,))],
        [(((2, 4, "broken_block"),), ())],
        {"decoded_trades": 2, "dead_letters": 1, "dead_letter_offsets": 3},
    )


def test_extents_go_on_once_even_without_events() -> None:
    extents = (Extent(SOURCE, 0, 7), Extent(SOURCE, 0, 8))
    check(
        [raw(good(0), None, extents=extents), raw(None, first=9, extents=extents), raw(extents=extents)],
        [("trades", (0,), (7, 8))],
        [(((1, 1, "tombstone"),), ()), (((9, 9, "tombstone"),), (7, 8)), ((), (7, 8))],
        {"decoded_trades": 1, "dead_letters": 2, "dead_letter_offsets": 2},
    )


def test_outputs_have_the_coder_of_batches() -> None:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    result = pipeline | beam.Create([raw()]) | DecodeAvro()
    for output, element_type in ((result.events, EventBatch), (result.errs, DeadLetterBatch)):
        assert output.element_type is element_type
        assert isinstance(beam.coders.registry.get_coder(output.element_type), BatchCoder)
