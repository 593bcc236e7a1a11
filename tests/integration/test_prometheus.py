"""A real Prometheus scrapes a live job on Prism: its counters are the audit's figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from k2beam.job.config import Reader
from k2beam.stack.stack import LocalStack
from tests.integration.live_job import live_job
from tests.integration.scraped import PATIENT, assert_scraped_equals_audit, metrics_options, prometheus
from tests.live_helpers import produce, register
from tests.replay_helpers import open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

ROWS = 200_000


def test_what_prometheus_scrapes_of_a_live_job_is_what_the_audit_finds(
    live: LocalStack, prism: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    faults = "gaps=40,duplicates=15,malformed=44"
    truth = simulated(tmp_path / "in", rows=ROWS, faults=faults, kinds=("trades", "quotes"), files=1)
    topics = produce(live, tmp_path / "in", unique("scraped"), register(live))
    environment, warehouse = unique("prism"), tmp_path / "wh"
    with prometheus(live) as watcher:
        options = metrics_options(watcher, environment)
        with live_job(live, topics, warehouse, prism, Reader.LIBRDKAFKA, *options, *PATIENT) as job:
            job.wait_for_rows(ROWS)
            job.wait_until(lambda: open_gaps(warehouse) == true_gaps(truth), "the gaps are declared")
            assert_scraped_equals_audit(live, watcher, topics, warehouse, environment, job.said())
