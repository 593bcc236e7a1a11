"""ReadArchive in a pipeline."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from k2beam.archive.header import ArchiveLimits
from k2beam.archive.scan import ReadProblem
from k2beam.coverage import Coverage
from k2beam.errors import ArchiveRefused, UsageError
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch
from tests.archive_copies import archive_coverage
from tests.archive_files import ENVELOPE, SYNC, block, blocks_of, encode, envelope, header, long, sized
from transforms.read_archive import ReadArchive

HEAD = header(codec="snappy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clean file, one with a broken block and a truncated tail, and one in the envelope."""
    one, two, three = blocks_of([30, 20, 10], "snappy")
    (tmp_path / "a.avro").write_bytes(HEAD + one + two + three)
    broken = long(20) + sized(b"not snappy") + SYNC
    (tmp_path / "b.avro").write_bytes(HEAD + three + broken + one + two[:-5])
    raw = b"".join(encode(ENVELOPE, envelope(n)) for n in range(100, 140))
    (tmp_path / "c.avro").write_bytes(header(ENVELOPE) + block(40, raw))
    return tmp_path


def taken(batch: RawBatch | BlockBatch | DeadLetterBatch) -> list[tuple[str, int, int, int]]:
    """Ranges of offsets that a batch stands for."""
    if isinstance(batch, RawBatch):
        return [(row["source"], row["partition"], row["offset"], row["offset"]) for row in batch.data.to_pylist()]
    if isinstance(batch, DeadLetterBatch):
        return [
            (dead_letter.source, dead_letter.partition, dead_letter.offset, dead_letter.last)
            for dead_letter in batch.dead_letters
        ]
    return [(batch.source, 0, part.first_offset, part.first_offset + part.count - 1) for part in batch.blocks]


def exactly(expected: Coverage) -> Callable[[list[Any]], None]:
    """Each offset of ``expected`` is there, once."""

    def check(ranges: list[Any]) -> None:
        found = Coverage()
        for item in ranges:
            found.add_range(*item)
        assert found == expected
        assert sum(last - first + 1 for _, _, first, last in ranges) == len(expected)

    return check


def tails(*paths: Path) -> Callable[[list[Any]], None]:
    def check(problems: list[ReadProblem]) -> None:
        found = sorted((problem.path, problem.kind) for problem in problems)
        assert found == [(str(path), "truncated_tail") for path in paths]

    return check


def counters(result: Any) -> dict[str, int]:
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace("k2beam"))["counters"]
    return {counter.key.metric.name: counter.result for counter in found}


@pytest.mark.parametrize("chunk_bytes", [100, 8 << 20])
def test_every_offset_is_read_once(folder: Path, chunk_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "empty.avro").touch()
    expected = Coverage()
    for name in ("a", "b", "c"):
        expected.update(archive_coverage(folder / f"{name}.avro"))
    assert len(expected) == 60 + 60 + 40
    pipeline = TestPipeline(runner="FnApiRunner")
    with caplog.at_level(logging.WARNING):
        read = pipeline | ReadArchive([str(folder)], limits=ArchiveLimits(chunk_bytes=chunk_bytes))
        assert_that((read.batches, read.errs) | beam.Flatten() | beam.FlatMap(taken), exactly(expected), "offsets")
        assert_that(read.problems, tails(folder / "b.avro", folder / "empty.avro"), "problems")
        result = pipeline.run()
        result.wait_until_finish()
    assert counters(result) == {"records_read": 140, "broken_blocks": 1, "truncated_tails": 2}
    assert any("truncated_tail" in record.message and "b.avro" in record.message for record in caplog.records)


def test_nothing_is_built_when_a_file_is_refused(folder: Path) -> None:
    (folder / "z.avro").write_bytes(b"PAR1")
    with pytest.raises(ArchiveRefused, match=r"z\.avro"):
        TestPipeline(runner="FnApiRunner") | ReadArchive([str(folder)])


def test_nothing_is_built_when_a_name_is_not_utf8(folder: Path) -> None:
    (folder / "a.avro").rename(folder / "a\udce9.avro")
    with pytest.raises(UsageError, match=r"a\\xe9\.avro: the path is not UTF-8"):
        TestPipeline(runner="FnApiRunner") | ReadArchive([str(folder)])


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file matches"):
        TestPipeline(runner="FnApiRunner") | ReadArchive([str(tmp_path / "*.avro")])


def test_outside_the_root(folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    os.symlink(folder / "a.avro", root / "link.avro")
    for path in (root / "link.avro", root / ".." / "a.avro"):
        with pytest.raises(ArchiveRefused, match="outside the root"):
            TestPipeline(runner="FnApiRunner") | ReadArchive([str(path)], root=str(root))


def test_wrong_bounds() -> None:
    with pytest.raises(UsageError, match="rows_per_batch"):
        ReadArchive(["a.avro"], rows_per_batch=0)
