"""Delivery: what is kept of a failed message, what is said of it, and how results are counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError
from prometheus_client import CollectorRegistry

from k2beam.errors import KafkaFailed, NotDelivered
from k2beam.metrics.handle import Metrics
from k2beam.produce.delivery import Delivery, DeliveryConfig, resend
from k2beam.produce.spool import Headers, OutgoingMessage, Spool, read_spool
from tests.metrics_recorder import Samples
from tests.registry_server import FakeKafka

TRADES, QUOTES = "market.crypto.trades.binance", "market.equities.quotes.asx"
LABELS = {TRADES: ("BINANCE", "crypto"), QUOTES: ("ASX", "equities")}
TIMED_OUT = KafkaError._MSG_TIMED_OUT
HEADERS: Headers = (("source", b"a"), ("nothing", None), ("source", b"b"))


class Opened:
    """A Delivery over the fake of a broker, and what it counts."""

    def __init__(self, spool: Path) -> None:
        registry = CollectorRegistry()
        self.samples = Samples("producer", registry)
        metrics = Metrics("producer", registry=registry, strict=True)
        self.delivery = Delivery(DeliveryConfig("broker:9092", spool=spool), metrics, LABELS, self._client)

    def _client(self, options: dict[str, Any], logger: Any = None) -> FakeKafka:
        self.kafka = FakeKafka(options, logger)
        return self.kafka

    def fails(self, code: int | None) -> None:
        self.kafka.fails = lambda _topic, _value: code


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    return Opened(tmp_path / "spool")


def produced(topic: str) -> str:
    exchange, asset_class = LABELS[topic]
    return f"k2_kafka_messages_produced_total{{asset_class={asset_class},exchange={exchange},topic={topic}}}"


def errors(topic: str, error_type: str) -> str:
    exchange, asset_class = LABELS[topic]
    labels = f"asset_class={asset_class},error_type={error_type},exchange={exchange},topic={topic}"
    return f"k2_kafka_produce_errors_total{{{labels}}}"


def close(delivery: Delivery) -> list[OutgoingMessage]:
    """Close a delivery of which something failed; what the spool has."""
    with pytest.raises(NotDelivered) as raised:
        delivery.close(5)
    assert raised.value.spool is not None
    return list(read_spool(raised.value.spool))


def test_a_real_client_that_reaches_no_broker_leaves_headers_and_time_in_the_spool(tmp_path: Path) -> None:
    """librdkafka's report of a failed message has neither."""
    config = DeliveryConfig("127.0.0.1:1", (("log_level", "0"),), tmp_path, delivery_timeout_s=0.1)
    delivery = Delivery(config)
    old = OutgoingMessage("ticks", b"k", b"v", 1_500_000_000_123, HEADERS)
    before = time.time_ns() // 1_000_000
    delivery.send(old)
    delivery.send(OutgoingMessage("ticks", None, None))
    after = time.time_ns() // 1_000_000
    kept, stamped = close(delivery)
    assert kept == old
    assert (stamped.key, stamped.value, stamped.headers) == (None, None, ())
    assert stamped.timestamp is not None
    assert before <= stamped.timestamp <= after


def test_a_real_client_that_is_closed_early_keeps_what_waits_whole(tmp_path: Path) -> None:
    config = DeliveryConfig("127.0.0.1:1", (("log_level", "0"),), tmp_path)
    delivery, message = Delivery(config), OutgoingMessage("ticks", b"k", b"v", 1_500_000_000_123, HEADERS)
    delivery.send(message)
    with pytest.raises(NotDelivered) as raised:
        delivery.close(0)
    assert raised.value.spool is not None
    assert list(read_spool(raised.value.spool)) == [message]


def test_a_message_has_the_time_of_its_sending_in_the_topic_as_in_the_spool(opened: Opened, tmp_path: Path) -> None:
    opened.fails(TIMED_OUT)
    opened.delivery.send(OutgoingMessage(TRADES, b"k", b"v", None, HEADERS))
    [kept] = close(opened.delivery)
    kafka: list[FakeKafka] = []
    assert opened.delivery.spool_path is not None
    resend(opened.delivery.spool_path, "broker:9092", client=clients(kafka))
    [sent] = kafka[0].sent
    assert (sent.timestamp(), sent.headers()) == ((1, kept.timestamp), list(HEADERS))


def clients(made: list[FakeKafka], code: int | None = None) -> Callable[..., FakeKafka]:
    """Makes fakes that fail with ``code`` what has the value b"bad"."""

    def make(options: dict[str, Any], logger: Any = None) -> FakeKafka:
        kafka = FakeKafka(options, logger)
        kafka.fails = lambda _topic, value: code if value == b"bad" else None
        made.append(kafka)
        return kafka

    return make


