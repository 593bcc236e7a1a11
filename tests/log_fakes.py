"""A log without a broker, for the transforms that read one: a reader of it, and what is found to have come."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from k2beam.kafka import discovery
from k2beam.kafka.batch import raw_batch
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.reader import Position
from k2beam.model import RawBatch

CONFIG = KafkaConfig("broker:9092")
START = Position("ticks", "kafka:c/ticks/1", 0, 0)


class Log:
    """A reader of one message at a time; it has caught up at ``end``."""

    end = 3
    before = 0.0
    """When it was at its end, if it is not now."""

    def __init__(self, config: KafkaConfig, rows: int) -> None:
        assert (config, rows) == (CONFIG, 10)
        self.positions: tuple[Position, ...] = ()
        self.sent_to: list[tuple[Position, ...]] = []
        self.closed = False

    @property
    def caught_up(self) -> bool:
        return self.positions[0].offset >= self.end

    @property
    def caught_up_at(self) -> float:
        return time.time() if self.caught_up else self.before

    def is_behind(self, ends: Mapping[tuple[str, int], int]) -> bool:
        return self.positions[0].offset >= ends[START.source, 0]

    def go_to(self, positions: Sequence[Position]) -> None:
        self.positions = tuple(positions)
        self.sent_to.append(self.positions)

    def read(self, wait_s: float) -> list[RawBatch]:
        assert wait_s > 0
        if self.caught_up:
            return []
        first, *others = self.positions
        self.positions = (first._replace(offset=first.offset + 1), *others)
        return [raw_batch({"ticks": first.source}, ["ticks"], [0], [first.offset], [1000], [None], [b"v"], {})]

    def close(self) -> None:
        self.closed = True


class Found:
    """Finds what it's told to."""

    news: list[tuple[Topic, int]]

    def __init__(self, config: KafkaConfig, pattern: str | None) -> None:
        assert (config, pattern) == (CONFIG, "tick.*")

    def look(self, known: set[tuple[str, int]]) -> list[tuple[Topic, int]]:
        return [(topic, partition) for topic, partition in self.news if (topic.source, partition) not in known]


def without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers read :class:`Log`, and find what :class:`Found` does: nothing at first."""
    monkeypatch.setattr(discovery, "TopicReader", Log)
    monkeypatch.setattr(discovery, "Discovery", Found)
    monkeypatch.setattr(Found, "news", [], raising=False)


def offsets(elements: Any) -> list[int]:
    batches = pa.Table.from_batches([element.value.data for element in elements]) if elements else None
    return [] if batches is None else batches["offset"].to_pylist()
