"""The ledger of gaps: what changed between two counts of a key, as rows.

The ledger is append-only and keyed by ``gap_id``. A gap that shrinks from its end keeps its id; one that is
filled from its start ends (FILLED), and what remains is a new gap (PARTIAL). The invariant: the rows of a key
that are not FILLED are exactly its missing intervals.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from k2beam.model import Gap, GapStatus
from k2beam.sequence.recount import Epoch, MissingInterval
from k2beam.sequence.rules import KeyName
from k2beam.sequence.runs import SequenceKey, format_key

GapStart = tuple[int, int]
"""Epoch and first missing sequence: what names a gap within its key."""


@dataclass(frozen=True, slots=True)
class GapChange:
    """One gap that is new, has another extent, or is filled; sequences ``first`` to ``last`` inclusive.

    Examples:
        >>> from k2beam.sequence import GapChange, SequenceKey
        >>> change = GapChange(epoch=0, first=3, last=4, status="OPEN", opened_at=1_767_571_200_000_000)
        >>> gap = change.to_gap(SequenceKey("BINANCE", "BTCUSDT", "trades"))
        >>> gap.first_missing, gap.last_missing, gap.severity
        (3, 4, 'SMALL')
    """

    epoch: int
    first: int
    last: int
    status: GapStatus
    opened_at: int

    def to_gap(self, key: SequenceKey) -> Gap:
        """The row of the ledger; its revision and time of detection are the writer's to give.

        The symbol of ``key`` may be a :class:`k2beam.sequence.rules.KeyName`.
        """
        name = KeyName.read(key.symbol)
        epoch, first = self.epoch if name.epoch is None else name.epoch, self.first - name.raised
        return Gap(
            exchange=key.exchange,
            symbol=name.symbol,
            kind=key.kind,
            epoch=epoch,
            first_missing=first,
            last_missing=self.last - name.raised,
            status=self.status,
            opened_at=self.opened_at,
            gap_id=gap_id(key.exchange, name.symbol, key.kind, epoch, first),
        )


@dataclass(frozen=True, slots=True)
class GapBatch:
    """Changed rows of the ledger.

    Examples:
        >>> from k2beam.sequence import GapBatch, GapChange, SequenceKey
        >>> change = GapChange(epoch=0, first=3, last=4, status="OPEN", opened_at=1_767_571_200_000_000)
        >>> GapBatch((change.to_gap(SequenceKey("BINANCE", "BTCUSDT", "trades")),)).num_rows
        1
    """

    gaps: tuple[Gap, ...]

    @property
    def num_rows(self) -> int:
        return len(self.gaps)

    @property
    def nbytes(self) -> int:
        return 256 * len(self.gaps)


def gap_id(exchange: str, symbol: str, kind: str, epoch: int, first_missing: int) -> str:
    """SHA-256 over key, epoch and first missing sequence, shortened to 32 hex digits.

    Examples:
        >>> from k2beam.sequence import gap_id
        >>> gap_id("BINANCE", "BTCUSDT", "trades", epoch=0, first_missing=3)
        '55801f2355cd969f4e6af96e03d90c8c'
    """
    text = f"{format_key(exchange, symbol, kind)}|{epoch}|{first_missing}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def gaps_by_start(epochs: Iterable[Epoch]) -> dict[GapStart, MissingInterval]:
    """The gaps of some epochs, by epoch and first missing sequence."""
    return {(epoch.number, gap.first): gap for epoch in epochs for gap in epoch.gaps}


def diff_gaps(
    desired: Mapping[GapStart, MissingInterval], current: Mapping[GapStart, MissingInterval]
) -> list[GapChange]:
    """What turns ``current`` into ``desired``, in order of epoch and sequence.

    A gap of which only ``opened_at`` differs (an earlier duplicate of the message after it came late) is no
    change here; :func:`diff_ledger` puts that right.
    """
    changes = []
    starts = _starts_by_epoch(current)
    for (epoch, first), gap in desired.items():
        old = current.get((epoch, first))
        if old is not None and old.last == gap.last:
            continue
        remnant = old.last > gap.last if old is not None else _overlaps(epoch, gap, starts, current)
        status: GapStatus = "PARTIAL" if remnant else "OPEN"
        changes.append(GapChange(epoch, first, gap.last, status, gap.opened_at))
    changes += [
        GapChange(epoch, first, gap.last, "FILLED", gap.opened_at)
        for (epoch, first), gap in current.items()
        if (epoch, first) not in desired
    ]
    return sorted(changes, key=lambda change: (change.epoch, change.first))


def _starts_by_epoch(gaps: Mapping[GapStart, MissingInterval]) -> dict[int, list[int]]:
    starts: dict[int, list[int]] = defaultdict(list)
    for epoch, first in sorted(gaps):
        starts[epoch].append(first)
    return starts


def _overlaps(
    epoch: int, gap: MissingInterval, starts: Mapping[int, list[int]], current: Mapping[GapStart, MissingInterval]
) -> bool:
    firsts = starts.get(epoch, [])
    at = bisect_right(firsts, gap.last) - 1
    return at >= 0 and current[epoch, firsts[at]].last >= gap.first


def filled_count(desired: Mapping[GapStart, MissingInterval], current: Mapping[GapStart, MissingInterval]) -> int:
    """How many sequences that ``current`` misses are not missing in ``desired``."""
    starts = _starts_by_epoch(desired)
    filled = 0
    for (epoch, first), old in current.items():
        new = desired.get((epoch, first))
        if new is not None and new.last == old.last:
            continue
        filled += old.count
        firsts = starts.get(epoch, [])
        for start in firsts[max(bisect_right(firsts, first) - 1, 0) : bisect_right(firsts, old.last)]:
            gap = desired[epoch, start]
            filled -= max(min(gap.last, old.last) - max(gap.first, first) + 1, 0)
    return filled


def missing_gaps(key: SequenceKey, epochs: Iterable[Epoch]) -> list[Gap]:
    """The missing intervals of a key's epochs as rows with status OPEN: what the ledger should say.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import SequenceKey, missing_gaps, recount
        >>> epochs = recount(event_times=np.array([0, 1, 2]), sequences=np.array([1, 2, 5]))
        >>> [gap] = missing_gaps(SequenceKey("BINANCE", "BTCUSDT", "trades"), epochs)
        >>> gap.first_missing, gap.last_missing, gap.status
        (3, 4, 'OPEN')
    """
    return [
        GapChange(epoch.number, gap.first, gap.last, "OPEN", gap.opened_at).to_gap(key)
        for epoch in epochs
        for gap in epoch.gaps
    ]


def diff_ledger(desired: Iterable[Gap], current: Iterable[Gap]) -> list[Gap]:
    """The rows to append so that the ledger says ``desired``; of any number of keys.

    ``desired`` is what is missing (:func:`missing_gaps`), ``current`` the ledger's rows at their highest revision;
    FILLED ones are passed over. A row that already says it is not repeated, so a second call with its own
    result applied gives none. Revisions are 0: the ledger's writer gives them.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import SequenceKey, diff_ledger, missing_gaps, recount
        >>> key = SequenceKey("BINANCE", "BTCUSDT", "trades")
        >>> ledger = missing_gaps(key, recount(np.array([0, 1, 2]), np.array([1, 2, 5])))
        >>> late = missing_gaps(key, recount(np.array([0, 1, 2, 3]), np.array([1, 2, 5, 3])))
        >>> [(row.first_missing, row.last_missing, row.status) for row in diff_ledger(late, ledger)]
        [(3, 4, 'FILLED'), (4, 4, 'PARTIAL')]
    """
    wanted = _by_key(desired)
    present = _by_key(gap for gap in current if gap.status != "FILLED")
    rows: list[Gap] = []
    for key in sorted(wanted.keys() | present.keys()):
        want, have = wanted.get(key, {}), present.get(key, {})
        changes = diff_gaps(_intervals(want), _intervals(have))
        rows += [change.to_gap(key) for change in changes]
        rows += [
            replace(have[start], opened_at=gap.opened_at, revision=0, detected_at=None)
            for start, gap in sorted(want.items())
            if start in have and have[start].last_missing == gap.last_missing and have[start].opened_at != gap.opened_at
        ]
    return rows


def _by_key(gaps: Iterable[Gap]) -> dict[SequenceKey, dict[GapStart, Gap]]:
    result: dict[SequenceKey, dict[GapStart, Gap]] = defaultdict(dict)
    for gap in gaps:
        result[SequenceKey(gap.exchange, gap.symbol, gap.kind)][gap.epoch, gap.first_missing] = gap
    return result


def _intervals(gaps: Mapping[GapStart, Gap]) -> dict[GapStart, MissingInterval]:
    return {start: MissingInterval(gap.first_missing, gap.last_missing, gap.opened_at) for start, gap in gaps.items()}
