"""What the exporter shows, and small lakes for it."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from k2beam.config import NAMESPACE
from k2beam.exporter.readings import Tables
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.metrics.handle import Metrics
from tests.lake_helpers import QUICK, lake_config, stage

STANDARD = {"service", "environment", "component"}


def gauges(text: str) -> dict[str, float]:
    """The samples of a text as ``name{label=value,...}`` without the standard labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted({*sample.labels} - STANDARD))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


class Shown:
    """A registry of its own, and what it shows."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.metrics = Metrics("exporter", registry=self._registry, strict=True)

    def now(self, prefix: str = "k2_") -> dict[str, float]:
        found = gauges(generate_latest(self._registry).decode())
        return {name: value for name, value in found.items() if name.startswith(prefix)}


def add_trades(folder: Path, offsets: range, source: str = "archive:a") -> None:
    files = [stage(folder, offsets, source=source)]
    commit_files(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2", files, run_id="r", policy=QUICK)


def lake(folder: Path) -> Tables:
    return Tables(lambda: open_catalog(lake_config(folder), create=False), NAMESPACE)
