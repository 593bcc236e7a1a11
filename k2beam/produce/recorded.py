"""What was recorded, in the order of time: the events of the tables, or the messages of an archive."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.archive.files import expand_paths
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.arrays import Mask
from k2beam.clock import now_us
from k2beam.codec.batches import BatchDecoder
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.errors import ArchiveError, UsageError
from k2beam.lake.catalog import Catalog
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import RAW_BATCH_SCHEMA, SEQUENCED_KINDS, Kind, RawBatch, RawRecord, SchemaRef
from k2beam.query import duck
from k2beam.query.selection import bounds_of_selection, pin_snapshots
from k2beam.query.selections import EventSelection, Snapshots, names_of
from k2beam.query.slices import stream_events
from k2beam.query.times import moment
from k2beam.schemas import EVENT_TIME_COLUMN

LAST = 2**63 - 1
"""Stands for the number of an event that has none: it comes after those of its time that have one."""

_ROWS_AT_ONCE = 500
_PLACE = ("_offset", "_source", "_partition")


class ReplayPosition(NamedTuple):
    """What puts events in order: time in microseconds, the exchange's number, then where the message was."""

    time: int
    sequence: int
    kind: str
    offset: int
    source: str
    partition: int


class Recorded(NamedTuple):
    """One event: ``record`` has the columns of its table; of an archive ``message`` is the message, byte for byte."""

    position: ReplayPosition
    record: Mapping[str, Any] | None
    message: RawRecord | None


class Recording(Protocol):
    """What can be replayed."""

    @property
    def identity(self) -> dict[str, Any]:
        """What it is, as JSON: a replay that is resumed must have the same."""

    def read(self, after: ReplayPosition | None) -> Iterator[Recorded]:
        """All events in the order of their positions, those after one of them alone."""


@dataclass(slots=True)
class RecordedTables:
    """The events of tables of kinds that have numbers, each once, as of one moment; memory does not grow with them."""

    catalog: Catalog
    namespace: str
    kinds: Sequence[Kind]
    selection: EventSelection

    def __post_init__(self) -> None:
        if not isinstance(self.selection.as_of, Snapshots):
            names = [EVENT_TABLES[kind] for kind in self.kinds]
            pinned = pin_snapshots(self.catalog, self.namespace, self.selection.as_of, names)
            self.selection = replace(self.selection, as_of=pinned)

    @property
    def identity(self) -> dict[str, Any]:
        """The selection, and the snapshots."""
        assert isinstance(self.selection.as_of, Snapshots)
        return {**_asked(self.kinds, self.selection), "snapshots": dict(self.selection.as_of.ids)}

    def read(self, after: ReplayPosition | None = None) -> Iterator[Recorded]:
        """The events. Raises UsageError for a bad selection, LakeError for an unreadable file."""
        # What is sought is after the position: its time is not before the beginning of the selection.
        selection = self.selection if after is None else replace(self.selection, start=moment(after.time))
        streams = [self._of_kind(kind, selection) for kind in self.kinds]
        for one in heapq.merge(*streams, key=lambda one: one.position):
            if after is None or one.position > after:
                yield one

    def _of_kind(self, kind: Kind, selection: EventSelection) -> Iterator[Recorded]:
        _, batches = stream_events(self.catalog, self.namespace, kind, selection)
        for batch in pieces(batches):
            times = batch.column(EVENT_TIME_COLUMN[kind]).cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
            for time, row in zip(times, batch.to_pylist(maps_as_pydicts="strict"), strict=True):
                number = row["source_sequence"]
                place = (row[name] for name in _PLACE)
                yield Recorded(ReplayPosition(time, LAST if number is None else number, kind, *place), row, None)


