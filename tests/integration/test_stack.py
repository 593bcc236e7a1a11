"""The real servers: what they promise to the pipeline, through the same code as ``k2beam stack``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from k2beam.stack.stack import LocalStack

pytestmark = pytest.mark.integration

READ = """
import sys
import apache_beam as beam
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

bootstrap, topic, expansion, count = sys.argv[1:5]
config = {"bootstrap.servers": bootstrap, "auto.offset.reset": "earliest"}
read = ReadFromKafka(config, [topic], max_num_records=int(count), with_metadata=True, expansion_service=expansion)
with beam.Pipeline(options=PipelineOptions(sys.argv[5:])) as pipeline:
    found = pipeline | read | beam.Map(lambda message: (message.offset, bytes(message.value)))
    assert_that(found, equal_to([(number, b"v%d" % number) for number in range(int(count))]))
"""


COMMAND = """
import typer
from k2beam.cli import stack
from k2beam.cli.guard import run_guarded

app = typer.Typer()
stack.register(app)
app.callback()(lambda: None)
run_guarded(app)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """All but Prism; one set of servers for this file, in a folder whose name is not plain."""
    state = tmp_path_factory.mktemp("stack") / "with a space and é"
    with LocalStack(state, services=("kafka", "registry", "expansion"), free_ports=True) as running:
        yield running


def lives(pid: int) -> bool:
    """Whether a process is there; one that has ended may still be listed until init takes note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def make_topic(stack: LocalStack, name: str) -> None:
    client = AdminClient({"bootstrap.servers": stack.bootstrap})
    client.create_topics([NewTopic(name, 1, 1)])[name].result(30)


def produce(stack: LocalStack, topic: str, values: list[bytes]) -> None:
    producer = Producer(
        {"bootstrap.servers": stack.bootstrap, "linger.ms": 5, "enable.idempotence": True, "message.max.bytes": 2 << 20}
    )
    for value in values:
        producer.produce(topic, value=value, key=b"k")
    assert producer.flush(30) == 0


def read(stack: LocalStack, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": stack.bootstrap, "group.id": f"read-{topic}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        return [message.value() or b"" for message in consumer.consume(count, 60) if message.error() is None]
    finally:
        consumer.close()


def ask(url: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers), timeout=30) as answer:
        return json.load(answer)


def test_everything_is_ready(stack: LocalStack) -> None:
    assert {each.name: each.state for each in stack.status()} == {
        "kafka": "ready",
        "registry": "ready",
        "expansion": "ready",
    }


def test_kafka_keeps_what_it_took_when_it_is_killed(stack: LocalStack) -> None:
    make_topic(stack, "kept")
    produce(stack, "kept", [b"a", b"b" * 1_500_000])
    bootstrap = stack.bootstrap
    stack.kill("kafka")
    stack.start("kafka")
    assert stack.bootstrap == bootstrap
    produce(stack, "kept", [b"c"])
    assert [value[:1] for value in read(stack, "kept", 3)] == [b"a", b"b", b"c"]


def test_kafka_makes_no_topic_by_itself(stack: LocalStack) -> None:
    client = AdminClient({"bootstrap.servers": stack.bootstrap})
    client.list_topics("misspelt", timeout=30)
    assert "misspelt" not in client.list_topics(timeout=30).topics
    with pytest.raises(KafkaException, match="UNKNOWN_TOPIC_OR_PART"):
        client.delete_topics(["misspelt"])["misspelt"].result(30)


def test_the_registry_keeps_its_schemas_when_it_is_killed(stack: LocalStack) -> None:
    subject = f"{stack.registry_url}/subjects/kept-value/versions"
    made = ask(subject, {"schema": '"string"'})
    stack.kill("registry")
    stack.start("registry")
    assert ask(f"{stack.registry_url}/subjects") == ["kept-value"]
    assert ask(subject, {"schema": '"string"'}) == made


@pytest.mark.parametrize("runner", ["FnApiRunner", "PrismRunner"])
def test_read_from_kafka_goes_through_the_expansion_service(
    stack: LocalStack, runner: str, request: pytest.FixtureRequest
) -> None:
    options = [f"--runner={runner}", "--environment_type=LOOPBACK"]
    if runner == "PrismRunner":
        options.append(f"--prism_location={request.getfixturevalue('prism')}")
    make_topic(stack, runner)
    produce(stack, runner, [b"v%d" % number for number in range(1000)])
    command = [sys.executable, "-c", READ, stack.bootstrap, runner, stack.expansion_address, "1000", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]


def test_the_servers_listen_on_this_machine_only(stack: LocalStack) -> None:
    for each in stack.status():
        if each.name == "expansion":  # Beam gives no choice
            continue
        for port in each.ports.values():
            with socket.socket() as other:  # another address of the loopback network, free unless all are taken
                other.bind(("127.0.0.2", port))


def test_the_commands_leave_no_process(tmp_path: Path, prism: Path) -> None:
    def k2beam(*arguments: str, code: int = 0) -> list[dict[str, object]]:
        command = [sys.executable, "-c", COMMAND, "stack", *arguments, "--state", str(tmp_path / "s")]
        environment = {**os.environ, "K2BEAM_PRISM": str(prism)}
        done = subprocess.run(
            [*command, "-o", "json"], capture_output=True, text=True, check=False, timeout=240, env=environment
        )
        assert done.returncode == code, done.stderr
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    started = k2beam("up", "kafka", "prism", "--free-ports")
    try:
        assert [each["state"] for each in started] == ["ready", "ready"]
        assert k2beam("status") == started
        assert k2beam("up", "kafka", "prism", "--free-ports") == started
    finally:
        ended = k2beam("down")
    assert sorted(str(each["name"]) for each in ended) == ["kafka", "prism"]
    assert not [each["name"] for each in started if lives(int(str(each["pid"])))]
    assert (tmp_path / "s" / "kafka" / "data" / ".kafka_cleanshutdown").is_file(), "Kafka was asked, not killed"
    assert [each["state"] for each in k2beam("status", code=1)] == ["stopped", "stopped"]
    assert k2beam("down") == []
