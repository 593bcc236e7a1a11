"""MarketDataProducer and its delivery: nothing is lost, whatever the broker does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from k2beam.codec.frame import unframe
from k2beam.errors import InvalidRecord, KafkaFailed, NotDelivered, RegistryError, SpoolError, UsageError
from k2beam.kafka.topics import TopicSpec
from k2beam.metrics.handle import Metrics
from k2beam.produce.delivery import DeliveryConfig, resend
from k2beam.produce.producer import MarketDataProducer
from k2beam.produce.spool import OutgoingMessage, Spool, read_spool, spool_lock
from k2beam.registry.config import RegistryConfig
from k2beam.schemas import avro_schema
from k2beam.topics import parse_topic, topic_name
from tests.codec_samples import encode_event, quote, reference, trade
from tests.registry_server import NO_SUBJECT, Answer, FakeKafka, in_turn, knows_all, registry_server

TOPIC = "market.equities.trades.asx"
TIMED_OUT = KafkaError._MSG_TIMED_OUT


class Bench:
    """A producer with a registry that knows every schema and the fake of a broker."""

    def __init__(self, url: str, spool: Path) -> None:
        self.url, self.spool = url, spool
        self.counts = CollectorRegistry()
        self.kafka = FakeKafka({})
        self.producer = self.make()

    def make(self, **options: Any) -> MarketDataProducer:
        metrics = Metrics("producer", registry=self.counts, strict=True)
        return MarketDataProducer(
            "broker:9092", self.url, spool=self.spool, metrics=metrics, client=self.client, **options
        )

    def client(self, options: dict[str, Any], logger: Any = None) -> FakeKafka:
        self.kafka = FakeKafka(options, logger)
        return self.kafka

    def count(self, name: str, **labels: str) -> float:
        standard = {"service": "k2beam", "environment": "", "component": "producer"}
        return self.counts.get_sample_value(name, standard | labels) or 0.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with registry_server(knows_all) as (url, _):
        yield Bench(url, tmp_path / "spool")


def test_events_go_to_their_topics_with_key_and_framing(bench: Bench) -> None:
    with bench.producer as producer:
        producer.produce_trade(trade(1))
        producer.produce_quote(quote(1, exchange="Binance", asset_class="crypto", symbol="BTCUSDT"))
        producer.produce_reference_data(reference(1))
    sent = {message.topic(): message for message in bench.kafka.sent}
    assert {topic: message.key() for topic, message in sent.items()} == {
        TOPIC: b"ASX|BHP",
        "market.crypto.quotes.binance": b"Binance|BTCUSDT",
        "market.equities.reference_data.asx": b"ASX|BHP",
    }
    assert unframe(sent[TOPIC].value()) == (7, encode_event("trades", trade(1)))
    assert producer.stats().delivered == producer.stats().accepted == 3


def test_a_number_of_many_digits_goes_as_version_3(bench: Bench) -> None:
    record = trade(1, quantity=Decimal("18500000000"), price=Decimal("0.000012345"))
    with bench.producer as producer:
        producer.produce_trade(trade(0))
        producer.produce_trade(record)
    schema = fastavro.parse_schema(avro_schema("trade_v3"))
    first, second = (unframe(message.value())[1] for message in bench.kafka.sent)
    assert first == encode_event("trades", trade(0))
    assert fastavro.schemaless_reader(io.BytesIO(second), schema, None) == record


def test_without_version_3_in_the_registry_it_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    def knows_version_2(method: str, path: str, body: Any) -> Answer:
        return NO_SUBJECT if "TradeV3" in path else knows_all(method, path, body)

    with registry_server(knows_version_2) as (url, _):
        bench = Bench(url, tmp_path)
        with bench.producer as producer:
            with pytest.raises(
                InvalidRecord, match=r"trade_v2 holds: .* run k2beam schemas register trade_v3"
            ) as raised:
                producer.produce_trade(trade(1, quantity=Decimal("18500000000")))
            producer.produce_trade(trade(2))
    assert raised.value.field == "quantity"
    assert (producer.stats().rejected, producer.stats().delivered) == (1, 1)


def test_what_is_no_record_is_sent_as_it_came_and_never_looks_framed(bench: Bench) -> None:
    with bench.producer as producer:
        producer.produce_unreadable("trades", "crypto", "BINANCE", b'{"p": null}', "p is no number")
        producer.produce_unreadable("trades", "crypto", "BINANCE", b"\0\0\0\0\7x", "not JSON")
    assert [(sent.topic(), sent.value()) for sent in bench.kafka.sent] == [
        ("market.crypto.trades.binance", b'{"p": null}'),
        ("market.crypto.trades.binance", b"\\0\0\0\0\7x"),
    ]
    assert bench.kafka.sent[0].headers() == [("k2.problem", b"p is no number")]


def test_delivery_is_idempotent_and_can_not_be_weakened(bench: Bench) -> None:
    assert bench.kafka.options["enable.idempotence"] is True
    assert bench.kafka.options["acks"] == "all"
    assert bench.kafka.options["delivery.timeout.ms"] == 120_000
    assert bench.kafka.options["bootstrap.servers"] == "broker:9092"
    for option in ("acks", "enable.idempotence", "message.timeout.ms"):
        with pytest.raises(UsageError, match=option):
            bench.make(config={option: "0"})
    with pytest.raises(UsageError, match="delivery_timeout_s"):
        DeliveryConfig("broker:9092", delivery_timeout_s=0)


def test_secrets_are_read_from_where_the_options_say(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_PASSWORD", "hush")
    bench.make(config={"sasl.password": "${env:K2_PASSWORD}"})
    assert bench.kafka.options["sasl.password"] == "hush"


def test_an_invalid_record_is_refused_with_its_field_and_nothing_is_sent(bench: Bench) -> None:
    with bench.producer as producer:
        with pytest.raises(InvalidRecord, match="field price") as raised:
            producer.produce_trade(trade(price=1.5))
        assert raised.value.field == "price"
        with pytest.raises(InvalidRecord, match="field exchange") as raised:
            producer.produce_trade(trade(exchange="東京"))
        assert raised.value.field == "exchange"
    assert bench.kafka.sent == []
    assert (producer.stats().rejected, producer.stats().accepted) == (2, 0)


def test_a_full_queue_holds_back_and_loses_nothing(bench: Bench) -> None:
    bench.kafka.room = 3
    with bench.producer as producer:
        for number in range(20):
            producer.produce_trade(trade(number))
    keys = [unframe(message.value())[1] for message in bench.kafka.sent]
    assert keys == [encode_event("trades", trade(number)) for number in range(20)]
    assert producer.stats().full_queue == 17


def test_metrics_say_where_messages_went_and_why_not(bench: Bench) -> None:
    labels = {"exchange": "ASX", "asset_class": "equities", "topic": TOPIC}
    bench.producer.produce_trade(trade(1))
    bench.producer.flush()
    bench.kafka.fails = lambda _topic, _value: TIMED_OUT
    bench.producer.produce_trade(trade(2))
    with pytest.raises(NotDelivered):
        bench.producer.flush()
    assert bench.count("k2_kafka_messages_produced_total", **labels) == 1
    assert bench.count("k2_kafka_produce_errors_total", **labels, error_type="_MSG_TIMED_OUT") == 1


def test_what_is_not_delivered_is_told_once_and_kept(bench: Bench) -> None:
    bench.kafka.fails = lambda _topic, value: TIMED_OUT if b"m-2" in (value or b"") else None
    for number in range(4):
        bench.producer.produce_trade(trade(number))
    with pytest.raises(NotDelivered, match="1 messages were not delivered to broker:9092") as raised:
        bench.producer.flush()
    stats = bench.producer.stats()
    assert (stats.delivered, stats.failed, stats.spooled, stats.lost) == (3, 1, 1, 0)
    assert str(raised.value.spool) == stats.spool
    assert f"kept in {stats.spool}" in str(raised.value)
    bench.producer.close()
    [kept] = read_spool(Path(stats.spool or ""))
    assert (kept.topic, kept.key, unframe(kept.value)) == (TOPIC, b"ASX|BHP", (7, encode_event("trades", trade(2))))


def test_a_broker_that_is_gone_leaves_everything_in_the_spool(bench: Bench) -> None:
    bench.kafka.away = True
    for number in range(5):
        bench.producer.produce_trade(trade(number))
    with pytest.raises(NotDelivered, match="5 messages still wait"):
        bench.producer.flush(0)
    with pytest.raises(NotDelivered, match="5 messages were not delivered") as raised:
        bench.producer.close(0)
    assert raised.value.spool is not None
    kept = [unframe(message.value)[1] for message in read_spool(raised.value.spool)]
    assert kept == [encode_event("trades", trade(number)) for number in range(5)]
    bench.producer.close()


def refuse_login(kafka: FakeKafka) -> None:
    kafka.options["error_cb"](KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error"))


def test_a_login_that_never_worked_is_told_at_once_and_nothing_is_lost(bench: Bench) -> None:
    bench.kafka.away = True
    for number in range(5):
        bench.producer.produce_trade(trade(number))
    refuse_login(bench.kafka)
    with pytest.raises(
        KafkaFailed, match="broker:9092 rejected this producer's credentials or certificate: SASL authentication error"
    ):
        bench.producer.produce_trade(trade(5))
    with pytest.raises(NotDelivered, match=r"5 messages .* rejected this producer"):
        bench.producer.flush()
    stats = bench.producer.stats()
    assert (stats.accepted, stats.failed, stats.spooled, stats.waiting) == (5, 5, 5, 0)


def test_a_login_that_worked_before_is_tried_again(bench: Bench) -> None:
    bench.producer.produce_trade(trade(0))
    bench.producer.flush()
    refuse_login(bench.kafka)
    bench.producer.produce_trade(trade(1))
    bench.producer.close()
    assert bench.producer.stats().delivered == 2


def test_another_error_of_the_client_changes_nothing(bench: Bench) -> None:
    bench.kafka.options["error_cb"](KafkaError(KafkaError._TRANSPORT))
    with bench.producer as producer:
        producer.produce_trade(trade(0))
    assert producer.stats().delivered == 1


def test_a_topic_that_is_not_there_is_said_with_the_command_that_makes_it(bench: Bench) -> None:
    bench.kafka.fails = lambda _topic, _value: KafkaError.UNKNOWN_TOPIC_OR_PART
    bench.producer.produce_trade(trade())
    with pytest.raises(NotDelivered, match=f"k2beam topics create {TOPIC}"):
        bench.producer.close()


def test_a_spool_that_can_not_be_written_is_told_and_not_hidden(bench: Bench) -> None:
    bench.spool.write_text("a file, not a folder", encoding="utf-8")
    bench.kafka.fails = lambda _topic, _value: TIMED_OUT
    bench.producer.produce_trade(trade())
    with pytest.raises(NotDelivered, match="1 of them are lost"):
        bench.producer.close()
    assert bench.producer.stats().lost == 1


def test_a_message_that_the_client_refuses_is_an_error_at_once(bench: Bench) -> None:
    bench.kafka.refuses = KafkaError.MSG_SIZE_TOO_LARGE
    with pytest.raises(KafkaFailed, match=rf"topic {TOPIC}: a message of \d+ bytes was refused"):
        bench.producer.produce_trade(trade())
    assert bench.producer.stats().accepted == 0


def test_a_closed_producer_takes_nothing(bench: Bench) -> None:
    bench.producer.close()
    bench.producer.close()
    with pytest.raises(UsageError, match="closed"):
        bench.producer.produce_trade(trade())


def test_a_schema_that_is_not_registered_is_an_error_with_the_command(tmp_path: Path) -> None:
    with registry_server(in_turn(NO_SUBJECT)) as (url, _):
        bench = Bench(url, tmp_path)
        with pytest.raises(RegistryError, match="run k2beam schemas register trade_v2"):
            bench.producer.produce_trade(trade())
        by_topic = bench.make(subjects="topic")
        with pytest.raises(RegistryError, match=f"run k2beam schemas register --topic {TOPIC}"):
            by_topic.produce_trade(trade())
    with pytest.raises(UsageError, match="record or topic"):
        bench.make(subjects="other")  # type: ignore[arg-type]


def test_the_registry_is_asked_once_for_a_feed_and_not_for_each_record(tmp_path: Path) -> None:
    with registry_server(knows_all) as (url, asked):
        bench = Bench(url, tmp_path)
        with bench.make(register_schemas=True) as producer:
            for number in range(50):
                producer.produce_trade(trade(number))
        assert len(asked) <= 2
        assert {line.partition("?")[0] for line in asked} == {
            "POST /subjects/com.k2.marketdata.TradeV2/versions",
            "POST /subjects/com.k2.marketdata.TradeV2",
        }


def test_a_registry_configuration_may_be_given(bench: Bench) -> None:
    bench.url = RegistryConfig(bench.url, wait_s=1)  # type: ignore[assignment]
    with bench.make() as producer:
        producer.produce_trade(trade())
    assert len(bench.kafka.sent) == 1


def spooled(folder: Path, count: int) -> Path:
    spool = Spool(folder)
    for number in range(count):
        spool.add(OutgoingMessage("ticks", None, str(number).encode(), 1_700_000_000_000 + number), "E", "away")
    spool.close()
    assert spool.path is not None
    return spool.path


def client_of(kafka: list[FakeKafka], **state: Any) -> Callable[..., FakeKafka]:
    def make(options: dict[str, Any], logger: Any = None) -> FakeKafka:
        made = FakeKafka(options, logger)
        for name, value in state.items():
            setattr(made, name, value)
        kafka.append(made)
        return made

    return make


def test_a_spool_is_sent_again_and_removed(tmp_path: Path) -> None:
    path, kafka = spooled(tmp_path, 5), list[FakeKafka]()
    result = resend(path, "broker:9092", client=client_of(kafka, room=2))
    assert (result.delivered, result.failed, result.spool) == (5, 0, None)
    assert [message.value() for message in kafka[0].sent] == [b"0", b"1", b"2", b"3", b"4"]
    assert kafka[0].sent[0].timestamp()[1] == 1_700_000_000_000
    assert list(tmp_path.iterdir()) == []


def test_what_fails_again_is_in_a_new_spool(tmp_path: Path) -> None:
    path = spooled(tmp_path, 5)
    fails = lambda _topic, value: TIMED_OUT if value in (b"1", b"3") else None  # noqa: E731
    result = resend(path, "broker:9092", client=client_of([], fails=fails))
    assert (result.delivered, result.failed) == (3, 2)
    assert result.spool is not None
    assert [message.value for message in read_spool(result.spool)] == [b"1", b"3"]
    assert list(tmp_path.iterdir()) == [result.spool]


def test_what_the_client_refuses_again_is_kept_too(tmp_path: Path) -> None:
    path = spooled(tmp_path, 2)
    result = resend(path, "broker:9092", client=client_of([], refuses=KafkaError.MSG_SIZE_TOO_LARGE))
    assert (result.delivered, result.failed) == (0, 2)
    assert result.spool is not None
    assert len(list(read_spool(result.spool))) == 2


def test_a_damaged_spool_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    path, kafka = spooled(tmp_path, 3), list[FakeKafka]()
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SpoolError, match="line 3"):
        resend(path, "broker:9092", client=client_of(kafka))
    assert kafka == []
    assert path.exists()


def test_a_spool_in_use_is_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.add(OutgoingMessage("ticks", b"k", None), "E", "away")
    assert spool.path is not None
    with pytest.raises(UsageError, match="in use by a producer"):
        resend(spool.path, "broker:9092", client=client_of([]))
    spool.close()
    with spool_lock(spool.path), pytest.raises(UsageError, match="in use"), spool_lock(spool.path):
        pass
    with pytest.raises(UsageError, match="can't be opened"):
        resend(tmp_path / "none", "broker:9092", client=client_of([]))


@settings(max_examples=50, deadline=None)
@given(
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=10)), max_size=3),
    timestamp=st.none() | st.integers(0, 1 << 50),
)
def test_a_spool_keeps_every_byte(tmp_path_factory: pytest.TempPathFactory, **parts: Any) -> None:
    message = OutgoingMessage("ticks", parts["key"], parts["value"], parts["timestamp"], tuple(parts["headers"]))
    spool = Spool(tmp_path_factory.mktemp("spool"))
    spool.add(message, "E", "away\n\u2028")
    spool.close()
    assert spool.path is not None
    assert list(read_spool(spool.path)) == [message]
    assert json.loads(spool.path.read_text(encoding="utf-8"))["error"] == "away\n\u2028"


@pytest.mark.parametrize(
    ("exchange", "topic"),
    [
        ("BINANCE", "market.crypto.trades.binance"),
        ("NYSE Arca", "market.crypto.trades.nyse-arca"),
        ("A.B", "market.crypto.trades.a-b"),
    ],
)
def test_the_name_of_a_topic(exchange: str, topic: str) -> None:
    assert topic_name("crypto", "trades", exchange) == topic
    parsed = parse_topic(topic)
    assert parsed is not None
    assert (parsed.asset_class, parsed.kind) == ("crypto", "trades")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_the_name_of_a_topic_is_legal_or_refused(exchange: str) -> None:
    try:
        name = topic_name("crypto", "reference_data", exchange)
    except UsageError:
        return
    TopicSpec(name)
    parsed = parse_topic(name)
    assert parsed is not None
    assert topic_name(*parsed) == name


def test_names_that_kafka_does_not_take_are_refused() -> None:
    for name in ("", ".", "..", "a b", "a/b", "x" * 250, "ü"):
        with pytest.raises(UsageError, match="not a topic name"):
            TopicSpec(name)
    for options in ({"partitions": 0}, {"replication": 0}, {"retention_ms": -2}):
        with pytest.raises(UsageError, match="topic a"):
            TopicSpec("a", **options)
    assert parse_topic("market.crypto.ticks.binance") is None
    assert parse_topic("market.crypto.trades.BINANCE") is None