@dataclass(slots=True)
class RecordedArchive:
    """The messages of raw_record containers, byte for byte, in the order of their events.

    What is no event has the time at which it was logged, and comes along where no symbol or exchange is asked for. The
    messages are decoded (``decoded``: their records come along) and sorted first; what does not fit into memory is
    spilled to a temporary folder. Raises UsageError for a container of records, and for an id that two containers give
    to two schemas.
    """

    paths: Sequence[str]
    kinds: Sequence[Kind] = SEQUENCED_KINDS
    selection: EventSelection = field(default_factory=EventSelection)
    decoded: bool = False
    schemas: dict[SchemaRef, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.selection.as_of is not None:
            raise UsageError("--as-of is of tables: an archive has no snapshots")
        for path in expand_paths(self.paths):
            header = plan_archive(path).header
            if header.size and not header.raw:
                raise UsageError(f"{path} holds records, not messages of a log: ingest it, and replay the tables")
            for ref, text in header.schemas:
                if self.schemas.setdefault(ref, text) != text:
                    raise UsageError(f"{path}: schema {ref} is another schema than in the files before it")

    @property
    def identity(self) -> dict[str, Any]:
        """The selection, and how many messages each file has."""
        files = {path: plan_archive(path).records for path in expand_paths(self.paths)}
        return {**_asked(self.kinds, self.selection), "files": files}

    def read(self, after: ReplayPosition | None = None) -> Iterator[Recorded]:
        """The messages. Raises ArchiveError for a damaged container: a copy with holes would be taken for the whole."""
        order = ", ".join((*_SORTED.names, '"offset"', "source", "partition"))
        with duck.session() as session:
            session.register("messages", pa.schema([*RAW_BATCH_SCHEMA, *_SORTED]), self._placed())
            for rows in pieces(session.stream(f"FROM messages ORDER BY {order}")):
                found = zip(_messages_of(rows), self._records_of(rows), *_columns_of(rows, _SORTED.names), strict=True)
                for message, record, when, number, kind in found:
                    position = ReplayPosition(when, number, kind, message.offset, message.source, message.partition)
                    if after is None or position > after:
                        yield Recorded(position, record, message)

    def _placed(self) -> Iterator[pa.RecordBatch]:
        """The messages of the selection with their places in time."""
        for batch in self._batches():
            times = batch.data.column("timestamp").cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).copy()
            numbers, kinds = np.full(len(times), LAST), np.full(len(times), "", dtype=object)
            wanted = np.full(len(times), self.selection.symbol is None and self.selection.exchange is None)
            for part in self._decoder().decode(batch)[0]:
                assert part.origin is not None, "the decoder says where events came from"
                rows = part.origin.rows.to_numpy()
                times[rows] = part.data.column(EVENT_TIME_COLUMN[part.kind]).cast(pa.int64()).to_numpy()
                if part.kind in SEQUENCED_KINDS:
                    numbers[rows] = part.data.column("source_sequence").fill_null(LAST).to_numpy(zero_copy_only=False)
                kinds[rows] = part.kind
                wanted[rows] = part.kind in self.kinds and _selected(part.data, self.selection)
            start, end = bounds_of_selection(self.selection)
            wanted &= (times >= (-LAST if start is None else start)) & (times < (LAST if end is None else end))
            columns = [*batch.data.columns, pa.array(times), pa.array(numbers), pa.array(kinds, pa.string())]
            yield pa.RecordBatch.from_arrays(columns, names=[*RAW_BATCH_SCHEMA.names, *_SORTED.names]).filter(
                pa.array(wanted)
            )

    def _batches(self) -> Iterator[RawBatch]:
        for path in expand_paths(self.paths):
            plan = plan_archive(path)
            if plan.problems:
                raise ArchiveError(f"{path}: {plan.problems[0].message}; only a whole container is replayed")
            for batch in (batch for chunk in plan.chunks for batch in ArchiveReader().read(chunk)):
                if not isinstance(batch, RawBatch):
                    raise ArchiveError(f"{path}: a block can't be read; only a whole container is replayed")
                yield batch

    def _records_of(self, rows: pa.RecordBatch) -> list[Mapping[str, Any] | None]:
        """The event of each message, where they are asked for and it is one."""
        found: list[Mapping[str, Any] | None] = [None] * rows.num_rows
        if self.decoded:
            batch = RawBatch(
                rows.select(RAW_BATCH_SCHEMA.names).cast(RAW_BATCH_SCHEMA), schemas=tuple(self.schemas.items())
            )
            for part in self._decoder().decode(batch)[0]:
                assert part.origin is not None, "the decoder says where events came from"
                records = part.data.to_pylist(maps_as_pydicts="strict")
                for row, record in zip(part.origin.rows.to_pylist(), records, strict=True):
                    found[row] = record
        return found

    @staticmethod
    def _decoder() -> BatchDecoder:
        return BatchDecoder(ColumnarDecoder(), now_us)


_SORTED = pa.schema([("_time", pa.int64()), ("_sequence", pa.int64()), ("_kind", pa.string())])


def pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, few at a time: to make objects of many would hold up those that are due."""
    return (batch.slice(at, _ROWS_AT_ONCE) for batch in batches for at in range(0, batch.num_rows, _ROWS_AT_ONCE))


def _columns_of(rows: pa.RecordBatch, names: Sequence[str]) -> list[list[Any]]:
    return [rows.column(name).to_pylist() for name in names]


def _messages_of(rows: pa.RecordBatch) -> Iterator[RawRecord]:
    plain = rows.set_column(
        rows.schema.get_field_index("timestamp"), "timestamp", rows.column("timestamp").cast(pa.int64())
    )
    for row in plain.select(RAW_BATCH_SCHEMA.names).to_pylist():
        headers = tuple((header["key"], header["value"]) for header in row.pop("headers") or ())
        yield RawRecord(**row, headers=headers)


def _selected(events: pa.RecordBatch, selection: EventSelection) -> Mask:
    wanted = np.ones(events.num_rows, np.bool_)
    for name, names in (
        ("symbol", names_of(selection.symbol, "symbol")),
        ("exchange", names_of(selection.exchange, "exchange")),
    ):
        if names:
            wanted &= pc.is_in(events.column(name), pa.array(names)).to_numpy(zero_copy_only=False)
    return wanted


def _asked(kinds: Sequence[Kind], selection: EventSelection) -> dict[str, Any]:
    """What is asked for, as JSON."""
    start, end = bounds_of_selection(selection)
    return {
        "kinds": sorted(kinds),
        "symbols": sorted(names_of(selection.symbol, "symbol")),
        "exchanges": sorted(names_of(selection.exchange, "exchange")),
        "from": start,
        "until": end,
    }
