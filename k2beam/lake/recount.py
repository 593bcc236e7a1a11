"""Recounts sequence numbers from the rows of the event tables.

The rows are the truth; the ledger of gaps must say what a recount says. Rows are taken one exchange at
a time, and a large exchange in parts by symbol, so that memory is bounded by :data:`ROWS_AT_ONCE` and
by the rows of one symbol, not by the table.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, BooleanExpression, In
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.arrays import Ints
from k2beam.errors import UnreadableFile
from k2beam.lake.scan import EVERYTHING, find_readable, partition_value, plan_files, read_file
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import Kind
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import Epoch, recount

SEQUENCED_KINDS: tuple[Kind, ...] = ("trades", "quotes")
"""The kinds whose events have a ``source_sequence``."""

ROWS_AT_ONCE = 8_000_000
"""Rows that are held at once, about 60 bytes each."""

PUSHED_DOWN_KEYS = 200
"""Up to so many keys go into the scan's filter; with more, each file is read and filtered here."""

Key = tuple[str, str, Kind]
UNWANTED = -1


class KeyRecount(NamedTuple):
    """What the rows of one key say: its epochs, rows with a sequence number, rows without."""

    exchange: str
    symbol: str
    kind: Kind
    epochs: tuple[Epoch, ...]
    rows: int
    unsequenced: int


class KeyMessages(NamedTuple):
    """The messages of one key in the order of its files: times (microseconds, UTC) and sequence numbers."""

    exchange: str
    symbol: str
    times: Ints
    sequences: Ints
    unsequenced: int


def stop_at_unreadable(error: UnreadableFile) -> None:
    """The default: a recount that leaves out a file would report its rows as gaps."""
    raise error


def recount_keys(
    catalog: Catalog,
    namespace: str,
    kinds: Sequence[Kind] = SEQUENCED_KINDS,
    *,
    keys: Collection[Key] | None = None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
) -> Iterator[KeyRecount]:
    """Recount each key (exchange, symbol, kind) from its rows; ``keys`` restricts it to those.

    A table that was never made has no keys. ``on_unreadable`` is called for each file that is gone or
    damaged; unless it raises (the default does, UnreadableFile), the recount goes on without the file.
    """
    for kind in kinds:
        try:
            table = find_readable(catalog, namespace, EVENT_TABLES[kind])
        except UnreadableFile as error:
            on_unreadable(error)
            continue
        wanted = None if keys is None else {(exchange, symbol) for exchange, symbol, of in keys if of == kind}
        if table is not None and wanted != set():
            yield from recount_table(table, kind, keys=wanted, on_unreadable=on_unreadable)


def recount_table(
    table: Table,
    kind: Kind,
    *,
    keys: Collection[tuple[str, str]] | None = None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
) -> Iterator[KeyRecount]:
    """Recount the keys (exchange, symbol) of one event table, as :func:`recount_keys` does."""
    for key in gather_messages(table, kind, keys=keys, on_unreadable=on_unreadable):
        epochs = recount(key.times, key.sequences)
        yield KeyRecount(key.exchange, key.symbol, kind, epochs, len(key.sequences), key.unsequenced)


