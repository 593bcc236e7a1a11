"""ReadKafka: the messages of topics, as batches, by one of two readers."""

from __future__ import annotations

from typing import NamedTuple

import apache_beam as beam

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.model import DeadLetterBatch, RawBatch


class ReadKafkaResult(NamedTuple):
    """``batches``: RawBatch. ``errs``: always empty, since a message that was read is never unreadable."""

    batches: beam.PCollection[RawBatch]
    errs: beam.PCollection[DeadLetterBatch]


class ReadKafka(beam.PTransform):  # type: ignore[misc]
    """Read topics with a reader, which gives batches: BeamReader, or LibrdkafkaReader, which needs no Java.

    Both give the same: each committed message (``read_committed``) with its source, partition and offset, key, value,
    headers and the log's timestamp. A batch's Beam timestamp is of the clock: when it was read or, with
    LibrdkafkaReader, when the topics were last read to their ends. No quiet partition holds the watermark back. The
    log's timestamps (CreateTime) are in its rows.

    Delivery: at least once from the offsets that the reader was told; an unbounded source.

    Examples:
        >>> import time
        >>> from pathlib import Path
        >>> import apache_beam as beam
        >>> from apache_beam.runners.runner import PipelineState
        >>> from k2beam import KafkaConfig
        >>> from k2beam.job.options import beam_options
        >>> from k2beam.kafka.cluster import Cluster
        >>> from transforms.librdkafka_reader import LibrdkafkaReader
        >>> from transforms.read_kafka import ReadKafka
        >>> pipeline = beam.Pipeline(options=beam_options([], streaming=True, default_runner="PrismRunner"))
        >>> topics = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> starts = {(found.source, partition): 0 for found in topics for partition in found.partitions}
        >>> read = pipeline | ReadKafka(LibrdkafkaReader(topics, KafkaConfig(bootstrap), starts))
        >>> offsets = read.batches | beam.FlatMap(lambda batch: batch.data["offset"].to_pylist())
        >>> _ = offsets | beam.Map(lambda offset: Path(f"offset-{offset}").touch())
        >>> result = pipeline.run()
        >>> while len(list(Path().glob("offset-*"))) < 3 and not PipelineState.is_terminal(result.state):
        ...     time.sleep(0.1)
        >>> sorted(path.name for path in Path().glob("offset-*"))
        ['offset-0', 'offset-1', 'offset-2']
        >>> _ = result.cancel()
    """

    def __init__(self, reader: beam.PTransform) -> None:
        super().__init__()
        self._reader = reader

    def expand(self, begin: beam.pvalue.PBegin) -> ReadKafkaResult:
        nothing = begin | "NoErrors" >> beam.Create([], reshuffle=False).with_output_types(DeadLetterBatch)
        return ReadKafkaResult(begin | "Reader" >> self._reader, nothing)
