"""What the transforms count in Prometheus, read back from the registry of the process that runs them."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.model import Block, BlockBatch, DeadLetter, DeadLetterBatch, EventBatch, RawBatch
from k2beam.schemas import avro_schema
from tests.codec_samples import encode, encode_as, evolved, quote, trade
from tests.lake_helpers import DAY, QUICK, START, lake_config, raw_batch, stage, trade_batch, write_config
from tests.metrics_recorder import Samples
from transforms.decode_avro import DecodeAvro
from transforms.filter_covered import FilterCovered
from transforms.write_dead_letters import WriteDeadLetters
from transforms.write_iceberg import WriteIceberg


def dead_letter(offset: int, stage: str, error_class: str, last: int | None = None) -> DeadLetter:
    return DeadLetter("s", 0, offset, stage, error_class, "m", None, offset_last=last)


def raw(*offsets: int, source: str) -> RawBatch:
    return raw_batch((source, 0, offset) for offset in offsets)


def test_filter_covered_counts_by_kind_of_source(tmp_path: Path) -> None:
    files = [stage(tmp_path, range(5), source=source) for source in ("kafka:c/t/i", "archive:a")]
    commit_files(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2", files, run_id="r", policy=QUICK)
    samples = Samples("filter_covered")
    with TestPipeline(runner="FnApiRunner") as pipeline:
        batches = [raw(*range(8), source="kafka:c/t/i"), raw(3, 4, 5, 6, source="archive:a"), raw(1, source="csv:d")]
        mixed = [("kafka:c/t/i", 0, 4), ("archive:a", 0, 9), ("anything", 0, 1), ("of a producer's own", 0, 1)]
        batches.append(raw_batch(mixed))
        pipeline | beam.Create(batches).with_output_types(RawBatch) | FilterCovered(lake_config(tmp_path))
    assert samples.changed() == {
        "k2_messages_consumed_total{source_kind=kafka}": 9,
        "k2_messages_consumed_total{source_kind=archive}": 5,
        "k2_messages_consumed_total{source_kind=csv}": 1,
        "k2_messages_consumed_total{source_kind=other}": 2,
        "k2_already_covered_total{source_kind=kafka}": 6,
        "k2_already_covered_total{source_kind=archive}": 2,
    }


def test_decode_avro_counts_events_by_kind_and_letters_by_class() -> None:
    def block(name: str, source: str, *payloads: bytes, count: int | None = None, schema: Any = None) -> BlockBatch:
        blocks = (Block(0, count or len(payloads), 0, b"".join(payloads)),)
        return BlockBatch(source, 0, "a.avro", json.dumps(schema or avro_schema(name)), blocks)

    flagged = evolved("trade_v2", flag={"name": "flag", "type": "int"})
    batches = [
        block("trade_v2", "archive:w", encode(flagged, {**trade(9), "flag": 1}), schema=flagged),
        block("trade_v2", "archive:x", *(encode_as("trade_v2", trade(number)) for number in range(3))),
        block("quote_v2", "archive:y", encode_as("quote_v2", quote(0))),
        block("quote_v2", "archive:z", encode_as("quote_v2", quote(0)), count=5),
    ]
    samples = Samples("decode")
    with TestPipeline(runner="FnApiRunner") as pipeline:
        pipeline | beam.Create(batches).with_output_types(BlockBatch) | DecodeAvro()
    assert samples.changed() == {
        "k2_events_decoded_total{kind=trades}": 4,
        "k2_unknown_field_values_total{kind=trades}": 1,
        "k2_events_decoded_total{kind=quotes}": 1,
        "k2_decode_errors_total{error_class=broken_block}": 1,
    }


def test_dead_letters_count_by_stage_and_class_and_by_the_offsets_they_stand_for() -> None:
    batches = [
        DeadLetterBatch(
            (
                dead_letter(1, "decode", "truncated"),
                dead_letter(2, "decode", "truncated"),
                dead_letter(3, "frame", "bad"),
            )
        ),
        DeadLetterBatch(
            (dead_letter(4, "frame", "bad", last=9), dead_letter(1_000, "read", "broken_block", last=1_999))
        ),
    ]
    samples = Samples("dead_letters")
    with TestPipeline(runner="FnApiRunner") as pipeline:
        pipeline | beam.Create(batches).with_output_types(DeadLetterBatch) | WriteDeadLetters()
    assert samples.changed() == {
        "k2_dead_letters_total{error_class=truncated,stage=decode}": 2,
        "k2_dead_letters_total{error_class=bad,stage=frame}": 7,
        "k2_dead_letters_total{error_class=broken_block,stage=read}": 1_000,
    }


def test_a_data_file_that_can_not_be_written_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("transforms.write_iceberg.write_rows", full)
    files = Samples("write_files")
    pipeline = TestPipeline(runner="FnApiRunner")
    rows = pipeline | beam.Create([trade_batch(range(3))], reshuffle=False).with_output_types(EventBatch)
    rows | WriteIceberg(lake_config(tmp_path), write_config())
    with pytest.raises(Exception, match="no space left"):
        pipeline.run()
    assert files.changed() == {"k2_write_failures_total{stage=write,table=trades_v2}": 1}


def test_write_iceberg_times_each_file(tmp_path: Path) -> None:
    """Two days are two partitions, hence two files; the commit is counted by its own component."""
    batches = [trade_batch(range(3)), trade_batch(range(3, 6), times=[START + DAY] * 3)]
    files, commits = Samples("write_files"), Samples("commit")
    with TestPipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create(batches, reshuffle=False).with_output_types(EventBatch)
        rows | WriteIceberg(lake_config(tmp_path), write_config())
    assert files.changed() == {"k2_write_duration_seconds_count{table=trades_v2}": 2}
    changed = commits.changed()
    assert changed["k2_rows_written_total{table=trades_v2}"] == 6
    assert changed["k2_data_files_written_total{table=trades_v2}"] == 2
