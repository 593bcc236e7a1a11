"""The framing scan: numbering, damage, growth."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from k2beam.archive.header import ArchiveHeader, ArchiveLimits
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.scan import MAX_BLOCK_RECORDS, Frame, ReadProblem, Scanner, source_id
from k2beam.errors import ArchiveRefused
from k2beam.model import BlockBatch, DeadLetterBatch
from tests.archive_files import SYNC, block, blocks_of, contents_of, header, long

HEAD = header()
SIZES = [3, 1, 5, 2]
MANY = [30, 7, 12, 1, 25, 9]


def scan(body: bytes, codec: str = "null") -> list[Frame | ReadProblem]:
    data = HEAD + body
    head = ArchiveHeader("day.avro", len(HEAD), SYNC, codec, "{}", False)
    return list(Scanner(io.BytesIO(data), head, len(data)).frames(len(HEAD), len(data), 0))


def summary(found: list[Frame | ReadProblem]) -> list[tuple[int, int, bool] | str]:
    """Of each frame its first number, its records and whether it is damaged; of a problem its kind."""
    return [
        (frame.first, frame.records, bool(frame.damage)) if isinstance(frame, Frame) else frame.kind for frame in found
    ]


def test_whole_file() -> None:
    blocks = blocks_of(SIZES)
    found = scan(b"".join(blocks))
    assert summary(found) == [(0, 3, False), (3, 1, False), (4, 5, False), (9, 2, False)]
    assert [frame.position for frame in found] == [
        len(HEAD) + sum(map(len, blocks[:number])) for number in range(len(blocks))
    ]


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
def test_an_empty_block_has_no_numbers(codec: str) -> None:
    one, two = blocks_of([3, 2], codec)
    assert summary(scan(one + block(0, b"", codec) + two, codec)) == [(0, 3, False), (3, 0, False), (3, 2, False)]


def test_a_count_that_became_zero_is_damage() -> None:
    one, two, three = blocks_of([3, 1, 2])
    assert summary(scan(one + long(0) + two[1:] + three)) == [(0, 3, False), (3, 1, True), (4, 2, False)]


@pytest.mark.parametrize(
    "framing",
    [
        long(-3) + long(24),
        long(MAX_BLOCK_RECORDS + 1) + long(24),
        long(3) + long(-24),
        long(3) + long(4),
        long(3) + long(23),
        long(3) + long(25),
        long(3) + long(1 << 60),
        b"\xff" * 11,
        b"",
    ],
)
def test_damaged_framing_costs_one_block_and_one_number(framing: bytes) -> None:
    one, two, three = blocks_of([3, 3, 2])
    found = scan(one + framing + two[2:] + three)
    assert summary(found) == [(0, 3, False), (3, 1, True), (4, 2, False)]


def test_a_damaged_marker_costs_the_block_before_it_only() -> None:
    one, two, three = blocks_of([3, 4, 2])
    found = scan(one + two[:-1] + b"x" + three)
    assert summary(found) == [(0, 3, False), (3, 1, True), (4, 2, False)]
    assert found[1].position == len(HEAD) + len(one)


def test_bytes_cut_out_across_two_blocks() -> None:
    blocks = blocks_of([3, 4, 5, 2])
    whole = b"".join(blocks)
    at = len(blocks[0]) + 20
    assert summary(scan(whole[:at] + whole[at + 50 :])) == [(0, 3, False), (3, 1, True), (4, 2, False)]


@pytest.mark.parametrize("cut", range(1, len(blocks_of([3])[0])))
def test_a_truncated_tail_has_no_numbers(cut: int) -> None:
    one, two = blocks_of([3, 3])
    found = scan(one + two[:cut])
    assert summary(found) == [(0, 3, False), "truncated_tail"]
    assert found[1].position == len(HEAD) + len(one)
    assert str(found[1].position) in found[1].message
    assert "day.avro" in found[1].message


def test_a_damaged_last_marker_may_still_grow() -> None:
    # a number given now would hide the block that is written next
    one, two, three = blocks_of([3, 4, 2])
    cut = one + two[:-1] + b"x"
    assert summary(scan(cut)) == [(0, 3, False), "damaged_tail"]
    assert summary(scan(cut + three)) == [(0, 3, False), (3, 1, True), (4, 2, False)]


def test_zeros_after_the_last_block() -> None:
    assert summary(scan(blocks_of([3])[0] + bytes(5000))) == [(0, 3, False), "damaged_tail"]


def test_a_marker_across_two_pieces_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = blocks_of([9, 2])
    for piece in (16, 17, 23, 64):
        monkeypatch.setattr("k2beam.archive.scan._PIECE", piece)
        assert summary(scan(long(-1) + one[1:] + two)) == [(0, 1, True), (1, 2, False)]


def first_frame(found: list[Frame | ReadProblem]) -> Frame | None:
    return found[0] if found and isinstance(found[0], Frame) else None


def test_source_is_header_and_first_block() -> None:
    one, two = blocks_of([3, 2])
    other = blocks_of([4])[0]

    def source(body: bytes) -> str:
        found = scan(body)
        data = io.BytesIO(HEAD + body)
        return source_id(data, ArchiveHeader("", len(HEAD), SYNC, "null", "", False), first_frame(found))

    assert source(one) == source(one + two) == source(one + two[:5])
    assert source(one) != source(other)
    assert source(one) == f"archive:{hashlib.sha256(HEAD + one.removesuffix(SYNC)).hexdigest()[:32]}"
    assert source(b"") == source(one[:-1]) == f"archive:{hashlib.sha256(HEAD).hexdigest()[:32]}"


edits = st.lists(
    st.tuples(st.sampled_from(["flip", "delete", "insert"]), st.floats(0, 0.9999), st.binary(min_size=1, max_size=40)),
    min_size=1,
    max_size=3,
)


def damage(data: bytes, start: int, changes: list[tuple[str, float, bytes]]) -> tuple[bytes, list[tuple[int, int]]]:
    """Damage ``data`` from byte ``start`` on, back to front; also the stretches of the original that were hit."""
    hit = []
    length = len(data)
    deleted = sum(len(what) for kind, _, what in changes if kind == "delete")
    for kind, place, what in sorted(changes, key=lambda change: -change[1]):
        at = start + int(place * (length - start))
        if kind == "flip":
            data = data[:at] + bytes(byte ^ (what[0] or 1) for byte in data[at : at + 1]) + data[at + 1 :]
            hit.append((at, at + 1 + deleted))  # what was deleted at this place before has moved another byte here
        elif kind == "delete":
            data = data[:at] + data[at + len(what) :]
            hit.append((at, at + deleted))  # deletions at one place add up
        else:
            data = data[:at] + what + data[at:]
            hit.append((at, at))
    return data, hit


def touched(low: int, high: int, hit: list[tuple[int, int]]) -> bool:
    """Whether a stretch of bytes was hit; an insertion exactly at its edge does not count."""
    return any(start < high and end > low for start, end in hit)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive") / "day.avro"


def swallows_another(data: bytes, start: int) -> bool:
    """Whether the length of a damaged block ends by chance where a later block does: by its framing it is sound."""
    head = ArchiveHeader("day.avro", start, SYNC, "null", "{}", False)
    return any(
        isinstance(frame, Frame) and not frame.damage and SYNC in data[frame.data_position :][: frame.data_size]
        for frame in Scanner(io.BytesIO(data), head, len(data)).frames(start, len(data), 0)
    )


def read(path: Path, chunk_bytes: int) -> tuple[list[tuple[int, int, bytes]], list[tuple[int, int]], int]:
    """Blocks (first number, records, content), dead letters (first and last number), how many numbers."""
    limits = ArchiveLimits(chunk_bytes=chunk_bytes)
    plan = plan_archive(str(path), None, limits)
    blocks, dead_letters = [], []
    for chunk in plan.chunks:
        for batch in ArchiveReader(limits).read(chunk):
            assert isinstance(batch, BlockBatch | DeadLetterBatch)
            if isinstance(batch, BlockBatch):
                blocks += [(part.first_offset, part.count, part.payload) for part in batch.blocks]
            else:
                dead_letters += [(dead_letter.offset, dead_letter.last) for dead_letter in batch.dead_letters]
    return blocks, dead_letters, plan.records


@given(changes=edits, codec=st.sampled_from(["null", "deflate", "snappy", "zstandard"]))
@example(changes=[("delete", 0.40625, bytes(14))] * 2, codec="deflate")
@settings(max_examples=200, deadline=None)
def test_damage_anywhere(archive: Path, changes: list[tuple[str, float, bytes]], codec: str) -> None:
    head = header(codec=codec)
    blocks, contents = blocks_of(MANY, codec), contents_of(MANY)
    data, hit = damage(head + b"".join(blocks), len(head), changes)
    archive.write_bytes(data)
    assume(not swallows_another(data, len(head)))
    found, dead_letters, total = read(archive, 200)
    assume(not any(SYNC in content for _, _, content in found))
    numbers = [*((first, first + count - 1) for first, count, _ in found), *dead_letters]
    assume(total < 10**6)  # a count that was damaged into a large one is as good as any
    assert sorted(n for low, high in numbers for n in range(low, high + 1)) == list(range(total))
    assert read(archive, 1 << 20) == (found, dead_letters, total)
    # a block is kept when it and the marker before it are untouched
    position = len(head)
    kept = {content for _, _, content in found}
    for stored, content in zip(blocks, contents, strict=True):
        if not touched(position - 16, position + len(stored), hit):
            assert content in kept
        position += len(stored)


@given(changes=edits)
@settings(max_examples=100, deadline=None)
def test_damage_with_the_header(archive: Path, changes: list[tuple[str, float, bytes]]) -> None:
    data, _ = damage(header(codec="snappy") + b"".join(blocks_of([3, 2], "snappy")), 0, changes)
    archive.write_bytes(data)
    with suppress(ArchiveRefused):
        read(archive, 100)


@given(changes=st.one_of(st.just([]), edits), cut=st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_a_file_that_grows_keeps_its_numbers(changes: list[tuple[str, float, bytes]], cut: float) -> None:
    body, _ = damage(b"".join(blocks_of(MANY)), 0, changes)
    before = [frame for frame in scan(body[: int(cut * len(body))]) if isinstance(frame, Frame)]
    after = scan(body)
    assert [frame[:6] for frame in before] == [frame[:6] for frame in after[: len(before)]]
