"""What a compaction would do, by the sizes, partitions and times of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from k2beam.maintain.candidates import GROUP_TARGETS, MIN_FILES, FileGroup, LiveFile, plan_groups

TARGET = 1000
QUIET_SINCE = 50


def candidate(number: int, nbytes: int, **changes: Any) -> LiveFile:
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"file:///data/{number:05}.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=10,
        file_size_in_bytes=nbytes,
    )
    return LiveFile(**{"file": file, "partition": "day=1", "oldest": number, "written": 1, **changes})


def planned(candidates: Sequence[LiveFile]) -> list[FileGroup]:
    return plan_groups(candidates, TARGET, QUIET_SINCE)


def sizes(*nbytes: int) -> list[LiveFile]:
    return [candidate(number, size) for number, size in enumerate(nbytes)]


@pytest.mark.parametrize(
    ("nbytes", "files_after"),
    [([100] * 5, 1), ([700] * 5, 4), ([700] * 10, 7), ([100, 100, 100, 100, 600], 1)],
    ids=["one", "nearly full", "many", "mixed"],
)
def test_small_files_become_fewer(nbytes: list[int], files_after: int) -> None:
    (group,) = planned(sizes(*nbytes))
    assert (len(group.files), group.files_after, group.nbytes) == (len(nbytes), files_after, sum(nbytes))
    assert group.rows == 10 * len(nbytes)
    assert not group.busy


@pytest.mark.parametrize(
    "nbytes", [[], [100] * 4, [750] * 9, [100] * 4 + [800] * 5], ids=["none", "few", "large", "few small"]
)
def test_nothing_is_planned_where_it_would_not_help(nbytes: list[int]) -> None:
    assert planned(sizes(*nbytes)) == []


def test_large_files_stay_as_they_are() -> None:
    (group,) = planned(sizes(100, 900, 100, 100, 5000, 100, 100))
    assert [file.file_size_in_bytes for file in group.files] == [100] * 5


def test_partitions_are_apart_and_only_the_one_that_is_written_to_is_busy() -> None:
    quiet = [candidate(number, 100, written=QUIET_SINCE) for number in range(5)]
    large = candidate(20, 5000, partition="day=2", written=QUIET_SINCE + 1)
    busy = [candidate(10 + number, 100, partition="day=2") for number in range(5)]
    groups = planned([*busy, large, *quiet])
    assert [(group.partition, group.busy, len(group.files)) for group in groups] == [
        ("day=1", False, 5),
        ("day=2", True, 5),
    ]


def test_a_file_that_does_not_say_when_it_was_written_is_not_taken_for_new() -> None:
    (group,) = planned([candidate(number, 100, written=None) for number in range(5)])
    assert not group.busy


@given(st.lists(st.tuples(st.integers(1, 1200), st.integers(0, 9), st.sampled_from(["a", "b"])), max_size=300))
def test_a_plan_holds_small_files_once_and_in_time_and_is_bounded(files: list[tuple[int, int, str]]) -> None:
    candidates = [
        candidate(number, nbytes, oldest=oldest, partition=partition)
        for number, (nbytes, oldest, partition) in enumerate(files)
    ]
    of_path = {one.file.file_path: one for one in candidates}
    groups = planned(candidates)
    paths = [file.file_path for group in groups for file in group.files]
    assert len(paths) == len(set(paths))
    for group in groups:
        members = [of_path[file.file_path] for file in group.files]
        assert {one.partition for one in members} == {group.partition}
        assert all(one.nbytes < TARGET * 3 / 4 for one in members)
        assert [one.oldest for one in members] == sorted(one.oldest for one in members)
        assert MIN_FILES <= len(members) > group.files_after == -(-group.nbytes // TARGET)
        assert group.nbytes <= TARGET * (GROUP_TARGETS + 1)