def gather_messages(
    table: Table,
    kind: Kind,
    *,
    keys: Collection[tuple[str, str]] | None = None,
    rows: BooleanExpression = EVERYTHING,
    snapshot: Snapshot | None = None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
) -> Iterator[KeyMessages]:
    """The messages of each key of one event table, as :func:`recount_keys` takes them.

    Those of a ``snapshot`` (None: of the current one), and of the ``rows`` that pass.
    """
    row_filter = And(key_filter(keys), rows)
    try:
        tasks = plan_files(table, row_filter, snapshot)
    except UnreadableFile as error:
        on_unreadable(error)
        return
    for group in _groups(table, tasks):
        parts = -(-sum(task.file.record_count for task in group) // ROWS_AT_ONCE)
        for part in range(parts):
            messages = _Messages(kind, keys, part, parts)
            for task in group:
                try:
                    for batch in read_file(table, task, messages.columns, row_filter):
                        messages.add(batch)
                except UnreadableFile as error:
                    on_unreadable(error)
            yield from messages.by_key()


def key_filter(keys: Collection[tuple[str, str]] | None) -> BooleanExpression:
    """What the scan can leave out for ``keys``; it may let others through."""
    if not keys or len(keys) > PUSHED_DOWN_KEYS:
        return EVERYTHING
    exchanges, symbols = ({key[position] for key in keys} for position in (0, 1))
    return And(_among("exchange", exchanges), _among("symbol", symbols))


def _among(column: str, values: Collection[str]) -> BooleanExpression:
    # pyiceberg's predicates are pydantic models whose positional form type checkers don't see.
    predicate: Any = In
    expression: BooleanExpression = predicate(column, values)
    return expression


def _groups(table: Table, tasks: Sequence[FileScanTask]) -> list[list[FileScanTask]]:
    """The files by exchange; all together where a file does not say which exchange it is of."""
    groups: dict[str | None, list[FileScanTask]] = defaultdict(list)
    for task in tasks:
        groups[partition_value(table, task, "exchange")].append(task)
    return [list(tasks)] if None in groups else list(groups.values())


@dataclass
class _Messages:
    """(time, sequence) of the messages of one part of an exchange, gathered file by file."""

    kind: Kind
    keys: Collection[tuple[str, str]] | None
    part: int
    parts: int
    ids: dict[tuple[str, str], int] = field(default_factory=dict)
    chunks: list[tuple[npt.NDArray[np.int32], Ints, Ints]] = field(default_factory=list)
    unsequenced: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def columns(self) -> tuple[str, ...]:
        return "exchange", "symbol", EVENT_TIME_COLUMN[self.kind], "source_sequence"

    def add(self, batch: pa.RecordBatch) -> None:
        exchange, symbol, time, sequence = batch.columns
        ids = self._ids(exchange.dictionary_encode(), symbol.dictionary_encode())
        times = time.cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy(zero_copy_only=False)
        keep = ids != UNWANTED
        # A negative number is none (see k2beam.sequence.recount), as a null is none.
        sequences = sequence.fill_null(UNWANTED).to_numpy(zero_copy_only=False)
        present = sequences >= 0
        self._count_unsequenced(ids[keep & ~present])
        keep &= present
        chunk = ids, times, sequences
        if not keep.all():
            chunk = ids[keep], times[keep], sequences[keep]
        if len(chunk[0]):
            self.chunks.append(chunk)

    def by_key(self) -> Iterator[KeyMessages]:
        """Each key's messages. What was gathered is given up."""
        names = list(self.ids)
        times, sequences, ends = self._sorted()
        begin = 0
        for number, ((exchange, symbol), end) in enumerate(zip(names, ends, strict=True)):
            unsequenced = self.unsequenced.get(number, 0)
            yield KeyMessages(exchange, symbol, times[begin:end], sequences[begin:end], unsequenced)
            begin = end

    def _sorted(self) -> tuple[Ints, Ints, list[int]]:
        """Times and sequences, key after key, and where each key ends."""
        if not self.chunks:
            nothing = np.zeros(0, dtype=np.int64)
            return nothing, nothing, [0] * len(self.ids)
        ids, times, sequences = (np.concatenate(columns) for columns in zip(*self.chunks, strict=True))
        self.chunks.clear()
        ends = np.bincount(ids, minlength=len(self.ids)).cumsum().tolist()
        if np.any(ids[1:] < ids[:-1]):
            # 16 bits where they suffice: numpy then sorts by radix.
            order = np.argsort(ids.astype(np.uint16) if len(self.ids) <= 1 << 16 else ids, kind="stable")
            times, sequences = times[order], sequences[order]
        return times, sequences, ends

    def _ids(self, exchange: pa.DictionaryArray, symbol: pa.DictionaryArray) -> npt.NDArray[np.int32]:
        """The key number of each row; UNWANTED for the keys of another part and those not asked for."""
        symbols = len(symbol.dictionary)
        pairs = exchange.indices.to_numpy().astype(np.int64) * symbols + symbol.indices.to_numpy()
        numbers = np.full(len(exchange.dictionary) * symbols, UNWANTED, dtype=np.int32)
        names = exchange.dictionary.to_pylist(), symbol.dictionary.to_pylist()
        for pair in np.flatnonzero(np.bincount(pairs, minlength=len(numbers))).tolist():
            key = names[0][pair // symbols], names[1][pair % symbols]
            if self._wanted(key):
                numbers[pair] = self.ids.setdefault(key, len(self.ids))
        ids: npt.NDArray[np.int32] = numbers[pairs]
        return ids

    def _wanted(self, key: tuple[str, str]) -> bool:
        if self.keys is not None and key not in self.keys:
            return False
        return self.parts == 1 or zlib.crc32(key[1].encode()) % self.parts == self.part

    def _count_unsequenced(self, ids: npt.NDArray[np.int32]) -> None:
        for number, count in zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True):
            self.unsequenced[number] += count