def test_failures_are_logged_for_each_topic_first_and_then_at_powers_of_ten(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    opened.fails(TIMED_OUT)
    with caplog.at_level(logging.WARNING, "k2beam"):
        for _ in range(100):
            opened.delivery.send(OutgoingMessage(TRADES, b"k", b"v"))
        opened.delivery.send(OutgoingMessage(QUOTES, b"k", b"v"))
        assert caplog.records == []
        # A poll is enough: a feed that never ends is not flushed.
        while opened.delivery.waiting:
            opened.kafka.poll(1)
    told = [record.args[:2] for record in caplog.records if isinstance(record.args, tuple)]
    assert told == [(TRADES, 1), (TRADES, 10), (TRADES, 100), (QUOTES, 1)]
    said = caplog.records[0].getMessage()
    spool = opened.delivery.spool_path
    assert f"topic {TRADES}: message 1 that was not delivered to broker:9092: " in said
    assert KafkaError(TIMED_OUT).str() in said
    assert f"kept in {spool}; " in said
    assert f"k2beam produce resend {spool} --bootstrap broker:9092" in said


def test_a_spool_that_fails_is_logged_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = tmp_path / "file"
    spool.write_text("no folder", encoding="utf-8")
    opened = Opened(spool)
    opened.fails(TIMED_OUT)
    opened.delivery.send(OutgoingMessage(TRADES, b"k", b"v"))
    with pytest.raises(NotDelivered, match="1 of them are lost"):
        opened.delivery.flush()
    [record] = caplog.records
    assert f"and the spool {spool} failed" in record.getMessage()
    assert record.getMessage().endswith("nothing could be kept")


def test_what_a_refused_login_purges_says_why(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    opened.kafka.away = True
    opened.delivery.send(OutgoingMessage(TRADES, b"k", b"v"))
    opened.kafka.options["error_cb"](KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    with pytest.raises(KafkaFailed, match="wrong password"):
        opened.delivery.send(OutgoingMessage(TRADES, b"k", b"w"))
    assert [message.value for message in close(opened.delivery)] == [b"v"]
    assert "rejected this producer's credentials or certificate: wrong password" in caplog.records[0].getMessage()
    assert opened.samples.changed() == {errors(TRADES, "_AUTHENTICATION"): 1, errors(TRADES, "_PURGE_QUEUE"): 1}


def test_a_poll_is_counted_by_one_call_for_each_topic_and_result(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[float, str]] = []
    monkeypatch.setattr(Metrics, "increment", lambda _self, _name, value=1, **labels: calls.append((value, labels)))
    for number in range(30):
        opened.delivery.send(OutgoingMessage(TRADES if number % 3 else QUOTES, b"k", b"v"))
    assert calls == []
    opened.delivery.flush()
    assert sorted(value for value, _ in calls) == [10, 20]
    opened.delivery.flush()
    assert len(calls) == 2


def test_every_result_is_counted_once(opened: Opened) -> None:
    opened.delivery.send(OutgoingMessage(TRADES, b"k", b"v"))
    opened.delivery.flush()
    assert opened.samples.changed() == {produced(TRADES): 1}
    opened.fails(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    for _ in range(3):
        opened.delivery.send(OutgoingMessage(QUOTES, b"k", b"v"))
    opened.kafka.refuses = KafkaError.MSG_SIZE_TOO_LARGE
    with pytest.raises(KafkaFailed):
        opened.delivery.send(OutgoingMessage(TRADES, b"k", b"v"))
    opened.kafka.refuses = None
    close(opened.delivery)
    assert opened.samples.changed() == {
        errors(QUOTES, "TOPIC_AUTHORIZATION_FAILED"): 3,
        errors(TRADES, "MSG_SIZE_TOO_LARGE"): 1,
    }


@pytest.mark.parametrize(
    ("topic", "key", "labels"),
    [
        (TRADES, b"BINANCE|BTCUSDT", ("BINANCE", "crypto")),
        ("market.crypto.trades.nyse-arca", b"NYSE Arca|A", ("NYSE Arca", "crypto")),
        (TRADES, b"another|BTCUSDT", ("binance", "crypto")),
        (TRADES, None, ("binance", "crypto")),
        (TRADES, b"\xff|x", ("binance", "crypto")),
        ("ticks", b"ASX|BHP", ("unknown", "unknown")),
    ],
)
def test_what_is_sent_again_is_counted_as_its_producer_did(
    tmp_path: Path, topic: str, key: bytes | None, labels: tuple[str, str]
) -> None:
    spool, registry = Spool(tmp_path), CollectorRegistry()
    for value in (b"good", b"bad", b"good"):
        spool.add(OutgoingMessage(topic, key, value), "E", "away")
    spool.close()
    assert spool.path is not None
    samples = Samples("resend", registry)
    metrics = Metrics("resend", registry=registry, strict=True)
    done = resend(spool.path, "broker:9092", client=clients([], TIMED_OUT), metrics=metrics)
    assert (done.delivered, done.failed) == (2, 1)
    named = f"exchange={labels[0]},topic={topic}"
    assert samples.changed() == {
        f"k2_kafka_messages_produced_total{{asset_class={labels[1]},{named}}}": 2,
        f"k2_kafka_produce_errors_total{{asset_class={labels[1]},error_type=_MSG_TIMED_OUT,{named}}}": 1,
    }
