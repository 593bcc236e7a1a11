"""ReadCsv in a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from k2beam.archive.scan import ReadProblem
from k2beam.csv.files import FileVariables
from k2beam.csv.mapping import load_mapping
from k2beam.errors import UsageError
from k2beam.model import BlockBatch, DeadLetterBatch
from transforms.read_csv import ReadCsv

TRADES = load_mapping("asx-trades")
LINE = "03/10/2014,10:13:34.553,0.67,{},0,,\n"


def offsets(batch: BlockBatch | DeadLetterBatch) -> list[int]:
    if isinstance(batch, DeadLetterBatch):
        return [dead_letter.offset for dead_letter in batch.dead_letters]
    return [one.first_offset + row for one in batch.blocks for row in range(one.count)]


def exactly(expected: list[Any]) -> Callable[[list[Any]], None]:
    def check(found: list[Any]) -> None:
        assert sorted(found) == expected

    return check


def kinds_of(problem: ReadProblem) -> str:
    return problem.kind


@pytest.mark.parametrize("chunk_bytes", [50, 8 << 20])
def test_every_line_is_read_once(tmp_path: Path, chunk_bytes: int) -> None:
    path = tmp_path / "asx_trades_7181.csv"
    lines = [LINE.format(number) for number in range(1, 31)]
    path.write_text("".join([*lines[:10], "bad\n", *lines[10:], "03/"]))
    (tmp_path / "asx_trades_1.csv").write_text("")
    pipeline = TestPipeline(runner="FnApiRunner")
    variables = FileVariables((("symbol", "DVN"),))
    source = ReadCsv(
        [str(path), str(tmp_path / "asx_trades_1.csv")],
        TRADES,
        loaded_at=0,
        variables=variables,
        chunk_bytes=chunk_bytes,
    )

    read = pipeline | source
    assert_that(read.batches | "B" >> beam.FlatMap(offsets), exactly([*range(10), *range(11, 31)]), "good")
    assert_that(read.errs | "E" >> beam.FlatMap(offsets), exactly([10]), "bad")
    assert_that(read.problems | beam.Map(kinds_of), exactly(["empty", "truncated_tail"]), "problems")
    result = pipeline.run()
    result.wait_until_finish()

    counted = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("k2beam"))["counters"]
    assert {one.key.metric.name: one.result for one in counted} == {
        "records_read": 30,
        "broken_lines": 1,
        "truncated_tails": 1,
    }


def test_nothing_is_built_when_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv"):
        TestPipeline(runner="FnApiRunner") | ReadCsv([str(tmp_path / "none.csv")], TRADES, loaded_at=0)
    odd = tmp_path / "asx_trades_1\udce9.csv"
    odd.write_text(LINE.format(1))
    with pytest.raises(UsageError, match=r"asx_trades_1\\xe9\.csv: the path is not UTF-8"):
        TestPipeline(runner="FnApiRunner") | ReadCsv([str(odd)], TRADES, loaded_at=0)
    with pytest.raises(UsageError, match="chunk_bytes"):
        ReadCsv(["a.csv"], TRADES, loaded_at=0, chunk_bytes=0)
