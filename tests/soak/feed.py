"""The feed: messages at a steady rate, each once and in order, whatever happens to the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from k2beam.produce.republish import ArchivedMessage, reframed

PATIENCE_MS = 600_000


class Feed(threading.Thread):
    """Produces in the background; ``paused`` by its :meth:`up_to`, it stops at that many messages."""

    def __init__(
        self, bootstrap: str, topic: str, messages: Sequence[ArchivedMessage], ids: Mapping[int, int], rate: float
    ) -> None:
        super().__init__(daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "message.timeout.ms": PATIENCE_MS,
            }
        )
        self._topic = topic
        self._messages = messages
        self._ids = ids
        self._rate = rate
        self.produced = 0
        self.failed: list[str] = []

    def run(self) -> None:
        """Produce them all. What is not delivered in ten minutes is in ``failed``."""
        started = time.monotonic()
        for number, message in enumerate(self._messages):
            ahead = started + number / self._rate - time.monotonic()
            if ahead > 0.05:
                self._producer.poll(ahead)
            self._send(message)
        while self._producer.flush(10):
            pass

    def _send(self, message: ArchivedMessage) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    reframed(message.value, self._ids),
                    message.key,
                    message.partition,
                    timestamp=message.timestamp // 1000,
                    on_delivery=self._delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failed.append(f"{message.topic()}-{message.partition()}: {error.str()}")
        else:
            self.produced += 1


def wait_until(reached: Callable[[], Any], what: str, patience_s: float, pause_s: float = 1.0) -> None:
    """Poll ``reached``. Raises TimeoutError, naming ``what``."""
    deadline = time.monotonic() + patience_s
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {patience_s:.0f} s: {what}")
        time.sleep(pause_s)
