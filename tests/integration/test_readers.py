"""The two readers of topics: that they give the same of a topic with everything in it, and what came since."""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.runner import PipelineState
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage, SourcePartition
from k2beam.job.beam import quiet
from k2beam.job.config import Reader
from k2beam.job.options import beam_options
from k2beam.kafka.cluster import Cluster, Topic, start_offsets
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.topics import FOREVER_MS, TopicSpec, create_topics
from k2beam.lake.catalog import open_catalog
from k2beam.lake.recorded import recorded_first_offsets
from k2beam.lake.tables import DEAD_LETTERS, find_table
from k2beam.produce.republish import archived_messages, republish
from k2beam.stack.stack import LocalStack
from tests.integration.live_job import HASTY_COMMAND, live_job
from tests.lake_helpers import lake_config
from tests.live_helpers import assert_live_audit, halves, produce_more, register
from tests.replay_helpers import contents, open_gaps, simulated, true_gaps
from transforms.beam_reader import BeamReader
from transforms.librdkafka_reader import LibrdkafkaReader
from transforms.read_kafka import ReadKafka

pytestmark = pytest.mark.integration

LARGE = 8_000_000
PATIENCE_S = 120.0
MESSAGES: list[dict[str, Any]] = [
    {"value": b"plain", "key": b"k", "timestamp": 1_700_000_000_123},
    {"value": b"", "key": b"", "timestamp": 1},
    {"value": None, "key": None, "timestamp": 1_700_000_000_000},
    {"value": b"two of one name", "timestamp": 5, "headers": [("trace", b"1"), ("trace", b"2"), ("none", None)]},
    {"value": b"\x00" * LARGE, "key": b"large", "timestamp": 6},
    *({"value": b"%d" % number, "key": b"%d" % (number % 7), "timestamp": 10 + number} for number in range(2000)),
]


