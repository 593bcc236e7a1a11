"""The exporter beside a real Kafka: its lag is what the audit misses, before, during and after an ingest."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from k2beam.cli.main import app
from k2beam.config import NAMESPACE
from k2beam.demo import audit_topics
from k2beam.exporter.service import ExporterConfig, snapshot
from k2beam.kafka.cluster import Cluster
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.topics import FOREVER_MS, TopicSpec, create_topics
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.tables import open_table
from k2beam.stack.stack import LocalStack
from tests.exporter_helpers import gauges
from tests.lake_helpers import QUICK, START, lake_config, trades
from tests.live_helpers import assert_live_audit, ingest_live, produce, register
from tests.replay_helpers import simulated
from tests.report_helpers import held_by

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(stack: LocalStack, unique: Callable[[str], str]) -> str:
    """An empty topic of one partition."""
    name = unique("exported")
    list(create_topics(stack.bootstrap, [TopicSpec(name, retention_ms=FOREVER_MS)]))
    return name


def commit(stack: LocalStack, topic: str, warehouse: Path, offsets: list[int], partition: int = 0) -> None:
    """Rows for some offsets of a partition, as if a job had taken them."""
    catalog = open_catalog(lake_config(warehouse))
    (found,) = Cluster(KafkaConfig(stack.bootstrap)).topics([topic])
    if offsets:
        table = open_table(catalog, NAMESPACE, "trades_v2")
        rows = pa.Table.from_batches([trades(offsets, source=found.source, partition=partition)])
        staged = write_rows(table, rows, window=START)
        commit_files(catalog, NAMESPACE, "trades_v2", staged, run_id="test", policy=QUICK)


def exported(stack: LocalStack, topics: list[str], warehouse: Path, *, good: bool = True) -> dict[str, float]:
    """One reading of everything."""
    config = ExporterConfig(lake_config(warehouse), KafkaConfig(stack.bootstrap), tuple(topics))
    text, succeeded = snapshot(config)
    assert succeeded is good, text
    return gauges(text)


def lag_on_page(stack: LocalStack, topic: str, warehouse: Path) -> Any:
    """The lag that a page of ``k2beam report`` holds."""
    page = warehouse.with_suffix(".html")
    words = ["report", page, "--warehouse", warehouse, "--no-audit", "--bootstrap", stack.bootstrap, "--topic", topic]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return held_by(page)["lag"]


def of(found: dict[str, float], name: str, topic: str, partition: int = 0) -> float:
    return found[f"k2_source_{name}{{partition={partition},topic={topic}}}"]


def total(found: dict[str, float], name: str) -> float:
    return sum(value for key, value in found.items() if key.startswith(f"k2_source_{name}{{"))


def missing(stack: LocalStack, topics: list[str], warehouse: Path) -> int:
    """What the audit misses of the topics, counted at the broker."""
    return sum(source.missing for source in audit_topics(lake_config(warehouse), stack.bootstrap, topics).sources)


def send(stack: LocalStack, topic: str, count: int, **settings: str) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap, **settings})
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=0)
    assert producer.flush(30) == 0


def test_the_lag_is_what_the_audit_misses_before_during_and_after_an_ingest(
    live: LocalStack, prism: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=3_000, faults="malformed=6", files=2)
    topics = produce(live, tmp_path / "in", unique("lag"), register(live))
    warehouse = tmp_path / "wh"
    open_catalog(lake_config(warehouse))
    before = exported(live, topics, warehouse)
    assert total(before, "lag_messages") == missing(live, topics, warehouse) == truth.offsets
    assert total(before, "covered_offsets") == 0
    for name in [name for name in before if name.startswith("k2_source_lag_messages")]:
        assert (before[name] > 0) == (before[name.replace("lag_messages", "behind_seconds")] > 0)
    labels = re.compile(r"k2_source_lag_messages\{partition=(\d),topic=(.*)\}")
    places = [found.groups() for name in before if before[name] > 200 and (found := labels.fullmatch(name))]
    partition, first = int(places[0][0]), places[0][1]
    commit(live, first, warehouse, [*range(100), *range(150, 180)], partition)
    during = exported(live, topics, warehouse)
    assert total(during, "lag_messages") == missing(live, topics, warehouse) == truth.offsets - 130
    assert of(during, "covered_offsets", first, partition) == 130
    ingest_live(live, topics, warehouse, prism)
    after = exported(live, topics, warehouse)
    assert_live_audit(live, topics, warehouse)
    assert total(after, "lag_messages") == total(after, "lost_offsets") == total(after, "behind_seconds") == 0
    assert total(after, "covered_offsets") == truth.offsets
    assert after["k2_table_rows{table=dead_letters}"] == sum(truth.dead_letters.values())


def test_the_age_of_the_backlog_is_that_of_its_oldest_message(stack: LocalStack, topic: str, tmp_path: Path) -> None:
    now = int(time.time())
    producer = Producer({"bootstrap.servers": stack.bootstrap, "enable.idempotence": True})
    for age in (3000, 2000, 1000):
        producer.produce(topic, b"x", partition=0, timestamp=(now - age) * 1_000)
    assert producer.flush(30) == 0
    commit(stack, topic, tmp_path, [0])
    behind = of(exported(stack, [topic], tmp_path), "behind_seconds", topic)
    assert 2000 <= behind < 2900
    found = lag_on_page(stack, topic, tmp_path)
    assert found["problems"] == []
    (row,) = found["partitions"]
    assert (row["topic"], row["partition"], row["lag"], row["covered"], row["lost"]) == (topic, 0, 2, 1, 0)
    assert behind <= row["behind"] < 2900


def test_a_caught_up_topic_of_transactions_has_no_lag(stack: LocalStack, topic: str, tmp_path: Path) -> None:
    producer = Producer({"bootstrap.servers": stack.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)

    def transaction(count: int) -> None:
        producer.begin_transaction()
        for number in range(count):
            producer.produce(topic, str(number).encode(), partition=0)
        producer.flush(30)

    for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        transaction(3)
        end(30)
    # 0-2 and their marker 3; aborted 4-6 and marker 7; 8-10 and marker 11.
    commit(stack, topic, tmp_path, [0, 1, 2, 8, 9])
    assert of(exported(stack, [topic], tmp_path), "lag_messages", topic) == missing(stack, [topic], tmp_path) == 2
    commit(stack, topic, tmp_path, [10])
    assert of(exported(stack, [topic], tmp_path), "lag_messages", topic) == 0 == missing(stack, [topic], tmp_path)
    transaction(4)
    assert of(exported(stack, [topic], tmp_path), "lag_messages", topic) == 0
    producer.commit_transaction(30)
    assert of(exported(stack, [topic], tmp_path), "lag_messages", topic) == missing(stack, [topic], tmp_path) == 5


def test_what_retention_took_is_lost_and_no_lag(stack: LocalStack, topic: str, tmp_path: Path) -> None:
    send(stack, topic, 100)
    commit(stack, topic, tmp_path, [*range(10), 60])
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    place = TopicPartition(topic, 0, 50)
    admin.delete_records([place])[place].result(30)
    found = exported(stack, [topic], tmp_path)
    assert of(found, "lost_offsets", topic) == 40
    assert of(found, "lag_messages", topic) == 49
    assert missing(stack, [topic], tmp_path) == 89


def test_a_broker_that_is_away_hides_the_lag_only_and_comes_back(stack: LocalStack, topic: str, tmp_path: Path) -> None:
    send(stack, topic, 10)
    commit(stack, topic, tmp_path, [0, 1, 2])
    with serving(stack, topic, tmp_path) as scrape:
        lag = f"k2_source_lag_messages{{partition=0,topic={topic}}}"
        wait_for(lambda: scrape().get(lag) == 7)
        stack.stop("kafka")
        try:
            wait_for(lambda: scrape()["k2_exporter_failures_total{reading=kafka}"] > 0)
            shown = scrape()
            assert lag not in shown
            assert shown["k2_table_rows{table=trades_v2}"] == 3
            assert shown["k2_exporter_last_success_timestamp_seconds{reading=kafka}"] > 0
        finally:
            stack.start("kafka")
        send(stack, topic, 1)
        wait_for(lambda: scrape().get(lag) == 8)
        send(stack, topic, 1)
        wait_for(lambda: scrape().get(lag) == 9)


@contextmanager
def serving(stack: LocalStack, topic: str, warehouse: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """The command as a process; gives what scrapes it. It must end by itself when it's told to."""
    command = [
        *(sys.executable, "-m", "k2beam.cli.main", "exporter", "--warehouse", str(warehouse)),
        *("--bootstrap", stack.bootstrap, "--topic", topic, "--listen", "127.0.0.1:0", "--interval", "200ms"),
    ]
    log = warehouse.parent / f"{warehouse.name}-exporter.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, start_new_session=True)
    try:
        wait_for(lambda: "metrics endpoint" in log.read_text())
        found = re.search(r"127\.0\.0\.1:(\d+)", log.read_text())
        assert found is not None

        def scrape() -> dict[str, float]:
            assert process.poll() is None, log.read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=30) as answer:
                return gauges(answer.read().decode())

        yield scrape
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if reached():
            return
        time.sleep(0.1)
    pytest.fail("it was not reached in time")
