"""The live job when something goes away under it: broker, registry, messages, another job, the job itself.

Each ends with the audit report counted at the broker, and with the rows that the truth says.
"""

from __future__ import annotations

import itertools
import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from pyiceberg.table import Table

from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError
from k2beam.job.config import Reader
from k2beam.kafka.topics import FOREVER_MS, TopicSpec, create_topics
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, SEQUENCE_GAPS, find_table
from k2beam.produce.republish import ArchivedMessage, republish
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.resolver import RegistryResolver
from k2beam.registry.subjects import schema_text
from k2beam.simulate.truth import Truth
from k2beam.stack.stack import LocalStack
from tests.integration.live_job import PATIENT_COMMAND, Feeder, LiveJob, live_job
from tests.integration.servers import servers_up
from tests.lake_helpers import lake_config, offsets_in
from tests.live_helpers import assert_live_audit, halves, ingest_live, produce_more, register
from tests.replay_helpers import contents, open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

AWAY_S = 20.0
FAULTS = "gaps=10,duplicates=8"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Servers of this file's own, since its tests stop them."""
    local = LocalStack(tmp_path_factory.mktemp("faults"), services=("kafka", "registry", "expansion"))
    with servers_up(local, "local stack (kafka, registry, expansion)"):
        yield local


@dataclass(frozen=True)
class Feed:
    """A topic that has the early half of a feed; the late half is still to come."""

    topic: str
    truth: Truth
    ids: dict[int, int]
    early: Sequence[ArchivedMessage]
    late: Sequence[ArchivedMessage]

    @property
    def total(self) -> int:
        return len(self.early) + len(self.late)


@pytest.fixture
def feed(servers: LocalStack, tmp_path: Path, unique: Callable[[str], str]) -> Feed:
    truth = simulated(tmp_path / "in", rows=30_000, faults=FAULTS, kinds=("trades",), files=1)
    early, late = halves(tmp_path / "in")
    ids = register(servers)
    (topic,) = republish(servers.bootstrap, early, ids, prefix=f"{unique('faults')}.")
    return Feed(topic, truth, ids, early, late)


def assert_exact(servers: LocalStack, feed: Feed, warehouse: Path) -> None:
    """Everything of the feed is there once, and nothing else."""
    assert_live_audit(servers, [feed.topic], warehouse)
    rows = contents(warehouse)
    assert len(rows[EVENT_TABLES["trades"]]) == feed.truth.rows["trades"] == feed.total
    assert rows[DEAD_LETTERS] == []
    assert open_gaps(warehouse) == true_gaps(feed.truth)


def assert_ended_well(job: LiveJob, rows_before: int) -> None:
    """Exit code 0, what it printed is what it added to the tables, and nothing of Beam's ends in a traceback."""
    assert job.end() == 0, job.said()
    assert sum(job.stats()["written"].values()) == len(offsets_in(job.warehouse)) - rows_before
    assert "Traceback" not in job.said(), job.said()


def assert_nothing_again(job: LiveJob) -> None:
    """It started where the tables ended."""
    assert job.stats()["consumed"] > 0
    assert job.stats()["already_covered"] == 0


def test_a_broker_that_is_stopped_and_started_again(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path
) -> None:
    warehouse = tmp_path / "wh"
    with live_job(
        servers, [feed.topic], warehouse, prism, reader, "--commit-age", "2s", "--keep-snapshots", "1"
    ) as job:
        job.wait_for_rows(len(feed.early))
        middle = len(feed.late) // 2
        produce_more(servers, feed.topic, feed.late[:middle], feed.ids)
        servers.stop("kafka")
        try:
            job.runs_for(AWAY_S)
            assert len(feed.early) <= len(job.committed()) <= len(feed.early) + middle < feed.total
        finally:
            servers.start("kafka")
        produce_more(servers, feed.topic, feed.late[middle:], feed.ids)
        job.wait_for_rows(feed.total)
        job.tell(signal.SIGTERM)
        assert_ended_well(job, 0)
    assert_exact(servers, feed, warehouse)


