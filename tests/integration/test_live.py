"""The live job over a real Kafka, registry and Prism: the known answer, repeats, kill -9."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from k2beam.audit.audit import audit
from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.errors import K2BeamError, UsageError
from k2beam.job.config import Reader
from k2beam.kafka.cluster import Cluster
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.guard import TopicGuard
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import read_holes
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, open_table
from k2beam.produce.republish import ArchivedMessage, archived_messages, reframed, republish
from k2beam.simulate.truth import read_truth
from k2beam.stack.stack import LocalStack
from tests.integration.live_job import HASTY_COMMAND, Feeder, live_job
from tests.lake_helpers import lake_config
from tests.live_helpers import assert_live_audit, halves, ingest_live, produce, produce_more, register
from tests.replay_helpers import contents, dead_letter_classes, ingest, open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration


def test_the_faulty_feed_gives_its_true_answer_and_a_second_job_adds_nothing(
    live: LocalStack, prism: Path, reader: Reader, repository: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    sample = repository / "samples" / "crypto"
    truth = read_truth(sample)
    topics = produce(live, sample, unique("feed"), register(live))
    stats = ingest_live(live, topics, tmp_path / "wh", prism, reader)
    rows = contents(tmp_path / "wh")
    assert {kind: len(rows[EVENT_TABLES[kind]]) for kind in truth.rows} == truth.rows  # type: ignore[index]
    assert dead_letter_classes(tmp_path / "wh") == Counter(truth.dead_letters)
    assert open_gaps(tmp_path / "wh") == true_gaps(truth)
    assert sum(stats.written.values()) + stats.dead_letters == truth.offsets
    if reader is Reader.LIBRDKAFKA:  # Beam's has no end: the job is cancelled, with messages that wait for their grace
        assert sum(stats.gaps.values()) == sum(truth.rows.values())
    assert_live_audit(live, topics, tmp_path / "wh")
    again = ingest_live(live, topics, tmp_path / "wh", prism, reader)
    assert sum(again.written.values()) + again.dead_letters == 0
    assert contents(tmp_path / "wh") == rows


def test_the_holes_of_transactions_are_remembered_and_no_loss(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    ids = register(live)
    simulated(tmp_path / "in", rows=40, faults="", kinds=("trades",), files=1)
    early, late = halves(tmp_path / "in")
    (topic,) = republish(live.bootstrap, early, ids, prefix=f"{unique('transactions')}.")
    producer = Producer({"bootstrap.servers": live.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    partition = late[0].partition
    for end in (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction):
        producer.begin_transaction()
        for message in late[:3]:
            producer.produce(topic, reframed(message.value, ids), message.key, partition)
        producer.flush(30)
        end(30)
    stats = ingest_live(live, [topic], tmp_path / "wh", prism, reader)
    assert stats.written[EVENT_TABLES["trades"]] == len(early) + 6
    catalog, begin = open_catalog(lake_config(tmp_path / "wh")), sum(one.partition == partition for one in early)
    (key,) = holes = read_holes(catalog, NAMESPACE)
    # Three messages and their marker; three that were aborted, and the marker; three, and the last marker.
    assert [offset - begin for offset in holes[key]] == [3, 4, 5, 6, 7, 11]
    assert list(read_coverage(catalog, NAMESPACE)[key]) == list(range(begin + 12)), "no hole is left in it"
    assert audit(catalog, NAMESPACE).problems == (), "without a broker"
    assert_live_audit(live, [topic], tmp_path / "wh")
    assert ingest_live(live, [topic], tmp_path / "wh", prism, reader).consumed == 0


@pytest.mark.parametrize("policy", ["delete", "compact"])
def test_a_job_without_an_end_writes_holes_down_as_it_runs(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str], policy: str
) -> None:
    ids, topic, warehouse = register(live), unique(f"holes-{policy}"), tmp_path / "wh"
    simulated(tmp_path / "in", rows=40, faults="", kinds=("trades",), files=1)
    messages = [(message.key, reframed(message.value, ids)) for message in archived_messages(tmp_path / "in")]
    admin = AdminClient({"bootstrap.servers": live.bootstrap})
    admin.create_topics([NewTopic(topic, 1, config={"cleanup.policy": policy})])[topic].result(30)
    producer = Producer({"bootstrap.servers": live.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    with live_job(live, [topic], warehouse, prism, reader, program=HASTY_COMMAND) as job:
        for begin in range(0, 40, 10):
            producer.begin_transaction()
            for key, value in messages[begin : begin + 10]:
                producer.produce(topic, value, key, 0)
            producer.commit_transaction(30)
        job.wait_until(lambda: len(job.holes()) == 3, "the markers of all transactions but the last are recorded")
        (key,) = holes = job.holes()
        assert list(holes[key]) == [10, 21, 32]
        if policy == "delete":
            job.wait_until(lambda: list(job.committed()[key]) == list(range(43)), "they are covered")
        job.runs_for(2.0)
        assert len(job.committed()) == (43 if policy == "delete" else 40)
        job.kill()
    assert audit(open_catalog(lake_config(warehouse)), NAMESPACE).problems == (), "without a broker"
    assert_live_audit(live, [topic], warehouse)
    assert ingest_live(live, [topic], warehouse, prism, reader).consumed == 0
    assert list(job.holes()[key]) == [10, 21, 32, 43]


def test_each_poison_message_is_a_dead_letter_at_its_offset_and_the_rest_is_written(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    ids = register(live)
    truth = simulated(tmp_path / "in", rows=400, faults="", kinds=("trades",), files=1)
    (topic,) = produce(live, tmp_path / "in", unique("poison"), ids)
    noise = random.Random(7).randbytes(1_000_000)
    framed = b"\x00" + ids[1].to_bytes(4, "big")
    poison = {
        "bad_magic": b"no magic byte",
        "unknown_schema_id": b"\x00" + (2**31 - 5).to_bytes(4, "big") + b"body",
        "truncated": framed + b"\x08",
        "tombstone": None,
        "noise": noise,
        "framed noise": framed + noise,
    }
    offsets = send(live, topic, list(poison.values()))
    produce_more(live, topic, archived_messages(tmp_path / "in"), ids)
    ingest_live(live, [topic], tmp_path / "wh", prism, reader)
    table = open_table(open_catalog(lake_config(tmp_path / "wh")), NAMESPACE, DEAD_LETTERS)
    dead_letters = {row["_offset"]: row for row in table.scan().to_arrow().to_pylist()}
    assert sorted(dead_letters) == sorted(offsets)
    found = dict(zip(poison, (dead_letters[offset] for offset in offsets), strict=True))
    assert {name: dead_letter["payload"] for name, dead_letter in found.items()} == poison
    for name in ("bad_magic", "unknown_schema_id", "truncated", "tombstone"):
        assert found[name]["error_class"] == name
    assert len(contents(tmp_path / "wh")["trades_v2"]) == 2 * truth.rows["trades"]
    assert_live_audit(live, [topic], tmp_path / "wh")


def send(live: LocalStack, topic: str, values: list[bytes | None]) -> list[int]:
    """The offsets that the values got, in partition 0."""
    offsets: list[int] = []
    producer = Producer(
        {"bootstrap.servers": live.bootstrap, "message.max.bytes": 2_000_000, "enable.idempotence": True}
    )
    for value in values:
        producer.produce(
            topic, value, partition=0, on_delivery=lambda _, message: offsets.append(message.offset() or 0)
        )
    assert producer.flush(30) == 0
    return offsets


def test_a_job_killed_in_mid_stream_goes_on_exactly(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=60_000, faults="", kinds=("trades",), files=1)
    early, late = halves(tmp_path / "in")
    ids, warehouse = register(live), tmp_path / "wh"
    (topic,) = republish(live.bootstrap, early, ids, prefix=f"{unique('killed')}.")
    with live_job(live, [topic], warehouse, prism, reader) as job, Feeder(live, topic, late, ids) as feeder:
        job.kill_in_mid_stream(len(early), feeder)
        assert len(early) < len(job.committed()) < len(early) + len(late)
    ingest_live(live, [topic], warehouse, prism, reader)
    assert_live_audit(live, [topic], warehouse)
    assert len(contents(warehouse)["trades_v2"]) == truth.rows["trades"]


def test_a_topic_made_anew_is_another_source(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    ids, prefix, warehouse = register(live), unique("anew"), tmp_path / "wh"
    first = simulated(tmp_path / "first", rows=300, faults="", kinds=("trades",), files=1, seed=1)
    (topic,) = produce(live, tmp_path / "first", prefix, ids)
    ingest_live(live, [topic], warehouse, prism, reader)
    config = KafkaConfig(live.bootstrap)
    guard = TopicGuard(config, tuple(Cluster(config).topics([topic])))
    guard.check()
    admin = AdminClient({"bootstrap.servers": live.bootstrap})
    admin.delete_topics([topic])[topic].result(30)
    wait_until_gone(config, topic)
    with pytest.raises(K2BeamError, match="gone"):
        guard.check()
    second = simulated(tmp_path / "second", rows=200, faults="", kinds=("trades",), files=1, seed=2)
    produce(live, tmp_path / "second", prefix, ids)
    with pytest.raises(K2BeamError, match="created again"):
        guard.check()
    ingest_live(live, [topic], warehouse, prism, reader)
    assert len(contents(warehouse)["trades_v2"]) == first.rows["trades"] + second.rows["trades"]
    assert_live_audit(live, [topic], warehouse)


def test_a_topic_made_anew_under_a_running_job_ends_it_and_the_next_one_takes_the_new_topic(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    ids, prefix, warehouse = register(live), unique("under"), tmp_path / "wh"
    first = simulated(tmp_path / "first", rows=300, faults="", kinds=("trades",), files=1, seed=1)
    second = simulated(tmp_path / "second", rows=200, faults="", kinds=("trades",), files=1, seed=2)
    (topic,) = produce(live, tmp_path / "first", prefix, ids)
    with live_job(live, [topic], warehouse, prism, reader) as job:
        job.wait_for_rows(first.rows["trades"])
        admin = AdminClient({"bootstrap.servers": live.bootstrap})
        admin.delete_topics([topic])[topic].result(30)
        wait_until_gone(KafkaConfig(live.bootstrap), topic)
        produce(live, tmp_path / "second", prefix, ids)
        assert job.end() == 1
        assert "created again" in job.said() or "is gone" in job.said()
    assert len(job.committed()) == first.rows["trades"], "nothing of the new topic was taken for the old one"
    ingest_live(live, [topic], warehouse, prism, reader)
    assert len(contents(warehouse)["trades_v2"]) == first.rows["trades"] + second.rows["trades"]
    assert_live_audit(live, [topic], warehouse)


def wait_until_gone(config: KafkaConfig, topic: str) -> None:
    """Deletion goes on for a while after the broker has said yes."""
    for _ in range(100):
        try:
            Cluster(config).topics([topic])
        except UsageError:
            return
        time.sleep(0.1)
    pytest.fail(f"{topic} is still there")


def test_only_committed_transactions_become_rows_and_their_markers_are_neither_waited_for_nor_read_again(
    live: LocalStack,
    prism: Path,
    reader: Reader,
    tmp_path: Path,
    unique: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    truth = simulated(tmp_path / "in", rows=900, faults="", kinds=("trades",), files=1)
    early, late = halves(tmp_path / "in")
    ids, warehouse = register(live), tmp_path / "live"
    (topic,) = republish(live.bootstrap, early, ids, prefix=f"{unique('transactions')}.")
    producer = Producer({"bootstrap.servers": live.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)

    def transactions(messages: Sequence[ArchivedMessage]) -> None:
        """All of them committed, forty a transaction, each behind an aborted one with the same messages."""
        for start in range(0, len(messages), 40):
            for end in (producer.abort_transaction, producer.commit_transaction):
                producer.begin_transaction()
                send_all(producer, topic, messages[start : start + 40], ids)
                end(30)

    middle = len(late) // 2
    transactions(late[:middle])
    ingest_live(live, [topic], warehouse, prism, reader)
    assert len(contents(warehouse)["trades_v2"]) == len(early) + middle
    transactions(late[middle:])
    second = ingest_live(live, [topic], warehouse, prism, reader)
    assert (sum(second.written.values()), second.already_covered) == (len(late) - middle, 0)
    assert len(contents(warehouse)["trades_v2"]) == truth.rows["trades"]
    assert contents(warehouse)[DEAD_LETTERS] == []
    assert_live_audit(live, [topic], warehouse)
    third = ingest_live(live, [topic], warehouse, prism, reader)
    assert third.consumed == 0, "nothing but markers is left, and no job is started"

    there = ("--bootstrap", live.bootstrap, "--topic", topic)
    assert called("archive", "kafka", *there, "--registry", live.registry_url, str(tmp_path / "archive")) == 0
    ingest([tmp_path / "archive"], tmp_path / "replayed")
    assert called("audit", *there, "--warehouse", str(warehouse), "--compare", str(tmp_path / "replayed")) == 0
    assert f"SAME: {truth.rows['trades']:,} rows" in capsys.readouterr().out


def send_all(producer: Producer, topic: str, messages: Sequence[ArchivedMessage], ids: Mapping[int, int]) -> None:
    for message in messages:
        time_ms = message.timestamp // 1000
        producer.produce(topic, reframed(message.value, ids), message.key, message.partition, timestamp=time_ms)
    assert producer.flush(60) == 0


def called(*arguments: str) -> int:
    """The exit code of a command in this process."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_a_pattern_takes_the_topics_that_match_and_one_without_a_topic_is_refused(
    live: LocalStack, prism: Path, reader: Reader, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=300, faults="", files=1)
    name, ids, warehouse = unique("pattern"), register(live), tmp_path / "wh"
    topics = produce(live, tmp_path / "in", f"market.{name}", ids)
    assert len(topics) == 2
    produce(live, tmp_path / "in", f"market-{name}", ids)
    pattern = f"market[.]{name}[.].*"
    with live_job(live, [], warehouse, prism, reader, "--topic-pattern", pattern, "--until-caught-up") as job:
        assert job.end() == 0, job.said()
    assert {kind: len(contents(warehouse)[EVENT_TABLES[kind]]) for kind in truth.rows} == truth.rows  # type: ignore[index]
    assert_live_audit(live, topics, warehouse)
    with live_job(live, [], tmp_path / "none", prism, reader, "--topic-pattern", f"{name}[.].*", name="none") as job:
        assert job.end() == 2
        assert f"--topic-pattern '{name}[.].*' matches no topic" in job.said()
