"""Writing containers in the raw_record envelope."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fastavro

from k2beam import schemas as k2schemas
from k2beam.archive.codecs import CODECS, compress
from k2beam.archive.header import CONTAINER_MAGIC, SCHEMAS_KEY, SYNC_BYTES, ArchiveLimits
from k2beam.archive.varint import write_long
from k2beam.errors import ArchiveError, UsageError
from k2beam.model import RawRecord, SchemaRef

BLOCK_BYTES = 1 << 20
"""A block is closed at the latest when it has this many bytes before compression."""


def write_raw_archive(
    path: str,
    records: Iterable[RawRecord],
    schemas: Mapping[SchemaRef, Any],
    *,
    codec: str = "zstandard",
    block_records: int = 10_000,
    sync_marker: bytes | None = None,
) -> int:
    """Write messages into a raw_record container, and return how many. ``records`` is consumed as a stream.

    ``schemas`` are the writer schemas (parsed JSON) by Confluent id or GUID. A block has ``block_records`` records at
    the most. The same ``sync_marker`` (16 bytes; random by default) and input give the same file. The file appears
    under its name when it is complete; until then, and after a failure, there is only ``<path>.partial``.

    Raises UsageError for a wrong option, ArchiveError for a message that no reader would take.

    Examples:
        >>> from k2beam.archive.count import count_archive
        >>> from k2beam.archive.write import write_raw_archive
        >>> from k2beam.model import RawRecord
        >>> messages = [RawRecord("kafka:mine/ticks/1", 0, offset, None, b"BTCUSDT", b"payload") for offset in range(3)]
        >>> write_raw_archive("ticks.avro", messages, schemas={})
        3
        >>> count_archive("ticks.avro").records
        3
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


def _check_options(codec: str, block_records: int, sync_marker: bytes | None) -> None:
    if codec not in CODECS:
        raise UsageError(f"codec {codec!r} is not supported; take one of {', '.join(CODECS)}")
    if block_records < 1:
        raise UsageError(f"block_records must be at least 1, not {block_records}")
    if sync_marker is not None and len(sync_marker) != SYNC_BYTES:
        raise UsageError(f"sync_marker must have {SYNC_BYTES} bytes, not {len(sync_marker)}")


def _header(schemas: Mapping[SchemaRef, Any], codec: str, sync: bytes) -> bytes:
    metadata = {
        "avro.schema": json.dumps(k2schemas.avro_schema("raw_record")),
        "avro.codec": codec,
        SCHEMAS_KEY: json.dumps({str(key): schema for key, schema in schemas.items()}),
    }
    parts = [CONTAINER_MAGIC, write_long(len(metadata))]
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