def test_a_registry_that_is_away_is_waited_for(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path
) -> None:
    warehouse = tmp_path / "wh"
    new_ids = {ours: documented(servers, feed.topic) for ours in feed.ids}
    assert set(new_ids.values()).isdisjoint(feed.ids.values())
    waiting = "the Schema Registry does not answer and is waited for"
    servers.stop("registry")
    try:
        with live_job(servers, [feed.topic], warehouse, prism, reader, program=PATIENT_COMMAND) as job:
            job.wait_for_log(waiting)
            assert servers.registry_url in job.said()
            assert not job.committed()
            servers.start("registry")
            job.wait_for_rows(len(feed.early))
            servers.stop("registry")
            waited = job.said().count(waiting)
            produce_more(servers, feed.topic, feed.late, new_ids)
            job.wait_until(lambda: job.said().count(waiting) > waited, "it waits for the new id")
            servers.start("registry")
            job.wait_for_rows(feed.total)
            job.tell(signal.SIGTERM)
            assert_ended_well(job, 0)
    finally:
        servers.start("registry")
    assert_exact(servers, feed, warehouse)


def test_a_registry_that_stays_away_ends_the_job_with_its_address(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path
) -> None:
    with socket.socket() as closed:  # bound and not listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(K2BeamError, match=f"Schema Registry {url}: no answer within 1 s"):
            ingest_live(servers, [feed.topic], tmp_path / "wh", prism, reader, RegistryResolver(url, wait_s=1))
    assert contents(tmp_path / "wh") == {name: [] for name in (*EVENT_TABLES.values(), DEAD_LETTERS)}


def documented(servers: LocalStack, subject: str) -> int:
    """The id of the trades' schema with a word of documentation, under which its records are the same bytes."""
    registry = Registry(RegistryConfig(servers.registry_url))
    try:
        return registry.register(subject, json.dumps({**json.loads(schema_text("trade_v2")), "doc": subject}))
    finally:
        registry.close()


def test_two_jobs_at_once_take_everything_once(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path
) -> None:
    warehouse = tmp_path / "wh"
    produce_more(servers, feed.topic, feed.late, feed.ids)
    seen = [Coverage()]
    with (
        live_job(servers, [feed.topic], warehouse, prism, reader, "--until-caught-up", name="one") as one,
        live_job(servers, [feed.topic], warehouse, prism, reader, "--until-caught-up", name="two") as two,
    ):
        while None in (one.process.poll(), two.process.poll()):
            seen.append(one.committed())
            assert seen[-2].issubset(seen[-1])
        assert (one.end(), two.end()) == (0, 0), one.said() + two.said()
    assert sum(sum(job.stats()["written"].values()) for job in (one, two)) == feed.total
    assert_exact(servers, feed, warehouse)
    assert_coverage_only_grew(warehouse)


def test_one_of_two_jobs_is_killed(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path
) -> None:
    warehouse = tmp_path / "wh"
    with (
        live_job(servers, [feed.topic], warehouse, prism, reader, "--keep-snapshots", "2", name="left") as left,
        live_job(servers, [feed.topic], warehouse, prism, reader, name="killed") as killed,
    ):
        killed.wait_for_log("first batch read")
        with Feeder(servers, feed.topic, feed.late, feed.ids) as feeder:
            killed.kill_in_mid_stream(len(feed.early), feeder)
            assert len(left.committed()) < feed.total
        left.wait_for_rows(feed.total)
        left.tell(signal.SIGTERM)
        assert left.end() == 0, left.said()
    assert_exact(servers, feed, warehouse)
    assert_coverage_only_grew(warehouse)


def assert_coverage_only_grew(warehouse: Path) -> None:
    """Each version of each table's metadata that is kept has all that the one before it covered."""
    catalog = open_catalog(lake_config(warehouse))
    for name in (*EVENT_TABLES.values(), DEAD_LETTERS, SEQUENCE_GAPS):
        table = find_table(catalog, NAMESPACE, name)
        versions = [] if table is None else coverages(table)
        assert all(before.issubset(after) for before, after in itertools.pairwise(versions)), name


def coverages(table: Table) -> list[Coverage]:
    logged = [entry.metadata_file for entry in table.metadata.metadata_log]
    files = [Path(place.removeprefix("file://")) for place in (*logged, table.metadata_location)]
    return [Coverage.from_properties(json.loads(file.read_text(encoding="utf-8"))["properties"]) for file in files]


