"""Looks at single messages of a log: where the next one is, and of which time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, TopicPartition

from k2beam.errors import KafkaUnreachable
from k2beam.exporter.backlog import LogMessage
from k2beam.kafka.cluster import ASK_SECONDS, CLIENT_LOG, ONE_MESSAGE
from k2beam.kafka.config import KafkaConfig


class LogReader:
    """A consumer without a group's offsets; its connection stays open. Committed messages only."""

    def __init__(self, config: KafkaConfig, make_consumer: Callable[..., Any] = Consumer) -> None:
        self._config = config
        self._make_consumer = make_consumer
        self._consumer: Any = None

    def peek(self, topic: str, partition: int, offset: int) -> LogMessage | None:
        """The first message at ``offset`` or behind it; None where the partition ends before there is one.

        Where retention has taken the offset, it is a message without a time at the broker's first offset. Raises
        KafkaUnreachable when the broker does not answer.
        """
        if self._consumer is None:
            self._consumer = self._make_consumer(
                {**self._config.librdkafka(), **ONE_MESSAGE, "group.id": "k2beam-exporter"}, logger=CLIENT_LOG
            )
        place = TopicPartition(topic, partition, offset)
        try:
            self._consumer.assign([place])
            found = self._next(place)
            self._consumer.unassign()
        except KafkaException as error:
            self.close()
            raise KafkaUnreachable(
                f"topic {topic} partition {partition} can't be read at offset {offset}: {error.args[0].str()}"
            ) from error
        return found

    def close(self) -> None:
        """Let the connection go; the next look opens another."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _next(self, place: TopicPartition) -> LogMessage | None:
        """What comes first. An error may be of an outage that is over: the client goes on, and so it's waited for."""
        end = time.monotonic() + ASK_SECONDS
        said = KafkaError(KafkaError._TIMED_OUT, f"nothing came for {ASK_SECONDS:g} s")
        while (left := end - time.monotonic()) > 0:
            message = self._consumer.poll(left)
            if message is None:
                continue
            error = message.error()
            if error is None:
                kind, milliseconds = message.timestamp()
                return LogMessage(message.offset(), None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds * 1_000)
            if error.code() == KafkaError._PARTITION_EOF:
                return None
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                low, _ = self._consumer.get_watermark_offsets(place, timeout=ASK_SECONDS)
                return LogMessage(low, None)
            said = error
        raise KafkaException(said)
