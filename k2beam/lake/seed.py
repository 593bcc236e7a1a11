"""Gives the gap machine its memory back: the state of a key, made anew from the rows of the tables.

Asked when a key has no state. What the tables had when the job was built counts, and nothing later: a job may commit
rows before it folds them, and a gap between rows that the state knows already would never be declared. A worker
makes its steps anew whenever it likes, so the moment is noted once, and travels with the job.

All keys are seeded by one pass, since the keys of a job come together: days that are remembered are not read, and what
is held of the others is a few bytes for each run of numbers.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog

from k2beam.clock import now_us
from k2beam.config import LakeConfig
from k2beam.errors import UnreadableFile
from k2beam.lake.catalog import open_catalog
from k2beam.lake.certified import CertifiedDays
from k2beam.lake.days import DaySlices, SymbolName
from k2beam.lake.recount import slices_by_day
from k2beam.lake.rules import read_rules
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import SEQUENCED_KINDS, Kind
from k2beam.sequence import KeyName, KeyState, SequenceRules, Slice
from k2beam.sequence.rules import NO_RULES


class _KindSeed:
    """The rows of one event table that were there at the start; ``days`` reads them, anew after it failed."""

    def __init__(self, days: Callable[[], Iterator[DaySlices]]) -> None:
        self._days = days

    def state(self, name: SymbolName) -> KeyState | None:
        """The state of a key; None where it has no rows with a sequence number."""
        slices = self._slices.get(name, ())
        state = KeyState.from_slices((*KeyName.read(name[1]).beginning, *slices) if slices else ())
        return state if state.epochs else None

    @functools.cached_property
    def _slices(self) -> Mapping[SymbolName, Sequence[Slice]]:
        """The slices of all keys, in order of days."""
        slices: dict[SymbolName, list[Slice]] = defaultdict(list)
        for day in self._days():
            for name, piece in day.items():
                slices[name].append(piece)
        return slices


@dataclass
class LedgerSeed:
    """Loads the state of a key from the lake as it was at one moment. Picklable; each copy opens the catalog itself.

    ``snapshots``: the event tables' snapshots at ``noted_at`` (microseconds UTC); a kind that is not in it had no rows.
    ``rules``: those of the tables.

    A job that its runner restores from a checkpoint keeps the moment at which it was built. What it read after the
    checkpoint and had committed before it failed is left out when it is read again, so it is missing in the state of
    any key, seeded or restored, until the ledger is reconciled with the rows.
    """

    lake: LakeConfig
    snapshots: Mapping[Kind, int]
    noted_at: int
    rules: SequenceRules = NO_RULES
    _kinds: dict[Kind, _KindSeed] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of_now(cls, lake: LakeConfig) -> LedgerSeed:
        """Note the snapshots of the event tables. Raises UsageError, and LakeError for unreadable metadata."""
        catalog = open_catalog(lake)
        snapshots = {}
        for kind in SEQUENCED_KINDS:
            table = find_readable(catalog, lake.namespace, EVENT_TABLES[kind])
            snapshot = table.current_snapshot() if table is not None else None
            if snapshot is not None:
                snapshots[kind] = snapshot.snapshot_id
        return cls(lake, snapshots, now_us(), read_rules(catalog, lake.namespace))

    def __getstate__(self) -> tuple[LakeConfig, Mapping[Kind, int], int, SequenceRules]:
        return self.lake, self.snapshots, self.noted_at, self.rules

    def __setstate__(self, state: tuple[LakeConfig, Mapping[Kind, int], int, SequenceRules]) -> None:
        self.lake, self.snapshots, self.noted_at, self.rules = state
        self._kinds = None

    def open(self) -> None:
        """Open the catalog and the event tables. Raises UsageError and LakeError."""
        catalog = open_catalog(self.lake)
        self._kinds = {}
        for kind, snapshot_id in self.snapshots.items():
            found = self._find(catalog, kind, snapshot_id)
            if found is not None:
                self._kinds[kind] = found

    def load(self, exchange: str, symbol: str, kind: Kind) -> KeyState | None:
        """The state of a key by the rows of its table; None where it has none.

        Where maintenance took the noted snapshot away, the newest one is read, without the rows that were ingested
        since the moment; by the clocks of the workers, so this is as exact as they are.

        Raises UnreadableFile when a file of the table is gone: without its rows the state would
        have gaps that there are not.
        """
        try:
            return self._state(exchange, symbol, kind)
        except UnreadableFile:
            # Maintenance may have removed what the noted snapshot refers to: look at the newest once.
            self._look_anew(kind)
            return self._state(exchange, symbol, kind)

    def close(self) -> None:
        """Forget what was read."""
        self._kinds = None

    def _state(self, exchange: str, symbol: str, kind: Kind) -> KeyState | None:
        if self._kinds is None:
            self.open()
        seed = (self._kinds or {}).get(kind)
        return seed.state((exchange, symbol)) if seed else None

    def _look_anew(self, kind: Kind) -> None:
        found = self._find(open_catalog(self.lake), kind, None)
        if self._kinds is not None and found is not None:
            self._kinds[kind] = found

    def _find(self, catalog: Catalog, kind: Kind, snapshot_id: int | None) -> _KindSeed | None:
        """The table at a snapshot (None, or one that was expired: at the newest, as far as it is old enough)."""
        table = find_readable(catalog, self.lake.namespace, EVENT_TABLES[kind])
        if table is None:
            return None
        snapshot = None if snapshot_id is None else table.metadata.snapshot_by_id(snapshot_id)
        before = self.noted_at if snapshot is None else None

        def days() -> Iterator[DaySlices]:
            certified = CertifiedDays(catalog, self.lake.namespace)
            return slices_by_day(table, kind, rules=self.rules, certified=certified, snapshot=snapshot, before=before)

        return _KindSeed(days)