class Keep(beam.DoFn):  # type: ignore[misc]
    """Writes each batch to a file of its own: a pipeline without an end has no other output here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def process(self, batch: Any) -> None:
        part = self._folder / f"{time.monotonic_ns()}.part"
        part.write_bytes(pickle.dumps(batch.data.to_pylist()))
        part.rename(part.with_suffix(".rows"))


def read_all(live: LocalStack, topics: list[Topic], folder: Path, reader: Reader, prism: Path) -> list[dict[str, Any]]:
    """Every message of the topics, in a pipeline of its own on Prism."""
    kafka, cluster = KafkaConfig(live.bootstrap), Cluster(KafkaConfig(live.bootstrap))
    bounds = cluster.bounds(topics)
    starts, wanted = start_offsets(bounds, Coverage()), sum(bound.end for bound in bounds.values())
    reading: BeamReader | LibrdkafkaReader = LibrdkafkaReader(topics, kafka, starts)
    if reader is Reader.BEAM:
        cluster.seed_group(group := f"group-{folder.name}", topics, starts)
        reading = BeamReader(topics, kafka, group, live.expansion_address)
    arguments = [f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    pipeline = beam.Pipeline(options=beam_options(arguments, streaming=True, default_runner="PrismRunner"))
    read = pipeline | ReadKafka(reading)
    _ = read.batches | beam.ParDo(Keep(folder))
    result = pipeline.run()
    deadline, rows = time.monotonic() + PATIENCE_S, list[dict[str, Any]]()
    while len(rows) < wanted and time.monotonic() < deadline and not PipelineState.is_terminal(result.state):
        time.sleep(0.2)
        rows = [row for part in sorted(folder.glob("*.rows")) for row in pickle.loads(part.read_bytes())]
    quiet.begin()
    result.cancel()
    return sorted(rows, key=lambda row: (row["source"], row["partition"], row["offset"]))


def test_both_give_every_field_of_every_message(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    admin, names = AdminClient({"bootstrap.servers": live.bootstrap}), [unique("first"), unique("second")]
    config = {"max.message.bytes": str(2 * LARGE), "retention.ms": "-1"}
    for future in admin.create_topics([NewTopic(name, 2, config=config) for name in names]).values():
        future.result(30)
    # Idempotent, or a message that is sent again may come after later ones.
    settings = {"bootstrap.servers": live.bootstrap, "message.max.bytes": 2 * LARGE, "enable.idempotence": True}
    producer = Producer(settings)
    sent: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number, message in enumerate(MESSAGES):
        place = names[number % 3 % 2], number // 3 % 2
        producer.produce(place[0], partition=place[1], **message)
        sent.setdefault(place, []).append(message)
    assert producer.flush(60) == 0
    topics = Cluster(KafkaConfig(live.bootstrap)).topics(names)
    expected = [
        {
            "source": topic.source,
            "partition": partition,
            "offset": offset,
            "timestamp": message["timestamp"] * 1000,
            "key": message.get("key"),
            "value": message["value"],
            "headers": [{"key": key, "value": value} for key, value in message.get("headers", [])],
        }
        for topic in sorted(topics, key=lambda topic: topic.source)
        for partition in topic.partitions
        for offset, message in enumerate(sent[topic.name, partition])
    ]
    (tmp_path / "read").mkdir()
    found = read_all(live, topics, tmp_path / "read", reader, prism)
    micros = [{**row, "timestamp": round(row["timestamp"].timestamp() * 1e6)} for row in found]
    assert len(micros) == len(expected)
    assert all(row == wanted for row, wanted in zip(micros, expected, strict=True))


def test_partitions_and_topics_that_come_while_it_runs_are_read_from_their_beginning(
    live: LocalStack, prism: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=900, faults="", kinds=("trades",), files=1)
    early, late = halves(tmp_path / "in")
    ids, warehouse, prefix = register(live), tmp_path / "wh", unique("since")
    (topic,) = republish(live.bootstrap, early, ids, prefix=f"{prefix}.")
    (before,) = Cluster(KafkaConfig(live.bootstrap)).topics([topic])
    added, another = len(before.partitions), f"{prefix}.later"
    options = ("--topic-pattern", f"{prefix}[.].*")
    with live_job(live, [], warehouse, prism, Reader.LIBRDKAFKA, *options) as job:
        job.wait_for_rows(len(early))
        admin, middle = AdminClient({"bootstrap.servers": live.bootstrap}), len(late) // 2
        admin.create_partitions([NewPartitions(topic, added + 1)])[topic].result(30)
        admin.create_topics([NewTopic(another, 1, config={"retention.ms": "-1"})])[another].result(30)
        produce_more(live, topic, [replace(message, partition=added) for message in late[:middle]], ids)
        produce_more(live, another, [replace(message, partition=0) for message in late[middle:]], ids)
        job.wait_for_rows(len(early) + len(late))
        job.wait_until(lambda: job.said().count("is read from now on") == 2, "both are told")
    assert len(contents(warehouse)["trades_v2"]) == truth.rows["trades"]
    assert_live_audit(live, [topic, another], warehouse)
    sources = {found.name: found.source for found in Cluster(KafkaConfig(live.bootstrap)).topics([topic, another])}
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, DEAD_LETTERS)
    assert table is not None
    first_offsets = recorded_first_offsets(table.properties)
    assert first_offsets[SourcePartition(sources[topic], added)] == 0
    assert first_offsets[SourcePartition(sources[another], 0)] == 0


def test_a_backlog_of_partitions_that_are_read_one_behind_the_other_has_only_its_true_gaps(
    live: LocalStack, prism: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=60_000, faults="gaps=6", symbols=2, kinds=("trades",), files=1)
    messages, ids, warehouse = archived_messages(tmp_path / "in"), register(live), tmp_path / "wh"
    topic, parts = unique("paces"), 4
    made = create_topics(live.bootstrap, [TopicSpec(topic, parts, retention_ms=FOREVER_MS)])
    assert [each.state for each in made] == ["created"]
    apart = [replace(message, partition=row * parts // len(messages)) for row, message in enumerate(messages)]
    produce_more(live, topic, apart, ids)
    options = ("--gap-grace", "0s")
    with live_job(live, [topic], warehouse, prism, Reader.LIBRDKAFKA, *options, program=HASTY_COMMAND) as job:
        job.wait_for_rows(len(messages))
        job.wait_until(lambda: len(open_gaps(warehouse)) == len(truth.gaps), "the gaps are in the ledger")
        job.tell(signal.SIGTERM)
        assert job.end() == 0, job.said()
    assert open_gaps(warehouse) == true_gaps(truth)
    found = job.stats()["gaps"]
    # How many came out of order depends on what the client fetched first.
    assert {*found} <= {"OK", "OUT_OF_ORDER", "SMALL_GAP", "LARGE_GAP"}, "nothing is late"
    assert found.get("SMALL_GAP", 0) + found.get("LARGE_GAP", 0) == len(truth.gaps)
    assert sum(found.values()) == len(messages), "each message is counted once"
