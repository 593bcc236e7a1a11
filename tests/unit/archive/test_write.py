"""Writing raw_record containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from k2beam.archive.header import ArchiveLimits
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.write import BLOCK_BYTES, write_raw_archive
from k2beam.errors import ArchiveError, UsageError
from k2beam.model import RawBatch, RawRecord
from tests.archive_copies import archive_coverage, copy_as_raw
from tests.archive_files import TRADE, block, header, trades

RECORDS = [
    RawRecord("kafka:c/t/i", 2, 100 + n, 1_700_000_000_000_000 + n, b"k", b"\x00\x00\x00\x00\x01v", (("h", None),))
    for n in range(25)
]


def rows(path: Path) -> list[dict[str, Any]]:
    batches = [batch for chunk in plan_archive(str(path)).chunks for batch in ArchiveReader().read(chunk)]
    found = []
    for batch in batches:
        assert isinstance(batch, RawBatch)
        found += batch.data.to_pylist()
    return found


def block_sizes(path: Path) -> list[int]:
    return [chunk.records for chunk in plan_archive(str(path), None, ArchiveLimits(chunk_bytes=1)).chunks]


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy"])
def test_fastavro_reads_it_too(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "raw.avro"
    write_raw_archive(str(path), RECORDS, {}, codec=codec, block_records=10)
    with path.open("rb") as file:
        assert [row["offset"] for row in fastavro.reader(file)] == [record.offset for record in RECORDS]


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
def test_written_records_come_back(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "raw.avro"
    assert write_raw_archive(str(path), iter(RECORDS), {1: TRADE}, codec=codec, block_records=10) == 25
    found = rows(path)
    assert [row["offset"] for row in found] == [record.offset for record in RECORDS]
    assert {(row["source"], row["partition"], row["key"], row["value"]) for row in found} == {
        ("kafka:c/t/i", 2, b"k", b"\x00\x00\x00\x00\x01v")
    }
    assert [row["timestamp"].timestamp() * 1e6 for row in found] == pytest.approx([r.timestamp for r in RECORDS])
    assert found[0]["headers"] == [{"key": "h", "value": None}]
    assert block_sizes(path) == [10, 10, 5]
    header_of = plan_archive(str(path)).header
    assert [(number, json.loads(text)) for number, text in header_of.schemas] == [(1, TRADE)]


def test_large_messages_close_a_block(tmp_path: Path) -> None:
    path = tmp_path / "raw.avro"
    big = [RawRecord("s", 0, n, None, None, bytes(BLOCK_BYTES // 3)) for n in range(8)]
    write_raw_archive(str(path), big, {})
    assert block_sizes(path) == [3, 3, 2]
    assert len(rows(path)) == 8


def test_same_input_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_raw_archive(str(tmp_path / name), RECORDS, {1: TRADE}, sync_marker=b"s" * 16)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_file_under_the_name_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "raw.avro"

    def broken() -> Iterator[RawRecord]:
        yield RECORDS[0]
        assert not path.exists()
        raise ConnectionError("broker gone")

    with pytest.raises(ConnectionError):
        write_raw_archive(str(path), broken(), {})
    assert not path.exists()


def test_a_message_that_no_reader_takes(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="offset 7"):
        write_raw_archive(str(tmp_path / "raw.avro"), [RawRecord("s", 0, 7, None, None, bytes(16 << 20))], {})


@pytest.mark.parametrize("options", [{"codec": "lz4"}, {"block_records": 0}, {"sync_marker": b"short"}])
def test_wrong_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        write_raw_archive(str(tmp_path / "raw.avro"), [], {}, **options)


def test_the_records_of_a_plain_container_keep_their_places_in_a_copy(tmp_path: Path) -> None:
    plain, copy = tmp_path / "day.avro", tmp_path / "copy.avro"
    blocks = [block(len(part), b"".join(part), "snappy") for part in (trades(0, 4), trades(4, 3))]
    plain.write_bytes(header(codec="snappy") + b"".join(blocks))
    copy_as_raw(plain, copy)
    assert [row["value"] for row in rows(copy)] == [b"\x00\x00\x00\x00\x01" + body for body in trades(0, 7)]
    assert archive_coverage(copy) == archive_coverage(plain)
