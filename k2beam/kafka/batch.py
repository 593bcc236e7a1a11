"""Messages of a log, column by column, as a RawBatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, NO_TIMESTAMP, RAW_BATCH_SCHEMA, RawBatch

BYTES_A_BATCH = 32 << 20
"""A reader closes a batch at this many bytes of values."""

_Headers = Sequence[tuple[str, bytes | None]]


def raw_batch(
    sources: Mapping[str, str],
    topics: Sequence[str],
    partitions: Sequence[int],
    offsets: Sequence[int],
    milliseconds: Sequence[int],
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Mapping[int, _Headers],
) -> RawBatch:
    """The batch of messages whose fields are given as columns of one length, at least 1.

    ``sources`` has the source of each topic. ``headers`` are by the row's number, since most messages have none.
    A time is null where :func:`k2beam.model.log_time` gives None.

    Examples:
        >>> from k2beam.kafka.batch import raw_batch
        >>> batch = raw_batch({"ticks": "kafka:c/ticks/1"}, ["ticks"], [0], [7], [1000], [None], [b"v"], {})
        >>> batch.data.column("offset").to_pylist()
        [7]
    """
    columns = [
        _by_topic(topics, sources),
        partitions,
        offsets,
        _microseconds(milliseconds),
        keys,
        values,
        _headers(headers, len(topics)),
    ]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, RAW_BATCH_SCHEMA, strict=True)]
    return RawBatch(pa.RecordBatch.from_arrays(arrays, schema=RAW_BATCH_SCHEMA))


def _by_topic(topics: Sequence[str], sources: Mapping[str, str]) -> pa.Array:
    numbers = {topic: number for number, topic in enumerate(sources)}
    codes = pa.array(np.fromiter(map(numbers.__getitem__, topics), np.int32, len(topics)))
    return pa.DictionaryArray.from_arrays(codes, pa.array(sources.values())).cast(pa.string())


def _headers(headers: Mapping[int, _Headers], rows: int) -> pa.Array:
    field = RAW_BATCH_SCHEMA.field("headers").type
    if not headers:
        return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], field.value_type))
    lists: list[list[dict[str, Any]]] = [[]] * rows
    for row, found in headers.items():
        lists[row] = [{"key": key, "value": value} for key, value in found]
    return pa.array(lists, type=field)


def _microseconds(milliseconds: Sequence[int]) -> pa.Array:
    """As :func:`k2beam.model.log_time`, for all at once."""
    millis = np.array(milliseconds, dtype=np.int64)
    told = (millis != NO_TIMESTAMP) & (millis >= MIN_TIMESTAMP // 1000) & (millis <= MAX_TIMESTAMP // 1000)
    return pa.array(np.where(told, millis, 0) * 1000, mask=~told)
