"""Recounts sequence numbers from the rows of the event tables.

The rows are the truth; the ledger of gaps must say what a recount says. Rows are read one day of one exchange at a
time and boiled down to a slice for each symbol; the slices of all days tell the epochs. A day that is remembered
(:mod:`k2beam.lake.certified`) is not read. A large day is read in parts by symbol, so that memory is bounded by
:data:`ROWS_AT_ONCE`, by the rows that one symbol has on one day, and by the gaps, not by the table.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from k2beam.lake.rules import read_rules
from k2beam.lake.scan import EVERYTHING, bound_of, find_readable, plan_files, read_ahead, stop_at_unreadable, table_name
from k2beam.lake.tables import EVENT_TABLES, SPECS
from k2beam.model import SEQUENCED_KINDS, Kind
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import DayFold, Epoch, KeyName, SequenceRules, Slice, slice_runs
from k2beam.sequence.rules import NO_RULES, VENDOR_DATA, values_of

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

    A table that was never made has no keys; a key whose numbers begin anew by a rule comes once for each session.
    ``on_unreadable`` is called for each file that is gone or damaged; unless it raises (the default does,
    UnreadableFile), the recount goes on without the file.
    """
    try:
        rules = read_rules(catalog, namespace)
    except UnreadableFile as error:
        on_unreadable(error)
        return
    for kind in kinds:
        try:
            table = find_readable(catalog, namespace, EVENT_TABLES[kind])
        except UnreadableFile as error:
            on_unreadable(error)
            continue
        if table is not None:
            slices = slices_by_day(table, kind, rules=rules, certified=certified, on_unreadable=on_unreadable)
            yield from _recounted(slices, kind)


def _recounted(days: Iterable[DaySlices], kind: Kind) -> Iterator[KeyRecount]:
    folds: dict[SymbolName, DayFold] = {}
    for slices in days:
        for key, piece in slices.items():
            if key not in folds:
                folds[key] = DayFold()
                for beginning in KeyName.read(key[1]).beginning:
                    folds[key].add(beginning)
            folds[key].add(piece)
    for key in list(folds):
        fold, name = folds.pop(key), KeyName.read(key[1])
        rows = fold.rows - len(name.beginning)
        yield KeyRecount(key[0], name.symbol, kind, name.told_apart(fold.epochs), rows, fold.unsequenced)


def slices_by_day(
    table: Table,
    kind: Kind,
    *,
    rules: SequenceRules = NO_RULES,
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
    rules_of_kind = rules.of_kind(kind)
    for day in divide(table, kind, tasks, rules_of_kind.to_json() if rules_of_kind.rules else ""):
        known = certified if before is None or _all_before(table, day, before) else None
        slices = known.find(day) if known is not None else None
        if slices is None:
            slices, whole = _read_day(table, day, rows, rules_of_kind, on_unreadable)
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
    table: Table,
    day: DayFiles,
    rows: BooleanExpression,
    rules: SequenceRules,
    on_unreadable: Callable[[UnreadableFile], None],
) -> tuple[DaySlices, bool]:
    """The slices of a day's rows, and whether all of its files could be read."""
    slices: dict[SymbolName, Slice] = {}
    whole = True
    # Files that follow each other in time give a key's rows in order: they need not be sorted then.
    time = EVENT_TIME_COLUMN[day.kind]
    files = sorted(day.files, key=lambda task: bound_of(table, task.file.lower_bounds, time) or 0)
    parts = -(-day.rows // ROWS_AT_ONCE)
    for part in range(parts):
        messages = _Messages(day, part, parts, rules)
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
    rules: SequenceRules
    ids: dict[SymbolName, int] = field(default_factory=dict)
    chunks: list[tuple[npt.NDArray[np.int32], Ints, Ints]] = field(default_factory=list)

    @property
    def columns(self) -> tuple[str, ...]:
        known = SPECS[EVENT_TABLES[self.day.kind]].schema.names
        further = {name if name in known else VENDOR_DATA for name in self.rules.columns(self.day.kind)}
        own = "exchange", "symbol", EVENT_TIME_COLUMN[self.day.kind], "source_sequence"
        return (*own, *sorted(further - set(own)))

    def add(self, batch: pa.RecordBatch) -> bool:
        """Take in rows; False where some are not of this day and exchange: their order would be wrong."""
        exchange, symbol, time, sequence = batch.columns[:4]
        times = time.cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy(zero_copy_only=False)
        # A negative number is none (see k2beam.sequence.recount), as a null is none.
        sequences = sequence.fill_null(UNWANTED).to_numpy(zero_copy_only=False)
        exchange, symbol = exchange.dictionary_encode(), symbol.dictionary_encode()
        if not self._of_day(times) or not self._of_exchange(exchange):
            return False
        codes, keys, sequences = self.rules.number(exchange, symbol, times, sequences, values_of(batch))
        ids = self._ids(keys)[codes]
        chunk = ids, times, sequences
        if self.parts > 1:
            keep = ids != UNWANTED
            chunk = ids[keep], times[keep], sequences[keep]
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

    def _of_exchange(self, exchange: pa.DictionaryArray) -> bool:
        """Whether all rows are of the day's exchange."""
        return self.day.exchange is None or set(exchange.unique().to_pylist()) <= {self.day.exchange}

    def _ids(self, keys: Sequence[SymbolName]) -> npt.NDArray[np.int32]:
        """The number of each key, UNWANTED for keys of another part."""
        mine = (self.parts == 1 or zlib.crc32(name.encode()) % self.parts == self.part for _, name in keys)
        numbers = (
            self.ids.setdefault(key, len(self.ids)) if wanted else UNWANTED
            for key, wanted in zip(keys, mine, strict=True)
        )
        return np.fromiter(numbers, dtype=np.int32, count=len(keys))
