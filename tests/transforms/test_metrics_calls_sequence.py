"""What decoding and the sequence check count, in Prometheus and as Beam's counters alike."""

from __future__ import annotations

import json

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.utils.timestamp import Timestamp

from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import Block, BlockBatch
from k2beam.schemas import avro_schema
from k2beam.sequence import Slice
from tests.codec_samples import encode_as, framed, trade
from tests.metrics_recorder import Samples
from tests.transforms.test_decode_avro import TRADES, raw
from tests.transforms.test_detect_gaps import KEY, Step, feed, sliced
from transforms.decode_avro import DecodeAvro
from transforms.detect_gaps import DetectGaps


def beams(pipeline: beam.Pipeline) -> dict[str, int]:
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace("k2beam"))["counters"]
    return {counter.key.metric.name: counter.committed for counter in found}


def fold(slices: list[tuple[str, Slice]], metrics: MetricsConfig = DEFAULT_METRICS) -> dict[str, int]:
    pipeline = TestPipeline(runner="FnApiRunner")
    pipeline | beam.Create(slices) | DetectGaps(metrics=metrics)
    return beams(pipeline)


def test_payloads_that_do_not_decode_count_by_class() -> None:
    good = encode_as("trade_v2", trade(0))
    payloads = (framed(good), framed(good[:9]), framed(good[:7]), b"\x01", None, framed(good, 7))
    batch = raw(*payloads)
    samples = Samples("decode")
    pipeline = TestPipeline(runner="FnApiRunner")
    pipeline | beam.Create([type(batch)(batch.data, schemas=(TRADES,))]).with_output_types(type(batch)) | DecodeAvro()
    counters = beams(pipeline)
    changed = samples.changed()
    errors = {name: count for name, count in changed.items() if name.startswith("k2_decode_errors_total")}
    assert changed["k2_events_decoded_total{kind=trades}"] == counters["decoded_trades"] == 1
    assert sum(errors.values()) == counters["dead_letters"] == 5
    assert errors["k2_decode_errors_total{error_class=truncated}"] == 2
    assert errors["k2_decode_errors_total{error_class=unknown_schema_id}"] == 1
    assert len(errors) == 4


def test_a_broken_block_is_one_payload() -> None:
    block = BlockBatch("archive:x", 0, "a.avro", json.dumps(avro_schema("trade_v2")), (Block(0, 3, 0, b"\xff" * 40),))
    samples = Samples("decode")
    pipeline = TestPipeline(runner="FnApiRunner")
    pipeline | beam.Create([block]).with_output_types(BlockBatch) | DecodeAvro()
    counters = beams(pipeline)
    assert sum(samples.changed().values()) == counters["dead_letters"] == 1
    assert counters["dead_letter_offsets"] == 3


def test_messages_count_by_class_and_gaps_by_severity() -> None:
    # 2 missing before 6, 50 before 60, a duplicate, and of another kind nothing but order.
    trades = [*feed(1, 3), *feed(6, 4, 10), *feed(60, 2, 20), (22_000_000, 61)]
    samples = Samples("detect_gaps")
    counters = fold([(KEY, sliced(trades)), ("X|S|quotes", sliced(feed(1, 5)))])
    assert samples.changed() == {
        "k2_sequence_messages_total{classification=ok,kind=trades}": 7,
        "k2_sequence_messages_total{classification=small_gap,kind=trades}": 1,
        "k2_sequence_messages_total{classification=large_gap,kind=trades}": 1,
        "k2_sequence_messages_total{classification=duplicate,kind=trades}": 1,
        "k2_sequence_messages_total{classification=ok,kind=quotes}": 5,
        "k2_sequence_gaps_total{kind=trades,severity=SMALL}": 1,
        "k2_sequence_gaps_total{kind=trades,severity=LARGE}": 1,
    }
    assert counters == {
        "sequence_ok": 12,
        "sequence_small_gap": 1,
        "sequence_large_gap": 1,
        "sequence_duplicate": 1,
        "gaps_small": 1,
        "gaps_large": 1,
    }


def test_what_is_left_of_a_gap_or_filled_is_no_new_gap() -> None:
    step = Step()
    step.process([*feed(1, 2), *feed(5, 1, 4)])
    samples = Samples("detect_gaps")
    assert [gap.status for gap in step.fire(Timestamp(100))] == ["OPEN"]
    step.process(feed(3, 1, 3))
    assert {gap.status for gap in step.fire(Timestamp(200))} == {"FILLED", "PARTIAL"}
    changed = samples.changed()
    assert changed["k2_sequence_gaps_total{kind=trades,severity=SMALL}"] == 1
    assert changed["k2_sequence_messages_total{classification=late_fill,kind=trades}"] == 1


def test_without_metrics_the_counters_of_beam_stay() -> None:
    samples = Samples("detect_gaps")
    counters = fold([(KEY, sliced(feed(1, 5)))], MetricsConfig(enabled=False))
    assert samples.changed() == {}
    assert counters == {"sequence_ok": 5}
