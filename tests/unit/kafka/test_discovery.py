"""Discovery: what came since, and when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from k2beam.errors import KafkaUnreachable, UsageError
from k2beam.kafka import discovery
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.discovery import Discovery

TICKS = Topic("ticks", "kafka:c/ticks/1", (0, 1, 2))
QUOTES = Topic("quotes", "kafka:c/quotes/2", (0,))


class Cluster:
    """Has two topics, or an error."""

    error: Exception | None = None

    def __init__(self, *_: object) -> None: ...

    def topics(self, names: Sequence[str], pattern: str | None) -> list[Topic]:
        if self.error is not None:
            raise self.error
        return [topic for topic in (TICKS, QUOTES) if topic.name in names or pattern is not None]


def looking(monkeypatch: pytest.MonkeyPatch, pattern: str | None = None) -> Discovery:
    monkeypatch.setattr(discovery, "Cluster", Cluster)
    monkeypatch.setattr(discovery, "DISCOVERY_SECONDS", 0.0)
    return Discovery(KafkaConfig("broker:9092"), pattern)


def test_partitions_that_were_added_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looking(monkeypatch)
    assert found.look([(TICKS.source, 0)]) == [(TICKS, 1), (TICKS, 2)]
    assert found.look([(TICKS.source, 0), (TICKS.source, 1), (TICKS.source, 2)]) == []


def test_topics_that_a_pattern_matches_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(TICKS.source, partition) for partition in TICKS.partitions]
    assert looking(monkeypatch, ".*").look(known) == [(QUOTES, 0)]


def test_a_topic_that_was_made_anew_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looking(monkeypatch).look([("kafka:c/ticks/0", 0)]) == []


@pytest.mark.parametrize("error", [KafkaUnreachable("away"), UsageError("gone")])
def test_without_an_answer_there_is_nothing_new(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    found = looking(monkeypatch)
    monkeypatch.setattr(Cluster, "error", error)
    assert found.look([(TICKS.source, 0)]) == []


def test_it_asks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "Cluster", Cluster)
    assert Discovery(KafkaConfig("broker:9092")).look([(TICKS.source, 0)]) == [], "the job has just asked"
