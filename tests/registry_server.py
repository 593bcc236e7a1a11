"""A Schema Registry in the test's own process, as small as the tests need, and a broker's client that is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tests.http_servers import QuietHandler, serving

Answer = tuple[int, Any]
Reply = Callable[[str, str, Any], Answer]

NO_SCHEMA = (404, {"error_code": 40403, "message": "Schema not found"})
NO_SUBJECT = (404, {"error_code": 40401, "message": "Subject not found"})


@contextmanager
def registry_server(reply: Reply) -> Iterator[tuple[str, list[str]]]:
    """Serves what ``reply(method, path, body)`` gives; the URL, and the requests so far as ``GET /path``."""
    asked: list[str] = []

    class Handler(QuietHandler):
        def _answer(self) -> None:
            body = self.received()
            asked.append(f"{self.command} {self.path}")
            status, answer = reply(self.command, self.path, json.loads(body) if body else None)
            self.answer(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names that http.server calls

    with serving(Handler) as url:
        yield url, asked


def in_turn(*answers: Answer) -> Reply:
    """These answers one after another, the last one for ever."""
    left = list(answers)
    return lambda _method, _path, _body: left.pop(0) if len(left) > 1 else left[0]


def knows_all(method: str, path: str, body: Any) -> Answer:
    """A registry in which every schema has the id 7."""
    subject = path.removeprefix("/subjects/").partition("?")[0].removesuffix("/versions")
    if method == "POST":
        return 200, {"subject": subject, "id": 7, "version": 1, "schema": body["schema"]}
    return 200, []


class Sleeps:
    """Takes the place of time.sleep, and remembers how long was asked for."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, seconds: float) -> None:
        self.total += seconds


class FakeMessage:
    """What a delivery report carries: as librdkafka has it, one of a failure has neither headers nor a timestamp."""

    def __init__(self, topic: str, value: bytes | None, key: bytes | None, headers: Any, timestamp: int) -> None:
        self._parts = (topic, value, key, headers, timestamp)
        self.failed = False

    def topic(self) -> str:
        return self._parts[0]

    def value(self) -> bytes | None:
        return self._parts[1]

    def key(self) -> bytes | None:
        return self._parts[2]

    def headers(self) -> Any:
        return None if self.failed else self._parts[3]

    def timestamp(self) -> tuple[int, int]:
        return (0, -1) if self.failed else (1, self._parts[4] or 1_700_000_000_000)


class FakeKafka:
    """The client of a broker that acknowledges a queue of ``room`` messages at a poll that waits, or at a flush.

    ``fails(topic, value)`` gives the error code of a message that is not delivered, or None. While ``away``, nothing
    is acknowledged until the queue is purged. ``refuses`` is the code with which produce itself fails.
    """

    def __init__(self, options: dict[str, Any], logger: Any = None) -> None:
        self.options, self.logger = options, logger
        self.room = 1_000
        self.fails: Callable[[str, bytes | None], int | None] = lambda _topic, _value: None
        self.away = False
        self.refuses: int | None = None
        self.sent: list[FakeMessage] = []
        self._queue: list[tuple[FakeMessage, Any]] = []

    def __len__(self) -> int:
        return len(self._queue)

    def produce(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Any = None,
        timestamp: int = 0,
        on_delivery: Any = None,
    ) -> None:
        if self.refuses is not None:
            raise KafkaException(KafkaError(self.refuses))
        if len(self._queue) >= self.room:
            raise BufferError("Local: Queue full")
        self._queue.append((FakeMessage(topic, value, key, headers, timestamp), on_delivery))

    def poll(self, timeout: float) -> int:
        return self._report(1) if timeout and not self.away else 0

    def flush(self, timeout: float) -> int:
        del timeout
        if not self.away:
            self._report(len(self._queue))
        return len(self._queue)

    def purge(self, blocking: bool = True) -> None:
        del blocking
        self.fails, self.away = (lambda _topic, _value: KafkaError._PURGE_QUEUE), False

    def _report(self, count: int) -> int:
        reports, self._queue = self._queue[:count], self._queue[count:]
        for message, on_delivery in reports:
            code = self.fails(message.topic(), message.value())
            message.failed = code is not None
            if code is None:
                self.sent.append(message)
            on_delivery(None if code is None else KafkaError(code), message)
        return len(reports)
