"""Small lakes and batches for the tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import requests
from pyiceberg.catalog.rest.response import _handle_non_200_response
from pyiceberg.exceptions import RESTError
from pyiceberg.table import Table

from k2beam.config import NAMESPACE, LakeConfig, RetryPolicy, WriteConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.files import StagedFile, write_rows
from k2beam.lake.placement import by_partition
from k2beam.lake.tables import SPECS, find_table, open_table, own_types
from k2beam.model import RAW_BATCH_SCHEMA, EventBatch, RawBatch
from k2beam.schemas import event_arrow_schema

DAY = 86_400_000_000
START = 20_000 * DAY
QUICK = RetryPolicy(attempts=50, first_wait=0.001, longest_wait=0.02)


def lake_config(folder: Path) -> LakeConfig:
    return LakeConfig(warehouse=str(folder))


def write_config(**changes: Any) -> WriteConfig:
    return WriteConfig(**{"run_id": "test", "retry": QUICK, **changes})


def trades(
    offsets: Iterable[int],
    *,
    source: str = "archive:a",
    partition: int = 0,
    symbol: str = "BTC",
    times: Sequence[int] | None = None,
    exchange: str = "BINANCE",
) -> pa.RecordBatch:
    """Trades with the given offsets, one millisecond apart, sequence = offset."""
    numbers = list(offsets)
    count = len(numbers)
    micros = list(times) if times is not None else [START + number * 1000 for number in numbers]
    columns = {
        "message_id": [f"{source}-{partition}-{number}" for number in numbers],
        "trade_id": [str(number) for number in numbers],
        "symbol": [symbol] * count,
        "exchange": [exchange] * count,
        "asset_class": ["crypto"] * count,
        "timestamp": micros,
        "price": [Decimal("1.5")] * count,
        "quantity": [Decimal("2")] * count,
        "currency": ["USDT"] * count,
        "side": ["BUY"] * count,
        "trade_conditions": [["a"]] * count,
        "source_sequence": numbers,
        "ingestion_timestamp": micros,
        "platform_sequence": [None] * count,
        "vendor_data": [[("k", "v")]] * count,
        "_source": [source] * count,
        "_partition": [partition] * count,
        "_offset": numbers,
        "_ingested_at": micros,
    }
    schema = event_arrow_schema("trades")
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], type=field.type) for field in schema], schema=schema
    )


def trade_batch(offsets: Iterable[int], **options: Any) -> EventBatch:
    return EventBatch("trades", trades(offsets, **options))


def stage(folder: Path, offsets: Iterable[int], **options: Any) -> StagedFile:
    """A written, uncommitted data file of trades."""
    table = open_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2")
    (file,) = write_rows(table, pa.Table.from_batches([trades(offsets, **options)]), window=START)
    return file


def written_by_the_first_row(table: Table, rows: pa.Table, monkeypatch: pytest.MonkeyPatch) -> list[StagedFile]:
    """One data file, in the partition of its first row whatever the others are."""
    ((key, _),) = by_partition(table, rows.slice(0, 1))
    with monkeypatch.context() as patched:
        patched.setattr("k2beam.lake.files.by_partition", lambda table, rows: [(key, rows)])
        return write_rows(table, rows, window=0)


def offsets_in(folder: Path, name: str = "trades_v2") -> list[int]:
    """All offsets in a table, sorted, repeated ones included."""
    table = find_table(open_catalog(lake_config(folder)), NAMESPACE, name)
    if table is None:
        return []
    return sorted(table.scan(selected_fields=("_offset",)).to_arrow().column("_offset").to_pylist())


@contextmanager
def older_version(name: str = "trades_v2") -> Iterator[None]:
    """Within it a table is made and written as by versions whose decimals had 18 digits."""
    spec = SPECS[name]
    narrow = [
        field.with_type(pa.decimal128(18, 8)) if pa.types.is_decimal(field.type) else field for field in spec.schema
    ]
    SPECS[name] = replace(spec, schema=pa.schema(narrow))
    own_types.cache_clear()
    try:
        yield
    finally:
        SPECS[name] = spec
        own_types.cache_clear()


def raw_batch(offsets: Iterable[tuple[str, int, int]], value: bytes = b"x") -> RawBatch:
    """Messages of one ``value`` at (source, partition, offset)."""
    rows = [
        {
            "source": source,
            "partition": partition,
            "offset": offset,
            "timestamp": 1,
            "key": None,
            "value": value,
            "headers": [],
        }
        for source, partition, offset in offsets
    ]
    return RawBatch(pa.RecordBatch.from_pylist(rows, schema=RAW_BATCH_SCHEMA))


def answered(status: int) -> RESTError:
    """What pyiceberg makes of an answer of a REST catalog without a proper text."""
    answer = requests.Response()
    answer.status_code, answer._content = status, b"no"
    with pytest.raises(RESTError) as raised:
        _handle_non_200_response(requests.HTTPError(response=answer), {})
    return raised.value
