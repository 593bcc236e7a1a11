"""What a broker's topics must have brought into the tables."""

from __future__ import annotations

from collections.abc import Sequence

from pyroaring import BitMap64

from k2beam.coverage import Coverage, SourcePartition
from k2beam.exporter.backlog import Backlog, Backlogs
from k2beam.kafka.cluster import Bounds, Topic
from k2beam.kafka.count import count_topics

TOPIC = Topic("ticks", "kafka:c/ticks/1", (0,))
KEY = (TOPIC.source, 0)


class Cluster:
    """A cluster whose partition has these bounds, one after another."""

    def __init__(self, *bounds: Bounds) -> None:
        self.left = list(bounds)

    def bounds(self, _topics: Sequence[Topic]) -> dict[tuple[str, int], Bounds]:
        return {KEY: self.left.pop(0)}


class Probe:
    """Finds these holes, and remembers what it was asked for."""

    def __init__(self, *holes: int) -> None:
        self.holes = BitMap64(holes)
        self.asked = BitMap64()

    def probe(self, _source: str, _partition: int, offsets: BitMap64) -> BitMap64:
        self.asked = offsets.copy()
        return offsets & self.holes


def claimed(*offsets: int) -> Coverage:
    coverage = Coverage()
    coverage.add_many(*KEY, list(offsets))
    return coverage


def counted(bounds: Sequence[Bounds], probe: Probe, coverage: Coverage) -> list[int]:
    return list(count_topics(Cluster(*bounds), [TOPIC], probe, coverage)[KEY])  # type: ignore[arg-type]


def test_a_hole_of_the_log_is_not_expected_and_a_message_is() -> None:
    probe = Probe(6)
    assert counted([Bounds(4, 9), Bounds(4, 9)], probe, claimed(4, 5, 8)) == [4, 5, 7, 8]
    assert list(probe.asked) == [6, 7]


def test_what_retention_took_is_expected_though_the_broker_has_it_no_more() -> None:
    probe = Probe()
    assert counted([Bounds(6, 9)], probe, claimed(2, 3, 6, 7)) == [2, 3, 4, 5, 6, 7, 8]
    assert list(probe.asked) == [8]
    assert counted([Bounds(9, 9)], probe, claimed(2, 3)) == [2, 3, 4, 5, 6, 7, 8]


def test_what_retention_takes_during_the_count_is_no_hole() -> None:
    assert counted([Bounds(0, 6), Bounds(4, 6)], Probe(2, 3, 5), claimed(0, 1, 4)) == [0, 1, 2, 3, 4]


def test_what_retention_took_before_anything_was_taken_is_expected_from_the_recorded_offset_on() -> None:
    firsts = {SourcePartition(*KEY): 2}
    for low in (6, 9):
        log, probe = Cluster(Bounds(low, 9)), Probe()
        assert list(count_topics(log, [TOPIC], probe, Coverage(), firsts)[KEY]) == [2, 3, 4, 5, 6, 7, 8]  # type: ignore[arg-type]
    taken = claimed(1, 2)
    assert list(count_topics(Cluster(Bounds(3, 5)), [TOPIC], Probe(), taken, firsts)[KEY]) == [1, 2, 3, 4]  # type: ignore[arg-type]


def test_a_hole_that_is_known_is_not_expected_even_where_the_log_begins_further_on() -> None:
    log = Cluster(Bounds(6, 9))
    found = count_topics(log, [TOPIC], Probe(), claimed(1, 2, 6, 7, 8), None, claimed(3, 5))  # type: ignore[arg-type]
    assert list(found[KEY]) == [1, 2, 4, 6, 7, 8]


def test_the_backlog_of_the_exporter_has_the_same_losses() -> None:
    backlogs = Backlogs(lambda _topic, _partition, _offset: None)
    assert backlogs.of(TOPIC, 0, Bounds(6, 6), BitMap64(), 2) == Backlog(lag=0, oldest=None, covered=0, lost=4)
    assert backlogs.of(TOPIC, 0, Bounds(6, 6), BitMap64()).lost == 0
