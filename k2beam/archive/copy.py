"""Writing containers in the raw_record envelope, and copying plain ones into it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import fastavro

from k2beam import schemas as k2schemas
from k2beam.archive.codecs import CODECS, compress
from k2beam.archive.files import file_size, open_archive
from k2beam.archive.header import MAGIC, SCHEMAS_KEY, SYNC_BYTES, ArchiveHeader, ArchiveLimits, read_header
from k2beam.archive.plan import ArchivePlan, plan_archive
from k2beam.archive.reading import block_content
from k2beam.archive.scan import Frame, ReadProblem, Scanner
from k2beam.archive.varint import write_long
from k2beam.errors import ArchiveError, BrokenBlock, UsageError
from k2beam.model import RawRecord

BLOCK_BYTES = 1 << 20
"""A block is closed at the latest when it has this many bytes before compression."""

_FRAME_MAGIC = b"\x00"  # Confluent framing: the magic byte, then the schema id in four bytes
_DEFAULT_ID = 1


@dataclass(frozen=True, slots=True)
class CopyResult:
    """How many records a copy has, and what of the original has no offsets (a truncated tail)."""

    records: int
    problems: tuple[ReadProblem, ...]


def write_raw_archive(
    path: str,
    records: Iterable[RawRecord],
    schemas: Mapping[int, Any],
    *,
    codec: str = "zstandard",
    block_records: int = 10_000,
    sync_marker: bytes | None = None,
) -> int:
    """Write messages into a raw_record container, and return how many. ``records`` is consumed as a stream.

    ``schemas`` are the writer schemas (parsed JSON) by Confluent id. A block has ``block_records`` records at the most.
    The same ``sync_marker`` (16 bytes; random by default) and input give the same file. The file appears under its name
    when it is complete; until then, and after a failure, there is only ``<path>.partial``.

    Raises UsageError for a wrong option, ArchiveError for a message that no reader would take.
    """
    _check_options(codec, block_records, sync_marker)
    partial = f"{path}.partial"
    sync = sync_marker or os.urandom(SYNC_BYTES)
    count = 0
    with open(partial, "wb") as file:
        file.write(_header(schemas, codec, sync))
        for block_count, content in _blocks(records, block_records):
            stored = compress(codec, content)
            file.write(write_long(block_count) + write_long(len(stored)) + stored + sync)
            count += block_count
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return count


def copy_as_raw(
    src: str, dst: str, schema_ids: Mapping[str, int] | None = None, limits: ArchiveLimits | None = None
) -> CopyResult:
    """Copy a plain container into the raw_record envelope.

    Each record keeps source, partition and offset, so that reading the copy after the original adds nothing. Its
    value is Confluent framing (0, then the schema id, big-endian) and the record's own bytes, unchanged. ``schema_ids``
    gives the id for the full name of the writer schema; 1 by default. Keys, timestamps and headers are null or empty.

    Raises BrokenBlock (with file and byte) when a block of ``src`` can't be copied whole: then ``dst`` is not written.
    """
    limits = limits or ArchiveLimits()
    if os.path.realpath(src) == os.path.realpath(dst):
        raise UsageError(f"{dst}: is the archive that is to be copied; give another name")
    plan = plan_archive(src, None, limits)
    if plan.header.raw:
        raise UsageError(f"{src}: is in the raw_record envelope already; copy the file itself")
    schema = json.loads(plan.header.schema_json)
    schema_id = _schema_id(schema, schema_ids)
    with open_archive(src) as file:
        header = read_header(file, src, limits)
        records = _raw_records(file, header, plan, schema_id, limits)
        count = write_raw_archive(dst, records, {schema_id: schema})
    return CopyResult(count, plan.problems)


def _check_options(codec: str, block_records: int, sync_marker: bytes | None) -> None:
    if codec not in CODECS:
        raise UsageError(f"codec {codec!r} is not supported; take one of {', '.join(CODECS)}")
    if block_records < 1:
        raise UsageError(f"block_records must be at least 1, not {block_records}")
    if sync_marker is not None and len(sync_marker) != SYNC_BYTES:
        raise UsageError(f"sync_marker must have {SYNC_BYTES} bytes, not {len(sync_marker)}")


def _header(schemas: Mapping[int, Any], codec: str, sync: bytes) -> bytes:
    metadata = {
        "avro.schema": json.dumps(k2schemas.avro_schema("raw_record")),
        "avro.codec": codec,
        SCHEMAS_KEY: json.dumps({str(key): schema for key, schema in schemas.items()}),
    }
    parts = [MAGIC, write_long(len(metadata))]
    for text in (part for entry in metadata.items() for part in entry):
        data = text.encode("utf-8")
        parts += [write_long(len(data)), data]
    return b"".join([*parts, write_long(0), sync])


def _blocks(records: Iterable[RawRecord], block_records: int) -> Iterator[tuple[int, bytes]]:
    """Count and content of each block."""
    schema = fastavro.parse_schema(k2schemas.avro_schema("raw_record"))
    limit = ArchiveLimits().max_envelope_bytes - BLOCK_BYTES
    block, count = io.BytesIO(), 0
    for record in records:
        if _size(record) > limit:
            raise ArchiveError(
                f"{record.source}, partition {record.partition}, offset {record.offset}: the message has more than "
                f"{limit} bytes, and no reader would take its block; leave it out of the archive"
            )
        fastavro.schemaless_writer(block, schema, _as_dict(record))
        count += 1
        if count >= block_records or block.tell() >= BLOCK_BYTES:
            yield count, block.getvalue()
            block, count = io.BytesIO(), 0
    if count:
        yield count, block.getvalue()


def _as_dict(record: RawRecord) -> dict[str, Any]:
    return {
        "source": record.source,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": record.key,
        "value": record.value,
        "headers": [{"key": key, "value": value} for key, value in record.headers],
    }


def _size(record: RawRecord) -> int:
    headers = sum(len(key.encode()) + len(value or b"") + 24 for key, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def _schema_id(schema: Any, schema_ids: Mapping[str, int] | None) -> int:
    if schema_ids is None:
        return _DEFAULT_ID
    name = k2schemas.full_name(schema) or ""
    if name not in schema_ids:
        raise UsageError(f"no schema id is given for {name}; there are ids for {', '.join(sorted(schema_ids))}")
    return schema_ids[name]


def _raw_records(
    file: BinaryIO, header: ArchiveHeader, plan: ArchivePlan, schema_id: int, limits: ArchiveLimits
) -> Iterator[RawRecord]:
    prefix = _FRAME_MAGIC + schema_id.to_bytes(4, "big")
    stop = plan.chunks[-1].end if plan.chunks else header.size
    schema = fastavro.parse_schema(json.loads(header.schema_json))
    for frame in Scanner(file, header, file_size(file)).frames(header.size, stop, 0, keep=limits.max_block_bytes):
        if isinstance(frame, ReadProblem):
            return
        for index, body in enumerate(_records(header, frame, schema, limits)):
            yield RawRecord(plan.source, 0, frame.first + index, None, None, prefix + body)


def _records(header: ArchiveHeader, frame: Frame, schema: Any, limits: ArchiveLimits) -> Iterator[bytes]:
    """The encoded bytes of each record of a block: a decoder says where one ends."""
    where = f"{header.path}, block at byte {frame.position}"
    try:
        content = block_content(header, frame, limits) if frame.records else b""
        stream = io.BytesIO(content)
        start = 0
        for _ in range(frame.records):
            fastavro.schemaless_reader(stream, schema)
            end = stream.tell()
            yield content[start:end]
            start = end
    except BrokenBlock as error:
        raise BrokenBlock(f"{where}: {error}; a copy would lose it: restore the file first") from error
    except (EOFError, ValueError, IndexError, OverflowError) as error:
        raise BrokenBlock(f"{where}: does not decode: {error}; restore the file first") from error
    if start != len(content):
        raise BrokenBlock(f"{where}: {len(content) - start} bytes follow its records; restore the file first")
