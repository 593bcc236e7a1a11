"""The list of metrics in the documents is that of the registry."""

from __future__ import annotations

import pytest

from k2beam.metrics.registry import METRICS
from scripts.metrics_table import DOCUMENT, with_table


def test_the_list_of_metrics_is_the_registrys() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == with_table(text), "run python scripts/metrics_table.py"
    assert all(f"| `{spec.name}` | {spec.type} |" in text for spec in METRICS)


def test_a_document_without_the_marks_is_not_written() -> None:
    with pytest.raises(ValueError, match="unpack"):
        with_table("# Metrics")
