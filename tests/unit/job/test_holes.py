"""The holes of a running job: what is asked for, when, and what becomes of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pyroaring import BitMap64

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage, SourcePartition
from k2beam.errors import KafkaUnreachable, LakeError, Stopped
from k2beam.job import beside, holes
from k2beam.job.holes import HoleKeeper
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import read_holes, record_holes
from k2beam.lake.tables import LEGAL_HOLES
from tests.audit_helpers import SOURCE, Row, SmallLake
from tests.lake_helpers import QUICK, write_config

KEY = SourcePartition(SOURCE, 0)


class Probe:
    """A broker that has no message at some offsets, and keeps what it was asked."""

    def __init__(self, *gone: int) -> None:
        self.holes = Coverage()
        self.asked: list[list[int]] = []
        self.fails: Exception | None = None
        self._gone = BitMap64(gone)

    def known(self, missing: dict[tuple[str, int], BitMap64]) -> dict[tuple[str, int], BitMap64]:
        return {key: left for key, offsets in missing.items() if (left := offsets - self.holes[key])}

    def probe(self, source: str, partition: int, offsets: BitMap64, until: float) -> BitMap64:
        assert until > time.monotonic() - 60
        if self.fails:
            raise self.fails
        self.asked.append(list(offsets))
        found = offsets & self._gone
        self.holes.update(Coverage({SourcePartition(source, partition): found}))
        return found


class Kept:
    """A job over trades at some offsets of one partition, and its keeper; ``kept``: sources that are not compacted."""

    def __init__(self, folder: Path, probe: Probe, *kept: str) -> None:
        self.lake = SmallLake(folder)
        self.lake.add([Row(offset, offset) for offset in (0, 3, 4, 7)])
        self.kept = kept
        self.probe = probe
        self.keeper = HoleKeeper(
            self.lake.catalog, self.lake.config, write_config(bounded=False, retry=QUICK), lambda: self.kept
        )

    def look(self) -> None:
        self.keeper.look(
            self.probe,  # type: ignore[arg-type]
            lambda covered: {KEY: BitMap64(range(covered[KEY].max())) - covered[KEY]},
        )

    def recorded(self, *, final: bool = False) -> list[int]:
        return list(read_holes(self.lake.catalog, NAMESPACE, log_compacted=False if final else None)[KEY])

    def covered(self) -> list[int]:
        return list(read_coverage(self.lake.catalog, NAMESPACE)[KEY])


@pytest.fixture(autouse=True)
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []

    class Said:
        def warning(self, text: str, **_: object) -> None:
            lines.append(text)

    monkeypatch.setattr(beside, "get_logger", lambda _: Said())
    return lines


def test_what_is_missing_at_two_looks_is_asked_for_recorded_and_covered(tmp_path: Path) -> None:
    probe = Probe(1, 2, 5, 8)
    job = Kept(tmp_path, probe, SOURCE)
    job.look()
    assert (job.recorded(), probe.asked) == ([], [[]]), "it may be on its way"
    job.lake.add([Row(9, 9)])
    job.look()
    assert probe.asked[1:] == [[1, 2, 5, 6]]
    assert job.recorded(final=True) == [1, 2, 5]
    assert job.covered() == [0, 1, 2, 3, 4, 5, 7, 9]
    job.look()
    assert probe.asked[2:] == [[6, 8]]
    assert job.covered() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    job.lake.add([Row(6, 6)])
    assert audit(job.lake.catalog, NAMESPACE).problems == ()


def test_of_a_compacted_log_they_are_recorded_and_not_covered(tmp_path: Path) -> None:
    job = Kept(tmp_path, Probe(1, 2), "another")
    job.look()
    job.look()
    assert (job.recorded(), job.recorded(final=True)) == ([1, 2], [])
    assert job.covered() == [0, 3, 4, 7]


@pytest.mark.parametrize(("before", "after"), [((), (SOURCE,)), ((SOURCE,), ())])
def test_a_log_that_was_compacted_for_a_while_is_taken_for_a_compacted_one(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    job = Kept(tmp_path, Probe(1), *before)
    job.look()
    job.kept = after
    job.look()
    assert (job.recorded(), job.recorded(final=True)) == ([1], [])
    assert job.covered() == [0, 3, 4, 7]


def test_what_was_found_while_the_log_was_compacted_is_never_covered(tmp_path: Path) -> None:
    job = Kept(tmp_path, Probe())
    record_holes(job.lake.catalog, NAMESPACE, Coverage({KEY: BitMap64([1])}), log_compacted=True)
    record_holes(job.lake.catalog, NAMESPACE, Coverage({KEY: BitMap64([2, 5])}), log_compacted=False)
    job.kept = (SOURCE,)
    known = job.keeper.read(Coverage({KEY: BitMap64([1, 2, 6])}))
    assert list(known[KEY]) == [1, 2]
    job.keeper.save(known)
    assert job.covered() == [0, 2, 3, 4, 7], "recorded by an earlier job that died before it covered it"


def test_they_are_recorded_before_they_are_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object, **__: object) -> None:
        assert job.recorded() == [1]
        raise LakeError("not now")

    job = Kept(tmp_path, Probe(1), SOURCE)
    monkeypatch.setattr(holes, "cover_holes", dies)
    job.look()
    job.look()
    assert job.covered() == [0, 3, 4, 7]
    monkeypatch.undo()
    job.keeper.save(job.probe.holes)
    assert job.covered() == [0, 1, 3, 4, 7]


def test_a_look_is_due_every_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(holes.time, "monotonic", lambda: now)
    job = Kept(tmp_path, Probe(1), SOURCE)
    assert not job.keeper.is_due
    now += 600
    assert job.keeper.is_due
    job.look()
    assert not job.keeper.is_due


def test_one_that_finds_holes_until_its_time_is_up_is_gone_on_with_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Kept(tmp_path, Probe(1, 2), SOURCE)
    monkeypatch.setattr(holes, "ASKING_SECONDS", -1.0)
    job.look()
    assert not job.keeper.is_due, "there was nothing to ask for"
    job.look()
    assert job.recorded() == [1, 2]
    assert job.keeper.is_due
    job.look()
    assert not job.keeper.is_due, "it found no more"


@pytest.mark.parametrize(
    "error", [KafkaUnreachable("nobody answers"), ConnectionError("the catalog is away"), OSError("no room")]
)
def test_what_can_not_be_asked_now_is_asked_later(tmp_path: Path, warned: list[str], error: Exception) -> None:
    probe = Probe(1)
    job = Kept(tmp_path, probe, SOURCE)
    job.look()
    probe.fails = error
    job.look()
    assert warned == ["holes are not looked for or recorded now, but will be later"]
    assert not job.keeper.is_due
    probe.fails = None
    job.look()
    assert job.recorded() == [1]


def test_a_table_of_holes_that_can_not_be_read_keeps_no_job_from_running(tmp_path: Path, warned: list[str]) -> None:
    job = Kept(tmp_path, Probe(1), SOURCE)
    record_holes(job.lake.catalog, NAMESPACE, Coverage({KEY: BitMap64([1])}), log_compacted=False)
    (file,) = job.lake.data_files(LEGAL_HOLES)
    file.unlink()
    known = job.keeper.read(Coverage({KEY: BitMap64([1])}))
    assert known == Coverage()
    job.keeper.save(Coverage({KEY: BitMap64([1])}))
    assert len(warned) == 2
    assert job.covered() == [0, 3, 4, 7]


def test_a_job_that_is_told_to_stop_says_nothing(tmp_path: Path, warned: list[str]) -> None:
    probe = Probe(1)
    job = Kept(tmp_path, probe, SOURCE)
    probe.fails = Stopped()
    job.look()
    assert warned == []
