"""TopicReader: what a client says, in batches and positions. A real broker is read in integration tests."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from k2beam.errors import K2BeamError
from k2beam.kafka import reader
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.reader import Position, TopicReader

START = Position("ticks", "kafka:c/ticks/1", 0, 5)


def message(offset: int, value: bytes | None = b"v", partition: int = 0, **fields: Any) -> Message:
    return Message(topic="ticks", partition=partition, offset=offset, value=value, timestamp=(1, 1000), **fields)


def said(code: int, offset: int = 0, partition: int = 0) -> Message:
    """An event that is no message."""
    return Message(topic="ticks", partition=partition, offset=offset, error=KafkaError(code))


class Client:
    """librdkafka: gives what it has, at most so many at a time."""

    def __init__(self, *given: Message, bounds: tuple[int, int] | None = None) -> None:
        self.given = list(given)
        self.bounds = bounds
        self.assigned: list[list[int]] = []
        self.asked: list[int] = []
        self.cached = (-1001, -1001)

    def __call__(self, settings: dict[str, Any], **_: Any) -> Client:
        self.settings = settings
        return self

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned.append([place.offset for place in places])

    def consume(self, number: int, _timeout: float) -> list[Message]:
        self.asked.append(number)
        found, self.given = self.given[:number], self.given[number:]
        return found

    def get_watermark_offsets(
        self, _place: TopicPartition, timeout: float = 0.0, *, cached: bool = False
    ) -> tuple[int, int]:
        if cached:
            return self.cached
        assert timeout > 0
        if self.bounds is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return self.bounds


def reading(monkeypatch: pytest.MonkeyPatch, client: Client, *positions: Position, rows: int = 100) -> TopicReader:
    monkeypatch.setattr(reader, "Consumer", client)
    found = TopicReader(KafkaConfig("broker:9092"), rows)
    found.go_to(positions or (START,))
    return found


def offsets(found: TopicReader) -> list[list[int]]:
    """Of the batches of one read."""
    return [batch.data.column("offset").to_pylist() for batch in found.read(0)]


def test_messages_come_with_all_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = [("trace", b"1"), ("trace", b"2"), ("empty", None)]
    client = Client(message(5, key=b"k", headers=headers), message(7, None))
    [batch] = reading(monkeypatch, client).read(0)
    assert batch.data.drop_columns(["timestamp"]).to_pylist() == [
        {
            "source": START.source,
            "partition": 0,
            "offset": 5,
            "key": b"k",
            "value": b"v",
            "headers": [{"key": key, "value": value} for key, value in headers],
        },
        {"source": START.source, "partition": 0, "offset": 7, "key": None, "value": None, "headers": []},
    ]
    assert batch.data.column("timestamp").cast("int64").to_pylist() == [1_000_000] * 2


def test_committed_messages_alone_are_read_and_no_offset_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    reading(monkeypatch, client)
    wanted = {"isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "error"}
    assert wanted.items() <= client.settings.items()


def test_it_goes_on_behind_the_last_message_of_each_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    other = START._replace(partition=1, offset=0)
    found = reading(monkeypatch, Client(message(5), message(0, partition=1), message(9)), START, other)
    assert offsets(found) == [[5, 0, 9]]
    assert found.positions == (START._replace(offset=10), other._replace(offset=1))


def test_it_moves_only_when_it_is_sent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(message(5), message(6))
    found = reading(monkeypatch, client, rows=1)
    offsets(found)
    found.go_to(found.positions)
    offsets(found)
    assert client.assigned == [[5]]
    found.go_to([START])
    offsets(found)
    assert client.assigned == [[5], [5]]


def test_it_knows_until_when_all_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    eof, clock = KafkaError._PARTITION_EOF, [100.0]
    monkeypatch.setattr(reader.time, "time", lambda: clock[0])
    other = START._replace(partition=1, offset=0)
    client = Client(said(eof, 5))
    found = reading(monkeypatch, client, START, other)
    offsets(found)
    assert found.caught_up_at == 0.0, "the other partition was never at its end"
    client.given = [said(eof, 0, partition=1)]
    offsets(found)
    clock[0] = 110.0
    assert found.caught_up_at == 110.0
    client.given = [message(5)]
    offsets(found)
    assert found.caught_up_at == 100.0


def test_a_partition_to_which_messages_come_all_the_time_was_read_until_its_end_was_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(reader.time, "time", lambda: clock[0])
    client = Client(message(5))
    found = reading(monkeypatch, client)
    client.cached = (0, 8)
    offsets(found)
    assert found.caught_up_at == 0.0
    clock[0], client.given, client.cached = 101.0, [message(6)], (0, 9)
    offsets(found)
    assert found.caught_up_at == 0.0, "it ended behind offset 7 when that was heard"
    clock[0], client.given, client.cached = 102.0, [message(7)], (0, 10)
    offsets(found)
    assert found.caught_up_at == 100.0
    clock[0], client.given = 103.0, [message(8), message(9)]
    offsets(found)
    assert found.caught_up_at == 102.0


def test_an_end_is_not_believed_while_all_brokers_are_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [100.0]
    monkeypatch.setattr(reader.time, "time", lambda: clock[0])
    client = Client(said(KafkaError._PARTITION_EOF, 5))
    client.cached = (0, 5)
    found = reading(monkeypatch, client)
    offsets(found)
    down = KafkaError(KafkaError._ALL_BROKERS_DOWN)
    for _ in range(2):
        client.settings["error_cb"](down)
    for clock[0] in (105.0, 110.0):
        offsets(found)
    assert found.caught_up_at == 100.0
    assert caplog.text.count("Kafka is waited for") == 1
    client.bounds = (0, 5)
    offsets(found)
    assert found.caught_up_at == 110.0, "they answer again"


def test_it_is_behind_ends_by_its_position_or_where_the_log_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {(START.source, 0): 8, (START.source, 1): 3}
    other = START._replace(partition=1, offset=3)
    client = Client(message(5))
    found = reading(monkeypatch, client, START, other, START._replace(partition=2, offset=0))
    offsets(found)
    assert not found.is_behind(ends)
    client.given = [said(KafkaError._PARTITION_EOF, 8)]
    offsets(found)
    assert found.is_behind(ends), "what is left are markers, and partition 2 came since"


def test_a_batch_closes_when_its_values_are_large_and_the_next_read_asks_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "BYTES_A_BATCH", 100)
    client = Client(*(message(number, b"x" * 60) for number in range(5, 10)), message(10, None))
    found = reading(monkeypatch, client)
    found._mean_bytes = 1.0
    assert offsets(found) == [[5, 6], [7, 8], [9], [10]]
    offsets(found)
    assert client.asked == [1, 99, 1]
    client.given = [message(11)]
    offsets(found)
    assert client.asked[-1] == 2, "a hundred bytes are two messages of fifty"


def test_what_retention_took_is_told_and_reading_goes_on_behind_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(said(KafkaError._AUTO_OFFSET_RESET, 5), bounds=(8, 20))
    found = reading(monkeypatch, client)
    assert offsets(found) == []
    offsets(found)
    assert client.assigned == [[5], [8]]
    assert "retention took offsets before they were read" in caplog.text


def test_what_was_read_with_it_counts_when_an_offset_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(message(5), message(6), said(KafkaError._AUTO_OFFSET_RESET, 7), bounds=(100, 200))
    found = reading(monkeypatch, client)
    assert offsets(found) == [[5, 6]]
    offsets(found)
    assert client.assigned == [[5], [100]]
    assert caplog.text.count("retention took") == 1


@pytest.mark.parametrize(
    ("bounds", "goes_on", "told"),
    [
        ((0, 3), 3, "the broker has lost messages"),
        ((0, 9), 5, "may have lost messages"),
        (None, 5, "does not say where the log begins"),
    ],
)
def test_an_offset_that_the_log_does_not_have_is_looked_into(
    bounds: tuple[int, int] | None,
    goes_on: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client(said(KafkaError._AUTO_OFFSET_RESET, 5), bounds=bounds)
    found = reading(monkeypatch, client)
    offsets(found)
    offsets(found)
    assert client.assigned == [[5], [goes_on]]
    assert told in caplog.text


def test_what_passes_is_told_once_and_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = [said(KafkaError.UNKNOWN_TOPIC_OR_PART), said(KafkaError.UNKNOWN_TOPIC_OR_PART)]
    found = reading(monkeypatch, Client(*unknown, message(5)))
    assert offsets(found) == [[5]]
    assert caplog.text.count("a partition is waited for") == 1


def test_a_refusal_is_an_error_that_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found = reading(monkeypatch, Client(said(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    with pytest.raises(K2BeamError, match="topic ticks, partition 0, offset 5: can't be read"):
        found.read(0)


def test_a_login_that_is_refused_later_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    found = reading(monkeypatch, client)
    client.settings["error_cb"](KafkaError(KafkaError._AUTHENTICATION))
    with pytest.raises(K2BeamError, match="rejected this client while it was reading"):
        found.read(0)


def test_an_error_of_the_client_is_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fatal(Client):
        def consume(self, _number: int, _timeout: float) -> list[Message]:
            raise KafkaException(KafkaError(KafkaError._FATAL))

    with pytest.raises(K2BeamError, match="Kafka can't be read"):
        reading(monkeypatch, Fatal()).read(0)
