"""Messages to a broker: idempotent, with backpressure, and kept in a spool file where the broker did not take them.

Guarantee: each message that :meth:`Delivery.send` took is acknowledged by all in-sync replicas, in the spool, or
told as lost (the spool's disk was full too). In order and once within the life of one object; a message that was
sent but whose acknowledgement never came may be in the topic and in the spool (at least once).
"""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from k2beam.errors import KafkaFailed, NotDelivered, UsageError
from k2beam.metrics.handle import Metrics, NullMetrics
from k2beam.produce.spool import OutgoingMessage, Spool, read_spool, spool_lock
from k2beam.references import client_config
from k2beam.topics import parse_topic, topic_name

_log = logging.getLogger(__name__)

DELIVERY_TIMEOUT_S = 120.0
QUEUE_MESSAGES = 100_000

_POLL_S = 0.1
_GRACE_S = 10.0
_OURS = frozenset(
    {
        "acks",
        "bootstrap.servers",
        "delivery.timeout.ms",
        "enable.idempotence",
        "message.timeout.ms",
        "request.required.acks",
    }
)

_NO_TOPIC = frozenset({"_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART"})

ClientFactory = Callable[..., Any]
"""Makes a confluent_kafka.Producer of its options; tests give another."""

Labels = Mapping[str, tuple[str, str]]
"""Exchange and asset class of each topic, as metrics show them."""

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """Where messages go, and how long a broker is waited for.

    ``config``: further options of librdkafka, secrets by reference (``${env:NAME}``, ``${file:PATH}``).
    ``delivery_timeout_s``: how long one message may take from :meth:`Delivery.send` on, retries included; then it goes
    to a file in ``spool``.
    Raises UsageError for an option that would break the guarantee.
    """

    bootstrap: str
    config: tuple[tuple[str, str], ...] = ()
    spool: Path = Path("spool")
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S

    def __post_init__(self) -> None:
        if taken := sorted(_OURS.intersection(name for name, _ in self.config)):
            raise UsageError(f"the producer sets {', '.join(taken)} itself: delivery depends on it; leave it out")
        if self.delivery_timeout_s <= 0:
            raise UsageError(f"delivery_timeout_s must be above 0, not {self.delivery_timeout_s:g}")

    def client_options(self) -> dict[str, Any]:
        """Options for librdkafka, with secrets read now."""
        return {
            "linger.ms": 5,
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            # As Java's clients do it, so that a key has one partition whoever produces.
            "partitioner": "murmur2_random",
            **client_config(dict(self.config)),
            "bootstrap.servers": self.bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": int(self.delivery_timeout_s * 1000),
        }


