"""A Prometheus beside the session's servers, and whether what it scraped of a job equals what the audit finds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyiceberg.expressions import AlwaysTrue

from k2beam.config import NAMESPACE
from k2beam.demo import audit_topics
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import SEQUENCE_GAPS, find_table
from k2beam.stack.stack import LocalStack
from tests.integration.prometheus_helpers import query, wait_for
from tests.integration.servers import servers_up
from tests.lake_helpers import lake_config

PATIENT = ("--gap-grace", "20s")
"""No stall of a loaded machine may outlast the grace."""

_REPLACED = re.compile(r"rows_left_out=(\d+) .*table=sequence_gaps")


@contextmanager
def prometheus(stack: LocalStack) -> Iterator[LocalStack]:
    """Prometheus under the state of ``stack``; it scrapes every second."""
    beside = LocalStack(stack.state, ("prometheus",), free_ports=True)
    with servers_up(beside, "Prometheus", ("prometheus",)):
        yield beside


def metrics_options(watcher: LocalStack, environment: str) -> tuple[str, ...]:
    """Options of ``ingest`` with which Prometheus finds the job's processes, whose series have ``environment``."""
    targets = watcher.prometheus_targets()
    return (
        *("--metrics-endpoint", "127.0.0.1:19400-19499"),
        *("--metrics-targets", str(targets), "--environment", environment),
    )


def rows_of_ledger(warehouse: Path, where: str = "") -> int:
    """How many states of gaps are in the ledger."""
    ledger = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, SEQUENCE_GAPS)
    return 0 if ledger is None else ledger.scan(row_filter=where or AlwaysTrue()).to_arrow().num_rows


def declared_gaps(warehouse: Path) -> int:
    """How many gaps were opened, also those that were filled later."""
    return rows_of_ledger(warehouse, "status = 'OPEN'")


def _replaced_states(log: str) -> int:
    """How many states of gaps were not written since a later one was in the same commit, by the job's log.

    Slices of a key that were read in several batches are due one after the other. So a gap may open and shrink within
    one commit: it is counted as declared, and no row of the ledger says OPEN.
    """
    return sum(map(int, _REPLACED.findall(log)))


def assert_declared(counted: float, warehouse: Path, log: str) -> None:
    """Gaps that were counted as declared are those that the ledger says were, and those that a later state replaced."""
    declared, replaced = declared_gaps(warehouse), _replaced_states(log)
    assert declared <= counted <= declared + replaced, (
        f"{counted} counted, {declared} in the ledger, {replaced} replaced"
    )


def assert_scraped_equals_audit(
    stack: LocalStack, watcher: LocalStack, topics: list[str], warehouse: Path, environment: str, log: str
) -> None:
    """What the job's processes counted, as Prometheus has it, are the audit's figures. The job must be at rest."""
    report = audit_topics(lake_config(warehouse), stack.bootstrap, topics)
    assert report.ok, report.problems
    expected: dict[str, float] = {
        total(environment, "k2_messages_consumed_total"): sum(s.received + s.dead for s in report.sources),
        total(environment, "k2_dead_letters_total"): sum(source.dead for source in report.sources),
    }
    for table in report.tables:
        if table.rows:
            one = f'table="{table.table}"'
            expected[total(environment, "k2_rows_written_total", one)] = table.rows
            expected[total(environment, "k2_data_files_written_total", one)] = table.files
            expected[total(environment, "k2_data_bytes_written_total", one)] = table.bytes
    found = {expr: wait_for(watcher.prometheus_url, expr, value, 30.0) for expr, value in expected.items()}
    wrong = {expr: (value, found[expr]) for expr, value in expected.items() if found[expr] != value}
    assert not wrong, f"by the audit, and as scraped: {wrong}"
    declared = declared_gaps(warehouse)
    counted = total(environment, "k2_sequence_gaps_total")
    wait_for(watcher.prometheus_url, f"({counted}) >= bool {declared}", 1.0, 30.0)
    gaps = query(watcher.prometheus_url, counted)
    assert gaps is not None
    assert_declared(gaps, warehouse, log)


def total(environment: str, metric: str, selector: str = "") -> str:
    """A query: the sum over all processes of a counter, 0 where nothing was counted."""
    labels = ",".join(filter(None, (f'environment="{environment}"', selector)))
    return f"sum(last_over_time({metric}{{{labels}}}[10m])) or vector(0)"
