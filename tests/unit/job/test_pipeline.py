"""The wiring: an error output that nobody consumes is refused when the pipeline is built."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from k2beam.config import NAMESPACE
from k2beam.errors import UsageError
from k2beam.job.config import IngestConfig
from k2beam.job.pipeline import DeadLetterHandler, build, require_error_consumers
from k2beam.lake.ledger import current_gaps
from k2beam.model import DeadLetterBatch, RawBatch
from tests.archive_files import block, header, trades
from tests.audit_helpers import Row, SmallLake
from tests.lake_helpers import lake_config, write_config
from transforms.read_archive import ReadArchive
from transforms.write_dead_letters import WriteDeadLetters


class _Read(NamedTuple):
    batches: beam.PCollection
    errs: beam.PCollection


class _Source(beam.PTransform):
    def expand(self, begin: beam.pvalue.PBegin) -> _Read:
        nothing = beam.FlatMap(lambda _: ()).with_output_types(RawBatch, errs=DeadLetterBatch)
        outputs = begin | beam.Create([1]) | nothing.with_outputs("errs", main="batches")
        return _Read(outputs.batches, outputs.errs)


def test_the_whole_pipeline_leaves_no_error_output_unread(tmp_path: Path) -> None:
    pipeline = TestPipeline(runner="FnApiRunner")
    build(pipeline, _Source(), IngestConfig(lake_config(tmp_path), write_config()))
    require_error_consumers(pipeline)


def test_an_unread_error_output_is_named() -> None:
    pipeline = TestPipeline(runner="FnApiRunner")
    pipeline | "Careless" >> _Source()
    with pytest.raises(UsageError, match="Careless"):
        require_error_consumers(pipeline)


def test_a_handler_that_was_not_closed_is_refused() -> None:
    pipeline = TestPipeline(runner="FnApiRunner")
    read = pipeline | "Careless" >> _Source()
    DeadLetterHandler(WriteDeadLetters()).add("Read", read.errs)
    with pytest.raises(RuntimeError, match="Unclosed error handler"):
        pipeline.run()


def test_each_error_output_is_written_where_it_is_made() -> None:
    pipeline = TestPipeline(runner="FnApiRunner")
    with DeadLetterHandler(WriteDeadLetters()) as handler:
        for name in ("One", "Two"):
            handler.add(name, (pipeline | name >> _Source()).errs)
    assert len(handler.output()) == 2
    require_error_consumers(pipeline)


def test_rows_that_are_committed_once_the_job_is_built_hide_no_gap(tmp_path: Path) -> None:
    """As in a live job that commits its rows before it folds them, or whose worker makes its steps anew."""
    lake = SmallLake(tmp_path / "wh")
    numbers = [*range(100, 105), *range(108, 110)]
    (tmp_path / "day.avro").write_bytes(header() + block(len(numbers), b"".join(trades(n, 1)[0] for n in numbers)))
    pipeline = TestPipeline(runner="FnApiRunner")
    build(pipeline, ReadArchive([str(tmp_path / "day.avro")]), IngestConfig(lake.config, write_config()))
    lake.add([Row(n, n, time=1_700_000_000_000_000 + n, symbol="BTCUSDT", source="archive:other") for n in numbers])
    assert pipeline.run().wait_until_finish() == "DONE"
    gaps = [(gap.symbol, gap.first_missing, gap.last_missing) for gap in current_gaps(lake.catalog, NAMESPACE)]
    assert gaps == [("BTCUSDT", 105, 107)]