class Delivery:
    """Sends messages to a broker, as the module says. Not picklable; used by one thread.

    Counts ``k2_kafka_messages_produced_total`` and ``k2_kafka_produce_errors_total``, where ``labels`` has a topic with
    its exchange and asset class. A topic's first failure is logged, and then each power of ten.
    """

    def __init__(
        self,
        config: DeliveryConfig,
        metrics: Metrics | None = None,
        labels: Labels | None = None,
        client: ClientFactory = Producer,
    ) -> None:
        self._config = config
        self._metrics = NullMetrics() if metrics is None else metrics
        self._labels = {} if labels is None else labels
        self._spool = Spool(config.spool)
        try:
            options = config.client_options() | {"error_cb": self._on_error}
            self._client = client(options, logger=logging.getLogger("k2beam.kafka"))
        except (KafkaException, ValueError) as error:
            raise UsageError(f"the Kafka client does not take these options: {error}") from error
        self.sent = self.delivered = self.failed = self.lost = self.full_queue = 0
        self._told = 0
        self._failures: Counter[str] = Counter()
        self._results: Counter[tuple[str, str | None]] = Counter()
        self._first_error = self._login_error = ""

    @property
    def spooled(self) -> int:
        """Messages in the spool file."""
        return self._spool.count

    @property
    def spool_path(self) -> Path | None:
        """The spool file; None where everything was delivered so far."""
        return self._spool.path

    @property
    def waiting(self) -> int:
        """Messages that were sent and have neither been acknowledged nor failed."""
        return len(self._client)

    def send(self, message: OutgoingMessage) -> None:
        """Hand one message over; blocks while the queue is full, at most until its messages time out.

        Raises KafkaFailed for a message that is refused at once (too large, say), and for all where the broker refuses
        the login: then it was not taken.
        """
        if self._login_error:
            self._count(message.topic, "_AUTHENTICATION")
            raise KafkaFailed(self._login_error)
        if message.timestamp is None:
            message = replace(message, timestamp=time.time_ns() // 1_000_000)
        # The report of a failed message has neither its headers nor its time, so the callback holds our own.
        on_delivery = partial(self._on_delivery, message)
        while True:
            try:
                self._client.produce(
                    message.topic,
                    value=message.value,
                    key=message.key,
                    headers=list(message.headers) or None,
                    timestamp=message.timestamp,
                    on_delivery=on_delivery,
                )
                break
            except BufferError:
                self.full_queue += 1
                self._poll(_POLL_S)
            except KafkaException as error:
                raise self._refused(message, error.args[0]) from error
        self.sent += 1
        self._poll(0)

    def keep(self, message: OutgoingMessage, error_type: str, error: str) -> None:
        """Put a message into the spool as one that was not delivered."""
        self.failed += 1
        if error_type in _NO_TOPIC:
            error = f"{error} (make it with k2beam topics create {message.topic})"
        self._first_error = self._first_error or f"{message.topic}: {error}"
        try:
            self._spool.add(message, error_type, error)
        except OSError as problem:
            # Raised from here it would come out of an unrelated send; flush and close tell it.
            self.lost += 1
            error = f"{error}, and the spool {self._config.spool} failed: {problem}"
            self._first_error = f"{message.topic}: {error}"
        self._warn(message.topic, error)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every message is acknowledged or has failed, by default to the end of their time.

        Raises NotDelivered for messages that failed since the last call, and for those that still wait after
        ``timeout_s`` (they are sent later, or go to the spool).
        """
        limit = self._config.delivery_timeout_s + _GRACE_S if timeout_s is None else timeout_s
        waiting = self._flush(limit)
        if waiting:
            raise NotDelivered(
                f"{waiting:,} messages still wait for a broker at {self._config.bootstrap} after {limit:g} s;"
                " they are sent when it is back, or kept when the producer is closed",
                self.spool_path,
            )
        self._tell()

    def close(self, timeout_s: float | None = None) -> None:
        """Flush, put what still waits into the spool, and close it.

        Raises NotDelivered for messages that failed and were not told yet.
        """
        limit = self._config.delivery_timeout_s + _GRACE_S if timeout_s is None else timeout_s
        if self._flush(limit):
            self._client.purge()
            self._flush(_GRACE_S)
        self._spool.close()
        self._tell()

    def _poll(self, timeout_s: float) -> None:
        self._client.poll(timeout_s)
        self._count_results()

    def _flush(self, timeout_s: float) -> int:
        waiting: int = self._client.flush(timeout_s)
        self._count_results()
        return waiting

    def _count(self, topic: str, error_type: str | None) -> None:
        self._results[(topic, error_type)] += 1
        self._count_results()

    def _count_results(self) -> None:
        """Count what the reports of a poll said: a call for each topic and result, not for each message."""
        if not self._results:
            return
        results, self._results = self._results, Counter()
        for (topic, error_type), number in results.items():
            exchange, asset_class = self._labels.get(topic, (_UNKNOWN, _UNKNOWN))
            if error_type is None:
                self._metrics.increment(
                    "k2_kafka_messages_produced_total",
                    number,
                    exchange=exchange,
                    asset_class=asset_class,
                    topic=topic,
                )
            else:
                self._metrics.increment(
                    "k2_kafka_produce_errors_total",
                    number,
                    exchange=exchange,
                    asset_class=asset_class,
                    topic=topic,
                    error_type=error_type,
                )

    def _warn(self, topic: str, error: str) -> None:
        """Log a topic's first failure and then powers of ten: a broker that is away must not fill the log."""
        self._failures[topic] += 1
        number = self._failures[topic]
        if str(number).strip("0") != "1":
            return
        kept = "nothing could be kept"
        if self.spool_path is not None:
            again = f"k2beam produce resend {shlex.quote(str(self.spool_path))} --bootstrap {self._config.bootstrap}"
            kept = f"kept in {self.spool_path}; when this program has ended, send them again: {again}"
        _log.warning(
            "topic %s: message %d that was not delivered to %s: %s; %s",
            *(topic, number, self._config.bootstrap, error, kept),
        )

    def _tell(self) -> None:
        new, self._told = self.failed - self._told, self.failed
        if not new:
            return
        lost = f"; {self.lost:,} of them are lost" if self.lost else ""
        kept = f"; they are kept in {self.spool_path}: send them again with resend" if self.spool_path else ""
        raise NotDelivered(
            f"{new:,} messages were not delivered to {self._config.bootstrap} (first: {self._first_error}){kept}{lost}",
            self.spool_path,
        )

    def _on_error(self, error: KafkaError) -> None:
        """A login that never worked: nothing is waited for, what was sent goes to the spool at once.

        One that worked before is tried again to the end of the messages' time: a broker that starts may refuse it.
        """
        if error.code() != KafkaError._AUTHENTICATION or self.delivered or self._login_error:
            return
        self._login_error = self._first_error = (
            f"Kafka at {self._config.bootstrap} rejected this producer's credentials or certificate: {error.str()}; "
            "check what its user and password refer to"
        )
        self._client.purge(blocking=False)

    def _on_delivery(self, message: OutgoingMessage, error: KafkaError | None, _report: object) -> None:
        self._results[(message.topic, None if error is None else error.name())] += 1
        if error is None:
            self.delivered += 1
            return
        purged = error.code() == KafkaError._PURGE_QUEUE
        self.keep(message, error.name(), self._login_error if purged and self._login_error else error.str())

    def _refused(self, message: OutgoingMessage, error: KafkaError) -> KafkaFailed:
        self._count(message.topic, error.name())
        size = len(message.value or b"")
        return KafkaFailed(f"topic {message.topic}: a message of {size:,} bytes was refused: {error.str()}")


@dataclass(frozen=True, slots=True)
class Resent:
    """What became of a spool file: messages delivered, and those that failed again and are in ``spool`` now."""

    delivered: int
    failed: int
    spool: Path | None


def resend(
    spool: Path,
    bootstrap: str,
    config: Mapping[str, str] | None = None,
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
    client: ClientFactory = Producer,
    metrics: Metrics | None = None,
) -> Resent:
    """Send the messages of a spool file again, to the topics that they were for, and remove the file.

    What fails again is in a new file beside it. At least once: stopped in the middle, it leaves the file as it was,
    and the next run sends all of it. Raises UsageError and SpoolError, before anything is sent, for a file that is
    not there, in use or damaged; NotDelivered where messages could neither be sent nor kept again (the file stays).

    Counts ``k2_kafka_messages_produced_total`` and ``k2_kafka_produce_errors_total`` as the producer does.

    Examples:
        >>> from k2beam import MarketDataProducer
        >>> from k2beam.errors import NotDelivered
        >>> from k2beam.produce.delivery import resend
        >>> producer = MarketDataProducer("localhost:1", registry, delivery_timeout_s=1)
        >>> producer.produce_trade(trade)
        >>> try:
        ...     producer.close()
        ... except NotDelivered as error:
        ...     spool = error.spool
        >>> resend(spool, bootstrap).delivered
        1
        >>> spool.exists()
        False
    """
    with spool_lock(spool):
        labels: dict[str, tuple[str, str]] = {}
        # A damaged line must show before the first message is sent.
        for message in read_spool(spool):
            labels.setdefault(message.topic, _labels_of(message))
        settings = DeliveryConfig(bootstrap, tuple((config or {}).items()), spool.parent, delivery_timeout_s)
        delivery = Delivery(settings, metrics, labels, client)
        for message in read_spool(spool):
            try:
                delivery.send(message)
            except KafkaFailed as error:
                delivery.keep(message, "refused", str(error))
        try:
            delivery.close()
        except NotDelivered:
            if delivery.lost:
                raise
        spool.unlink()
        return Resent(delivery.delivered, delivery.failed, delivery.spool_path)


def _labels_of(message: OutgoingMessage) -> tuple[str, str]:
    """Exchange and asset class of a message: by its topic, the exchange in the spelling of its key where it has one."""
    parts = parse_topic(message.topic)
    if parts is None:
        return _UNKNOWN, _UNKNOWN
    spelled = (message.key or b"").partition(b"|")[0].decode("utf-8", "replace")
    try:
        same = topic_name(parts.asset_class, parts.kind, spelled) == message.topic
    except UsageError:
        same = False
    return spelled if same else parts.exchange, parts.asset_class
