"""The live job on a standalone Flink cluster: exact, its gaps found while it runs, its job ended with it."""

from __future__ import annotations

import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from k2beam.flink import ENDED
from k2beam.job.config import Reader
from k2beam.model import Severity, Stage
from k2beam.produce.republish import ArchivedMessage
from k2beam.simulate.truth import Truth
from k2beam.stack.flink import TASK_MANAGER
from k2beam.stack.stack import LocalStack
from k2beam.validation import RULES
from tests.integration.flink_job import FlinkIngest, flink_ingest
from tests.integration.scraped import (
    PATIENT,
    assert_declared,
    assert_scraped_equals_audit,
    metrics_options,
    prometheus,
    rows_of_ledger,
)
from tests.live_helpers import assert_live_audit, produce, produce_early, produce_more, register
from tests.replay_helpers import open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

ROWS = 200_000
SLACK = 2_000
"""Bytes by which two checkpoints of the same state may differ; one deferred rest took as many."""
FAULTS = "gaps=40,duplicates=15,out-of-order=10"
MALFORMED = 18
LATE = "late=10"
"""What comes late may close a gap that was counted as declared, so that counters and ledger differ by right."""


REPORTED = "flink_taskmanager_job_task_operator_k2beam_"

Feed = tuple[Truth, list[str]]


def trades(flink: LocalStack, folder: Path, faults: str) -> Feed:
    """Trades with gaps in a topic of four partitions. One is empty, which must not hold the others back."""
    truth = simulated(folder, rows=ROWS, faults=faults, kinds=("trades",), files=1, symbols=6)
    return truth, produce(flink, folder, f"flink-{uuid.uuid4().hex[:8]}", register(flink))


def assert_exact(job: FlinkIngest, stack: LocalStack, truth: Truth, topics: list[str]) -> None:
    """Every message once by the audit at the broker, the ledger as the maker of the data says, no job left."""
    assert_live_audit(stack, topics, job.warehouse)
    assert job.committed() == truth.offsets == ROWS
    assert open_gaps(job.warehouse) == true_gaps(truth)
    found = job.in_cluster()
    assert found is not None
    assert found.state in ENDED


def reported(flink: LocalStack) -> Counter[str]:
    """What the TaskManager's Prometheus reporter says of our Beam counters, over all of its tasks."""
    [manager] = (server for server in flink.status() if server.name == TASK_MANAGER)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(manager.addresses["metrics"], timeout=10) as answer:
        lines = answer.read().decode("utf-8").splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        name, labels, _ = line.removeprefix(REPORTED).partition("{")
        if labels and line.startswith(REPORTED):
            found[name] += round(float(line.rsplit(" ", 1)[1]))
    return found


def own_counters(flink: LocalStack, expected: Mapping[str, int]) -> dict[str, int]:
    """What Flink's own reporter says of the counters, once it is as expected or a minute has passed.

    ``dead_letters`` are those of all stages.
    """
    deadline = time.monotonic() + 60
    while True:
        found = reported(flink)
        found["dead_letters"] = sum(found[f"dead_letters_{stage}"] for stage in get_args(Stage))
        shown = {name: found[name] for name in expected}
        if shown == expected or time.monotonic() > deadline:
            return shown
        time.sleep(0.5)


def reported_gaps(flink: LocalStack) -> int:
    """Gaps of both severities that were declared, by Flink's own reporter."""
    found = reported(flink)
    return sum(found[f"gaps_{severity.lower()}"] for severity in get_args(Severity))


def decode_dead_letters(truth: Truth) -> int:
    """Messages that are never decoded; the other dead ones break a rule of events."""
    rules = {rule.name for rule in RULES}
    return sum(number for name, number in truth.dead_letters.items() if name not in rules)


