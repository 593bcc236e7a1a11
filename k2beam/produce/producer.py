"""MarketDataProducer: events to Kafka, checked, in Avro by the Schema Registry, one topic for each feed.

Delivery is that of :mod:`k2beam.produce.delivery`: idempotent, in order for each exchange and symbol (the key is
``exchange|symbol``), kept in a spool file where the broker does not take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from confluent_kafka import Producer
from confluent_kafka.schema_registry import record_subject_name_strategy, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from k2beam.errors import InvalidRecord, RegistryError, UsageError
from k2beam.metrics.handle import Metrics
from k2beam.model import Kind
from k2beam.produce.delivery import DELIVERY_TIMEOUT_S, ClientFactory, Delivery, DeliveryConfig
from k2beam.produce.records import checked, wide_field
from k2beam.produce.spool import OutgoingMessage
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.subjects import schema_text
from k2beam.schemas import avro_schema, full_name, latest_name, v2_name
from k2beam.topics import topic_name

Subjects = Literal["record", "topic"]
"""How subjects are named: after the record (com.k2.marketdata.TradeV2), or after the topic (<topic>-value)."""

_STRATEGIES: dict[str, Any] = {"record": record_subject_name_strategy, "topic": topic_subject_name_strategy}


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """Counts since the start: ``accepted`` = ``delivered`` + ``failed`` + ``waiting``.

    ``rejected``: records that were refused as invalid. ``spooled``: failed messages in the file ``spool``; ``lost``:
    failed ones that it could not keep. ``full_queue``: how often a call waited for room in the queue.
    """

    accepted: int
    delivered: int
    failed: int
    waiting: int
    rejected: int
    spooled: int
    lost: int
    full_queue: int
    spool: str | None


Serialise = Callable[[dict[str, Any], SerializationContext], bytes]


class _NotRegistered(RegistryError):
    """A schema is not in its subject."""


class _Route(NamedTuple):
    topic: str
    serialise: Serialise
    context: SerializationContext


class MarketDataProducer:
    """Produces trades, quotes and reference data. A context manager; used by one thread; not picklable.

    ``registry``: its URL, or a RegistryConfig with credentials by reference. ``config``: further options of
    librdkafka, secrets by reference. ``spool``: folder for what can't be delivered. ``register_schemas``: register a
    schema that is not there; without it a missing one is an error, as schemas are reviewed before they are in use.

    Counts ``k2_kafka_messages_produced_total`` and ``k2_kafka_produce_errors_total``.

    Delivery: each message that was taken is acknowledged by all in-sync replicas, in the spool, or told as lost. It is
    there once and in order for each exchange and symbol, but for what is sent again out of the spool (at least once).
    Topics are named by :func:`k2beam.topics.topic_name`, and are not made here.

    Raises UsageError for options that would break that, and for a secret that is not there.

    Examples:
        >>> from datetime import UTC, datetime
        >>> from decimal import Decimal
        >>> from k2beam import MarketDataProducer
        >>> now = datetime.now(UTC)
        >>> trade = {"message_id": "m-1", "trade_id": "t-1", "timestamp": now, "ingestion_timestamp": now}
        >>> trade |= {"exchange": "EXAMPLE", "symbol": "BTCUSDT", "asset_class": "crypto", "currency": "USDT"}
        >>> trade |= {"side": "BUY", "price": Decimal("93120.43"), "quantity": Decimal("0.5")}
        >>> with MarketDataProducer(bootstrap, registry) as producer:
        ...     producer.produce_trade(trade)
        >>> producer.stats().delivered
        1
    """

    def __init__(
        self,
        bootstrap: str,
        registry: str | RegistryConfig,
        *,
        config: Mapping[str, str] | None = None,
        spool: Path | str = "spool",
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        subjects: Subjects = "record",
        register_schemas: bool = False,
        metrics: Metrics | None = None,
        client: ClientFactory = Producer,
    ) -> None:
        if subjects not in _STRATEGIES:
            raise UsageError(f"subjects is record or topic, not {subjects!r}")
        settings = DeliveryConfig(bootstrap, tuple((config or {}).items()), Path(spool), delivery_timeout_s)
        self._registry = Registry(registry if isinstance(registry, RegistryConfig) else RegistryConfig(registry))
        self._subjects = subjects
        self._register_schemas = register_schemas
        self._routes: dict[tuple[str, str, str], _Route] = {}  # by asset class, exchange and name of the schema
        self._labels: dict[str, tuple[str, str]] = {}
        self._delivery = Delivery(settings, metrics or Metrics("producer"), self._labels, client)
        self._rejected = 0
        self._closed = False

    def produce_trade(self, record: Mapping[str, Any]) -> None:
        """Send one trade, a record of trade_v2; as trade_v3 where a number has more digits than trade_v2 holds.

        Times are datetimes (naive means UTC) or microseconds since 1970, prices and quantities Decimals or ints.
        Blocks while the queue is full. Raises InvalidRecord (``field`` names what is wrong), RegistryError for a schema
        that is not registered, RegistryUnavailable, KafkaFailed for a message that is refused at once, UsageError for
        a producer that is closed. What raises was not sent.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> with MarketDataProducer(bootstrap, registry) as producer:
            ...     producer.produce_trade(trade)
            ...     producer.produce_trade({**trade, "price": 93120.43})
            Traceback (most recent call last):
            ...
            k2beam.errors.InvalidRecord: trades: field price must be a Decimal (a float has lost digits), not 93120.43
            >>> producer.stats().delivered, producer.stats().rejected
            (1, 1)
        """
        self._produce("trades", record)

    def produce_quote(self, record: Mapping[str, Any]) -> None:
        """Send one quote, a record of quote_v2; everything as for :meth:`produce_trade`.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> with MarketDataProducer(bootstrap, registry) as producer:
            ...     producer.produce_quote(quote)
            >>> producer.stats().delivered
            1
        """
        self._produce("quotes", record)

    def produce_reference_data(self, record: Mapping[str, Any]) -> None:
        """Send one company's reference data, a record of reference_data_v2; everything as for :meth:`produce_trade`.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> with MarketDataProducer(bootstrap, registry) as producer:
            ...     producer.produce_reference_data(company)
            >>> producer.stats().delivered
            1
        """
        self._produce("reference_data", record)

    def produce_unreadable(self, kind: Kind, asset_class: str, exchange: str, message: bytes, problem: str) -> None:
        """Send what a feed could not make a record of, as it came, to the topic that the record would be in.

        It has no frame, so that the pipeline keeps it as a dead letter (``bad_magic``); the header ``k2.problem`` says
        what is wrong. Raises what :meth:`produce_trade` does of the topic and of Kafka.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> with MarketDataProducer(bootstrap, registry) as producer:
            ...     producer.produce_unreadable("trades", "crypto", "EXAMPLE", b'{"p": null}', "p is no number")
            >>> producer.stats().delivered
            1
        """
        if self._closed:
            raise UsageError("the producer is closed; make a new one")
        topic = self._topic(kind, asset_class, exchange)
        # A frame begins with a zero byte.
        value = message.replace(b"\0", b"\\0", 1) if message.startswith(b"\0") else message
        self._delivery.send(OutgoingMessage(topic, None, value, headers=(("k2.problem", problem.encode()),)))

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every message is acknowledged or has failed, at most ``delivery_timeout_s`` by default.

        Raises NotDelivered, which names the spool file, for what failed since the last call, and for what still
        waits after ``timeout_s``.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> with MarketDataProducer(bootstrap, registry) as producer:
            ...     producer.produce_trade(trade)
            ...     producer.flush()
            ...     producer.stats().delivered, producer.stats().waiting
            (1, 0)
        """
        self._delivery.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Flush, keep what is not delivered by then in the spool, and close. Again: does nothing.

        Raises NotDelivered as :meth:`flush` does.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> producer = MarketDataProducer(bootstrap, registry)
            >>> producer.close()
            >>> producer.produce_trade(trade)
            Traceback (most recent call last):
            ...
            k2beam.errors.UsageError: the producer is closed; make a new one
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._delivery.close(timeout_s)
        finally:
            self._registry.close()

    def stats(self) -> ProducerStats:
        """The counts so far.

        Examples:
            >>> from k2beam import MarketDataProducer
            >>> with MarketDataProducer(bootstrap, registry) as producer:
            ...     for number in range(3):
            ...         producer.produce_trade({**trade, "message_id": f"m-{number}"})
            >>> stats = producer.stats()
            >>> stats.accepted, stats.delivered, stats.failed, stats.spool
            (3, 3, 0, None)
        """
        delivery = self._delivery
        return ProducerStats(
            accepted=delivery.sent,
            delivered=delivery.delivered,
            failed=delivery.failed,
            waiting=delivery.waiting,
            rejected=self._rejected,
            spooled=delivery.spooled,
            lost=delivery.lost,
            full_queue=delivery.full_queue,
            spool=None if delivery.spool_path is None else str(delivery.spool_path),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _produce(self, kind: Kind, record: Mapping[str, Any]) -> None:
        """Check, encode and send one record."""
        if self._closed:
            raise UsageError("the producer is closed; make a new one")
        try:
            fields = checked(kind, record)
            route = self._route(kind, fields)
        except InvalidRecord:
            self._rejected += 1
            raise
        key = f"{fields['exchange']}|{fields['symbol']}".encode()
        self._delivery.send(OutgoingMessage(route.topic, key, route.serialise(fields, route.context)))

    def _route(self, kind: Kind, fields: Mapping[str, Any]) -> _Route:
        asset_class, exchange, wide = fields["asset_class"], fields["exchange"], wide_field(kind, fields)
        name = v2_name(kind) if wide is None else latest_name(kind)
        route = self._routes.get((asset_class, exchange, name))
        if route is None:
            topic = self._topic(kind, asset_class, exchange)
            try:
                serialise = self._serialiser(name, topic)
            except _NotRegistered as error:
                if wide is None:
                    raise
                problem = f"{kind}: field {wide} has more digits than {v2_name(kind)} holds: {error}"
                raise InvalidRecord(wide, problem) from None
            route = _Route(topic, serialise, SerializationContext(topic, MessageField.VALUE))
            self._routes[(asset_class, exchange, name)] = route
        return route

    def _topic(self, kind: Kind, asset_class: str, exchange: str) -> str:
        try:
            topic = topic_name(asset_class, kind, exchange)
        except UsageError as error:
            raise InvalidRecord("exchange", f"{kind}: field exchange: {error}") from None
        # Two spellings of an exchange share a topic; the first one labels it.
        self._labels.setdefault(topic, (exchange, asset_class))
        return topic

    def _serialiser(self, name: str, topic: str) -> Serialise:
        """The serialiser of a schema in a topic, whose id is known from here on: no record waits for the registry."""
        text = schema_text(name)
        subject = f"{topic}-value" if self._subjects == "topic" else full_name(avro_schema(name)) or name
        if self._register_schemas:
            self._registry.register(subject, text)
        if self._registry.find(subject, text) is None:
            hint = f" --topic {topic}={name}" if self._subjects == "topic" else f" {name}"
            raise _NotRegistered(
                f"the schema {name} is not in the subject {subject} of the Schema Registry"
                f" {self._registry.config.url}; run k2beam schemas register{hint}"
            )
        options = {"auto.register.schemas": False, "subject.name.strategy": _STRATEGIES[self._subjects]}
        serialise: Serialise = AvroSerializer(self._registry.client, text, conf=options)
        return serialise
