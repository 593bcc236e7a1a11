"""What comes twice is found for a time, and of each stream among its last ones."""

from __future__ import annotations

from k2beam.feeds.recent_ids import RecentIds


def test_recent_ids_are_forgotten_in_time() -> None:
    recent = RecentIds(10.0)
    assert [recent.add("s", "a", 0.0), recent.add("s", "a", 10.0), recent.add("s", "b", 10.0)] == [True, False, True]
    assert [recent.add("s", "a", 10.5), recent.add("s", "b", 20.0), recent.add("s", "b", 20.5)] == [True, False, True]


def test_the_last_ones_of_a_stream_are_kept_whatever_their_age() -> None:
    recent = RecentIds(10.0, least=2)
    for number in range(4):
        assert recent.add("slow", f"a{number}", float(number))
    assert recent.add("fast", "b", 1_000.0)
    assert [recent.add("slow", f"a{number}", 1_000.0) for number in (2, 3)] == [False, False]
    assert recent.add("slow", "a1", 1_000.0), "all but the last two are forgotten"
