"""MarketDataProducer and `topics create` against a real Kafka and Schema Registry."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from confluent_kafka import Consumer, Message
from typer.testing import CliRunner

from k2beam.cli import produce as produce_command
from k2beam.cli import topics as topics_command
from k2beam.codec.batches import BatchDecoder
from k2beam.codec.reference import ReferenceDecoder
from k2beam.errors import NotDelivered
from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.model import RAW_BATCH_SCHEMA, Kind, RawBatch
from k2beam.produce.producer import MarketDataProducer
from k2beam.registry.resolver import RegistryResolver
from k2beam.stack.stack import LocalStack
from k2beam.topics import topic_name
from tests.codec_samples import quote, reference, trade

pytestmark = pytest.mark.integration

Unique = Callable[[str], str]
DEADLINE_S = 60


def consumed(stack: LocalStack, topic: str, count: int) -> list[Message]:
    """The messages of a topic of one partition: ``count`` of them, and what comes within half a second after."""
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found: list[Message] = []
    end = time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < end:
            batch = consumer.consume(10_000, timeout=0.5)
            if not batch and len(found) >= count:
                break
            found += [message for message in batch if message.error() is None]
    finally:
        consumer.close()
    return found


def events(stack: LocalStack, topic: str, messages: list[Message]) -> list[dict[str, Any]]:
    """The messages as the pipeline decodes them, without provenance."""
    rows = [
        {"source": f"kafka:c/{topic}/i", "partition": 0, "offset": m.offset(), "value": m.value()} for m in messages
    ]
    batch = RawBatch(pa.RecordBatch.from_pylist(rows, schema=RAW_BATCH_SCHEMA))
    resolver = RegistryResolver(stack.registry_url)
    resolver.open()
    result = BatchDecoder(ReferenceDecoder(), lambda: 0, resolver.resolve).decode(batch)
    resolver.close()
    assert result.dead_letters == ()
    [decoded] = result.events
    return [
        {
            name: dict(value) if name == "vendor_data" and value else value
            for name, value in row.items()
            if name[0] != "_"
        }
        for row in decoded.data.to_pylist()
    ]


def make_topic(stack: LocalStack, kind: Kind, exchange: str) -> str:
    topic = topic_name("equities", kind, exchange)
    assert [result.state for result in create_topics(stack.bootstrap, [TopicSpec(topic)])] == ["created"]
    return topic


def producer(stack: LocalStack, spool: Path, **options: Any) -> MarketDataProducer:
    return MarketDataProducer(stack.bootstrap, stack.registry_url, spool=spool, register_schemas=True, **options)


def test_what_is_produced_is_what_the_pipeline_decodes(stack: LocalStack, unique: Unique, tmp_path: Path) -> None:
    exchange = unique("ASX")
    makers = (("trades", trade), ("quotes", quote), ("reference_data", reference))
    wanted = {
        make_topic(stack, kind, exchange): [make(i, exchange=exchange) for i in range(50)] for kind, make in makers
    }
    with producer(stack, tmp_path) as opened:
        for kind, make in makers:
            produce = getattr(opened, f"produce_{kind}".replace("trades", "trade").replace("quotes", "quote"))
            for number in range(50):
                produce(make(number, exchange=exchange))
    stats = opened.stats()
    assert (stats.delivered, stats.failed, stats.waiting, stats.spool) == (150, 0, 0, None)
    for topic, records in wanted.items():
        messages = consumed(stack, topic, 50)
        assert {message.key() for message in messages} == {f"{exchange}|BHP".encode()}
        assert events(stack, topic, messages) == records


def test_subjects_may_be_named_after_the_topic(stack: LocalStack, unique: Unique, tmp_path: Path) -> None:
    exchange = unique("ASX")
    topic = make_topic(stack, "trades", exchange)
    with producer(stack, tmp_path, subjects="topic") as opened:
        opened.produce_trade(trade(exchange=exchange))
    assert events(stack, topic, consumed(stack, topic, 1)) == [trade(exchange=exchange)]


def test_a_broker_that_comes_back_gets_every_message_once_and_in_order(
    stack: LocalStack, unique: Unique, tmp_path: Path
) -> None:
    exchange = unique("ASX")
    topic = make_topic(stack, "trades", exchange)
    with producer(stack, tmp_path) as opened:
        for number in range(2_000):
            opened.produce_trade(trade(number, exchange=exchange))
        stack.kill("kafka")
        for number in range(2_000, 4_000):
            opened.produce_trade(trade(number, exchange=exchange))
        stack.start("kafka")
    assert opened.stats().delivered == 4_000
    found = events(stack, topic, consumed(stack, topic, 4_000))
    assert [event["message_id"] for event in found] == [f"m-{number}" for number in range(4_000)]


def test_a_broker_that_stays_away_leaves_a_spool_that_can_be_sent_again(
    stack: LocalStack, unique: Unique, tmp_path: Path
) -> None:
    exchange = unique("ASX")
    topic = make_topic(stack, "trades", exchange)
    opened = producer(stack, tmp_path, delivery_timeout_s=2)
    opened.produce_trade(trade(0, exchange=exchange))
    opened.flush()
    stack.stop("kafka")
    try:
        for number in range(1, 101):
            opened.produce_trade(trade(number, exchange=exchange))
        with pytest.raises(NotDelivered, match="100 messages were not delivered") as raised:
            opened.close()
    finally:
        failed_at = time.time_ns() // 1_000_000
        stack.start("kafka")
    assert raised.value.spool is not None
    app = typer.Typer()
    produce_command.register(app)
    command = ["produce", "resend", str(raised.value.spool), "--bootstrap", stack.bootstrap, "--output", "json"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"delivered": 100, "failed": 0, "spool": None})
    assert list(tmp_path.iterdir()) == []
    messages = consumed(stack, topic, 101)
    found = events(stack, topic, messages)
    assert [event["message_id"] for event in found] == [f"m-{number}" for number in range(101)]
    # Sent later, and still with the times at which they were produced.
    assert all(message.timestamp()[1] < failed_at for message in messages)


def test_topics_are_made_once_and_it_is_said_what_exists(stack: LocalStack, unique: Unique) -> None:
    app = typer.Typer()
    topics_command.register(app)
    old, new = unique("a"), unique("b")

    def create(*arguments: str) -> list[dict[str, Any]]:
        command = ["topics", "create", *arguments, "--bootstrap", stack.bootstrap, "--output", "json"]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found

    [made] = create(old, "--partitions", "3", "--retention", "2h")
    assert (made["state"], made["partitions"], made["retention_ms"]) == ("created", 3, 7_200_000)
    again = {row["topic"]: row for row in create(old, new, "--partitions", "4", "--retention", "2h")}
    assert again[new]["state"] == "created"
    assert (again[old]["state"], again[old]["partitions"]) == ("exists", 3)
    assert again[old]["note"] == "partitions is 3, not 4"
    assert [row["note"] for row in create(old, "--partitions", "3", "--retention", "2h")] == [""]


def test_what_a_broker_refuses_fails_the_command(stack: LocalStack, unique: Unique) -> None:
    app = typer.Typer()
    topics_command.register(app)
    command = ["topics", "create", unique("a"), "--replication", "3", "--bootstrap", stack.bootstrap]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert "failed" in result.stdout
