"""Names and labels that are constants: of the module, of a class, of another module."""

from __future__ import annotations

from typing import ClassVar

from k2beam.metrics.handle import Metrics
from tests.metrics_snippets.good import names
from tests.metrics_snippets.good.names import DECODED, PRODUCED_LABELS, Names

WRITTEN = "k2_rows_written_total"
TABLE = "table"
BY_TABLE = {TABLE: "trades_v2"}
BOTH: dict[str, str] = {"stage": "decode", "error_class": "truncated"}


class Writer:
    FILES = "k2_data_files_written_total"
    LABELS: ClassVar[dict[str, str]] = {"table": "quotes_v2"}

    def __init__(self, metrics: Metrics | None) -> None:
        self._metrics = metrics or Metrics("writer")
        self._reasons = {"reason": "conflict"}

    def write(self) -> None:
        self._metrics.increment(self.FILES, **self.LABELS)
        self._metrics.increment(Writer.FILES, 3, **Writer.LABELS)
        self._metrics.increment("k2_commit_retries_total", table="t", **self._reasons)


def record(metrics: Metrics, kind: str) -> None:
    metrics.increment(WRITTEN, 3, **BY_TABLE)
    metrics.increment("k2_dead_letters_total", **BOTH)
    metrics.increment(DECODED, kind=kind)
    metrics.increment(names.DECODED, kind=kind)
    metrics.increment(Names.ERRORS, error_class="truncated")
    metrics.increment("k2_kafka_messages_produced_total", **PRODUCED_LABELS)
    metrics.increment("k2_kafka_produce_errors_total", **names.PRODUCED_LABELS, error_type="timeout")