@pytest.mark.parametrize("reader", list(Reader))
def test_gaps_are_found_while_it_runs_its_metrics_are_scraped_and_a_signal_ends_the_job_in_the_cluster(
    flink: LocalStack, tmp_path: Path, reader: Reader
) -> None:
    truth, topics = trades(flink, tmp_path / "in", f"{FAULTS},malformed={MALFORMED}")
    environment = f"flink-{uuid.uuid4().hex[:8]}"
    with (
        prometheus(flink) as watcher,
        flink_ingest(
            flink, topics, tmp_path / "running", *metrics_options(watcher, environment), *PATIENT, reader=reader
        ) as job,
    ):
        job.wait_until(lambda: job.committed() == ROWS, "everything is committed")
        # At the end of a run the ledger is reconciled with the rows, so what timers found is looked at before.
        job.wait_until(lambda: open_gaps(job.warehouse) == true_gaps(truth), "timers have found the gaps")
        job.wait_until(lambda: job.checkpoints()["completed"] > 0, "a checkpoint is complete")
        assert_scraped_equals_audit(flink, watcher, topics, job.warehouse, environment, job.said())
        counters = {
            "consumed": ROWS,
            "decoded_trades": ROWS - decode_dead_letters(truth),
            "dead_letters": MALFORMED,
            "rows_written_trades_v2": ROWS - MALFORMED,
            "rows_written_dead_letters": MALFORMED,
            "rows_written_sequence_gaps": rows_of_ledger(job.warehouse),
        }
        assert own_counters(flink, counters) == counters
        assert_declared(reported_gaps(flink), job.warehouse, job.said())
        job.stop()
        stats = job.end()
        assert (stats["consumed"], stats["written"]["trades_v2"]) == (ROWS, ROWS - MALFORMED)
        assert stats["dead_letters"] == MALFORMED == sum(truth.dead_letters.values())
        assert_exact(job, flink, truth, topics)


def test_a_taskmanager_that_is_killed_and_comes_back_loses_nothing_and_doubles_nothing(
    flink: LocalStack, tmp_path: Path
) -> None:
    truth, topics = trades(flink, tmp_path / "in", f"{FAULTS},{LATE}")
    with flink_ingest(flink, topics, tmp_path / "killed", "--until-caught-up") as job:
        job.wait_until(
            lambda: job.committed() > 0 and job.checkpoints()["completed"] > 0, "rows and a checkpoint are there"
        )
        flink.kill(TASK_MANAGER)
        before = job.committed()
        assert before < ROWS, "the job was through before its TaskManager could be killed: raise ROWS"
        flink.start(TASK_MANAGER)
        job.end()
        assert job.checkpoints()["restored"] > 0
        assert_exact(job, flink, truth, topics)


def produce_slowly(flink: LocalStack, topic: str, messages: Sequence[ArchivedMessage], ids: Mapping[int, int]) -> None:
    """Further messages in some fifteen seconds."""
    size = len(messages) // 30
    for begin in range(0, len(messages), size):
        produce_more(flink, topic, messages[begin : begin + size], ids)
        time.sleep(0.5)


@pytest.mark.parametrize("reader", list(Reader))
def test_a_taskmanager_that_is_killed_while_messages_come_loses_nothing_and_doubles_nothing(
    flink: LocalStack, tmp_path: Path, reader: Reader
) -> None:
    """Messages come slowly, so that the quickest reader is in the midst of them when it's killed."""
    truth = simulated(tmp_path / "in", rows=ROWS, faults=f"{FAULTS},{LATE}", kinds=("trades",), files=1, symbols=6)
    topics, early, late, ids = produce_early(flink, tmp_path / "in", "flink")
    with (
        ThreadPoolExecutor(1) as pool,
        flink_ingest(flink, topics, tmp_path / "killed", reader=reader) as job,
    ):
        job.wait_until(lambda: job.committed() == len(early), "the first half is committed")
        completed = job.checkpoints()["completed"]
        job.wait_until(lambda: job.checkpoints()["completed"] > completed, "a checkpoint has it")
        producing = pool.submit(produce_slowly, flink, topics[0], late, ids)
        job.wait_until(lambda: job.committed() > len(early), "some of the second half is committed")
        flink.kill(TASK_MANAGER)
        assert job.committed() < ROWS, "all was there before the TaskManager could be killed: produce for longer"
        flink.start(TASK_MANAGER)
        producing.result()
        job.wait_until(lambda: job.committed() == ROWS, "everything is committed")
        assert job.checkpoints()["restored"] > 0
        job.stop()
        job.end()
        assert_exact(job, flink, truth, topics)


@pytest.mark.full
def test_checkpoints_of_a_quiet_job_do_not_grow(flink: LocalStack, tmp_path: Path) -> None:
    """Whatever the runner keeps of a reading that has paused, it keeps for as long as the job runs."""
    _, topics = trades(flink, tmp_path / "in", FAULTS)
    with flink_ingest(flink, topics, tmp_path / "quiet", reader=Reader.LIBRDKAFKA) as job:
        job.wait_until(lambda: job.committed() == ROWS, "everything is committed")
        sizes = []
        for _ in range(2):
            completed = job.checkpoints()["completed"]
            job.wait_until(lambda least=completed + 5: job.checkpoints()["completed"] > least, "time has passed")
            sizes.append(job.last_checkpoint_bytes())
        job.stop()
        job.end()
    assert sizes[1] < sizes[0] + SLACK, sizes
