"""WriteDeadLetters: rows for the table, and the JSON lines beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS
from k2beam.model import DeadLetter, DeadLetterBatch
from transforms.write_dead_letters import WriteDeadLetters

LETTER = DeadLetter(
    source="kafka:c/t/1",
    partition=3,
    offset=7,
    stage="decode",
    error_class="truncated",
    error_message="two bytes short",
    payload=b"\x00\x00\x00\x00\x01\xff",
    timestamp=1_700_000_000_000_000,
    key=b"k",
    schema_id=1,
    failed_at=1_700_000_000_000_009,
    record_json='{"price": "1.00000001"}',
    headers=(("h", b"\x01"),),
)


def test_letters_are_counted_by_stage() -> None:
    dead_letters = (LETTER, LETTER, replace(LETTER, stage="read", offset_last=99))
    pipeline = TestPipeline(runner="FnApiRunner")
    pipeline | beam.Create([DeadLetterBatch(dead_letters)]) | WriteDeadLetters()
    result = pipeline.run()
    result.wait_until_finish()
    found = {metric.key.metric.name: metric.result for metric in result.metrics().query()["counters"]}
    assert found == {"dead_letters_decode": 2, "dead_letters_read": 1}


@pytest.mark.parametrize("json_lines", [False, True])
def test_rows_and_json_lines(tmp_path: Path, json_lines: bool) -> None:
    folder = str(tmp_path / "copies") if json_lines else None
    with TestPipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create([DeadLetterBatch((LETTER, LETTER))]) | WriteDeadLetters(folder)
        assert_that(
            rows | beam.Map(lambda batch: (batch.table, batch.data.schema == DEAD_LETTER_SCHEMA, batch.num_rows)),
            equal_to([(DEAD_LETTERS, True, 2)]),
        )
    lines = [line for path in (tmp_path / "copies").glob("*") for line in path.read_text().splitlines()]
    assert len(lines) == (2 if json_lines else 0)
    for line in lines:
        found = json.loads(line)
        assert (found["_source"], found["_partition"], found["_offset"]) == ("kafka:c/t/1", 3, 7)
        assert found["error_class"] == "truncated"
        assert "1.00000001" in found["record_json"]
        assert found["failed_at"].startswith("2023-11-14T22:13:20.000009")
