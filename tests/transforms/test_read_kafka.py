"""ReadKafka: what its reader gives, and no errors. The readers are tested by themselves, and on a real broker."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.kafka.batch import raw_batch
from k2beam.model import RawBatch
from transforms.read_kafka import ReadKafka


class Given(beam.PTransform):  # type: ignore[misc]
    """A reader of one message."""

    def expand(self, begin: Any) -> Any:
        batch = raw_batch({"ticks": "kafka:c/ticks/1"}, ["ticks"], [0], [7], [1000], [None], [b"v"], {})
        return begin | beam.Create([batch]).with_output_types(RawBatch)


def test_batches_are_the_readers_and_nothing_is_unreadable() -> None:
    reader: Any = Given()
    with TestPipeline(runner="FnApiRunner") as pipeline:
        read = pipeline | ReadKafka(reader)
        offsets = read.batches | beam.FlatMap(lambda batch: batch.data["offset"].to_pylist())
        assert_that(offsets, equal_to([7]))
        assert_that(read.errs, equal_to([]), label="errs")
