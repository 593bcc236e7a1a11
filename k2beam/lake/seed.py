"""Gives the gap machine its memory back: the state of a key, made anew from the rows of the tables.

Asked when a key has no state. What the tables had when the job was built counts, and nothing later: a job may commit
rows before it folds them, and a gap between rows that the state knows already would never be declared. A worker
makes its steps anew whenever it likes, so the moment is noted once, and travels with the job.

What a worker may hold at once is recounted in one go, since the keys of a job come together; larger tables are
asked key by key.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression, LessThan
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.clock import now_us
from k2beam.config import LakeConfig
from k2beam.errors import UnreadableFile
from k2beam.lake.catalog import open_catalog
from k2beam.lake.recount import ROWS_AT_ONCE, SEQUENCED_KINDS, gather_messages
from k2beam.lake.scan import EVERYTHING, find_readable, plan_files
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import Kind
from k2beam.sequence import KeyState


class _KindSeed:
    """The rows of one event table that were there at the start."""

    def __init__(
        self, table: Table, kind: Kind, rows_at_once: int, snapshot: Snapshot | None, rows: BooleanExpression
    ) -> None:
        self._table = table
        self._kind = kind
        self._rows_at_once = rows_at_once
        self._snapshot = snapshot
        self._rows = rows

    def state(self, exchange: str, symbol: str) -> KeyState | None:
        """The state of a key; None where it has no rows with a sequence number."""
        if self._known is not None:
            return self._known.get((exchange, symbol))
        return self._states({(exchange, symbol)}).get((exchange, symbol))

    @functools.cached_property
    def _known(self) -> Mapping[tuple[str, str], KeyState] | None:
        """All keys' states; None where the table is too large for that."""
        tasks = plan_files(self._table, self._rows, self._snapshot)
        if sum(task.file.record_count for task in tasks) > self._rows_at_once:
            return None
        return self._states(None)

    def _states(self, keys: Collection[tuple[str, str]] | None) -> dict[tuple[str, str], KeyState]:
        messages = gather_messages(self._table, self._kind, keys=keys, rows=self._rows, snapshot=self._snapshot)
        return {
            (key.exchange, key.symbol): KeyState.from_messages(key.times, key.sequences)
            for key in messages
            if len(key.sequences)
        }


@dataclass
class LedgerSeed:
    """Loads the state of a key from the lake as it was at one moment. Picklable; each copy opens the catalog itself.

    ``snapshots``: the event tables' snapshots at ``noted_at`` (microseconds UTC); a kind that is not in it had no
    rows. ``rows_at_once``: a table of up to so many rows is recounted in one go at its first question.

    A job that its runner restores from a checkpoint keeps the moment at which it was built. What it read after the
    checkpoint and had committed before it failed is left out when it is read again, so it is missing in the state of
    any key, seeded or restored, until the ledger is reconciled with the rows.
    """

    lake: LakeConfig
    snapshots: Mapping[Kind, int]
    noted_at: int
    rows_at_once: int = ROWS_AT_ONCE
    _kinds: dict[Kind, _KindSeed] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of_now(cls, lake: LakeConfig, rows_at_once: int = ROWS_AT_ONCE) -> LedgerSeed:
        """Note the snapshots of the event tables. Raises UsageError, and LakeError for unreadable metadata."""
        catalog = open_catalog(lake)
        snapshots = {}
        for kind in SEQUENCED_KINDS:
            table = find_readable(catalog, lake.namespace, EVENT_TABLES[kind])
            snapshot = table.current_snapshot() if table is not None else None
            if snapshot is not None:
                snapshots[kind] = snapshot.snapshot_id
        return cls(lake, snapshots, now_us(), rows_at_once)

    def __getstate__(self) -> tuple[LakeConfig, Mapping[Kind, int], int, int]:
        return self.lake, self.snapshots, self.noted_at, self.rows_at_once

    def __setstate__(self, state: tuple[LakeConfig, Mapping[Kind, int], int, int]) -> None:
        self.lake, self.snapshots, self.noted_at, self.rows_at_once = state
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
        return seed.state(exchange, symbol) if seed else None

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
        rows = EVERYTHING if snapshot is not None else _ingested_before(self.noted_at)
        return _KindSeed(table, kind, self.rows_at_once, snapshot, rows)


def _ingested_before(moment: int) -> BooleanExpression:
    # pyiceberg's predicates are pydantic models whose positional form type checkers don't see.
    predicate: Any = LessThan
    expression: BooleanExpression = predicate("_ingested_at", datetime.fromtimestamp(moment / 1e6, UTC).isoformat())
    return expression
