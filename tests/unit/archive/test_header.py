"""Headers: what is read from them and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.archive.count import count_archive
from k2beam.archive.header import ArchiveHeader, ArchiveLimits, check_archives, read_header
from k2beam.archive.plan import plan_archive
from k2beam.errors import ArchiveRefused, UsageError
from k2beam.schemas import avro_schema
from tests.archive_files import ENVELOPE, SYNC, TRADE, header, long, sized

LIMITS = ArchiveLimits(max_header_bytes=1 << 18)


def parse(data: bytes, limits: ArchiveLimits = LIMITS) -> ArchiveHeader:
    return read_header(io.BytesIO(data), "day.avro", limits)


def test_plain_header() -> None:
    data = header(codec="deflate")
    found = parse(data + b"blocks")
    assert (found.size, found.sync, found.codec, found.raw) == (len(data), SYNC, "deflate", False)
    assert json.loads(found.schema_json) == TRADE


def test_codec_defaults_to_null() -> None:
    assert parse(header(codec=None)).codec == "null"


def test_raw_header_has_writer_schemas() -> None:
    by_id = {"7": TRADE, "12": '{"type": "string"}'}
    found = parse(header(ENVELOPE, k2__schemas=json.dumps(by_id).encode()))
    assert found.raw
    assert [(number, json.loads(text)) for number, text in found.schemas] == [(7, TRADE), (12, {"type": "string"})]


def test_map_blocks_with_a_size() -> None:
    entry = sized(b"avro.schema") + sized(json.dumps(TRADE).encode())
    data = b"Obj\x01" + long(-1) + long(len(entry)) + entry + long(0) + SYNC
    assert parse(data).size == len(data)


def test_header_larger_than_the_first_read() -> None:
    data = header(padding=bytes(100_000))
    assert parse(data).size == len(data)


def recursive() -> dict[str, Any]:
    schema = json.loads(json.dumps(TRADE))
    schema["fields"].append({"name": "parent", "type": ["null", "TradeV2"]})
    return schema


def endless() -> dict[str, Any]:
    schema = json.loads(json.dumps(TRADE))
    schema["fields"].append({"name": "nothing", "type": {"type": "array", "items": "null"}})
    return schema


def other_envelope() -> dict[str, Any]:
    schema = json.loads(json.dumps(ENVELOPE))
    schema["fields"].reverse()
    return schema


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"O", "not an Avro container"),
        (b"PAR1 parquet", "not an Avro container"),
        (b"Obj\x02" + header()[4:], "not an Avro container"),
        (header()[:-1], "ends within its header"),
        (header()[:40], "ends within its header"),
        (b"Obj\x01", "ends within its header"),
        (header(padding=bytes(1 << 18)), "larger than 262144 bytes"),
        (b"Obj\x01" + long(1) + long(1 << 40) + bytes(1 << 19), "larger than"),
        (b"Obj\x01" + long(1 << 40), "metadata entries"),
        (b"Obj\x01" + long(1) + long(-5) + bytes(50), "negative length"),
        (b"Obj\x01" + b"\xff" * 20, "64 bits"),
        (b"Obj\x01" + long(1) + sized(b"\xff\xfe") + sized(b"") + long(0) + SYNC, "damaged"),
        (b"Obj\x01" + long(0) + SYNC, "no avro.schema"),
        (header(codec="bzip2"), "codec 'bzip2' is not supported"),
        (header(recursive()), "recursive"),
        (header(endless()), "no bytes"),
        (header({"type": "record", "name": "Other", "fields": []}), "not a market-data schema"),
        (header("string"), "must be a record"),
        (header(other_envelope()), "other fields"),
        (header(avro__schema=b"{"), "not JSON"),
        (header(avro__schema=b"[" * 100_000), "not JSON"),
        (header(avro__schema='{"type": "string"}'.encode("utf-16")), "not JSON"),
        (header(ENVELOPE, k2__schemas=b"[]"), "k2.schemas"),
        (header(ENVELOPE, k2__schemas=b'{"one": {}}'), "k2.schemas"),
    ],
)
def test_refused_headers(data: bytes, message: str) -> None:
    with pytest.raises(ArchiveRefused, match=message) as caught:
        parse(data)
    assert str(caught.value).startswith("day.avro: ")
    assert len(str(caught.value)) < 1000


@given(place=st.floats(0, 0.9999), bits=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=200, deadline=None)
def test_damaged_headers_are_refused_or_read(place: float, bits: int, cut: bool) -> None:
    data = bytearray(header(codec="snappy"))
    where = int(place * len(data))
    if cut:
        del data[where : where + bits]
    else:
        data[where] ^= bits
    try:
        found = parse(bytes(data))
    except ArchiveRefused:
        return
    assert found.size <= len(data)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveRefused):
        parse(b"Obj\x01" + data)


def test_check_archives_names_the_bad_file(tmp_path: Path) -> None:
    (tmp_path / "a.avro").write_bytes(header())
    assert [found.path for found in check_archives([str(tmp_path)])] == [str(tmp_path / "a.avro")]
    (tmp_path / "b.avro").write_bytes(b"no")
    with pytest.raises(ArchiveRefused, match=r"b\.avro"):
        check_archives([str(tmp_path)])


def test_limits_are_positive() -> None:
    with pytest.raises(UsageError, match="chunk_bytes"):
        ArchiveLimits(chunk_bytes=0)


def test_a_file_of_0_bytes_has_no_offsets_and_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "growing.avro"
    empty.touch()
    (header,) = check_archives([str(tmp_path)])
    assert (header.size, header.raw) == (0, False)
    plan = plan_archive(str(empty))
    assert (plan.records, plan.chunks, [problem.kind for problem in plan.problems]) == (0, (), ["truncated_tail"])
    assert plan.problems[0].message == f"{empty}: the file is empty; if it is still being written, read it again later"
    assert not count_archive(str(empty)).coverage


@pytest.mark.parametrize(
    ("field", "avro_type"),
    [
        ("price", {"type": "fixed", "name": "price", "size": 8, "logicalType": "decimal", "precision": 18, "scale": 8}),
        ("price", {"type": "bytes", "logicalType": "decimal", "precision": 39, "scale": 4}),
        ("price", "double"),
        ("timestamp", {"type": "long", "logicalType": "timestamp-nanos"}),
        ("timestamp", {"type": "long", "logicalType": "local-timestamp-micros"}),
        ("source_sequence", ["null", "string"]),
    ],
)
def test_a_schema_that_can_not_be_read_as_ours_is_refused(field: str, avro_type: Any) -> None:
    schema = json.loads(json.dumps(avro_schema("trade_v2")))
    next(one for one in schema["fields"] if one["name"] == field)["type"] = avro_type
    refused = (
        rf"day\.avro: the writer's field '{field}' \(.*\) can't be read as that of trade_v2 .*; nothing was read. Write"
    )
    with pytest.raises(ArchiveRefused, match=refused):
        parse(header(schema=schema))
