"""The pipeline: which transform feeds which. Live and replay share all of it but the source."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.transforms.error_handling import ErrorHandler

from k2beam.errors import UsageError
from k2beam.job.beam import work_as_we_need
from k2beam.job.config import IngestConfig
from k2beam.job.opening import covering_tables
from k2beam.lake.adopt import event_columns, exchanges_of
from k2beam.lake.seed import LedgerSeed
from transforms.decode_avro import DecodeAvro
from transforms.detect_gaps import DetectGaps
from transforms.filter_covered import FilterCovered
from transforms.filter_covered_rows import FilterCoveredRows
from transforms.sequence_slices import SequenceSlices
from transforms.validate_events import ValidateEvents
from transforms.write_dead_letters import WriteDeadLetters
from transforms.write_iceberg import WriteIceberg

ERROR_TAG = "errs"


class ReadResult(Protocol):
    """What a source gives: batches, and dead letters of what could not be read."""

    @property
    def batches(self) -> beam.PCollection: ...

    @property
    def errs(self) -> beam.PCollection: ...


def build(
    pipeline: beam.Pipeline, source: beam.PTransform, config: IngestConfig, *, resolver: Any = None
) -> beam.PCollection:
    """Wire ``source`` through decoding, validation and gaps to the tables; returns CommitReceipts.

    ``resolver`` gives writer schemas by id (see :class:`transforms.decode_avro.DecodeAvro`). Build it just before it is
    run: keys go on from the rows that the tables have now, and what is committed later is taken for the job's own.
    Raises UsageError when an error output of any transform has no consumer.
    """
    work_as_we_need()
    seed = LedgerSeed.of_now(config.lake)
    covering = covering_tables(config)
    read: ReadResult = pipeline | "Read" >> source
    fresh = read.batches | "FilterCovered" >> FilterCovered(config.lake, config.metrics, covering)
    unreadable = read.errs | "FilterCoveredErrors" >> FilterCovered(config.lake, config.metrics, covering)
    decoded = fresh | "DecodeAvro" >> DecodeAvro(resolver=resolver, metrics=config.metrics, evolve=config.evolve)
    events = decoded.events
    if config.only_missing:
        events = events | "FilterCoveredRows" >> FilterCoveredRows(config.lake)
    valid = events | "ValidateEvents" >> ValidateEvents(
        stored=event_columns(config.lake), exchanges=partial(exchanges_of, config.lake)
    )
    gaps = (
        valid.events
        | "SequenceSlices" >> SequenceSlices(seed.rules)
        | "DetectGaps"
        >> DetectGaps(
            grace_seconds=config.gap_grace_seconds,
            seed=seed,
            bounded=config.write.bounded,
            metrics=config.metrics,
        )
    )
    with DeadLetterHandler(WriteDeadLetters(config.dead_letters_json, config.metrics)) as dead_letters:
        dead_letters.add("Read", unreadable)
        dead_letters.add("Decode", decoded.errs)
        dead_letters.add("Validate", valid.errs)
    rows = ((valid.events, *dead_letters.output()), gaps)
    receipts = rows | "WriteIceberg" >> WriteIceberg(config.lake, config.write, config.metrics)
    require_error_consumers(pipeline)
    return receipts


class DeadLetterHandler(ErrorHandler):  # type: ignore[misc]
    """Beam's handler of errors, but that each error output is written where it is made.

    Flattened first, as Beam does it, the payloads would leave their stage and wait in the runner's memory. Beam refuses
    to run a pipeline whose handler was not closed.
    """

    def __init__(self, consumer: beam.PTransform) -> None:
        super().__init__(consumer)
        self._stages: list[str] = []

    def add(self, stage: str, errors: beam.PCollection) -> None:
        """Take over the error output of a stage, whose name is part of the name of the step that writes it."""
        self.add_error_pcollection(errors)
        self._stages.append(stage)

    def close(self) -> None:
        """Write what was given; :meth:`output` then has the rows of each error output."""
        self._output = tuple(
            errors | f"DeadLetters{stage}" >> self._consumer
            for stage, errors in zip(self._stages, self._error_pcolls, strict=True)
        )
        self._closed = True


def require_error_consumers(pipeline: beam.Pipeline) -> None:
    """Raise UsageError when an output tagged ``errs`` is read by nobody: its errors would be lost.

    Beam sees that a handler was closed, and not that it was given every error output that there is.
    """
    visitor = _ErrorOutputs()
    pipeline.visit(visitor)
    unread = sorted(label for pcollection, label in visitor.produced.items() if pcollection not in visitor.consumed)
    if unread:
        raise UsageError(f"nobody consumes the error output of {', '.join(unread)}; give it to WriteDeadLetters")


class _ErrorOutputs(PipelineVisitor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.produced: dict[beam.PCollection, str] = {}
        self.consumed: set[beam.PCollection] = set()

    def visit_transform(self, node: AppliedPTransform) -> None:
        self.consumed.update(node.inputs)
        for tag, output in node.outputs.items():
            if tag == ERROR_TAG:
                self.produced[output] = node.full_label
