"""What is shown of topics, with a broker that does as it's told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError, KafkaUnreachable, UsageError
from k2beam.exporter.backlog import LogMessage
from k2beam.exporter.lag import LagReading, TopicLag
from k2beam.kafka.cluster import Bounds, Topic
from k2beam.lake.holes import record_holes
from k2beam.lake.recorded import record_first_offsets
from k2beam.metrics.handle import Metrics
from tests.exporter_helpers import Shown, add_trades, lake
from tests.lake_helpers import START
from tests.query_fixtures import make_catalog


class FakeCluster:
    """A broker with some topics of one partition each, whose messages are a second apart."""

    def __init__(self, **ends: int) -> None:
        self.ends = dict(ends)
        self.low: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.silent: set[str] = set()
        self.peeking_fails = False
        self.has_times = True

    def source(self, name: str) -> str:
        return f"kafka:c/{name}/{self.ids.get(name, 1)}"

    def topics(self, names: Sequence[str], pattern: str | None = None) -> list[Topic]:
        wanted = [*names, *(name for name in self.ends if pattern and name.startswith(pattern))]
        for name in wanted:
            if name not in self.ends:
                raise UsageError(f"topic {name!r} can't be described")
        if not wanted:
            raise UsageError("no topic")
        return [Topic(name, self.source(name), (0,)) for name in wanted]

    def bounds(self, topics: Any) -> dict[tuple[str, int], Bounds]:
        if said := self.silent.intersection(topic.name for topic in topics):
            raise KafkaUnreachable(f"no answer for {said}")
        return {(topic.source, 0): Bounds(self.low.get(topic.name, 0), self.ends[topic.name]) for topic in topics}

    def peek(self, topic: str, partition: int, offset: int) -> LogMessage | None:
        assert partition == 0
        if self.peeking_fails:
            raise KafkaUnreachable(f"topic {topic} can't be read")
        if offset >= self.ends[topic]:
            return None
        return LogMessage(offset, START + offset * 1_000_000 if self.has_times else None)


def lag_reading(folder: Path, cluster: FakeCluster, metrics: Metrics, *names: str, pattern: str | None = None) -> Any:
    lag = TopicLag(lake(folder), lambda: cluster, cluster.peek, names, pattern, now=lambda: START + 100_000_000)
    return LagReading(lag, metrics)


def of_topic(topic: str, **values: float) -> dict[str, float]:
    return {f"k2_source_{name}{{partition=0,topic={topic}}}": value for name, value in values.items()}


def test_lag_coverage_losses_and_age_of_the_backlog(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=50, b=3), Shown()
    cluster.low["b"] = 2
    add_trades(tmp_path, range(40), cluster.source("a"))
    add_trades(tmp_path, range(1), cluster.source("b"))
    reading = lag_reading(tmp_path, cluster, shown.metrics, "a", "b")
    assert reading.read() == []
    behind_a = of_topic("a", lag_messages=10, covered_offsets=40, lost_offsets=0, behind_seconds=60)
    assert shown.now() == behind_a | of_topic("b", lag_messages=1, covered_offsets=1, lost_offsets=1, behind_seconds=98)
    add_trades(tmp_path, range(40, 50), cluster.source("a"))
    assert reading.read() == []
    caught_up = of_topic("a", lag_messages=0, covered_offsets=50, lost_offsets=0, behind_seconds=0)
    assert shown.now() == caught_up | of_topic(
        "b", lag_messages=1, covered_offsets=1, lost_offsets=1, behind_seconds=98
    )


def test_what_was_lost_of_a_partition_before_anything_was_taken_is_shown(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=5), Shown()
    cluster.low["a"] = 5
    record_first_offsets(make_catalog(tmp_path), NAMESPACE, {(cluster.source("a"), 0): 2})
    assert lag_reading(tmp_path, cluster, shown.metrics, "a").read() == []
    assert shown.now() == of_topic("a", lag_messages=0, covered_offsets=0, lost_offsets=3, behind_seconds=0)


def test_recorded_holes_are_no_lag_and_no_loss(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=12), Shown()
    cluster.low["a"] = 4
    add_trades(tmp_path, [0, 1, 4, 5, 9], cluster.source("a"))
    holes = Coverage()
    holes.add_many(cluster.source("a"), 0, [2, 6, 7])
    record_holes(make_catalog(tmp_path), NAMESPACE, holes, log_compacted=True)
    assert lag_reading(tmp_path, cluster, shown.metrics, "a").read() == []
    expected = of_topic("a", lag_messages=3, covered_offsets=8, lost_offsets=1, behind_seconds=92)
    assert shown.now() == expected


def test_a_topic_made_anew_is_not_covered_by_what_was_there_before(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=5), Shown()
    add_trades(tmp_path, range(5), cluster.source("a"))
    reading = lag_reading(tmp_path, cluster, shown.metrics, "a")
    reading.read()
    cluster.ids["a"] = 2
    reading.read()
    assert shown.now() == of_topic("a", lag_messages=5, covered_offsets=0, lost_offsets=0, behind_seconds=100)


def test_an_age_that_is_not_known_is_not_shown(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=5), Shown()
    add_trades(tmp_path, range(1), cluster.source("a"))
    reading = lag_reading(tmp_path, cluster, shown.metrics, "a")
    reading.read()
    assert shown.now("k2_source_behind") != {}
    cluster.has_times = False
    reading = lag_reading(tmp_path, cluster, shown.metrics, "a")
    assert reading.read() == []
    assert shown.now() == of_topic("a", lag_messages=4, covered_offsets=1, lost_offsets=0)


def test_a_message_from_the_future_is_not_a_negative_age(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=500), Shown()
    add_trades(tmp_path, range(400), cluster.source("a"))
    lag_reading(tmp_path, cluster, shown.metrics, "a").read()
    assert shown.now("k2_source_behind") == of_topic("a", behind_seconds=0)


@pytest.mark.parametrize("broken", ["gone", "silent", "peeking"])
def test_a_topic_that_can_not_be_read_leaves_the_others(tmp_path: Path, broken: str) -> None:
    cluster, shown = FakeCluster(a=5, b=7), Shown()
    add_trades(tmp_path, range(5), cluster.source("a"))
    reading = lag_reading(tmp_path, cluster, shown.metrics, "a", "b")
    assert reading.read() == []
    assert len(shown.now("k2_source_lag")) == 2
    if broken == "gone":
        del cluster.ends["b"]
    elif broken == "silent":
        cluster.silent = {"b"}
    else:
        cluster.peeking_fails = True
    (problem,) = reading.read()
    assert "b" in problem
    assert shown.now() == of_topic("a", lag_messages=0, covered_offsets=5, lost_offsets=0, behind_seconds=0)


def test_a_pattern_follows_topics_that_come_and_go(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(t1=5), Shown()
    make_catalog(tmp_path)
    reading = lag_reading(tmp_path, cluster, shown.metrics, pattern="t")
    assert reading.read() == []
    cluster.ends = {"t2": 3}
    assert reading.read() == []
    assert shown.now("k2_source_lag") == of_topic("t2", lag_messages=3)
    cluster.ends = {}
    with pytest.raises(K2BeamError, match="no topic"):
        reading.read()


def test_named_topics_are_shown_though_the_pattern_matches_nothing(tmp_path: Path) -> None:
    cluster, shown = FakeCluster(a=5), Shown()
    make_catalog(tmp_path)
    reading = lag_reading(tmp_path, cluster, shown.metrics, "a", "nothing", pattern="x")
    assert len(reading.read()) == 2
    assert shown.now("k2_source_lag") == of_topic("a", lag_messages=5)
