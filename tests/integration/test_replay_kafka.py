"""`k2beam replay` to a real Kafka: messages byte for byte, events that decode to what they were; stopped, resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.produce.recorded import RecordedArchive
from k2beam.stack.stack import LocalStack
from k2beam.topics import topic_name
from tests.integration.killing import started
from tests.integration.test_producer import consumed, events
from tests.query_fixtures import append_events, make_catalog, trade
from tests.replay_helpers import simulated

pytestmark = pytest.mark.integration


def test_messages_of_an_archive_come_byte_for_byte_in_the_order_of_time(
    stack: LocalStack, unique: Callable[[str], str], repository: Path, tmp_path: Path
) -> None:
    simulated(tmp_path / "in", 3_000, "late=10,malformed=18", kinds=("trades",), files=2)
    containers = [str(path) for path in sorted((tmp_path / "in").glob("*.avro"))]
    topic = unique("replayed")
    assert [one.state for one in create_topics(stack.bootstrap, [TopicSpec(topic)])] == ["created"]
    words = [
        "--output",
        "json",
        "--to",
        "kafka",
        "--topic",
        topic,
        "--bootstrap",
        stack.bootstrap,
        "--spool",
        str(tmp_path / "spool"),
    ]
    done = started(repository, "replay", *containers, *words)
    said, told = done.communicate(timeout=120)
    assert done.returncode == 0, told
    assert json.loads(said)["events"] == 3_000
    wanted = [one.message for one in RecordedArchive(containers).read()]
    found = consumed(stack, topic, 3_000)
    assert [(one.key(), one.value()) for one in found] == [(one.key, one.value) for one in wanted if one is not None]


def test_a_replay_at_its_speed_is_stopped_and_goes_on(
    stack: LocalStack, unique: Callable[[str], str], repository: Path, tmp_path: Path
) -> None:
    """At 1x for some seconds, ended by a signal, and the rest at full speed: each event once, none left out."""
    exchange = unique("x").upper()
    topic = topic_name("crypto", "trades", exchange)
    assert [one.state for one in create_topics(stack.bootstrap, [TopicSpec(topic)])] == ["created"]
    rows = [trade(offset, offset / 100, exchange=exchange) for offset in range(1_000)]
    append_events(make_catalog(tmp_path / "wh"), "trades", rows)
    register = [sys.executable, "-m", "k2beam.cli.main", "schemas", "register", "--registry", stack.registry_url]
    subprocess.run(register, cwd=repository, check=True, capture_output=True)
    words = ["--output", "json", "--to", "kafka", "--bootstrap", stack.bootstrap, "--registry", stack.registry_url]
    words += ["--warehouse", str(tmp_path / "wh"), "--checkpoint", str(tmp_path / "position")]
    words += ["--spool", str(tmp_path / "spool")]

    slow = started(repository, "replay", *words, "--speed", "1x")
    end = time.monotonic() + 60
    while not (tmp_path / "position").exists() and time.monotonic() < end:
        time.sleep(0.05)
    slow.send_signal(signal.SIGTERM)
    said, told = slow.communicate(timeout=60)
    assert slow.returncode == 0, told
    first = json.loads(said)
    assert first["stopped"]
    assert 0 < first["events"] < 1_000
    assert first["late_ms"]["p50"] < 1_000

    rest = started(repository, "replay", *words)
    said, told = rest.communicate(timeout=60)
    assert rest.returncode == 0, told
    assert json.loads(said)["events"] == 1_000 - first["events"]
    assert not (tmp_path / "position").exists()
    found = events(stack, topic, consumed(stack, topic, 1_000))
    assert [row["source_sequence"] for row in found] == list(range(1_000))
    assert [row["price"] for row in found] == [row["price"] for row in rows]
