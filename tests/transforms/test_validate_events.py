"""ValidateEvents in a pipeline."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import apache_beam as beam
import fastavro
import pyarrow as pa
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.jsonable import to_json
from k2beam.model import KINDS, TIMESTAMP, DeadLetterBatch, EventBatch, Extent, Kind
from k2beam.schemas import avro_schema, event_arrow_schema, v2_name
from tests.codec_samples import START, quote, reference, trade
from transforms.validate_events import ValidateEvents

NOW = int(START.timestamp()) * 1_000_000
EXTENT = Extent("s", 3, 9)


def clock() -> int:
    return NOW


def batch(kind: Kind, *records: dict[str, Any], live: bool = False) -> EventBatch:
    rows = [
        {**record, "_source": "s", "_partition": 3, "_offset": 100 + i, "_ingested_at": START}
        for i, record in enumerate(records)
    ]
    times = pa.array([START + timedelta(seconds=i) for i in range(len(rows))], type=TIMESTAMP) if live else None
    return EventBatch(kind, pa.RecordBatch.from_pylist(rows, schema=event_arrow_schema(kind)), times, (EXTENT,))


def summary(found: EventBatch) -> tuple[Any, ...]:
    times = None if found.element_time is None else tuple(found.element_time.to_pylist())
    return found.kind, tuple(found.data.column("_offset").to_pylist()), times, found.extents


def check(batches: list[EventBatch], events: list[Any], letters: Any, counters: dict[str, int]) -> None:
    pipeline = TestPipeline(runner="FnApiRunner")
    result = pipeline | beam.Create(batches) | ValidateEvents(clock=clock)
    assert_that(result.events | beam.Map(summary), equal_to(events), label="events")
    assert_that(result.errs, letters, label="errs")
    ran = pipeline.run()
    ran.wait_until_finish()
    query = beam.metrics.MetricsFilter().with_namespace("k2beam")
    assert {counter.key.metric.name: counter.result for counter in ran.metrics().query(query)["counters"]} == counters


def test_good_batches_pass_untouched() -> None:
    batches = [batch("trades", trade(0), trade(1), live=True), batch("quotes", quote(0))]
    times = (START, START + timedelta(seconds=1))
    events = [("trades", (100, 101), times, (EXTENT,)), ("quotes", (100,), None, (EXTENT,))]
    check(batches, events, equal_to([]), {})


def test_a_bad_row_becomes_a_letter_and_the_others_pass() -> None:
    bad = trade(1, price=Decimal("-1.00000001"))

    def letters(actual: list[DeadLetterBatch]) -> None:
        (found,) = actual
        (letter,) = found.letters
        assert found.extents == ()
        assert (letter.source, letter.partition, letter.offset, letter.last) == ("s", 3, 101, 101)
        assert (letter.stage, letter.error_class, letter.failed_at) == ("validate", "negative_price", NOW)
        assert letter.error_message == "price is negative"
        assert letter.headers == (("k2.payload", b"v2"),)
        assert letter.record_json == to_json(bad)
        assert letter.payload is not None
        schema = fastavro.parse_schema(avro_schema("trade_v2"))
        assert fastavro.schemaless_reader(io.BytesIO(letter.payload), schema, None) == bad

    times = (START, START + timedelta(seconds=2))
    check(
        [batch("trades", trade(0), bad, trade(2), live=True)],
        [("trades", (100, 102), times, (EXTENT,))],
        letters,
        {"dead_letters": 1, "dead_letter_offsets": 1},
    )


def test_where_no_row_is_left_the_extents_go_with_the_letters() -> None:
    def letters(actual: list[DeadLetterBatch]) -> None:
        assert [(found.num_rows, found.extents) for found in actual] == [(2, (EXTENT,))]

    bad = batch("quotes", quote(0, symbol=""), quote(1, symbol=""))
    check([bad], [], letters, {"dead_letters": 2, "dead_letter_offsets": 2})


def test_the_payload_of_every_kind_decodes() -> None:
    makers = {"trades": trade, "quotes": quote, "reference_data": reference}

    def letters(actual: list[DeadLetterBatch]) -> None:
        found = [letter for group in actual for letter in group.letters]
        assert len(found) == len(KINDS)
        for letter in found:
            record = json.loads(letter.record_json or "")
            kind = next(kind for kind in KINDS if makers[kind](0).keys() == record.keys())
            schema = fastavro.parse_schema(avro_schema(v2_name(kind)))
            assert fastavro.schemaless_reader(io.BytesIO(letter.payload or b""), schema, None)["exchange"] == ""

    check(
        [batch(kind, make(0, exchange="")) for kind, make in makers.items()],  # type: ignore[arg-type]
        [],
        letters,
        {"dead_letters": 3, "dead_letter_offsets": 3},
    )
