"""Recounts sequence numbers from the rows of the event tables.

The rows are the truth; the ledger of gaps must say what a recount says. Rows are read one day of one exchange at a
time and boiled down to a slice for each symbol; the slices of all days tell the epochs. A day that is remembered
(:mod:`k2beam.lake.certified`) is not read. A large day is read in parts by symbol, so that memory is bounded by
:data:`ROWS_AT_ONCE`, by the rows that one symbol has on one day, and by the gaps, not by the table.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression, LessThan
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.arrays import Ints
from k2beam.clock import MICROS_PER_DAY
from k2beam.errors import UnreadableFile
from k2beam.lake.certified import CertifiedDays
from k2beam.lake.days import DayFiles, DaySlices, SymbolName, divide
from k2beam.lake.predicates import term
from k2beam.lake.scan import EVERYTHING, bound_of, find_readable, plan_files, read_ahead, stop_at_unreadable, table_name
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import Kind
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import DayFold, Epoch, Slice, slice_runs

SEQUENCED_KINDS: tuple[Kind, ...] = ("trades", "quotes")
"""The kinds whose events have a ``source_sequence``."""

ROWS_AT_ONCE = 16_000_000
"""Rows that are held at once, 20 bytes each."""

SLICED_AT_ONCE = 2_000_000
"""Of those held, the rows that are put in order and sliced at once; those of one symbol are not divided."""

INGESTED_AT = "_ingested_at"
UNWANTED = -1


class KeyRecount(NamedTuple):
    """What the rows of one key say: its epochs, rows with a sequence number, rows without."""

    exchange: str
    symbol: str
    kind: Kind
    epochs: tuple[Epoch, ...]
    rows: int
    unsequenced: int


def recount_keys(
    catalog: Catalog,
    namespace: str,
    kinds: Sequence[Kind] = SEQUENCED_KINDS,
    *,
    certified: CertifiedDays | None = None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
) -> Iterator[KeyRecount]:
    """Recount each key (exchange, symbol, kind), from its rows and from what is ``certified`` (None: nothing).

    A table that was never made has no keys. ``on_unreadable`` is called for each file that is gone or
    damaged; unless it raises (the default does, UnreadableFile), the recount goes on without the file.
    """
    for kind in kinds:
        try:
            table = find_readable(catalog, namespace, EVENT_TABLES[kind])
        except UnreadableFile as error:
            on_unreadable(error)
            continue
        if table is not None:
            yield from _recount_table(table, kind, certified, on_unreadable)


def _recount_table(
    table: Table, kind: Kind, certified: CertifiedDays | None, on_unreadable: Callable[[UnreadableFile], None]
) -> Iterator[KeyRecount]:
    folds: dict[SymbolName, DayFold] = defaultdict(DayFold)
    for slices in slices_by_day(table, kind, certified=certified, on_unreadable=on_unreadable):
        for name, piece in slices.items():
            folds[name].add(piece)
    for name in list(folds):
        fold = folds.pop(name)
        yield KeyRecount(*name, kind, fold.epochs, fold.rows, fold.unsequenced)


def slices_by_day(
    table: Table,
    kind: Kind,
    *,
    certified: CertifiedDays | None = None,
    snapshot: Snapshot | None = None,
    before: int | None = None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
) -> Iterator[DaySlices]:
    """The slices of each day of one event table, in order of days, as :func:`recount_keys` takes them.

    Those of a ``snapshot`` (None: of the current one); with ``before`` (microseconds UTC) only of the rows that were
    ingested before that moment.
    """
    rows = EVERYTHING if before is None else _ingested_before(before)
    snapshot = snapshot or table.current_snapshot()
    if snapshot is None:
        return
    try:
        tasks = plan_files(table, rows, snapshot)
    except UnreadableFile as error:
        on_unreadable(error)
        return
    for day in divide(table, kind, tasks):
        known = certified if before is None or _all_before(table, day, before) else None
        slices = known.find(day) if known is not None else None
        if slices is None:
            slices, whole = _read_day(table, day, rows, on_unreadable)
            if known is not None and whole:
                known.note(day, slices, snapshot.snapshot_id)
        yield slices


def _ingested_before(moment: int) -> BooleanExpression:
    return term(LessThan, INGESTED_AT, datetime.fromtimestamp(moment / 1e6, UTC).isoformat())


def _all_before(table: Table, day: DayFiles, moment: int) -> bool:
    """Whether the statistics say that all rows were ingested before the moment."""
    latest = [bound_of(table, task.file.upper_bounds, INGESTED_AT) for task in day.files]
    return all(time is not None and time < moment for time in latest)


def _read_day(
    table: Table, day: DayFiles, rows: BooleanExpression, on_unreadable: Callable[[UnreadableFile], None]
) -> tuple[DaySlices, bool]:
    """The slices of a day's rows, and whether all of its files could be read."""
    slices: dict[SymbolName, Slice] = {}
    whole = True
    # Files that follow each other in time give a key's rows in order: they need not be sorted then.
    time = EVENT_TIME_COLUMN[day.kind]
    files = sorted(day.files, key=lambda task: bound_of(table, task.file.lower_bounds, time) or 0)
    parts = -(-day.rows // ROWS_AT_ONCE)
    for part in range(parts):
        messages = _Messages(day, part, parts)
        for task, batches in read_ahead(table, files, messages.columns, rows):
            try:
                for batch in batches():
                    if batch.num_rows and not messages.add(batch):
                        raise _misplaced(table, task)
            except UnreadableFile as error:
                on_unreadable(error)
                whole = False
        slices.update(messages.slices())
    return slices, whole


def _misplaced(table: Table, task: FileScanTask) -> UnreadableFile:
    reason = "has rows of another day or exchange than its partition says"
    return UnreadableFile(table_name(table), str(task.file.file_path), reason)


@dataclass
class _Messages:
    """(time, sequence) of the messages of one part of a day, gathered file by file."""

    day: DayFiles
    part: int
    parts: int
    ids: dict[SymbolName, int] = field(default_factory=dict)
    chunks: list[tuple[npt.NDArray[np.int32], Ints, Ints]] = field(default_factory=list)

    @property
    def columns(self) -> tuple[str, ...]:
        return "exchange", "symbol", EVENT_TIME_COLUMN[self.day.kind], "source_sequence"

    def add(self, batch: pa.RecordBatch) -> bool:
        """Take in rows; False where some are not of this day and exchange: their order would be wrong."""
        exchange, symbol, time, sequence = batch.columns
        times = time.cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy(zero_copy_only=False)
        ids = self._ids(exchange.dictionary_encode(), symbol.dictionary_encode())
        if ids is None or not self._of_day(times):
            return False
        # A negative number is none (see k2beam.sequence.recount), as a null is none.
        chunk = ids, times, sequence.fill_null(UNWANTED).to_numpy(zero_copy_only=False)
        if self.parts > 1:
            keep = ids != UNWANTED
            chunk = ids[keep], times[keep], chunk[2][keep]
        self.chunks.append(chunk)
        return True

    def slices(self) -> Iterator[tuple[SymbolName, Slice]]:
        """The slice of each key."""
        names = list(self.ids)
        groups = -(-sum(len(ids) for ids, _, _ in self.chunks) // SLICED_AT_ONCE)
        for group in range(groups):
            pieces: list[tuple[Any, ...]] = []
            for ids, times, sequences in self.chunks:
                wanted = ids % groups == group
                pieces.append((ids[wanted], sequences[wanted], times[wanted]))
            for code, piece in slice_runs(*map(np.concatenate, zip(*pieces, strict=True)), arrived=False):
                yield names[code], piece

    def _of_day(self, times: Ints) -> bool:
        return self.day.day is None or bool(
            times.min() // MICROS_PER_DAY == times.max() // MICROS_PER_DAY == self.day.day
        )

    def _ids(self, exchange: pa.DictionaryArray, symbol: pa.DictionaryArray) -> npt.NDArray[np.int32] | None:
        """The key number of each row, UNWANTED for keys of another part; None where one is of another exchange."""
        symbols = len(symbol.dictionary)
        pairs = exchange.indices.to_numpy().astype(np.int64) * symbols + symbol.indices.to_numpy()
        numbers = np.full(len(exchange.dictionary) * symbols, UNWANTED, dtype=np.int32)
        names = exchange.dictionary.to_pylist(), symbol.dictionary.to_pylist()
        for pair in np.flatnonzero(np.bincount(pairs, minlength=len(numbers))).tolist():
            key = names[0][pair // symbols], names[1][pair % symbols]
            if self.day.exchange not in (None, key[0]):
                return None
            if self.parts == 1 or zlib.crc32(key[1].encode()) % self.parts == self.part:
                numbers[pair] = self.ids.setdefault(key, len(self.ids))
        ids: npt.NDArray[np.int32] = numbers[pairs]
        return ids
