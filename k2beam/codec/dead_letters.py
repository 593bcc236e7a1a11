"""Dead letters of rows and blocks that gave no event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from k2beam.codec.writer_schema import RowError
from k2beam.jsonable import to_json
from k2beam.model import Block, BlockBatch, DeadLetter, Stage


class Failure(NamedTuple):
    """An input row (by its position in the batch) that gave no event."""

    row: int
    stage: Stage
    error_class: str
    message: str
    record_json: str | None = None
    payload: bytes | None = None


def decode_failure(error: RowError, row: int) -> Failure:
    """The failure of input row ``row`` that a decoder reports as ``error``."""
    record_json = None if error.record is None else to_json(error.record)
    return Failure(row, "decode", error.error_class, error.message, record_json, error.payload)


def raw_dead_letters(
    data: pa.RecordBatch, failures: Sequence[tuple[int | None, Failure]], failed_at: int
) -> tuple[DeadLetter, ...]:
    """The letters of rows of a raw batch, each with its schema id, in the order of the rows."""
    if not failures:
        return ()
    ordered = sorted(failures, key=lambda pair: pair[1].row)
    timestamps = data.column("timestamp").cast(pa.int64())
    taken = data.set_column(data.schema.get_field_index("timestamp"), "timestamp", timestamps)
    records = taken.take(pa.array([failure.row for _, failure in ordered])).to_pylist()
    return tuple(
        DeadLetter(
            source=record["source"],
            partition=record["partition"],
            offset=record["offset"],
            stage=failure.stage,
            error_class=failure.error_class,
            error_message=failure.message,
            payload=record["value"],
            timestamp=record["timestamp"],
            key=record["key"],
            headers=tuple((header["key"], header["value"]) for header in record["headers"] or ()),
            schema_id=schema_id,
            record_json=failure.record_json,
            failed_at=failed_at,
        )
        for (schema_id, failure), record in zip(ordered, records, strict=True)
    )


def row_dead_letter(
    batch: BlockBatch, block: Block, row: int, failure: Failure, schema_name: str, failed_at: int
) -> DeadLetter:
    """The letter of record ``row`` of ``block``; its payload is the record's own bytes."""
    offset = block.first_offset + row
    return _block_dead_letter(batch, block, failure, (offset, offset), schema_name, failed_at)


def block_dead_letter(
    batch: BlockBatch, block: Block, failure: Failure, schema_name: str, failed_at: int
) -> DeadLetter:
    """One dead letter for all records of ``block``; its payload is the block, decompressed."""
    offsets = (block.first_offset, block.first_offset + block.count - 1)
    return _block_dead_letter(batch, block, failure, offsets, schema_name, failed_at)


def _block_dead_letter(
    batch: BlockBatch, block: Block, failure: Failure, offsets: tuple[int, int], schema_name: str, failed_at: int
) -> DeadLetter:
    return DeadLetter(
        source=batch.source,
        partition=batch.partition,
        offset=offsets[0],
        offset_last=offsets[1] if offsets[1] > offsets[0] else None,
        stage=failure.stage,
        error_class=failure.error_class,
        error_message=f"{batch.path}, block at byte {block.position}: {failure.message}",
        payload=failure.payload,
        headers=_block_headers(batch, block, schema_name),
        record_json=failure.record_json,
        failed_at=failed_at,
    )


def _block_headers(batch: BlockBatch, block: Block, schema_name: str) -> tuple[tuple[str, bytes], ...]:
    headers = {"k2.path": batch.path.encode(), "k2.position": b"%d" % block.position}
    if schema_name:
        headers["k2.schema"] = schema_name.encode()
    return tuple(headers.items())


def record_texts(columns: pa.RecordBatch, rows: Iterable[int]) -> list[str]:
    """Rows of ``columns`` as JSON, for the letters of records that did decode."""
    taken: list[dict[str, Any]] = columns.take(pa.array(list(rows), type=pa.int64())).to_pylist(
        maps_as_pydicts="strict"
    )
    return [to_json(record) for record in taken]