def test_what_retention_took_before_it_was_read_is_reported(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse = tmp_path / "wh"
    ingest_live(servers, [feed.topic], warehouse, prism, reader)
    taken = len(offsets_in(warehouse))
    produce_more(servers, feed.topic, feed.late, feed.ids)
    partition, end = ends(feed.early)
    first_left = end + 100
    delete_below(servers, TopicPartition(feed.topic, partition, first_left))
    with live_job(servers, [feed.topic], warehouse, prism, reader, "--until-caught-up") as job:
        assert_ended_well(job, taken)
    assert len(offsets_in(warehouse)) == feed.total - 100
    problem = problem_of_the_audit(servers, feed.topic, warehouse, capsys)
    assert f"partition {partition}: 100 of" in problem
    assert problem.endswith(f"{end}-{first_left - 1}")


def problem_of_the_audit(servers: LocalStack, topic: str, warehouse: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The only one that it finds."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--warehouse", str(warehouse), "--bootstrap", servers.bootstrap, "--topic", topic])
    said = capsys.readouterr().out
    assert ended.value.code == 1, said
    (problem,) = [line for line in said.splitlines() if line.startswith("Problem:")]
    assert f"/{topic}/" in problem
    return problem


def test_what_retention_took_of_a_partition_before_anything_was_read_of_it_is_reported(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse, topic = tmp_path / "wh", f"{feed.topic}.cut"
    (made,) = create_topics(servers.bootstrap, [TopicSpec(topic, 2, retention_ms=FOREVER_MS)])
    assert made.state == "created"
    first, second = ([replace(message, partition=number) for message in feed.early[:300]] for number in (0, 1))
    produce_more(servers, topic, first, feed.ids)
    with live_job(servers, [topic], warehouse, prism, reader, "--until-caught-up", name="empty") as job:
        assert_ended_well(job, 0)
    produce_more(servers, topic, second, feed.ids)
    delete_below(servers, TopicPartition(topic, 1, 40))
    with live_job(servers, [topic], warehouse, prism, reader, "--until-caught-up", name="cut") as job:
        assert_ended_well(job, 300)
    assert len(offsets_in(warehouse)) == 560
    problem = problem_of_the_audit(servers, topic, warehouse, capsys)
    assert "partition 1: 40 of 300 offsets" in problem
    assert problem.endswith(": 0-39")
    delete_below(servers, TopicPartition(topic, 1, 300))
    assert problem_of_the_audit(servers, topic, warehouse, capsys) == problem


def ends(messages: Sequence[ArchivedMessage]) -> tuple[int, int]:
    """The first partition that has messages, and the offset behind its last."""
    partition = min(message.partition for message in messages)
    return partition, 1 + max(message.offset for message in messages if message.partition == partition)


def delete_below(servers: LocalStack, place: TopicPartition) -> None:
    """What retention does, at once."""
    admin = AdminClient({"bootstrap.servers": servers.bootstrap})
    for done in admin.delete_records([place]).values():
        assert done.result(30).low_watermark == place.offset


def test_a_job_that_ends_at_its_number_or_by_a_signal_says_what_it_did(
    servers: LocalStack, feed: Feed, prism: Path, reader: Reader, tmp_path: Path
) -> None:
    warehouse, middle = tmp_path / "wh", len(feed.late) // 2
    with live_job(servers, [feed.topic], warehouse, prism, reader, "--max-messages", "1", name="number") as job:
        assert_ended_well(job, 0)
    taken = len(offsets_in(warehouse))
    assert taken >= 1
    produce_more(servers, feed.topic, feed.late[:middle], feed.ids)
    with live_job(servers, [feed.topic], warehouse, prism, reader, name="SIGTERM") as job:
        job.wait_for_rows(taken + 1)
        job.tell(signal.SIGTERM)
        assert_ended_well(job, taken)
        assert_nothing_again(job)
    taken = len(offsets_in(warehouse))
    produce_more(servers, feed.topic, feed.late[middle:], feed.ids)
    with live_job(servers, [feed.topic], warehouse, prism, reader, name="Ctrl-C") as job:
        job.wait_for_rows(taken + 1)
        job.tell_group(signal.SIGINT)
        assert_ended_well(job, taken)
        assert_nothing_again(job)
    ingest_live(servers, [feed.topic], warehouse, prism, reader)
    assert_exact(servers, feed, warehouse)
