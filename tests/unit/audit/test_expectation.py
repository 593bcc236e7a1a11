"""What is expected and missing, by intervals: the same as a naive count, and at no cost for a leap of any length."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap64

from k2beam.archive.write import write_raw_archive
from k2beam.audit.expectation import Expectation, SourceFile
from k2beam.coverage import MOST_OFFSETS, Coverage, SourcePartition, holes, span
from k2beam.errors import LakeError
from k2beam.lake.ledger import read_ledger
from k2beam.lake.tables import SEQUENCE_GAPS
from k2beam.model import RawRecord
from k2beam.schemas import avro_schema
from tests.audit_helpers import SOURCE, START, Row, SmallLake

KEY = SourcePartition(SOURCE, 0)
LEAP = 1 << 45
ROOM = 4 << 30
"""Address space of a process that audits; a bitmap of a leap would take terabytes."""

OFFSETS = st.sets(st.integers(0, 40), max_size=20)


def ranges(offsets: set[int]) -> list[tuple[int, int]]:
    firsts = sorted(offset for offset in offsets if offset - 1 not in offsets)
    lasts = sorted(offset for offset in offsets if offset + 1 not in offsets)
    return list(zip(firsts, lasts, strict=True))


@settings(max_examples=200, deadline=None)
@given(OFFSETS, st.integers(0, 45), st.integers(0, 45))
def test_holes_are_what_a_bitmap_leaves(offsets: set[int], first: int, last: int) -> None:
    assert list(holes(BitMap64(offsets), first, last)) == ranges(set(range(first, last + 1)) - offsets)


@settings(max_examples=200, deadline=None)
@given(OFFSETS, st.lists(OFFSETS.filter(bool), max_size=3), st.none() | st.integers(0, 45), st.integers(0, 5), OFFSETS)
def test_missing_is_what_a_naive_count_misses(
    seen: set[int], files: list[set[int]], end: int | None, shown: int, recorded: set[int]
) -> None:
    expectation = Expectation(holes=Coverage({KEY: BitMap64(recorded)}))
    expected = set(range(min(seen), max(seen) + 1)) if seen else set()
    for offsets in files:
        expected -= set(range(min(offsets), max(offsets) + 1))
    for number, offsets in enumerate(files):
        expectation.add_file(SourceFile(str(number), Coverage({KEY: BitMap64(offsets)})))
        expected |= offsets
    if end is not None:
        expectation.add_recorded({KEY: end})
        expected |= set(range(end))
    found = expectation.missing(KEY, BitMap64(seen), shown)
    expected -= seen | (recorded - set().union(*files))
    assert found.count == len(expected)
    assert list(found.ranges) == ranges(expected)[:shown]


def test_a_stretch_without_bounds_is_refused() -> None:
    assert list(span(3, 6)) == [3, 4, 5]
    assert not span(6, 3)
    with pytest.raises(LakeError, match=f"offsets 5 to {MOST_OFFSETS + 5} .* does not belong"):
        span(5, MOST_OFFSETS + 6)


def audited(lake: SmallLake, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The command in a process with little memory: its exit code and certificate."""
    command = [sys.executable, "-m", "k2beam.cli.main", "audit", "--warehouse", str(lake.config.warehouse)]
    limited = ["bash", "-c", f'ulimit -v {ROOM >> 10}; exec "$@"', "audit", *command, "--output", "json", *arguments]
    done = subprocess.run(limited, check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), f"{done.returncode}: {done.stderr[-2000:]}"
    return done.returncode, json.loads(done.stdout)


def test_a_leap_of_offsets_and_of_sequence_numbers_is_told_exactly(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path / "wh")
    lake.add([Row(0, 1), Row(LEAP, 1 << 62)])
    lake.expect(LEAP + 5)
    code, report = audited(lake)
    (source,) = report["sources"]
    assert code == 1
    assert (source["expected"], source["received"], source["missing"]) == (LEAP + 5, 2, LEAP + 3)
    assert source["missing_ranges"] == [[1, LEAP - 1], [LEAP + 1, LEAP + 4]]
    assert report["problems"] == [
        f"source {SOURCE} partition 0: {LEAP + 3:,} of {LEAP + 5:,} offsets are missing: "
        f"1-{LEAP - 1}, {LEAP + 1}-{LEAP + 4}"
    ]
    (symbol,) = report["symbols"]
    assert (symbol["expected"], symbol["missing"]) == (1 << 62, (1 << 62) - 2)
    (gap,) = read_ledger(lake.table(SEQUENCE_GAPS))
    assert (gap.first_missing, gap.last_missing) == (2, (1 << 62) - 1)


def test_a_source_with_a_leap_of_its_own_passes(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path / "wh")
    lake.add([Row(0, 1), Row(LEAP, 2)])
    path = tmp_path / "a.avro"
    records = (RawRecord(SOURCE, 0, offset, START, None, b"\0\0\0\0\1x") for offset in (0, LEAP))
    write_raw_archive(str(path), records, {1: avro_schema("trade_v2")}, codec="null")
    code, report = audited(lake, "--source", str(path))
    assert (code, report["problems"]) == (0, [])
