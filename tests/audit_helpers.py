"""Small lakes built by pyiceberg alone, without the project's own writer: what the audit is tested on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.config import NAMESPACE, LakeConfig
from k2beam.coverage import Coverage
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS, EVENT_TABLES, EXPECTED_PREFIX, open_table
from k2beam.model import Kind
from k2beam.schemas import event_arrow_schema

SOURCE = "archive:a"
START = 1_700_000_000_000_000
HOUR = 3_600_000_000


class Row(NamedTuple):
    """What matters of an event; the rest is filled in."""

    offset: int
    sequence: int | None = None
    time: int | None = None
    symbol: str = "BTC"
    exchange: str = "BINANCE"
    source: str = SOURCE
    partition: int = 0

    @property
    def event_time(self) -> int:
        return START + self.offset * 1000 if self.time is None else self.time


_FILLING: Mapping[str, Any] = {
    "asset_class": "crypto",
    "currency": "USDT",
    "side": "BUY",
    "trade_conditions": [],
    "company_name": "a company",
    "company_id": "1",
    "is_active": True,
}


def _value(row: Row, field: pa.Field) -> Any:
    own = {
        "symbol": row.symbol,
        "exchange": row.exchange,
        "source_sequence": row.sequence,
        "_source": row.source,
        "_partition": row.partition,
        "_offset": row.offset,
    }
    if field.name in own:
        return own[field.name]
    if field.nullable:
        return None
    if field.name in _FILLING:
        return _FILLING[field.name]
    if pa.types.is_timestamp(field.type):
        return row.event_time
    return Decimal("1.5") if pa.types.is_decimal(field.type) else str(row.offset)


def event_table(kind: Kind, rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table of the kind's own schema."""
    schema = event_arrow_schema(kind)
    return pa.table(
        [pa.array([_value(row, field) for row in rows], type=field.type) for field in schema], schema=schema
    )


class SmallLake:
    """A warehouse in a folder, written with pyiceberg's append, coverage set by hand."""

    def __init__(self, folder: Path) -> None:
        self.config = LakeConfig(warehouse=str(folder))
        self.catalog: Catalog = open_catalog(self.config)

    def table(self, name: str) -> Table:
        return open_table(self.catalog, NAMESPACE, name)

    def add(self, rows: Iterable[Row], kind: Kind = "trades", *, cover: bool = True) -> None:
        """Append events, as one file for each day and exchange."""
        events = list(rows)
        self.table(EVENT_TABLES[kind]).append(event_table(kind, events))
        if cover:
            for row in events:
                self.cover(EVENT_TABLES[kind], [row.offset], source=row.source, partition=row.partition)

    def bury(self, first: int, last: int | None = None, *, source: str = SOURCE, cover: bool = True) -> None:
        """Append one dead letter."""
        last = first if last is None else last
        values = {
            "_source": source,
            "_partition": 0,
            "_offset": first,
            "_offset_last": last,
            "headers": [],
            "stage": "decode",
            "error_class": "truncated",
            "error_message": "too short",
            "failed_at": START,
        }
        arrays = [pa.array([values.get(field.name)], type=field.type) for field in DEAD_LETTER_SCHEMA]
        self.table(DEAD_LETTERS).append(pa.table(arrays, schema=DEAD_LETTER_SCHEMA))
        if cover:
            self.cover(DEAD_LETTERS, range(first, last + 1), source=source)

    def cover(self, name: str, offsets: Iterable[int], *, source: str = SOURCE, partition: int = 0) -> None:
        """Claim offsets in a table's coverage, whether or not there are rows."""
        table = self.table(name)
        coverage = Coverage.from_properties(table.properties)
        coverage.add_many(source, partition, list(offsets))
        self.set_property(name, coverage.to_properties())

    def expect(self, end: int, *, name: str = "trades_v2", source: str = SOURCE, partition: int = 0) -> None:
        """Record an end offset, as a reader does."""
        self.set_property(name, {f"{EXPECTED_PREFIX}{partition}.{source}": str(end)})

    def set_property(self, name: str, properties: Mapping[str, str]) -> None:
        with self.table(name).transaction() as transaction:
            transaction.set_properties(dict(properties))

    def data_files(self, name: str = "trades_v2") -> list[Path]:
        """The local paths of a table's data files, in the order of the plan."""
        return [Path(task.file.file_path.removeprefix("file://")) for task in self.table(name).scan().plan_files()]


def two_exchanges(lake: SmallLake) -> None:
    """Three files: BTC twice (a gap at 13, closed over the files' border), ETH, and BTC of another exchange."""
    lake.add([Row(0, 10), Row(1, 11, symbol="ETH"), Row(2, 12), Row(3, None)])
    lake.add([Row(4, 14), Row(5, 15, symbol="ETH"), Row(6, 14), Row(7, 11)])
    lake.add([Row(8, 70, exchange="ASX"), Row(9, 71, exchange="ASX")])
