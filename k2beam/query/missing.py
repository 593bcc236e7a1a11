"""Which events of another record of a market are those that the tables lack, by the open gaps of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyroaring import BitMap64

from k2beam.arrays import Ints, Mask
from k2beam.lake.rules import read_rules
from k2beam.model import Gap, Kind
from k2beam.query import duck
from k2beam.query.completeness import events_around, place_gaps, sum_up_keys
from k2beam.query.events import answer, stored_events
from k2beam.query.gaps import open_gaps
from k2beam.query.selections import EventSelection
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import KeyName, SequenceRules
from k2beam.sequence.rules import values_of

SLACK = 60_000_000
"""So much earlier or later than the neighbours of its gap an event may be, microseconds: two records, two clocks."""

_BEGINNING = -(2**62)
"""Earlier than any event."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Of some rows those that have a number of an open gap: their places, the gaps', numbers, and times.

    ``guessed``: nothing says where numbers begin anew, so that the time tells whether it is the event that is missing.
    """

    rows: Ints
    gaps: Ints
    numbers: Ints
    times: Ints
    guessed: Mask


@dataclass(slots=True)
class MissingNumbers:
    """The open gaps of one kind, and what has been found for them so far."""

    catalog: Catalog
    namespace: str
    kind: Kind
    gaps: Sequence[Gap]
    rules: SequenceRules
    _by_key: dict[tuple[str, str], dict[int, list[int]]] = field(default_factory=dict, init=False)
    _found: dict[int, BitMap64] = field(default_factory=dict, init=False)

    @classmethod
    def of_now(cls, catalog: Catalog, namespace: str, kind: Kind, selection: EventSelection) -> MissingNumbers:
        """Those of the selection's symbols and exchanges. Raises LakeError for an unreadable file."""
        rules = read_rules(catalog, namespace).of_kind(kind)
        return cls(catalog, namespace, kind, open_gaps(catalog, namespace, kind, selection), rules)

    def __post_init__(self) -> None:
        for place, gap in enumerate(self.gaps):
            epochs = self._by_key.setdefault((gap.exchange, gap.symbol), {})
            epochs.setdefault(gap.epoch, []).append(place)

    @property
    def missing(self) -> int:
        """How many numbers are missing in all."""
        return sum(gap.missing_count for gap in self.gaps)

    def numbered(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows (of events, with their provenance) that have a number which is missing: all that :meth:`wanted` may
        take, found without a look at the tables.
        """
        return rows.take(pa.array(np.unique(self._candidates(rows).rows)))

    def wanted(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that fill gaps, each number once, and none that was given before.

        A number that is missing may have been given twice where numbers begin anew and nothing says when: then the
        event must lie between the neighbours of the gap in time. Raises LakeError for an unreadable file.
        """
        found = self._candidates(rows)
        distances = self._distances(found)
        order = np.lexsort((found.rows, distances, found.numbers, found.gaps))
        kept = order[distances[order] <= SLACK]
        gaps, numbers = found.gaps[kept], found.numbers[kept]
        first = np.ones(len(kept), np.bool_)
        first[1:] = (gaps[1:] != gaps[:-1]) | (numbers[1:] != numbers[:-1])
        chosen = [
            row
            for row, gap, number in zip(found.rows[kept[first]].tolist(), gaps[first], numbers[first], strict=True)
            if self._is_new(int(gap), int(number))
        ]
        return rows.take(pa.array(sorted(set(chosen)), pa.int64()))

    def _is_new(self, gap: int, number: int) -> bool:
        found = self._found.setdefault(gap, BitMap64())
        if number in found:
            return False
        found.add(number)
        return True

    def _candidates(self, rows: pa.RecordBatch) -> Candidates:
        times = rows.column(EVENT_TIME_COLUMN[self.kind]).cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy()
        numbers = rows.column("source_sequence").fill_null(-1).to_numpy(zero_copy_only=False)
        exchange, symbol = (rows.column(name).dictionary_encode() for name in ("exchange", "symbol"))
        codes, keys, numbers = self.rules.number(exchange, symbol, times, numbers, values_of(rows))
        parts: list[tuple[Ints, Ints, Ints, Mask]] = []
        for code, (owner, text) in enumerate(keys):
            name = KeyName.read(text)
            epochs = self._by_key.get((owner, name.symbol), {})
            mine = np.flatnonzero((codes == code) & (numbers >= 0)) if epochs else np.empty(0, np.int64)
            for places in epochs.values() if name.epoch is None else [epochs.get(name.epoch, [])]:
                hits, gaps = self._within(places, numbers[mine] - name.raised)
                parts.append(
                    (mine[hits], gaps, numbers[mine[hits]] - name.raised, np.full(len(hits), name.epoch is None))
                )
        empty = np.empty(0, np.int64)
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)] or [empty, empty, empty, empty > 0]
        return Candidates(joined[0], joined[1], joined[2], times[joined[0]], joined[3])

    def _within(self, places: Sequence[int], numbers: Ints) -> tuple[Ints, Ints]:
        """Of numbers those that lie in gaps of one epoch, and the gaps."""
        ordered = sorted(places, key=lambda place: self.gaps[place].first_missing)
        firsts = np.array([self.gaps[place].first_missing for place in ordered], np.int64)
        lasts = np.array([self.gaps[place].last_missing for place in ordered], np.int64)
        at = np.searchsorted(firsts, numbers, side="right") - 1
        hits = np.flatnonzero((at >= 0) & (numbers <= lasts[np.maximum(at, 0)])) if ordered else np.empty(0, np.int64)
        return hits, np.array(ordered, np.int64)[at[hits]]

    def _distances(self, found: Candidates) -> Ints:
        """How far in time each candidate is from where its gap lies, microseconds; 0 where its number alone says it."""
        distances = np.zeros(len(found.rows), np.int64)
        if not found.guessed.any():
            return distances
        asked = np.unique(found.gaps[found.guessed])
        spans = self.spans(asked.tolist(), (int(found.times.min()), int(found.times.max())))
        low = np.array([_BEGINNING if spans[gap][0] is None else spans[gap][0] for gap in asked.tolist()], np.int64)
        high = np.array([spans[gap][1] for gap in asked.tolist()], np.int64)
        at = np.searchsorted(asked, found.gaps[found.guessed])
        times = found.times[found.guessed]
        before = np.where(times < low[at], low[at] - times, 0)
        distances[found.guessed] = before + np.where(times > high[at], times - high[at], 0)
        return distances

    def spans(self, asked: Sequence[int], ends: Iterable[int] = ()) -> dict[int, tuple[int | None, int]]:
        """Between which times the messages of gaps (by their places) lie, microseconds, by the rows around them.

        None where what was before the gap is not there. Rows are looked for in the time of the gaps and of ``ends``,
        and a day before and after. Raises LakeError for an unreadable file.
        """
        if not asked:
            return {}
        gaps = [self.gaps[place] for place in asked]
        times = [*ends, *(gap.opened_at for gap in gaps)]
        names = ([gap.symbol for gap in gaps], [gap.exchange for gap in gaps])
        near = events_around(*names, min(times), max(times))
        columns = ["exchange", "symbol", EVENT_TIME_COLUMN[self.kind], "source_sequence"]
        stored = stored_events(self.catalog, self.namespace, self.kind, near, columns)

        def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
            sum_up_keys(session, "events")
            place_gaps(session, "summed", "events", gaps, exactly=True)
            return session.stream("SELECT gap, low_time, high_time FROM placed")

        found = {row["gap"]: row for batch in answer({"events": stored}, ask, True) for row in batch.to_pylist()}
        # What is after a gap is in the tables; what was before it may be gone.
        return {
            place: (_known(found[number]["low_time"]), found[number]["high_time"])
            if number in found
            else (None, gaps[number].opened_at)
            for number, place in enumerate(asked)
        }


def _known(time: int) -> int | None:
    return None if time < _BEGINNING else time
