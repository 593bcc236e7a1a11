"""One message at a time: what is it to the sequence of its key?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from k2beam.errors import UsageError
from k2beam.model import Kind
from k2beam.sequence.changes import GapChange
from k2beam.sequence.recount import Epoch
from k2beam.sequence.runs import SequenceKey
from k2beam.sequence.state import FoldResult, KeyState, SequenceClass

_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_HIGHEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """The answer for one message.

    ``expected`` is the highest sequence before the message, plus one (None: nothing came before).
    ``missing_first`` to ``missing_last`` is the gap that the message opened (SMALL_GAP, LARGE_GAP).
    ``filled``: an OUT_OF_ORDER message whose number was missing. ``epoch`` is the current one, counted from 0.
    """

    classification: SequenceClass
    epoch: int
    sequence: int | None
    expected: int | None = None
    missing_first: int | None = None
    missing_last: int | None = None
    filled: bool = False

    @property
    def missing_count(self) -> int:
        if self.missing_first is None or self.missing_last is None:
            return 0
        return self.missing_last - self.missing_first + 1


@dataclass(frozen=True, slots=True)
class TrackerStats:
    """Sums over all keys since the tracker was made; ``missing`` sequences are in ``open_gaps`` gaps."""

    messages: int
    keys: int
    by_class: dict[SequenceClass, int]
    late_fills: int
    open_gaps: int
    missing: int
    ambiguous_keys: int


class SequenceTracker:
    """The gap machine for messages one by one, answered at once: nothing waits for stragglers.

    After any messages the epochs of a key are those of a recount, as for
    :class:`k2beam.sequence.state.KeyState`. Keys are held for ever. Not safe for threads.
    """

    def __init__(self) -> None:
        self._states: dict[SequenceKey, KeyState] = {}
        self._counts: Counter[SequenceClass] = Counter()
        self._late_fills = 0

    def check_sequence(
        self, exchange: str, symbol: str, sequence: int | None, timestamp: datetime | int, kind: Kind = "trades"
    ) -> SequenceResult:
        """Take in a message and say what it is.

        ``timestamp`` is its event time: a datetime (naive means UTC) or microseconds since the epoch. A fall of
        more than half is OUT_OF_ORDER until the third message in a row continues it, which answers RESET; it is
        RESET at once if an hour lies before it. No or a negative ``sequence`` is UNSEQUENCED. Raises UsageError
        for a timestamp or sequence of another type.
        """
        time = _microseconds(timestamp)
        state = self._states.setdefault(SequenceKey(exchange, symbol, kind), KeyState())
        result = _unsequenced(state, sequence)
        if result is None and sequence is not None:
            before = state.epochs[-1] if state.epochs else None
            result = _result(state, before, sequence, state.observe(time, sequence))
        assert result is not None
        self._counts[result.classification] += 1
        self._late_fills += result.filled
        return result

    def epochs(self, exchange: str, symbol: str, kind: Kind = "trades") -> tuple[Epoch, ...]:
        """The epochs of a key with their gaps; empty for a key that never came."""
        state = self._states.get(SequenceKey(exchange, symbol, kind))
        return state.epochs if state else ()

    def stats(self) -> TrackerStats:
        """What came so far."""
        epochs = [epoch for state in self._states.values() for epoch in state.epochs]
        return TrackerStats(
            messages=self._counts.total(),
            keys=len(self._states),
            by_class=dict(self._counts),
            late_fills=self._late_fills,
            open_gaps=sum(len(epoch.gaps) for epoch in epochs),
            missing=sum(epoch.missing for epoch in epochs),
            ambiguous_keys=sum(state.ambiguous for state in self._states.values()),
        )


def _microseconds(timestamp: datetime | int) -> int:
    if isinstance(timestamp, datetime):
        aware = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
        return (aware - _EPOCH_START) // timedelta(microseconds=1)
    if isinstance(timestamp, bool) or not isinstance(timestamp, int):
        raise UsageError(f"timestamp {timestamp!r} must be a datetime or whole microseconds since the epoch")
    if not -_HIGHEST - 1 <= timestamp <= _HIGHEST:
        raise UsageError(f"timestamp {timestamp} is out of range: it must be microseconds in 64 bits")
    return timestamp


def _unsequenced(state: KeyState, sequence: int | None) -> SequenceResult | None:
    if sequence is not None:
        if isinstance(sequence, bool) or not isinstance(sequence, int):
            raise UsageError(f"sequence {sequence!r} must be an int or None")
        if sequence > _HIGHEST:
            raise UsageError(f"sequence {sequence} is out of range: it must fit in 64 bits")
        if sequence >= 0:
            return None
    return SequenceResult(SequenceClass.UNSEQUENCED, _epoch_number(state), sequence)


def _epoch_number(state: KeyState) -> int:
    return state.epochs[-1].number if state.epochs else 0


def _result(state: KeyState, before: Epoch | None, sequence: int, folded: FoldResult) -> SequenceResult:
    number = _epoch_number(state)
    if before is None:
        return SequenceResult(SequenceClass.OK, number, sequence)
    expected = before.last_sequence + 1
    if folded.counts[SequenceClass.RESET]:
        return SequenceResult(SequenceClass.RESET, number, sequence, expected)
    if sequence < expected:
        duplicate = bool(folded.counts[SequenceClass.DUPLICATE])
        found = SequenceClass.DUPLICATE if duplicate else SequenceClass.OUT_OF_ORDER
        filled = bool(folded.counts[SequenceClass.LATE_FILL])
        return SequenceResult(found, number, sequence, expected, filled=filled)
    opened = next((change for change in folded.changes if change.last == sequence - 1), None)
    if opened is None:
        return SequenceResult(SequenceClass.OK, number, sequence, expected)
    return _gap(opened, number, sequence, expected)


def _gap(opened: GapChange, number: int, sequence: int, expected: int) -> SequenceResult:
    small = opened.last - opened.first < 10
    found = SequenceClass.SMALL_GAP if small else SequenceClass.LARGE_GAP
    return SequenceResult(found, number, sequence, expected, opened.first, opened.last)
