"""ReadDeadLetters: each letter is the message that it was, at its own place."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.errors import LakeError
from k2beam.model import RAW_BATCH_SCHEMA, RawBatch
from k2beam.query.selections import DeadLetterSelection
from k2beam.query.stored_letters import StoredLetters
from tests.lake_helpers import lake_config
from tests.query_fixtures import (
    DAY,
    SECOND,
    SOURCE,
    append_dead_letters,
    append_events,
    dead_letter,
    make_catalog,
    trade,
)
from transforms.read_dead_letters import ReadDeadLetters


def offsets(stored: StoredLetters) -> list[int]:
    batches = [batch for chunk in stored.plan().chunks for batch in stored.read(chunk)]
    return sorted(offset for batch in batches for offset in batch.data.column("offset").to_pylist())


def test_a_letter_is_its_message_byte_for_byte(tmp_path: Path) -> None:
    append_dead_letters(make_catalog(tmp_path), [dead_letter(3), dead_letter(4, payload=None, key=None, headers=[])])
    stored = StoredLetters.of_now(lake_config(tmp_path), DeadLetterSelection())
    (chunk,) = stored.plan().chunks
    (batch,) = stored.read(chunk)
    assert batch.data.schema == RAW_BATCH_SCHEMA
    first, second = batch.data.to_pylist()
    assert (first["source"], first["partition"], first["offset"]) == (SOURCE, 0, 3)
    assert first["timestamp"].timestamp() * SECOND == DAY
    assert (first["key"], first["value"]) == (b"BTCUSDT", b"\x00\x00\x00\x00\x07\xff")
    assert first["headers"] == [{"key": "k2.path", "value": b"a.avro"}, {"key": "empty", "value": None}]
    assert (second["key"], second["value"], second["headers"]) == (None, None, [])


def test_what_became_an_event_and_what_is_of_a_file_is_left_out(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    letters = [
        dead_letter(1),
        dead_letter(2),
        dead_letter(3, error_class="bad_magic"),
        dead_letter(4, _source="csv:a"),
        dead_letter(5, _source="archive:a", _offset_last=9),
        dead_letter(6, failed_at=DAY + 60 * SECOND),
    ]
    append_dead_letters(catalog, letters[:3])
    append_dead_letters(catalog, letters[3:])
    append_events(catalog, "trades", [trade(2, 1)])

    def found(**selection: Any) -> list[int]:
        return offsets(StoredLetters.of_now(lake_config(tmp_path), DeadLetterSelection(**selection)))

    assert found() == [1, 3, 6]
    assert found(error_class=["bad_magic", "X"]) == [3]
    assert found(source=[SOURCE], end="2026-01-05T00:01:00") == [1, 3]


def test_letters_that_come_later_are_for_the_next_time(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_dead_letters(catalog, [dead_letter(1)])
    stored = pickle.loads(pickle.dumps(StoredLetters.of_now(lake_config(tmp_path), DeadLetterSelection())))
    append_dead_letters(catalog, [dead_letter(2)])
    assert offsets(stored) == [1]


def test_a_snapshot_that_was_expired_meanwhile_is_told(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_dead_letters(catalog, [dead_letter(1)])
    stored = StoredLetters.of_now(lake_config(tmp_path), DeadLetterSelection())
    table = append_dead_letters(catalog, [dead_letter(2)])
    table.maintenance.expire_snapshots().by_id(stored.snapshot_id).commit()
    with pytest.raises(LakeError, match=rf"snapshot {stored.snapshot_id} of table .* was expired.*run it again"):
        stored.plan()


def test_a_lake_without_letters_gives_nothing(tmp_path: Path) -> None:
    make_catalog(tmp_path)
    with TestPipeline(runner="FnApiRunner") as pipeline:
        read = pipeline | ReadDeadLetters(lake_config(tmp_path))
        assert_that(read.batches, equal_to([]), label="batches")
        assert_that(read.errs, equal_to([]), label="errs")


def test_messages_come_in_batches_of_bounded_size(tmp_path: Path) -> None:
    append_dead_letters(make_catalog(tmp_path), [dead_letter(offset) for offset in range(25)])
    snapshot = StoredLetters.of_now(lake_config(tmp_path), DeadLetterSelection()).snapshot_id
    stored = StoredLetters(lake_config(tmp_path), DeadLetterSelection(), snapshot, rows_per_batch=10)
    (chunk,) = stored.plan().chunks
    assert [batch.num_rows for batch in stored.read(chunk)] == [10, 10, 5]


def test_the_pipeline_reads_them(tmp_path: Path) -> None:
    append_dead_letters(make_catalog(tmp_path), [dead_letter(offset) for offset in range(3)])
    pipeline = TestPipeline(runner="FnApiRunner")
    read = pipeline | ReadDeadLetters(lake_config(tmp_path), DeadLetterSelection(stage="decode"))
    counted = read.batches | beam.Map(lambda batch: (type(batch), batch.num_rows))
    assert_that(counted, equal_to([(RawBatch, 3)]))
    result = pipeline.run()
    result.wait_until_finish()
    found = {metric.key.metric.name: metric.result for metric in result.metrics().query()["counters"]}
    assert found["records_read"] == 3
