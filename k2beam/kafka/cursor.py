"""Reads on in one partition of a log, to say where the next message is."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from k2beam.errors import KafkaUnreachable, Stopped

NEAR: Final = 4_096
"""So many offsets are read over rather than jumped over: a jump waits for an answer of the broker."""

AWAY = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
    }
)
"""What a client says of brokers that are away: it goes on trying."""

_SLICE_SECONDS = 0.2
"""How long one wait lasts at most, so that a signal is seen."""


class Cursor:
    """Answers where the next message of a partition is; questions in ascending order are cheap.

    Each answer is waited for ``timeout_s`` seconds. ``low`` is where the log begins, as far as a question found that
    retention has taken its offset; 0 before. ``end`` is where the log ends, once an answer was None.
    """

    def __init__(
        self, consumer: Any, topic: str, partition: int, timeout_s: float, stop: threading.Event | None = None
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._partition = partition
        self._timeout_s = timeout_s
        self._stop = stop
        self._asked = 0
        self._given: int | None = -1
        self._reading = False
        self.low = 0
        self.end = 0

    def at(self, offset: int) -> int | None:
        """The offset of the first message at ``offset`` or behind it; None where the partition ends before.

        Raises KafkaUnreachable when the broker does not answer, Stopped when told to stop, and KafkaException when the
        broker refuses.
        """
        if offset < self._asked or (self._given is not None and self._given < offset):
            self._read_to(offset)
        return self._given

    def _read_to(self, offset: int) -> None:
        jumped = not (self._reading and self._given is not None and self._given < offset <= self._given + NEAR)
        if jumped:
            self._jump(offset)
        self._asked, self._reading = offset, True
        while True:
            found, error = self._next()
            if error is None:
                self._given = found
                if found >= offset:
                    return
            elif error.code() == KafkaError._PARTITION_EOF:
                self._given, self.end = None, found
                return
            elif error.code() != KafkaError._AUTO_OFFSET_RESET:
                raise KafkaException(error)
            else:
                low = self._log_begins()
                if low <= offset and jumped:
                    # The log ends before it, and that a message was there once is no hole.
                    self._given, self._reading = offset, False
                    return
                self.low = max(self.low, low)
                self._jump(max(low, offset))
                jumped = True

    def _jump(self, offset: int) -> None:
        self._consumer.assign([TopicPartition(self._topic, self._partition, offset)])

    def _log_begins(self) -> int:
        place = TopicPartition(self._topic, self._partition)
        return int(self._consumer.get_watermark_offsets(place, timeout=self._timeout_s)[0])

    def _next(self) -> tuple[int, KafkaError | None]:
        """The offset of the next message; where there is none, the error that says why, and where the log ends."""
        deadline = time.monotonic() + self._timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if self._stop is not None and self._stop.is_set():
                raise Stopped
            message = self._consumer.poll(min(left, _SLICE_SECONDS))
            if message is None:
                continue
            error = message.error()
            if error is None or error.code() not in AWAY:
                return int(message.offset()), error
        raise KafkaUnreachable(f"nothing came for {self._timeout_s:g} s")
