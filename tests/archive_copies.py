"""Copies of plain containers in the raw_record envelope, and what a whole read of a container takes."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import fastavro

from k2beam.archive.count import count_archive
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.write import write_raw_archive
from k2beam.coverage import Coverage
from k2beam.model import BlockBatch, RawRecord

SCHEMA_ID = 1


def archive_coverage(path: Path) -> Coverage:
    return count_archive(str(path)).coverage


def copy_as_raw(plain: Path, copy: Path) -> None:
    """The records of a sound container, each in Confluent framing, with the source and offset that it has there."""
    schema = json.loads(plan_archive(str(plain)).header.schema_json)
    write_raw_archive(str(copy), _records(plain, schema), {SCHEMA_ID: schema})


def _records(plain: Path, schema: object) -> Iterator[RawRecord]:
    parsed = fastavro.parse_schema(schema)
    frame = b"\x00" + SCHEMA_ID.to_bytes(4, "big")
    for chunk in plan_archive(str(plain)).chunks:
        for batch in ArchiveReader().read(chunk):
            assert isinstance(batch, BlockBatch)
            for block in batch.blocks:
                stream, start = io.BytesIO(block.payload), 0
                for index in range(block.count):
                    fastavro.schemaless_reader(stream, parsed)
                    body = block.payload[start : stream.tell()]
                    yield RawRecord(batch.source, 0, block.first_offset + index, None, None, frame + body)
                    start = stream.tell()
