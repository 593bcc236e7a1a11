"""Gives the gap machine its memory back: the state of a key, made anew from the rows of the tables.

Asked at the start of a job, when a key has no state. The tables are read at the snapshots of the first
question. What a worker may hold at once is recounted in one go, since the keys of a job come together;
larger tables are asked key by key.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pyiceberg.table import Table

from k2beam.lake.catalog import LakeConfig, open_catalog
from k2beam.lake.recount import ROWS_AT_ONCE, SEQUENCED_KINDS, gather_messages
from k2beam.lake.scan import UnreadableFile, find_readable, plan_files
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import Kind
from k2beam.sequence import KeyState


class _KindSeed:
    """The rows of one event table at one snapshot."""

    def __init__(self, table: Table, kind: Kind, rows_at_once: int) -> None:
        self._table = table
        self._kind = kind
        self._rows_at_once = rows_at_once

    def state(self, exchange: str, symbol: str) -> KeyState | None:
        """The state of a key; None where it has no rows with a sequence number."""
        if self._known is not None:
            return self._known.get((exchange, symbol))
        return self._states({(exchange, symbol)}).get((exchange, symbol))

    @functools.cached_property
    def _known(self) -> Mapping[tuple[str, str], KeyState] | None:
        """All keys' states; None where the table is too large for that."""
        if sum(task.file.record_count for task in plan_files(self._table)) > self._rows_at_once:
            return None
        return self._states(None)

    def _states(self, keys: Collection[tuple[str, str]] | None) -> dict[tuple[str, str], KeyState]:
        return {
            (key.exchange, key.symbol): KeyState.from_messages(key.times, key.sequences)
            for key in gather_messages(self._table, self._kind, keys=keys)
            if len(key.sequences)
        }


@dataclass
class LedgerSeed:
    """Loads the state of a key from the lake. Picklable; each copy opens the catalog for itself.

    ``rows_at_once``: a table of up to so many rows is recounted in one go at its first question.
    """

    lake: LakeConfig
    rows_at_once: int = ROWS_AT_ONCE
    _kinds: dict[Kind, _KindSeed] | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> tuple[LakeConfig, int]:
        return self.lake, self.rows_at_once

    def __setstate__(self, state: tuple[LakeConfig, int]) -> None:
        self.lake, self.rows_at_once = state
        self._kinds = None

    def open(self) -> None:
        """Open the catalog and note the snapshots of the event tables. Raises UsageError and LakeError."""
        catalog = open_catalog(self.lake)
        self._kinds = {}
        for kind in SEQUENCED_KINDS:
            table = find_readable(catalog, self.lake.namespace, EVENT_TABLES[kind])
            if table is not None and table.current_snapshot() is not None:
                self._kinds[kind] = _KindSeed(table, kind, self.rows_at_once)

    def load(self, exchange: str, symbol: str, kind: Kind) -> KeyState | None:
        """The state of a key by the rows of its table; None where it has none.

        Raises UnreadableFile when a file of the table is gone: without its rows the state would
        have gaps that there are not.
        """
        try:
            return self._state(exchange, symbol, kind)
        except UnreadableFile:
            # Maintenance may have removed what the noted snapshot refers to: look at the newest once.
            self.close()
            return self._state(exchange, symbol, kind)

    def close(self) -> None:
        """Forget what was read."""
        self._kinds = None

    def _state(self, exchange: str, symbol: str, kind: Kind) -> KeyState | None:
        if self._kinds is None:
            self.open()
        seed = (self._kinds or {}).get(kind)
        return seed.state(exchange, symbol) if seed else None
