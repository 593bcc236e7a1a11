"""Damaged and hostile archives through the whole job: reported, the good blocks kept, every offset in one place."""

from __future__ import annotations

import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import cramjam
import pytest

from k2beam.archive.plan import plan_archive
from k2beam.archive.write import write_raw_archive
from k2beam.config import NAMESPACE
from k2beam.errors import ArchiveRefused
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, find_table
from k2beam.model import RawRecord
from k2beam.schemas import avro_schema
from tests.codec_samples import encode_as, evolved, framed, reference_v1, trade, trade_bytes, varint
from tests.lake_helpers import lake_config, offsets_in, write_config
from tests.replay_helpers import assert_audit, ingest, run_archive, simulated
from transforms.read_archive import ReadArchive

pytestmark = pytest.mark.integration


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A plain container of several blocks."""
    simulated(tmp_path / "in", rows=12_000, faults="", envelope="plain", kinds=("trades",), files=1, codec="snappy")
    return next((tmp_path / "in").glob("*.avro"))


def dead_letters(warehouse: Path) -> list[dict[str, Any]]:
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, DEAD_LETTERS)
    return table.scan().to_arrow().to_pylist() if table else []


def test_a_broken_block_is_one_dead_letter_and_the_rest_is_read(tmp_path: Path, archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    archive.write_bytes(data)
    ingest([archive], tmp_path / "wh")
    (dead_letter,) = dead_letters(tmp_path / "wh")
    assert (dead_letter["stage"], dead_letter["error_class"]) == ("read", "broken_block")
    headers = {header["key"]: header["value"] for header in dead_letter["headers"]}
    assert headers["k2.path"].decode() == str(archive)
    assert 0 < int(headers["k2.position"]) < middle
    lost = set(range(dead_letter["_offset"], dead_letter["_offset_last"] + 1))
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
    block = varint(10) + varint(len(bomb)) + bomb + sync
    archive.write_bytes(head + block + archive.read_bytes()[header_end:])
    ingest([archive], tmp_path / "wh")
    (dead_letter,) = dead_letters(tmp_path / "wh")
    assert dead_letter["error_class"] == "block_too_large"
    assert (dead_letter["_offset"], dead_letter["_offset_last"]) == (0, 9)
    assert offsets_in(tmp_path / "wh") == list(range(10, 12_010))
    assert_audit(tmp_path / "wh", archive)


FIXED = {"type": "fixed", "name": "F", "size": 5_000_000_000}
SCHEMAS = {
    1: avro_schema("trade_v2"),
    2: avro_schema("reference_data"),
    3: evolved("trade_v2", extra=FIXED),
    2**31 + 1: avro_schema("trade_v2"),
}
LOGGED = 1_700_000_000_000_000


def framed_trade(schema_id: int = 1, **changes: Any) -> bytes:
    return framed(encode_as("trade_v2", trade(0, **changes)), schema_id)


POISON: dict[str, tuple[bytes, int | None, str]] = {
    "an unknown id of the upper half": (framed(b"x", 2**31 + 7), LOGGED, "unknown_schema_id"),
    "a bad record of an id of the upper half": (framed_trade(2**31 + 1, symbol=""), LOGGED, "empty_symbol"),
    "junk, logged after the year 9999": (b"junk", 2**62, "bad_magic"),
    "junk, logged before the year 1": (b"junk", -(2**63), "bad_magic"),
    "an event, logged after the year 9999": (framed_trade(), 2**63 - 1, ""),
    "reference data, logged after the year 9999": (framed(encode_as("reference_data", reference_v1()), 2), 2**62, ""),
    "a schema with a huge fixed": (framed(b"x", 3), LOGGED, "schema_incompatible"),
    "an exchange too long for a folder": (framed_trade(exchange="e" * 250), LOGGED, "bad_exchange"),
    "an exchange too long when it is quoted": (framed_trade(exchange="株" * 28), LOGGED, "bad_exchange"),
    "an exchange like a path": (framed_trade(exchange="../../x/\0\n"), LOGGED, ""),
    "a symbol of a megabyte": (framed_trade(symbol="s" * (1 << 20)), LOGGED, ""),
    "a symbol whose sixteenth character has no next": (framed_trade(symbol="\ud7ff" * 20), LOGGED, ""),
    "a decimal of thousands of digits": (
        framed(trade_bytes(price=varint(3000) + b"\x7f" * 3000)),
        LOGGED,
        "decimal_overflow",
    ),
    "a time outside the calendar": (framed(trade_bytes(timestamp=varint(2**62))), LOGGED, "timestamp_overflow"),
    "the greatest sequence": (framed_trade(source_sequence=2**63 - 1, symbol="S"), LOGGED, ""),
    "the least sequence": (framed_trade(source_sequence=-(2**63), symbol="S"), LOGGED, ""),
    "a sequence after a gap of everything": (framed_trade(source_sequence=0, symbol="S"), LOGGED, ""),
    "a symbol like a key": (framed_trade(symbol="A|trades%7C", exchange="X|Y"), LOGGED, ""),
    "no message id": (framed_trade(message_id=""), LOGGED, ""),
}
"""A message, when it was logged, and the class of its dead letter; none for an event."""


def test_no_message_stops_the_job(tmp_path: Path) -> None:
    records = [RawRecord("kafka:c/t/u", 0, 0, LOGGED, None, framed_trade())]
    for offset, (value, logged, _) in enumerate(POISON.values(), start=1):
        records.append(RawRecord("kafka:c/t/u", 0, offset, logged, b"\xff", value, (("h", None),)))
    records.append(RawRecord("kafka:c/t/u", 0, len(records), LOGGED, None, framed_trade()))
    log, warehouse = tmp_path / "log.avro", tmp_path / "wh"
    write_raw_archive(str(log), records, SCHEMAS)
    config = IngestConfig(lake_config(warehouse), write_config(), dead_letters_json=str(tmp_path / "lines"))
    run_ingest(ReadArchive([str(log)]), config)
    by_offset = {dead_letter["_offset"]: dead_letter for dead_letter in dead_letters(warehouse)}
    names = dict(enumerate(POISON, start=1))
    expected = {offset: POISON[name][2] for offset, name in names.items() if POISON[name][2]}
    found = {names[offset]: dead_letter["error_class"] for offset, dead_letter in by_offset.items()}
    assert found == {names[offset]: error_class for offset, error_class in expected.items()}
    for offset, dead_letter in by_offset.items():
        assert (dead_letter["payload"], dead_letter["key"]) == (records[offset].value, b"\xff"), "kept whole"
        assert dead_letter["headers"] == [{"key": "h", "value": None}]
    events = offsets_in(warehouse) + offsets_in(warehouse, "reference_data_v2")
    assert sorted(events) == sorted(set(range(len(records))) - set(expected))
    lines = [line for path in (tmp_path / "lines").glob("*.jsonl") for line in path.read_text("utf-8").split("\n")]
    assert sorted(json.loads(line)["_offset"] for line in lines if line) == sorted(by_offset)
    assert_audit(warehouse, log)
