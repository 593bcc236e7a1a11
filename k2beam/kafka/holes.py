"""Legal holes: offsets that the log never gives, such as transaction markers and compacted messages."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException
from pyroaring import BitMap64

from k2beam.coverage import Coverage, SourcePartition, runs
from k2beam.errors import K2BeamError, KafkaUnreachable, Stopped
from k2beam.kafka.cluster import CLIENT_LOG, ONE_MESSAGE, PATIENCE_SECONDS, TIMEOUT_SECONDS, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.cursor import AWAY, Cursor
from k2beam.logs import get_logger

STEADY_SECONDS = 3.0
"""How long the missing offsets must be the same before the broker is asked about them."""

_SETTINGS = {**ONE_MESSAGE, "fetch.message.max.bytes": 262_144, "group.id": "k2beam-probe"}
"""More at once than one message: stretches that are near each other are found by reading on."""

_Place = tuple[str, int]


class HoleProbe:
    """Tells which missing offsets the broker does not have either. Remembers what it found, beside the ``known`` holes.

    One answer is waited for ``timeout_s`` seconds, and none any more once ``stop`` is set. Its connection stays open;
    :meth:`close` it.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Sequence[Topic],
        timeout_s: float = TIMEOUT_SECONDS,
        stop: threading.Event | None = None,
        known: Coverage | None = None,
    ) -> None:
        self.holes = known.copy() if known else Coverage()
        self._config = config
        self._timeout_s = timeout_s
        self._stop = stop
        self._names = {topic.source: topic.name for topic in topics}
        self._consumer: Consumer | None = None
        self._lost: dict[_Place, BitMap64] = {}
        self._last: dict[_Place, BitMap64] = {}
        self._since = time.monotonic()
        self._away_since: float | None = None

    def close(self) -> None:
        """Let the connection go; the next question opens another."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def known(self, missing: Mapping[_Place, BitMap64]) -> dict[_Place, BitMap64]:
        """``missing`` without what was found to be gone: holes, and what retention took. Asks nobody."""
        left = {key: offsets - self.holes[key] - self._lost.get(key, BitMap64()) for key, offsets in missing.items()}
        return {key: rest for key, rest in left.items() if rest}

    def without_holes(self, missing: Mapping[_Place, BitMap64]) -> dict[_Place, BitMap64]:
        """``missing`` without what can't come; asks the broker only when nothing has changed for a while.

        What retention took can't come either: it's left out with a warning, and is for the audit to report. A broker
        that is away leaves all as it is, to be asked again later; raises KafkaUnreachable when it has been away for
        five minutes.
        """
        left = self.known(missing)
        if left != self._last:
            self._last, self._since = left, time.monotonic()
        elif left and time.monotonic() - self._since >= STEADY_SECONDS:
            self._probe_all(left)
            left = self._last = self.known(missing)
            self._since = time.monotonic()
        return left

    def _probe_all(self, missing: Mapping[_Place, BitMap64]) -> None:
        try:
            for (source, partition), offsets in missing.items():
                self.probe(source, partition, offsets)
        except Stopped:
            return
        except KafkaUnreachable as error:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= PATIENCE_SECONDS:
                raise
            get_logger("kafka").warning("Kafka is waited for", bootstrap=self._config.bootstrap, error=str(error))
        else:
            self._away_since = None

    def probe(self, source: str, partition: int, offsets: BitMap64, until: float = math.inf) -> BitMap64:
        """Which of ``offsets`` the broker skips by right: one look at the start of each stretch of them.

        A stretch that begins with a message is left as it is behind that message: something of it is missing that is no
        hole, and it will be looked at again. What retention took meanwhile is no hole: it is remembered as lost, with a
        warning. No stretch is begun after ``until`` (monotonic seconds). Raises KafkaUnreachable when the broker does
        not answer, K2BeamError when it refuses, and Stopped.
        """
        holes = offsets & self.holes[source, partition]
        if holes == offsets:
            return holes
        with self._cursor(source, partition) as cursor:
            for first, last in runs(offsets - holes):
                if time.monotonic() >= until:
                    break
                found, _ = self._look(cursor, (source, partition), first, last)
                holes |= found
        return holes

    def first_given(self, source: str, partition: int, missing: BitMap64) -> int | None:
        """The first of ``missing`` that the log gives, and so is no hole; None where it gives none of them.

        A probe that is told to stop takes the first of them for it. Raises as :meth:`probe` does.
        """
        missing = missing - self.holes[source, partition]
        if not missing:
            return None
        try:
            with self._cursor(source, partition) as cursor:
                for first, last in runs(missing):
                    _, given = self._look(cursor, (source, partition), first, last)
                    if given is not None and given <= last:
                        return given
        except Stopped:
            return missing.min()
        return None

    def _look(self, cursor: Cursor, place: _Place, first: int, last: int) -> tuple[BitMap64, int | None]:
        """The holes at the beginning of a stretch, and the first message at it or behind it."""
        given = cursor.at(first)
        holes = BitMap64()
        # A log that ends below offsets that it had (its leader is new and behind) says nothing of them.
        end = min(last + 1, cursor.end if given is None else given)
        begin = min(max(first, cursor.low), end)
        holes.add_range(begin, end)
        self.holes.update(Coverage({SourcePartition(*place): holes}))
        if begin > first:
            self._lost.setdefault(place, BitMap64()).add_range(first, begin)
            self._say_lost(place, first, begin - 1)
        return holes, given

    def _say_lost(self, place: _Place, first: int, last: int) -> None:
        get_logger("kafka").warning(
            "retention took offsets before they were read; they are lost, and the audit reports them",
            topic=self._names[place[0]],
            partition=place[1],
            first=first,
            last=last,
        )

    @contextmanager
    def _cursor(self, source: str, partition: int) -> Iterator[Cursor]:
        try:
            if self._consumer is None:
                self._consumer = Consumer({**self._config.librdkafka(), **_SETTINGS}, logger=CLIENT_LOG)
            consumer = self._consumer
            yield Cursor(consumer, self._names[source], partition, self._timeout_s, self._stop)
            consumer.unassign()
        except KafkaException as error:
            self.close()
            raise _failed(error.args[0], source, partition) from error
        except KafkaUnreachable as error:
            self.close()
            where = f"{self._names[source]} partition {partition} can't be probed at {self._config.bootstrap}"
            raise KafkaUnreachable(f"{where}: {error}") from error
        except Stopped:
            self.close()
            raise


def _failed(error: KafkaError, source: str, partition: int) -> K2BeamError:
    kind = KafkaUnreachable if error.code() in AWAY else K2BeamError
    return kind(f"{source} partition {partition} can't be probed: {error.str()}")
