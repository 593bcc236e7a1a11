"""The start and the goal of a job, without a broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from k2beam.cli.main import main
from k2beam.coverage import Coverage
from k2beam.job.live import Goal
from k2beam.kafka.cluster import Bounds, start_offsets

KEY = ("kafka:c/t/1", 0)


@given(st.sets(st.integers(0, 60)), st.integers(0, 30), st.integers(0, 40))
def test_the_start_is_the_first_offset_that_is_not_covered(covered: set[int], low: int, length: int) -> None:
    coverage = Coverage()
    coverage.add_many(*KEY, sorted(covered))
    found = start_offsets({KEY: Bounds(low, low + length)}, coverage)[KEY]
    assert found == next((offset for offset in range(low, low + length) if offset not in covered), low + length)


def test_holes_before_the_first_message_that_is_missing_are_left_out() -> None:
    coverage = Coverage()
    coverage.add_many(*KEY, [0, 1, 3, 4])
    asked: list[BitMap64] = []

    def first_given(source: str, partition: int, missing: BitMap64) -> int | None:
        assert (source, partition) == KEY
        asked.append(missing)
        return 6 if 6 in missing else None

    assert start_offsets({KEY: Bounds(0, 9)}, coverage, first_given) == {KEY: 6}
    assert start_offsets({KEY: Bounds(0, 6)}, coverage, first_given) == {KEY: 6}, "nothing but holes: at the end"
    assert asked == [BitMap64([2, 5, 6, 7, 8]), BitMap64([2, 5])]
    other = ("kafka:c/t/1", 1)
    assert start_offsets({other: Bounds(2, 9), KEY: Bounds(3, 5)}, coverage, first_given) == {other: 2, KEY: 5}
    assert len(asked) == 2, "nobody is asked where nothing was taken, or nothing is missing"


def test_a_long_run_is_found_quickly() -> None:
    coverage = Coverage()
    coverage.add_range(*KEY, 0, 10**9)
    assert start_offsets({KEY: Bounds(5, 10**10)}, coverage)[KEY] == 10**9 + 1


def test_the_goal_is_what_was_there_at_the_start() -> None:
    other = ("kafka:c/t/1", 1)
    goal = Goal({KEY: 2, other: 0}, {KEY: Bounds(0, 6), other: Bounds(0, 0)})
    coverage = Coverage()
    coverage.add_many(*KEY, [3, 9])
    assert goal.missing(coverage) == {KEY: BitMap64([2, 4, 5])}
    coverage.add_range(*KEY, 0, 5)
    assert goal.missing(coverage) == {}


def test_a_live_job_without_a_registry_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ingest", "kafka", "--topic", "t", "--warehouse", "w"])
    assert ended.value.code == 2
    assert "--registry URL is needed" in capsys.readouterr().err
