"""WriteDeadLetters: dead letters become rows of their table, and JSON lines by option."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.metrics import Metrics as BeamMetrics

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.jsonable import to_json
from k2beam.lake.rows import RowBatch, dead_letter_rows
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import DeadLetterBatch


class WriteDeadLetters(beam.PTransform):  # type: ignore[misc]
    """PCollection of DeadLetterBatch -> PCollection of RowBatch for the table of dead letters.

    The rows go on to WriteIceberg, which gives them exactly once. With ``json_lines`` (a folder)
    a copy is written there, a file a batch, in place only when it's whole; the copy is
    at-least-once: a retried bundle writes it again. Counts by stage and class, as ``metrics`` says, and
    by offsets, as the audit does: a broken block is one dead letter for all of its records.

    Beam counters: ``dead_letters_<stage>``, dead letters. Flink shows one value for a name in an operator, however many
    of its steps count under it; these are each counted by one step.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam.model import DeadLetter, DeadLetterBatch
        >>> from transforms.write_dead_letters import WriteDeadLetters
        >>> noise = DeadLetter("kafka:mine/ticks/1", 0, 7, "frame", "bad_magic", "no magic byte", b"noise")
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     rows = pipeline | beam.Create([DeadLetterBatch((noise,))]) | WriteDeadLetters(json_lines="dead_letters")
        ...     _ = rows | beam.Map(lambda batch: (batch.table, batch.num_rows)) | beam.Map(print)
        ('dead_letters', 1)
    """

    def __init__(self, json_lines: str | None = None, metrics: MetricsConfig = DEFAULT_METRICS) -> None:
        super().__init__()
        self._json_lines = json_lines
        self._metrics = metrics

    def expand(self, dead_letters: beam.PCollection) -> beam.PCollection:
        if self._json_lines is not None:
            dead_letters = dead_letters | "JsonLines" >> beam.ParDo(_JsonLinesFn(self._json_lines)).with_output_types(
                DeadLetterBatch
            )
        return dead_letters | "ToRows" >> beam.ParDo(_ToRowsFn(self._metrics)).with_output_types(RowBatch)


class _ToRowsFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, metrics: MetricsConfig) -> None:
        self._metrics_config = metrics

    def setup(self) -> None:
        self._metrics = self._metrics_config.open("dead_letters")

    def process(self, batch: DeadLetterBatch) -> Iterator[RowBatch]:
        for name, count in Counter(dead_letter.stage for dead_letter in batch.dead_letters).items():
            BeamMetrics.counter("k2beam", f"dead_letters_{name}").inc(count)
        offsets: Counter[tuple[str, str]] = Counter()
        for dead_letter in batch.dead_letters:
            offsets[dead_letter.stage, dead_letter.error_class] += dead_letter.last - dead_letter.offset + 1
        for (stage, error_class), count in offsets.items():
            self._metrics.increment("k2_dead_letters_total", count, stage=stage, error_class=error_class)
        yield dead_letter_rows(batch)


class _JsonLinesFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def setup(self) -> None:
        Path(self._folder).mkdir(parents=True, exist_ok=True)

    def process(self, batch: DeadLetterBatch) -> Iterator[DeadLetterBatch]:
        target = Path(self._folder) / f"dead_letters-{uuid.uuid4().hex}.jsonl"
        partial = target.with_suffix(".partial")
        lines = (to_json(row) for row in dead_letter_rows(batch).data.to_pylist())
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(partial, target)
        yield batch
