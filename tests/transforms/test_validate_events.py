"""ValidateEvents in a pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.codec.batches import BatchDecoder
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.jsonable import to_json
from k2beam.model import KINDS, RAW_BATCH_SCHEMA, Block, BlockBatch, DeadLetterBatch, EventBatch, Extent, Kind, RawBatch
from k2beam.schemas import avro_schema, v2_name
from k2beam.validation import ExchangeBound
from tests.codec_samples import START, encode_as, framed, quote, reference, trade, trade_v1
from transforms.validate_events import ValidateEvents

NOW = int(START.timestamp()) * 1_000_000
SOURCE = "kafka:c/t/u"
EXTENT = Extent(SOURCE, 3, 9)
HEADERS = (("trace", b"1"), ("empty", None))


def clock() -> int:
    return NOW


def message(name: str, record: dict[str, Any]) -> bytes:
    return framed(encode_as(name, record), 2**31 + 7)


def batch(kind: Kind, *records: dict[str, Any], live: bool = False, name: str = "") -> EventBatch:
    """What DecodeAvro makes of messages with offsets from 100 on, logged a second apart."""
    name = name or v2_name(kind)
    rows = [
        {
            "source": SOURCE,
            "partition": 3,
            "offset": 100 + i,
            "timestamp": START + timedelta(seconds=i),
            "key": b"key-%d" % i,
            "value": message(name, record),
            "headers": [{"key": key, "value": value} for key, value in HEADERS],
        }
        for i, record in enumerate(records)
    ]
    raw = RawBatch(
        pa.RecordBatch.from_pylist(rows, schema=RAW_BATCH_SCHEMA),
        path="" if live else "day.avro",
        schemas=((2**31 + 7, json.dumps(avro_schema(name))),),
    )
    (events,), _ = BatchDecoder(ColumnarDecoder(), clock).decode(raw)
    return replace(events, extents=(EXTENT,))


def summary(found: EventBatch) -> tuple[Any, ...]:
    times = None if found.element_time is None else tuple(found.element_time.to_pylist())
    assert found.origin is None, "what was read is not carried to the tables"
    return found.kind, tuple(found.data.column("_offset").to_pylist()), times, found.extents


def check(batches: list[EventBatch], events: list[Any], dead_letters: Any, counters: dict[str, int]) -> None:
    pipeline = TestPipeline(runner="FnApiRunner")
    result = pipeline | beam.Create(batches) | ValidateEvents(clock=clock)
    assert_that(result.events | beam.Map(summary), equal_to(events), label="events")
    assert_that(result.errs, dead_letters, label="errs")
    ran = pipeline.run()
    ran.wait_until_finish()
    query = beam.metrics.MetricsFilter().with_namespace("k2beam")
    assert {counter.key.metric.name: counter.result for counter in ran.metrics().query(query)["counters"]} == counters


def test_good_batches_pass_untouched() -> None:
    batches = [batch("trades", trade(0), trade(1), live=True), batch("quotes", quote(0))]
    times = (START, START + timedelta(seconds=1))
    events = [("trades", (100, 101), times, (EXTENT,)), ("quotes", (100,), None, (EXTENT,))]
    check(batches, events, equal_to([]), {})


def test_a_name_of_an_exchange_too_many_is_a_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExchangeBound.__init__, "__defaults__", (1,))
    rows = [trade(0), trade(1, exchange="??"), trade(2, exchange=""), trade(3)]

    def dead_letters(actual: list[DeadLetterBatch]) -> None:
        found = [(one.offset, one.error_class) for batch in actual for one in batch.dead_letters]
        assert found == [(101, "too_many_exchanges"), (102, "empty_exchange")]

    times = (START, START + timedelta(seconds=3))
    events = [("trades", (100, 103), times, (EXTENT,))]
    check([batch("trades", *rows, live=True)], events, dead_letters, {"dead_letters": 2, "dead_letter_offsets": 2})


def test_a_bad_row_becomes_a_letter_and_the_others_pass() -> None:
    bad = trade(1, price=Decimal("-1.00000001"))

    def dead_letters(actual: list[DeadLetterBatch]) -> None:
        (found,) = actual
        (dead_letter,) = found.dead_letters
        assert found.extents == ()
        assert (dead_letter.source, dead_letter.partition, dead_letter.offset, dead_letter.last) == (
            SOURCE,
            3,
            101,
            101,
        )
        assert (dead_letter.stage, dead_letter.error_class, dead_letter.failed_at) == (
            "validate",
            "negative_price",
            NOW,
        )
        assert dead_letter.error_message == "price is negative"
        assert dead_letter.record_json == to_json(bad)
        assert (dead_letter.payload, dead_letter.schema_id) == (message("trade_v2", bad), 2**31 + 7)
        assert (dead_letter.key, dead_letter.headers, dead_letter.timestamp) == (b"key-1", HEADERS, NOW + 1_000_000)

    times = (START, START + timedelta(seconds=2))
    check(
        [batch("trades", trade(0), bad, trade(2), live=True)],
        [("trades", (100, 102), times, (EXTENT,))],
        dead_letters,
        {"dead_letters": 1, "dead_letter_offsets": 1},
    )


def test_where_no_row_is_left_the_extents_go_with_the_letters() -> None:
    def dead_letters(actual: list[DeadLetterBatch]) -> None:
        assert [(found.num_rows, found.extents) for found in actual] == [(2, (EXTENT,))]

    bad = batch("quotes", quote(0, symbol=""), quote(1, symbol=""))
    check([bad], [], dead_letters, {"dead_letters": 2, "dead_letter_offsets": 2})


def test_a_letter_of_every_kind_has_its_message_and_its_record() -> None:
    makers = {"trades": trade, "quotes": quote, "reference_data": reference}

    def dead_letters(actual: list[DeadLetterBatch]) -> None:
        found = [dead_letter for group in actual for dead_letter in group.dead_letters]
        assert len(found) == len(KINDS)
        for dead_letter in found:
            record = json.loads(dead_letter.record_json or "")
            kind = next(kind for kind in KINDS if makers[kind](0).keys() == record.keys())
            assert dead_letter.payload == message(v2_name(kind), makers[kind](0, exchange=""))

    check(
        [batch(kind, make(0, exchange="")) for kind, make in makers.items()],  # type: ignore[arg-type]
        [],
        dead_letters,
        {"dead_letters": 3, "dead_letter_offsets": 3},
    )


def test_a_version_1_message_is_kept_as_it_was_and_told_as_version_2() -> None:
    bad = trade_v1(1, symbol="")

    def dead_letters(actual: list[DeadLetterBatch]) -> None:
        ((dead_letter,),) = (group.dead_letters for group in actual)
        assert (dead_letter.offset, dead_letter.payload) == (101, message("trade", bad))
        assert json.loads(dead_letter.record_json or "")["vendor_data"]["buyer_id"] == "b"

    events = [("trades", (100,), None, (EXTENT,))]
    check(
        [batch("trades", trade_v1(0), bad, name="trade")],
        events,
        dead_letters,
        {"dead_letters": 1, "dead_letter_offsets": 1},
    )


def test_a_record_of_a_plain_container_is_kept_as_its_own_bytes() -> None:
    parts = [encode_as("trade_v2", trade(i, symbol="" if i == 2 else "BHP")) for i in range(4)]
    blocks = (Block(7, 1, 900, parts[0]), Block(8, 3, 1000, b"".join(parts[1:])))
    plain = BlockBatch("archive:a", 0, "day.avro", json.dumps(avro_schema("trade_v2")), blocks)
    (events,), _ = BatchDecoder(ColumnarDecoder(), clock).decode(plain)

    def dead_letters(actual: list[DeadLetterBatch]) -> None:
        ((dead_letter,),) = (group.dead_letters for group in actual)
        assert (dead_letter.source, dead_letter.offset, dead_letter.last) == ("archive:a", 9, 9)
        assert (dead_letter.stage, dead_letter.error_class) == ("validate", "empty_symbol")
        assert dead_letter.error_message == "day.avro, block at byte 1000: symbol is empty"
        assert dead_letter.payload == parts[2]
        assert dict(dead_letter.headers)["k2.position"] == b"1000"

    check([events], [("trades", (7, 8, 10), None, ())], dead_letters, {"dead_letters": 1, "dead_letter_offsets": 1})
