"""Damaged and hostile archives through the whole job: reported, the good blocks kept, every offset in one place."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import cramjam
import pytest

from k2beam.archive import plan_archive
from k2beam.errors import ArchiveRefused
from k2beam.lake.catalog import NAMESPACE, open_catalog
from k2beam.lake.tables import DEAD_LETTERS, find_table
from tests.lake_helpers import lake_config, offsets_in
from tests.replay_helpers import assert_audit, ingest, run_archive, simulated

pytestmark = pytest.mark.integration


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A plain container of several blocks."""
    simulated(tmp_path / "in", rows=12_000, faults="", envelope="plain", kinds=("trades",), files=1, codec="snappy")
    return next((tmp_path / "in").glob("*.avro"))


def dead_letters(warehouse: Path) -> list[dict[str, object]]:
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, DEAD_LETTERS)
    return table.scan().to_arrow().to_pylist() if table else []


def test_a_broken_block_is_one_dead_letter_and_the_rest_is_read(tmp_path: Path, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    archive.write_bytes(data)
    ingest([archive], tmp_path / "wh")
    (letter,) = dead_letters(tmp_path / "wh")
    assert (letter["stage"], letter["error_class"]) == ("read", "broken_block")
    headers = {header["key"]: header["value"] for header in letter["headers"]}  # type: ignore[attr-defined]
    assert headers["k2.path"].decode() == str(archive)
    assert 0 < int(headers["k2.position"]) < middle
    lost = set(range(letter["_offset"], letter["_offset_last"] + 1))  # type: ignore[call-overload]
    assert set(offsets_in(tmp_path / "wh")) == set(range(12_000)) - lost
    assert 0 < len(lost) < 6000
    assert_audit(tmp_path / "wh", archive)
    again = ingest([archive], tmp_path / "wh")
    assert again.already_covered == 12_000


def test_a_truncated_file_keeps_its_good_blocks_and_gives_the_rest_when_it_is_whole(
    tmp_path: Path, archive: Path
) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) * 2 // 3])
    stats = ingest([archive], tmp_path / "wh")
    assert stats.errors == 1
    kept = offsets_in(tmp_path / "wh")
    assert 0 < len(kept) < 12_000
    assert kept == list(range(len(kept)))
    assert dead_letters(tmp_path / "wh") == []
    assert_audit(tmp_path / "wh", archive)
    archive.write_bytes(whole)
    ingest([archive], tmp_path / "wh")
    assert offsets_in(tmp_path / "wh") == list(range(12_000))
    assert_audit(tmp_path / "wh", archive)


def test_what_is_outside_the_root_is_refused_before_anything_is_read(tmp_path: Path, archive: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(archive, root / "good.avro")
    (root / "link.avro").symlink_to(archive)
    for path in (root / "link.avro", root / ".." / "in" / archive.name):
        with pytest.raises(ArchiveRefused, match="root"):
            run_archive([root / "good.avro", path], tmp_path / "wh", root=root)
    assert offsets_in(tmp_path / "wh") == []


def test_a_decompression_bomb_is_a_dead_letter(tmp_path: Path, archive: Path) -> None:
    header_end = plan_archive(str(archive)).chunks[0].start
    head, sync = archive.read_bytes()[:header_end], archive.read_bytes()[header_end - 16 : header_end]
    zeros = bytes(200 << 20)
    bomb = bytes(cramjam.snappy.compress_raw(zeros)) + zlib.crc32(zeros).to_bytes(4, "big")
    framed = _varint(10) + _varint(len(bomb)) + bomb + sync
    archive.write_bytes(head + framed + archive.read_bytes()[header_end:])
    ingest([archive], tmp_path / "wh")
    (letter,) = dead_letters(tmp_path / "wh")
    assert letter["error_class"] == "block_too_large"
    assert (letter["_offset"], letter["_offset_last"]) == (0, 9)
    assert offsets_in(tmp_path / "wh") == list(range(10, 12_010))
    assert_audit(tmp_path / "wh", archive)


def _varint(number: int) -> bytes:
    value, out = number << 1, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
