"""Reads partitions of a log through librdkafka in large batches, and says where to go on."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2beam.errors import K2BeamError
from k2beam.kafka.batch import BYTES_A_BATCH, raw_batch
from k2beam.kafka.cluster import ASK_SECONDS, CLIENT_LOG, Topic
from k2beam.kafka.config import READ_COMMITTED, KafkaConfig
from k2beam.kafka.cursor import AWAY
from k2beam.logs import get_logger
from k2beam.model import RawBatch

GATHER_SECONDS = 0.1
"""How long a read waits for more, once it has one message."""
_ASK_AWAY_SECONDS = 1.0
_FIRST_READ = 1_000
"""Messages of the first read, when nothing is known of their size."""
_PASSING = AWAY | {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}
"""What a client says and goes on: it needs no group, and whether a topic is gone is for the guard of the job to say."""
_FIELDS: tuple[Callable[[Any], Any], ...] = (
    Message.topic,
    Message.partition,
    Message.offset,
    Message.timestamp,
    Message.key,
    Message.value,
    Message.headers,
)


class Position(NamedTuple):
    """Where reading of a partition goes on. ``source`` is what its offsets belong to."""

    topic: str
    source: str
    partition: int
    offset: int


def first_positions(topics: Sequence[Topic], starts: Mapping[tuple[str, int], int]) -> tuple[Position, ...]:
    """Every partition of ``topics``, from ``starts`` by source and partition on."""
    return tuple(
        Position(topic.name, topic.source, partition, starts[topic.source, partition])
        for topic in topics
        for partition in topic.partitions
    )


class TopicReader:
    """Reads messages that are committed, from positions that are given, one batch after another.

    It has no consumer group and commits no offsets. ``rows`` is the most of one batch. A cluster that is away is waited
    for; a login that is refused raises K2BeamError.

    Delivery: each committed message once from the positions on, in order within its partition. Where retention was
    faster it goes on at what is left and warns.

    Examples:
        >>> from k2beam import KafkaConfig
        >>> from k2beam.kafka.cluster import Cluster
        >>> from k2beam.kafka.reader import TopicReader, Position
        >>> (found,) = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> reader = TopicReader(KafkaConfig(bootstrap), rows=50_000)
        >>> reader.go_to([Position(topic, found.source, partition, 0) for partition in found.partitions])
        >>> offsets = []
        >>> while len(offsets) < 3:
        ...     for batch in reader.read(wait_s=1.0):
        ...         offsets += batch.data.column("offset").to_pylist()
        >>> sorted(offsets)
        [0, 1, 2]
        >>> reader.close()
    """

    def __init__(self, config: KafkaConfig, rows: int) -> None:
        settings: dict[str, Any] = {
            **config.librdkafka(),
            **READ_COMMITTED,
            "group.id": "k2beam-reader",  # librdkafka wants a name, though nothing is asked of a group
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "check.crcs": True,  # as Java's consumer does
            # Of brokers it's said here alone: a message or event of a partition says nothing of them.
            "error_cb": self._on_error,
            # By default a partition whose queue was full waits a second before it's fetched again.
            "fetch.queue.backoff.ms": 10,
        }
        self._consumer = Consumer(settings, logger=CLIENT_LOG)
        self._rows = rows
        self._mean_bytes = BYTES_A_BATCH / _FIRST_READ
        self._positions: dict[tuple[str, int], Position] = {}
        self._sources: dict[str, str] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._ended_at: dict[tuple[str, int], float] = {}
        self._heard: dict[tuple[str, int], tuple[int, float]] = {}
        self._lost: dict[tuple[str, int], str] = {}
        self._refused: KafkaError | None = None
        self._away = False
        self._moved = False
        self._told: set[str] = set()
        self._news = True

    @property
    def positions(self) -> tuple[Position, ...]:
        """Where reading goes on."""
        return tuple(self._positions.values())

    @property
    def caught_up_at(self) -> float:
        """Until when all was read, as far as is known: the least of the times of all partitions.

        A partition that is at its end has the present; else the last time at which it was, or at which its log was
        heard to end where it has been read to since. Seconds since the epoch; 0.0 where there is none.
        """
        now = time.time()
        moments = (now if self._is_at_end(place) else self._ended_at.get(place, 0.0) for place in self._positions)
        return min(moments, default=now)

    def is_behind(self, ends: Mapping[tuple[str, int], int]) -> bool:
        """Whether all that lies before ``ends``, by source and partition, was read or is none to be read."""
        return all(
            max(position.offset, self._ends.get(place, -1)) >= ends.get((position.source, position.partition), 0)
            for place, position in self._positions.items()
        )

    def _is_at_end(self, place: tuple[str, int]) -> bool:
        return not self._away and self._ends.get(place, -1) >= self._positions[place].offset

    def _hear_ends(self) -> None:
        # A partition to which messages come all the time gives no event that it has ended.
        if self._away:
            return
        for place, position in self._positions.items():
            end, moment = self._heard.get(place, (0, 0.0))
            if position.offset < end:
                continue
            self._ended_at[place] = max(moment, self._ended_at.get(place, 0.0))
            self._heard.pop(place, None)
            with contextlib.suppress(KafkaException):  # of a partition that was not fetched yet nothing is known
                _, end = self._consumer.get_watermark_offsets(_place(position), cached=True)
                if end >= 0:
                    self._heard[place] = end, time.time()

    def go_to(self, positions: Sequence[Position]) -> None:
        """Read on from these; it costs nothing to stay where it is."""
        if self.positions != tuple(positions):
            self._positions = {(position.topic, position.partition): position for position in positions}
            self._sources = {position.topic: position.source for position in positions}
            self._moved = True

    def read(self, wait_s: float) -> list[RawBatch]:
        """The next messages: none when there were none for ``wait_s`` seconds, else at most ``rows`` of them.

        A batch closes at 32 MiB of values too. Raises K2BeamError when the broker refuses.
        """
        if self._moved:
            self._assign()
        found = self._consume(1, wait_s)
        if self._away and not found:
            self._ask_again()
        with _no_collection():
            # The messages are gone again when the collector may run: it would walk them all.
            batches = list(self._batches(found))
        for place in list(self._lost):
            self._skip_lost(self._positions[place], self._lost.pop(place))
        self._hear_ends()
        return batches

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()

    def _consume(self, number: int, wait_s: float) -> list[Message]:
        """So many messages and events, or fewer when the time is up."""
        try:
            found = self._consumer.consume(number, wait_s)
        except KafkaException as error:
            raise K2BeamError(f"Kafka can't be read: {error.args[0].str()}") from error
        if self._refused is not None:
            raise K2BeamError(f"Kafka rejected this client while it was reading: {self._refused.str()}")
        if found:
            self._away = False
        return found

    def _on_error(self, error: KafkaError) -> None:
        """What the client says of brokers: it goes on trying, whatever it is."""
        if error.code() == KafkaError._AUTHENTICATION:
            self._refused = error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            get_logger("read_kafka").warning("Kafka is waited for", error=error.str())

    def _ask_again(self) -> None:
        """Whether brokers are back: nothing tells it of a topic to which nothing comes."""
        position = next(iter(self._positions.values()))
        with contextlib.suppress(KafkaException):
            self._away = self._consumer.get_watermark_offsets(_place(position), timeout=_ASK_AWAY_SECONDS) is None

    def _is_message(self, found: Any) -> bool:
        """Whether it is one; what else is said of a partition is dealt with."""
        error = found.error()
        if error is None:
            return True
        place = found.topic(), found.partition()
        if error.code() == KafkaError._PARTITION_EOF:
            self._ends[place] = found.offset()
            self._ended_at[place] = time.time()
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._lost[place] = error.str()
        elif error.code() not in _PASSING:
            position = self._positions.get(place)
            where = f"topic {place[0]}, partition {place[1]}, offset {'?' if position is None else position.offset}"
            raise K2BeamError(f"{where}: can't be read: {error.str()}")
        elif (said := error.str()) not in self._told:
            self._told.add(said)
            get_logger("read_kafka").warning("a partition is waited for", topic=place[0], error=said)
        return False

    def _batches(self, found: list[Message]) -> Iterator[RawBatch]:
        """The messages among what was found, and what comes within a moment."""
        if found:
            # As many as about fill a batch: a read of large messages would else take all that the client has.
            room = int(BYTES_A_BATCH / max(self._mean_bytes, 1.0))
            found = found + self._consume(max(1, min(self._rows - 1, room)), GATHER_SECONDS)
        if any(map(Message.error, found)):
            found = [message for message in found if self._is_message(message)]
        if found:
            yield from self._parts_of(found)

    def _parts_of(self, messages: list[Message]) -> Iterator[RawBatch]:
        topics, partitions, offsets, times, keys, values, given = (list(map(field, messages)) for field in _FIELDS)
        headers = {row: each for row, each in enumerate(given) if each}
        batch = raw_batch(
            self._sources, topics, partitions, offsets, [millis for _, millis in times], keys, values, headers
        )
        if self._news:
            get_logger("read_kafka").info("first batch read", topic=topics[0], rows=len(topics))
            self._news = False
        self._go_on_behind(batch, topics)
        sizes = pc.fill_null(pc.binary_length(batch.data.column("value")), 0).to_numpy()
        self._mean_bytes = float(sizes.mean())
        for begin, end in _parts(sizes):
            yield RawBatch(batch.data.slice(begin, end - begin))

    def _go_on_behind(self, batch: RawBatch, topics: Sequence[str]) -> None:
        partitions = batch.data.column("partition").to_numpy()
        offsets = batch.data.column("offset").to_numpy()
        for begin, end in _runs(topics, partitions):
            place = topics[begin], int(partitions[begin])
            self._positions[place] = self._positions[place]._replace(offset=int(offsets[end - 1]) + 1)

    def _skip_lost(self, position: Position, said: str) -> None:
        """Go on where the log begins, or ends, now: it does not have the offset any more."""
        log = get_logger("read_kafka").bind(topic=position.topic, partition=position.partition, offset=position.offset)
        self._moved = True
        try:
            low, end = self._consumer.get_watermark_offsets(_place(position), timeout=ASK_SECONDS)
        except KafkaException as error:
            log.warning("Kafka does not say where the log begins; it is asked again", error=str(error))
            return
        if low > position.offset:
            log.warning("retention took offsets before they were read", log_begins=low)
        elif end < position.offset:
            log.warning("the log ends before what was read of it: the broker has lost messages", log_ends=end)
        else:
            log.warning("the broker did not know the offset for a moment: it may have lost messages", said=said)
        offset = min(max(low, position.offset), end)
        self._positions[position.topic, position.partition] = position._replace(offset=offset)

    def _assign(self) -> None:
        if not self._ends and self._news:
            get_logger("read_kafka").info("reading begins", partitions=len(self._positions))
        # What was fetched and not read is dropped by this, and fetched again.
        self._consumer.assign([_place(position) for position in self._positions.values()])
        self._ends.clear()
        self._heard.clear()
        self._moved = False


def _place(position: Position) -> TopicPartition:
    return TopicPartition(position.topic, position.partition, position.offset)


def _runs(topics: Sequence[str], partitions: Any) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of runs of messages of one partition: a client hands over what it fetched, run by run."""
    names = np.array(topics, dtype=object)
    new = (partitions[1:] != partitions[:-1]) | (names[1:] != names[:-1])
    return _pieces([0, *(np.flatnonzero(new) + 1).tolist()], len(topics))


def _parts(sizes: Any) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of runs of about :data:`BYTES_A_BATCH` bytes, each of one row or more."""
    numbers = (np.cumsum(sizes) - sizes) // BYTES_A_BATCH
    return _pieces(np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(sizes))


def _pieces(begins: list[int], end: int) -> Iterator[tuple[int, int]]:
    return zip(begins, [*begins[1:], end], strict=True)


@contextmanager
def _no_collection() -> Iterator[None]:
    """The garbage collector walks all messages again and again while a hundred thousand come to life."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
