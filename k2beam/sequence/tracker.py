"""One message at a time: what is it to the sequence of its key?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from k2beam.errors import UsageError
from k2beam.model import Kind
from k2beam.sequence.changes import GapChange
from k2beam.sequence.recount import Epoch
from k2beam.sequence.rules import NO_NUMBER, NO_RULES, KeyName, SequenceRules, key_name
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

    Examples:
        >>> from k2beam import SequenceTracker
        >>> tracker = SequenceTracker()
        >>> _ = tracker.check_sequence("BINANCE", "BTCUSDT", 100, 0)
        >>> answer = tracker.check_sequence("BINANCE", "BTCUSDT", 103, 1_000_000)
        >>> answer.expected, answer.missing_first, answer.missing_last, answer.missing_count
        (101, 101, 102, 2)
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
    """Sums over all keys since the tracker was made; ``missing`` sequences are in ``open_gaps`` gaps.

    Examples:
        >>> from k2beam import SequenceTracker
        >>> tracker = SequenceTracker()
        >>> for sequence in (100, 103, 101):
        ...     _ = tracker.check_sequence("BINANCE", "BTCUSDT", sequence, 0)
        >>> stats = tracker.stats()
        >>> stats.messages, stats.late_fills, stats.open_gaps, stats.missing
        (3, 1, 1, 1)
    """

    messages: int
    keys: int
    by_class: dict[SequenceClass, int]
    late_fills: int
    open_gaps: int
    missing: int
    ambiguous_keys: int


class SequenceTracker:
    """Says of each message, one by one and at once, what it is to the sequence of its key: is anything missing?

    A key is exchange, symbol and kind; each has a sequence of its own, which may begin at any number. Nothing waits for
    stragglers: a gap is told at the message after it, and a late message says that it fills one. The classes
    (:class:`k2beam.sequence.SequenceClass`) of an answer are

    - OK: the next number, or the first of its key;
    - SMALL_GAP: up to 10 numbers are missing before it, LARGE_GAP: more than 10;
    - OUT_OF_ORDER: a lower number that had not come; ``filled`` says whether it was missing until now;
    - DUPLICATE: a number that had come;
    - RESET: the exchange began to count anew, and so the next epoch; what lies between the two is no gap;
    - UNSEQUENCED: no number, or a negative one; it is counted and nothing else.

    What a reset is: a number below half of the highest so far may be one, or a message that is late. It is a reset at
    once if an hour of event time lies before it, and otherwise at the third message in a row that continues it. Here
    messages count in order of event time, then number, so that event times have to be the exchange's own. The
    definition is :func:`k2beam.sequence.recount`, which gives the same epochs after any messages.

    ``rules`` say how exchanges number their messages, where it is not guessed (:class:`k2beam.sequence.SequenceRules`).

    Pure: no clock and no I/O. Keys are held for ever, each with its last 33 epochs. Not safe for threads. Not for the
    tables: their gaps are found by :class:`transforms.detect_gaps.DetectGaps` and read by :meth:`k2beam.Lake.gaps`.

    Examples:
        >>> from datetime import datetime
        >>> from k2beam import SequenceTracker
        >>> tracker = SequenceTracker()
        >>> def check(sequence, second):
        ...     return tracker.check_sequence("BINANCE", "BTCUSDT", sequence, datetime(2026, 1, 5, 12, 0, second))
        >>> check(100, 0).classification.name, check(101, 1).classification.name
        ('OK', 'OK')

        A gap, and the late message that fills a part of it:

        >>> gap = check(105, 3)
        >>> gap.classification.name, gap.missing_first, gap.missing_last
        ('SMALL_GAP', 102, 104)
        >>> late = check(103, 2)
        >>> late.classification.name, late.filled
        ('OUT_OF_ORDER', True)
        >>> [(gap.first, gap.last) for gap in tracker.epochs("BINANCE", "BTCUSDT")[0].gaps]
        [(102, 102), (104, 104)]

        A reset, which the third message shows:

        >>> answers = check(1, 4), check(2, 5), check(3, 6), check(4, 7)
        >>> [(answer.classification.name, answer.epoch) for answer in answers]
        [('OUT_OF_ORDER', 0), ('OUT_OF_ORDER', 0), ('RESET', 1), ('OK', 1)]
    """

    def __init__(self, rules: SequenceRules = NO_RULES) -> None:
        self._rules = rules
        self._states: dict[SequenceKey, KeyState] = {}
        self._counts: Counter[SequenceClass] = Counter()
        self._late_fills = 0

    def check_sequence(
        self,
        exchange: str,
        symbol: str,
        sequence: int | None,
        timestamp: datetime | int,
        kind: Kind = "trades",
        further: Mapping[str, str] = MappingProxyType({}),
    ) -> SequenceResult:
        """Take in a message and say what it is; trades and quotes of a symbol (``kind``) are two sequences.

        ``timestamp`` is its event time: a datetime (naive means UTC) or microseconds since the epoch. A fall of
        more than half is OUT_OF_ORDER until the third message in a row continues it, which answers RESET; it is
        RESET at once if an hour lies before it. No or a negative ``sequence`` is UNSEQUENCED. ``further`` has what the
        rules ask for beside: columns of the event (``_source`` among them), or keys of its vendor_data. Raises
        UsageError for a timestamp or sequence of another type, or one that 64 bits can't hold.

        Examples:
            >>> from k2beam import SequenceTracker
            >>> tracker = SequenceTracker()
            >>> answers = [tracker.check_sequence("ASX", "BHP", number, 0) for number in (7, 8, 8, 20, None)]
            >>> [answer.classification.name for answer in answers]
            ['OK', 'OK', 'DUPLICATE', 'LARGE_GAP', 'UNSEQUENCED']
        """
        time = _microseconds(timestamp)
        _check_type(sequence)
        key, number = self._numbered(SequenceKey(exchange, symbol, kind), time, sequence, further)
        name = KeyName.read(key.symbol)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = KeyState.from_slices(name.beginning)
        if number is None:
            result = SequenceResult(SequenceClass.UNSEQUENCED, _epoch_number(state), sequence)
        else:
            before = state.epochs[-1] if state.epochs else None
            result = _result(state, before, number, state.observe(time, number))
        self._counts[result.classification] += 1
        self._late_fills += result.filled
        return _as_numbered(result, name, sequence)

    def _numbered(
        self, key: SequenceKey, time: int, sequence: int | None, further: Mapping[str, str]
    ) -> tuple[SequenceKey, int | None]:
        """The key whose numbers are counted, and the number by which it does; None for none."""
        number, name = NO_NUMBER if sequence is None or sequence < 0 else sequence, key_name(key.symbol)
        rules = self._rules.of_kind(key.kind)
        if rules.rules:
            exchange, symbol = (pa.array([text]).dictionary_encode() for text in key[:2])
            found = rules.number(
                exchange,
                symbol,
                np.array([time]),
                np.array([number]),
                lambda asked: pa.array([further.get(asked)], pa.string()),
            )
            name, number = found.keys[0][1], int(found.sequences[0])
        return key._replace(symbol=name), None if number < 0 else number

    def epochs(self, exchange: str, symbol: str, kind: Kind = "trades") -> tuple[Epoch, ...]:
        """The epochs of a key with their gaps; empty for a key that never came.

        Examples:
            >>> from k2beam import SequenceTracker
            >>> tracker = SequenceTracker()
            >>> for sequence in (100, 103, 101):
            ...     _ = tracker.check_sequence("BINANCE", "BTCUSDT", sequence, 0)
            >>> [(gap.first, gap.last) for epoch in tracker.epochs("BINANCE", "BTCUSDT") for gap in epoch.gaps]
            [(102, 102)]
        """
        if not self._rules.rules:
            state = self._states.get(SequenceKey(exchange, key_name(symbol), kind))
            return state.epochs if state else ()
        return tuple(
            epoch
            for key, state in self._states.items()
            if (name := KeyName.read(key.symbol)).symbol == symbol and (key.exchange, key.kind) == (exchange, kind)
            for epoch in name.told_apart(state.epochs)
        )

    def stats(self) -> TrackerStats:
        """What came so far.

        Examples:
            >>> from k2beam import SequenceTracker
            >>> tracker = SequenceTracker()
            >>> for sequence in (100, 100, 101):
            ...     _ = tracker.check_sequence("BINANCE", "BTCUSDT", sequence, 0)
            >>> {found.name: number for found, number in tracker.stats().by_class.items()}
            {'OK': 2, 'DUPLICATE': 1}
        """
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


def _check_type(sequence: int | None) -> None:
    if sequence is not None and (isinstance(sequence, bool) or not isinstance(sequence, int)):
        raise UsageError(f"sequence {sequence!r} must be an int or None")
    if sequence is not None and sequence > _HIGHEST:
        raise UsageError(f"sequence {sequence} is out of range: it must fit in 64 bits")


def _as_numbered(result: SequenceResult, name: KeyName, sequence: int | None) -> SequenceResult:
    """The answer with the exchange's own numbers, and the session as its epoch."""
    if name.epoch is None:
        return result
    raised = {field: getattr(result, field) for field in ("expected", "missing_first", "missing_last")}
    lowered = {field: value - name.raised for field, value in raised.items() if value is not None}
    return replace(result, epoch=name.epoch, sequence=sequence, **lowered)


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
