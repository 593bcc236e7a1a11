"""Legal holes: offsets that the log never gives, such as transaction markers and compacted messages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from pyroaring import BitMap64

from k2beam.coverage import runs
from k2beam.errors import K2BeamError
from k2beam.kafka.cluster import CLIENT_LOG, ONE_MESSAGE, PATIENCE_SECONDS, TIMEOUT_SECONDS, KafkaUnreachable, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.logs import get_logger

STEADY_SECONDS = 3.0
"""How long the missing offsets must be the same before the broker is asked about them."""

_AWAY = frozenset(
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


class HoleProbe:
    """Tells which missing offsets the broker does not have either. Remembers what it found.

    One answer is waited for ``timeout_s`` seconds.
    """

    def __init__(self, config: KafkaConfig, topics: Sequence[Topic], timeout_s: float = TIMEOUT_SECONDS) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._names = {topic.source: topic.name for topic in topics}
        self._holes: dict[tuple[str, int], BitMap64] = {}
        self._last: dict[tuple[str, int], BitMap64] = {}
        self._since = time.monotonic()
        self._away_since: float | None = None

    def without_holes(self, missing: Mapping[tuple[str, int], BitMap64]) -> dict[tuple[str, int], BitMap64]:
        """``missing`` without the holes; asks the broker only when nothing has changed for a while.

        A broker that is away leaves all as it is, to be asked again later; raises KafkaUnreachable
        when it has been away for five minutes.
        """
        left = self._unknown(missing)
        if left != self._last:
            self._last, self._since = left, time.monotonic()
        elif left and time.monotonic() - self._since >= STEADY_SECONDS:
            self._probe_all(left)
            left = self._last = self._unknown(missing)
            self._since = time.monotonic()
        return left

    def _probe_all(self, missing: Mapping[tuple[str, int], BitMap64]) -> None:
        try:
            for (source, partition), offsets in missing.items():
                found = self.probe(source, partition, offsets)
                self._holes.setdefault((source, partition), BitMap64()).update(found)
        except KafkaUnreachable as error:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= PATIENCE_SECONDS:
                raise
            get_logger("kafka").warning("Kafka is waited for", bootstrap=self._config.bootstrap, error=str(error))
        else:
            self._away_since = None

    def _unknown(self, missing: Mapping[tuple[str, int], BitMap64]) -> dict[tuple[str, int], BitMap64]:
        return {key: rest for key, offsets in missing.items() if (rest := offsets - self._holes.get(key, BitMap64()))}

    def probe(self, source: str, partition: int, offsets: BitMap64) -> BitMap64:
        """Which of ``offsets`` the broker skips: one look at the start of each stretch of them.

        A stretch that begins with a message is left as it is behind that message: something of it
        is missing that is no hole, and it will be looked at again. Raises KafkaUnreachable when the
        broker does not answer, and K2BeamError when it refuses.
        """
        settings = {**self._config.librdkafka(), **ONE_MESSAGE, "group.id": "k2beam-probe"}
        consumer = Consumer(settings, logger=CLIENT_LOG)
        holes = BitMap64()
        try:
            for first, last in runs(offsets):
                place = TopicPartition(self._names[source], partition, first)
                consumer.assign([place])
                given = self._next_offset(consumer, place)
                end = last if given is None else min(last, given - 1)
                if end >= first:
                    holes.add_range(first, end + 1)
            return holes
        except KafkaException as error:
            raise _failed(error.args[0], source, partition) from error
        finally:
            consumer.close()

    def _next_offset(self, consumer: Consumer, place: TopicPartition) -> int | None:
        """The offset of the next message; None at the end of the partition."""
        deadline = time.monotonic() + self._timeout_s
        while (left := deadline - time.monotonic()) > 0:
            message = consumer.poll(left)
            if message is None:
                break
            error = message.error()
            if error is None:
                return message.offset()
            if error.code() == KafkaError._PARTITION_EOF:
                return None
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                # Retention took the offset meanwhile: the log now begins further on.
                return consumer.get_watermark_offsets(place, timeout=self._timeout_s)[0]
            if error.code() not in _AWAY:
                raise KafkaException(error)
        raise KafkaUnreachable(
            f"{place.topic} partition {place.partition} can't be probed: "
            f"{self._config.bootstrap} gave nothing for {self._timeout_s:g} s"
        )


def _failed(error: KafkaError, source: str, partition: int) -> K2BeamError:
    kind = KafkaUnreachable if error.code() in _AWAY else K2BeamError
    return kind(f"{source} partition {partition} can't be probed: {error.str()}")
