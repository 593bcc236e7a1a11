"""Legal holes: offsets that the log never gives, such as transaction markers and compacted messages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from pyroaring import BitMap64

from k2beam.coverage import runs
from k2beam.errors import K2BeamError
from k2beam.kafka.cluster import TIMEOUT_SECONDS, Topic
from k2beam.kafka.config import KafkaConfig

STEADY_SECONDS = 3.0
"""How long the missing offsets must be the same before the broker is asked about them."""


class HoleProbe:
    """Tells which missing offsets the broker does not have either. Remembers what it found."""

    def __init__(self, config: KafkaConfig, topics: Sequence[Topic]) -> None:
        self._config = config
        self._names = {topic.source: topic.name for topic in topics}
        self._holes: dict[tuple[str, int], BitMap64] = {}
        self._last: dict[tuple[str, int], BitMap64] = {}
        self._since = time.monotonic()

    def without_holes(self, missing: Mapping[tuple[str, int], BitMap64]) -> dict[tuple[str, int], BitMap64]:
        """``missing`` without the holes; asks the broker only when nothing has changed for a while."""
        left = self._unknown(missing)
        if left != self._last:
            self._last, self._since = left, time.monotonic()
        elif left and time.monotonic() - self._since >= STEADY_SECONDS:
            for (source, partition), offsets in left.items():
                found = self.probe(source, partition, offsets)
                self._holes.setdefault((source, partition), BitMap64()).update(found)
            left = self._last = self._unknown(missing)
            self._since = time.monotonic()
        return left

    def _unknown(self, missing: Mapping[tuple[str, int], BitMap64]) -> dict[tuple[str, int], BitMap64]:
        return {key: rest for key, offsets in missing.items() if (rest := offsets - self._holes.get(key, BitMap64()))}

    def probe(self, source: str, partition: int, offsets: BitMap64) -> BitMap64:
        """Which of ``offsets`` the broker skips: one look at the start of each stretch of them.

        A stretch that begins with a message is left as it is behind that message: something of it
        is missing that is no hole, and it will be looked at again. Raises K2BeamError when the
        broker does not answer.
        """
        settings = {"group.id": "k2beam-probe", "enable.auto.commit": False, "enable.partition.eof": True}
        consumer = Consumer({**self._config.librdkafka(), **settings, "auto.offset.reset": "error"})
        holes = BitMap64()
        try:
            for first, last in runs(offsets):
                place = TopicPartition(self._names[source], partition, first)
                consumer.assign([place])
                given = _next_offset(consumer, place, source)
                end = last if given is None else min(last, given - 1)
                if end >= first:
                    holes.add_range(first, end + 1)
            return holes
        except KafkaException as error:
            raise K2BeamError(f"{source} partition {partition} can't be probed: {error.args[0].str()}") from error
        finally:
            consumer.close()


def _next_offset(consumer: Consumer, place: TopicPartition, source: str) -> int | None:
    """The offset of the next message; None at the end of the partition."""
    message = consumer.poll(TIMEOUT_SECONDS)
    if message is None:
        raise K2BeamError(f"{source} partition {place.partition}: the broker gave nothing for {TIMEOUT_SECONDS:.0f} s")
    error = message.error()
    if error is None:
        return message.offset()
    if error.code() == KafkaError._PARTITION_EOF:
        return None
    if error.code() == KafkaError._AUTO_OFFSET_RESET:
        # Retention took the offset meanwhile: the log now begins further on.
        return consumer.get_watermark_offsets(place, timeout=TIMEOUT_SECONDS)[0]
    raise KafkaException(error)
