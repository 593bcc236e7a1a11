"""The wiring: an error output that nobody consumes is refused when the pipeline is built."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from k2beam.errors import UsageError
from k2beam.model import DeadLetterBatch, RawBatch
from k2beam.options import IngestConfig
from k2beam.pipeline import build, require_error_consumers
from tests.lake_helpers import lake_config, write_config


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
