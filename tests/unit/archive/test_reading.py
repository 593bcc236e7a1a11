"""Chunks read into batches and dead letters; what is counted of them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from k2beam.archive.count import count_archive
from k2beam.archive.header import ArchiveLimits
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.coverage import Coverage
from k2beam.errors import ArchiveError, UsageError
from k2beam.model import BlockBatch, DeadLetter, DeadLetterBatch, Extent, RawBatch
from tests.archive_copies import archive_coverage
from tests.archive_files import (
    ENVELOPE,
    SYNC,
    TRADE,
    block,
    blocks_of,
    compress,
    contents_of,
    encode,
    envelope,
    header,
    long,
    sized,
)

MIB = 1 << 20
CODECS = ["null", "deflate", "snappy", "zstandard"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "day.avro"


def read(path: Path, reader: ArchiveReader | None = None) -> list[RawBatch | BlockBatch | DeadLetterBatch]:
    reader = reader or ArchiveReader()
    return [batch for chunk in plan_archive(str(path), None, reader.limits).chunks for batch in reader.read(chunk)]


def dead_letters(batches: list[RawBatch | BlockBatch | DeadLetterBatch]) -> list[DeadLetter]:
    return [
        dead_letter for batch in batches if isinstance(batch, DeadLetterBatch) for dead_letter in batch.dead_letters
    ]


def taken(batches: list[RawBatch | BlockBatch | DeadLetterBatch]) -> Coverage:
    """The offsets that the batches stand for; each of them once."""
    coverage = Coverage()
    rows = 0
    for batch in batches:
        if isinstance(batch, BlockBatch):
            for part in batch.blocks:
                coverage.add_range(batch.source, 0, part.first_offset, part.first_offset + part.count - 1)
                rows += part.count
        elif isinstance(batch, RawBatch):
            for row in batch.data.to_pylist():
                coverage.add_many(row["source"], row["partition"], np.array([row["offset"]]))
                rows += 1
    for dead_letter in dead_letters(batches):
        coverage.add_range(dead_letter.source, dead_letter.partition, dead_letter.offset, dead_letter.last)
        rows += dead_letter.last - dead_letter.offset + 1
    assert len(coverage) == rows
    return coverage


@pytest.mark.parametrize("codec", CODECS)
def test_plain_container(path: Path, codec: str) -> None:
    path.write_bytes(header(codec=codec) + b"".join(blocks_of([3, 2], codec)))
    (batch,) = read(path)
    assert isinstance(batch, BlockBatch)
    assert json.loads(batch.schema_json) == TRADE
    assert [(part.first_offset, part.count, part.payload) for part in batch.blocks] == list(
        zip([0, 3], [3, 2], contents_of([3, 2]), strict=True)
    )
    assert batch.extent == Extent(batch.source, 0, 5, str(path))
    count = count_archive(str(path))
    assert (count.raw, count.source, count.partition, count.records) == (False, batch.source, 0, 5)
    assert count.coverage == taken([batch])


def test_batches_by_rows_and_bytes(path: Path) -> None:
    path.write_bytes(header() + b"".join(blocks_of([4, 4, 4, 9, 1])))

    def rows(**bounds: int) -> list[int]:
        return [batch.num_rows for batch in read(path, ArchiveReader(**bounds))]

    assert rows() == [22]
    assert rows(rows_per_batch=8) == [8, 4, 9, 1]
    assert rows(bytes_per_batch=64) == [8, 4, 9, 1]


@pytest.mark.parametrize("codec", CODECS[1:])
def test_broken_block_between_good_ones(path: Path, codec: str) -> None:
    one, _, three = blocks_of([3, 4, 2], codec)
    stored = bytearray(compress(codec, contents_of([3, 4, 2])[1]))
    stored[:4] = b"\x07\xff\xff\xff"
    path.write_bytes(header(codec=codec) + one + long(4) + sized(bytes(stored)) + SYNC + three)
    batches = read(path)
    (dead_letter,) = dead_letters(batches)
    assert (dead_letter.stage, dead_letter.error_class, dead_letter.offset, dead_letter.last) == (
        "read",
        "broken_block",
        3,
        6,
    )
    assert dead_letter.payload == bytes(stored)
    position = len(header(codec=codec)) + len(one)
    assert dict(dead_letter.headers) == {
        "k2.path": str(path).encode(),
        "k2.position": str(position).encode(),
        "k2.codec": codec.encode(),
        "k2.length": str(len(stored)).encode(),
    }
    assert str(path) in dead_letter.error_message
    assert str(position) in dead_letter.error_message
    good = [part for batch in batches if isinstance(batch, BlockBatch) for part in batch.blocks]
    assert [(part.first_offset, part.payload) for part in good] == [
        (0, contents_of([3])[0]),
        (7, contents_of([3, 4, 2])[2]),
    ]
    assert taken(batches) == archive_coverage(path)
    assert {batch.extents[0].end for batch in batches if isinstance(batch, DeadLetterBatch)} == {9}


def test_damaged_stretch_keeps_its_first_mebibyte(path: Path) -> None:
    big = block(3, bytes(2 * MIB))
    path.write_bytes(header() + blocks_of([3])[0] + long(-3) + big[1:] + blocks_of([2])[0])
    batches = read(path)
    (dead_letter,) = dead_letters(batches)
    assert (dead_letter.error_class, dead_letter.offset, dead_letter.offset_last) == ("broken_block", 3, 3)
    assert dead_letter.payload == (long(-3) + big[1:])[:MIB]
    assert "first 1048576 bytes" in dead_letter.error_message
    assert dict(dead_letter.headers)["k2.length"] == str(len(big)).encode()
    assert taken(batches) == archive_coverage(path)


@pytest.mark.parametrize("codec", CODECS)
def test_bomb_between_good_blocks(path: Path, codec: str) -> None:
    one, two = blocks_of([3, 2], codec)
    path.write_bytes(header(codec=codec) + one + block(1000, bytes(30 * MIB), codec) + two)
    reader = ArchiveReader(ArchiveLimits(max_block_bytes=2 * MIB))
    tracemalloc.start()
    try:
        batches = read(path, reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (dead_letter,) = dead_letters(batches)
    assert (dead_letter.error_class, dead_letter.offset, dead_letter.last) == ("block_too_large", 3, 1002)
    assert len(dead_letter.payload or b"") <= 2 * MIB
    assert sum(batch.num_rows for batch in batches if isinstance(batch, BlockBatch)) == 5
    # the limit, a piece, the file's buffer and the stored block itself
    assert peak < 8 * MIB
    # the limits decide what is read, not how it is numbered
    assert taken(batches) == taken(read(path)) == archive_coverage(path)


def test_more_records_than_bytes(path: Path) -> None:
    path.write_bytes(header() + long(1_000_000) + sized(b"abc") + SYNC)
    (dead_letter,) = dead_letters(read(path))
    assert (dead_letter.error_class, dead_letter.last) == ("broken_block", 999_999)
    assert "3 bytes can't hold 1000000 records" in dead_letter.error_message


def raw_block(offsets: range, codec: str = "null", **fields: object) -> bytes:
    return block(len(offsets), b"".join(encode(ENVELOPE, envelope(n, **fields)) for n in offsets), codec)


def test_raw_container(path: Path) -> None:
    schemas = json.dumps({"1": TRADE}).encode()
    blocks = [raw_block(range(50, 57), value=bytes(range(256))), raw_block(range(10, 12), source="other", value=None)]
    path.write_bytes(header(ENVELOPE, k2__schemas=schemas) + b"".join(blocks))
    batches = read(path, ArchiveReader(rows_per_batch=4))
    assert [batch.num_rows for batch in batches] == [4, 3, 2]
    assert all(isinstance(batch, RawBatch) and batch.extents == () for batch in batches)
    rows = [row for batch in batches if isinstance(batch, RawBatch) for row in batch.data.to_pylist()]
    assert [row["offset"] for row in rows] == [*range(50, 57), 10, 11]
    assert {row["value"] for row in rows} == {bytes(range(256)), None}
    assert {row["source"] for row in rows} == {"kafka:c/trades/t", "other"}
    assert isinstance(batches[0], RawBatch)
    assert [(number, json.loads(text)) for number, text in batches[0].schemas] == [(1, TRADE)]
    count = count_archive(str(path))
    assert (count.raw, count.records) == (True, 9)
    assert count.coverage == taken(batches)
    assert list(count.coverage) == [("kafka:c/trades/t", 1), ("other", 1)]


def test_sources_mixed_in_one_block(path: Path) -> None:
    rows = [envelope(n, source="ab"[n % 2], partition=n % 3) for n in range(20)]
    path.write_bytes(header(ENVELOPE) + block(20, b"".join(encode(ENVELOPE, row) for row in rows)))
    expected = Coverage()
    for row in rows:
        expected.add_range(row["source"], row["partition"], row["offset"], row["offset"])
    assert taken(read(path)) == expected
    assert archive_coverage(path) == expected


def test_broken_block_of_a_raw_container(path: Path) -> None:
    good, bad, damaged = raw_block(range(3)), raw_block(range(3, 7)), raw_block(range(7, 9))
    bad = bad.replace(b"kafka", b"\xff\xff\xff\xff\xff", 1)
    path.write_bytes(header(ENVELOPE) + good + bad + long(-1) + damaged[1:] + raw_block(range(9, 10)))
    batches = read(path)
    source = plan_archive(str(path)).source
    assert [
        (dead_letter.source, dead_letter.partition, dead_letter.offset, dead_letter.last)
        for dead_letter in dead_letters(batches)
    ] == [
        (source, 0, 3, 6),
        (source, 0, 7, 7),
    ]
    kept = [n for batch in batches if isinstance(batch, RawBatch) for n in batch.data["offset"].to_pylist()]
    assert kept == [0, 1, 2, 9]
    assert taken(batches) == archive_coverage(path)


def test_an_envelope_block_has_a_limit_of_its_own(path: Path) -> None:
    path.write_bytes(header(ENVELOPE, "deflate") + raw_block(range(5), "deflate", value=bytes(MIB)))
    reader = ArchiveReader(ArchiveLimits(max_envelope_bytes=2 * MIB))
    assert [dead_letter.error_class for dead_letter in dead_letters(read(path, reader))] == ["block_too_large"]


def test_chunks_meet(path: Path) -> None:
    path.write_bytes(header() + b"".join(blocks_of([5] * 40)))
    plan = plan_archive(str(path), None, ArchiveLimits(chunk_bytes=150))
    assert len(plan.chunks) > 10
    assert [chunk.start for chunk in plan.chunks[1:]] == [chunk.end for chunk in plan.chunks[:-1]]
    assert plan.chunks[-1].end == path.stat().st_size
    assert len(plan_archive(str(path), None, ArchiveLimits(chunk_records=50)).chunks) == 4


def test_a_file_that_grows_while_it_is_read(path: Path) -> None:
    one, two = blocks_of([3, 2])
    path.write_bytes(header() + one)
    plan = plan_archive(str(path))
    path.write_bytes(header() + one + two)
    (batch,) = ArchiveReader().read(plan.chunks[0])
    assert batch.num_rows == 3
    later = plan_archive(str(path))
    assert (later.source, later.records) == (plan.source, 5)


@pytest.mark.parametrize("change", ["shorter", "other counts", "other file"])
def test_a_file_that_changes_while_it_is_read(path: Path, change: str) -> None:
    one, two = blocks_of([3, 2])
    path.write_bytes(header() + one + two)
    plan = plan_archive(str(path))
    path.write_bytes(
        {
            "shorter": header() + one + two[:-1],
            "other counts": header() + long(4) + one[1:] + two,
            "other file": (header() + one + two).replace(SYNC, SYNC[::-1]),
        }[change]
    )
    with pytest.raises(ArchiveError, match="run again"):
        list(ArchiveReader().read(plan.chunks[0]))


@pytest.mark.parametrize(("body", "kind"), [(b"", "empty"), (blocks_of([3])[0][:-1], "truncated_tail")])
def test_nothing_to_read_is_reported(path: Path, body: bytes, kind: str) -> None:
    path.write_bytes(header() + body)
    count = count_archive(str(path))
    assert (count.records, len(count.coverage), [problem.kind for problem in count.problems]) == (0, 0, [kind])
    assert read(path) == []


def test_bounds_are_checked() -> None:
    with pytest.raises(UsageError, match="rows_per_batch"):
        ArchiveReader(rows_per_batch=0)
    with pytest.raises(UsageError, match="bytes_per_batch"):
        ArchiveReader(bytes_per_batch=1 << 31)
