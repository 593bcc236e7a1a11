"""Topics archived from a real Kafka: the same bytes, and replayed the same tables as the live run."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka import Producer
from typer.testing import CliRunner

from k2beam.archive.header import ArchiveLimits, check_archives
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.audit.compare import compare
from k2beam.cli.archive import register as register_command
from k2beam.codec.frame import SCHEMA_HEADER
from k2beam.config import NAMESPACE
from k2beam.errors import K2BeamError, UsageError
from k2beam.job.config import Reader
from k2beam.kafka.archiver import KafkaArchiver, check_folder, chunks, file_name, schema_refs
from k2beam.kafka.cluster import Bounds, Cluster, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.lake.catalog import open_catalog
from k2beam.model import RawBatch, RawRecord
from k2beam.produce.republish import reframed
from k2beam.registry.resolver import RegistryResolver
from k2beam.registry.subjects import schema_text
from k2beam.stack.stack import LocalStack
from tests.codec_samples import encode_as, trade
from tests.lake_helpers import lake_config
from tests.live_helpers import ingest_live, produce, register
from tests.registry_server import registry_server
from tests.replay_helpers import contents, ingest, simulated

integration = pytest.mark.integration


def record(offset: int, value: bytes | None = b"\0\0\0\0\1x", key: bytes | None = None) -> RawRecord:
    return RawRecord("kafka:c/t/id", 0, offset, None, key, value)


def test_a_chunk_closes_at_its_rows_and_at_its_bytes() -> None:
    assert [len(chunk) for chunk in chunks(map(record, range(5)), 2, 1000)] == [2, 2, 1]
    big = (record(offset, b"12345", b"67") for offset in range(4))
    assert [[row.offset for row in chunk] for chunk in chunks(big, 100, 14)] == [[0, 1], [2, 3]]
    assert list(chunks(iter(()), 2, 2)) == []


def test_schema_refs_are_those_of_good_frames_and_headers() -> None:
    values = [b"\0\0\0\1\2body", b"\0\0\0\1\2other", b"\0\0\0\0\7", b"\0\0\0\0", b"\1\0\0\0\5x", b"", None]
    guid = uuid.uuid4()
    headers = [(SCHEMA_HEADER, b"\0\0\0\0\11"), (SCHEMA_HEADER, b"\1" + guid.bytes), (SCHEMA_HEADER, b"?")]
    named = [replace(record(0, b"\0\0\0\0\6body"), headers=(header,)) for header in headers]
    framed = [record(offset, value) for offset, value in enumerate(values)]
    assert schema_refs([*framed, *named]) == {258, 7, 9, str(guid)}


def test_a_topic_made_anew_has_other_file_names() -> None:
    first, second = (Topic("a.b", f"kafka:c/a.b/{topic_id}", (0,)) for topic_id in ("x-1", "y-2"))
    assert file_name(first, 3, 42) == "a.b-x-1-3-000000000000042.avro"
    assert file_name(second, 3, 42) != file_name(first, 3, 42)
    assert file_name(Topic("a.b", "kafka:c/a.b/x/1", (0,)), 3, 42) == "a.b-x_1-3-000000000000042.avro"


def test_a_folder_with_something_in_it_needs_force(tmp_path: Path) -> None:
    check_folder(str(tmp_path), force=False)
    check_folder(str(tmp_path / "new"), force=False)
    (tmp_path / "a.avro").touch()
    check_folder(str(tmp_path), force=True)
    with pytest.raises(UsageError, match="--force"):
        check_folder(str(tmp_path), force=False)
    with pytest.raises(UsageError, match="is a file"):
        check_folder(str(tmp_path / "a.avro"), force=True)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The messages of raw_record containers, by source, partition and offset."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.avro")):
        for chunk in plan_archive(str(path)).chunks:
            for batch in ArchiveReader(ArchiveLimits(), 50_000, 16 << 20).read(chunk):
                assert isinstance(batch, RawBatch)
                micros = batch.data.column("timestamp").cast("int64").to_pylist()
                rows += [{**row, "micros": time} for row, time in zip(batch.data.to_pylist(), micros, strict=True)]
    return sorted(rows, key=lambda row: (row["source"], row["partition"], row["offset"]))


def archive(stack: LocalStack, topics: list[str], out: Path, *options: str) -> dict[str, float]:
    """Run the command; gives its stats."""
    app = typer.Typer()
    register_command(app)
    names = [option for topic in topics for option in ("--topic", topic)]
    registry = () if "--registry" in options else ("--registry", stack.registry_url)
    places = [*registry, "--bootstrap", stack.bootstrap, "--output", "json"]
    done = CliRunner().invoke(app, ["archive", "kafka", *names, *places, *options, str(out)])
    assert done.exit_code == 0, (done.output, done.exception)
    stats: dict[str, float] = json.loads(done.stdout)
    return stats


@integration
def test_the_archive_has_every_message_byte_for_byte(
    stack: LocalStack, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    simulated(tmp_path / "in", rows=1500, files=1)
    ids = register(stack)
    topics = produce(stack, tmp_path / "in", unique("bytes"), ids)
    odd = Producer({"bootstrap.servers": stack.bootstrap, "enable.idempotence": True})
    headers: list[tuple[str, str | bytes | None]] = [("a", b"1"), ("a", None)]
    odd.produce(
        topics[0], value=b"\0\x7f\xff\xff\xff?", key=b"k", partition=0, timestamp=1_700_000_000_123, headers=headers
    )
    odd.produce(topics[0], value=None, key=None, partition=0, timestamp=1_700_000_000_124)
    assert odd.flush(30) == 0
    stats = archive(stack, topics, tmp_path / "out", "--rows-per-file", "100")
    written = list(rows_of(tmp_path / "out"))
    files = sorted((tmp_path / "out").iterdir())
    assert (stats["messages"], stats["files"]) == (len(written), len(files))
    assert stats["bytes"] == sum(path.stat().st_size for path in files)
    cluster = Cluster(KafkaConfig(stack.bootstrap))
    bounds = cluster.bounds(cluster.topics(topics))
    assert stats["partitions"] == sum(bound.end > 0 for bound in bounds.values())
    assert [(row["source"], row["partition"], row["offset"]) for row in written] == sorted(
        (source, partition, offset) for (source, partition), bound in bounds.items() for offset in range(bound.end)
    )
    produced = [
        (row["key"], reframed(row["value"], ids), row["micros"] // 1000 * 1000) for row in rows_of(tmp_path / "in")
    ]
    produced += [(b"k", b"\0\x7f\xff\xff\xff?", 1_700_000_000_123_000), (None, None, 1_700_000_000_124_000)]
    assert Counter(produced) == Counter((row["key"], row["value"], row["micros"]) for row in written)
    noise, tombstone = (row for row in written if row["micros"] in (1_700_000_000_123_000, 1_700_000_000_124_000))
    assert noise["headers"] == [{"key": "a", "value": b"1"}, {"key": "a", "value": None}]
    assert tombstone["headers"] == []
    found = {schema_id for header in check_archives([str(tmp_path / "out")]) for schema_id, _ in header.schemas}
    assert found == set(ids.values())


@integration
def test_a_topic_made_anew_meanwhile_is_refused(
    stack: LocalStack, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    simulated(tmp_path / "in", rows=50, faults="", kinds=("trades",), files=1)
    names = produce(stack, tmp_path / "in", unique("anew"), register(stack))
    config = KafkaConfig(stack.bootstrap)
    cluster = Cluster(config)
    (topic,) = cluster.topics(names)
    old = Topic(topic.name, f"{topic.source}-old", topic.partitions)
    bounds: dict[tuple[str, int], Bounds] = {
        (old.source, partition): bound for (_, partition), bound in cluster.bounds([topic]).items()
    }
    with pytest.raises(K2BeamError, match="created again"):
        KafkaArchiver(config, str(tmp_path / "out")).run([old], bounds)
    assert list((tmp_path / "out").iterdir()) == []


@integration
def test_live_equals_replay(
    live: LocalStack, prism: Path, repository: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    topics = produce(live, repository / "samples" / "crypto", unique("replayed"), register(live))
    ingest_live(live, topics, tmp_path / "live", prism)
    stats = archive(live, topics, tmp_path / "out", "--rows-per-file", "700")
    replayed = ingest([tmp_path / "out"], tmp_path / "replay")
    assert sum(replayed.written.values()) + replayed.dead_letters == stats["messages"]
    this, other = (open_catalog(lake_config(tmp_path / name)) for name in ("live", "replay"))
    report = compare(this, other, NAMESPACE)
    assert report.same, report.to_dict()
    assert all(table.rows for table in report.tables if table.table != "reference_data_v2")
    rows = contents(tmp_path / "live")
    again = ingest([tmp_path / "out"], tmp_path / "live")
    assert (sum(again.written.values()), again.dead_letters) == (0, 0)
    assert contents(tmp_path / "live") == rows
    assert compare(this, other, NAMESPACE).same


@integration
@pytest.mark.parametrize("reader", list(Reader))
def test_schemas_named_in_headers_are_taken_live_and_from_an_archive(
    live: LocalStack, prism: Path, tmp_path: Path, unique: Callable[[str], str], reader: Reader
) -> None:
    """As Confluent's HeaderSchemaIdSerializer writes them. Apicurio knows no GUIDs, so the registry is a stand-in."""
    (topic,) = (made.topic for made in create_topics(live.bootstrap, [TopicSpec(unique("headers"))]))
    guid = uuid.uuid4()
    producer = Producer({"bootstrap.servers": live.bootstrap, "enable.idempotence": True})
    for number in range(3):
        headers: list[tuple[str, str | bytes | None]] = [(SCHEMA_HEADER, b"\1" + guid.bytes)]
        producer.produce(topic, encode_as("trade_v2", trade(number)), partition=0, headers=headers)
    assert producer.flush(30) == 0

    def answer(_method: str, path: str, _body: Any) -> tuple[int, Any]:
        known = f"/schemas/guids/{guid}" in path
        return (200, {"schema": schema_text("trade_v2")}) if known else (404, {"error_code": 40403, "message": "none"})

    with registry_server(answer) as (url, _):
        taken = ingest_live(live, [topic], tmp_path / "live", prism, reader, RegistryResolver(url))
        archive(live, [topic], tmp_path / "out", "--registry", url)
    assert (taken.written["trades_v2"], taken.dead_letters) == (3, 0)
    replayed = ingest([tmp_path / "out"], tmp_path / "replay")
    assert (replayed.written["trades_v2"], replayed.dead_letters) == (3, 0)
