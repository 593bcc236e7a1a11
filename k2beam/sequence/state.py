"""The state of one key, fed with slices, that tells which gaps opened and closed.

It has no clock and does no I/O. Slices wait in the state until the watermark passes them; then their messages
take their places in order of (event time, sequence) and the epochs are found anew. So the result depends on
the set of messages, not on how they came: it is that of :func:`k2beam.sequence.recount.recount`, unless
``ambiguous`` says otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from k2beam.arrays import Ints
from k2beam.errors import K2BeamError
from k2beam.sequence.blocks import (
    Point,
    SequenceBlock,
    arrange,
    atom,
    blocks_of,
    epoch_of,
    fold,
    join_blocks,
    settle,
    threshold,
)
from k2beam.sequence.changes import GapChange, diff_gaps, filled_count, gaps_by_start
from k2beam.sequence.recount import Epoch
from k2beam.sequence.runs import HOUR, Run, Slice, SliceContent, pack_varints, signed, slice_runs, unpack_varints

KEPT_EPOCHS = 33
"""The current epoch and the 32 before it; what comes late for an older one makes the key ambiguous."""

_FOLDED_BYTES = 1 << 14
"""Slices are folded together up to so many bytes, so that a long history is not unpacked all at once."""

_VERSION = 1


class SequenceClass(StrEnum):
    """What a message is to the sequence of its key; :class:`SequenceTracker` tells what each class means.

    LATE_FILL is in counts only: a tracker answers OUT_OF_ORDER, with ``filled``.

    Examples:
        >>> from k2beam.sequence import SequenceClass, SequenceTracker
        >>> answer = SequenceTracker().check_sequence("BINANCE", "BTCUSDT", 1, 0)
        >>> answer.classification is SequenceClass.OK
        True
    """

    OK = "ok"
    SMALL_GAP = "small_gap"
    LARGE_GAP = "large_gap"
    OUT_OF_ORDER = "out_of_order"
    DUPLICATE = "duplicate"
    RESET = "reset"
    LATE_FILL = "late_fill"
    UNSEQUENCED = "unsequenced"


Counts = Counter[SequenceClass]
"""Messages by class. SMALL_GAP and LARGE_GAP count the messages before which a gap opened; OUT_OF_ORDER counts
arrivals, so it depends on how messages came, and so then does OK."""


class FoldResult(NamedTuple):
    """The gaps that changed, and the messages folded, by class.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import KeyState
        >>> state = KeyState.from_messages(event_times=np.array([0, 1]), sequences=np.array([1, 2]))
        >>> changes, counts = state.observe(time=2, sequence=5)
        >>> changes
        [GapChange(epoch=0, first=3, last=4, status='OPEN', opened_at=2)]
        >>> [(found.name, number) for found, number in counts.items()]
        [('SMALL_GAP', 1)]
    """

    changes: list[GapChange]
    counts: Counts


class _Pending(NamedTuple):
    out_of_order: int
    slice: Slice
    content: SliceContent

    @property
    def due(self) -> int:
        return self.content.highest_element_time


class KeyState:
    """The sequence of one key: epochs, gaps, and slices that wait. Not safe for threads.

    ``ambiguous`` stays set once a reset might be hidden where the order of messages was forgotten; gaps are
    then still reported, but only a recount over the rows is exact.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import KeyState, slice_runs
        >>> [(_, piece)] = slice_runs(np.zeros(3, np.int64), np.array([1, 2, 5]), event_times=np.array([0, 1, 2]))
        >>> state = KeyState()
        >>> state.add(piece), state.epochs
        (Counter(), ())
        >>> state.fold().changes
        [GapChange(epoch=0, first=3, last=4, status='OPEN', opened_at=2)]
        >>> KeyState.from_bytes(state.to_bytes()).epochs == state.epochs
        True
    """

    __slots__ = ("_arrived", "_base", "_blocks", "_epochs", "_floor", "_pending", "ambiguous")

    def __init__(self) -> None:
        self.ambiguous = False
        self._base = 0
        self._blocks: list[list[SequenceBlock]] = []
        self._floor: Point | None = None
        self._pending: list[_Pending] = []
        self._arrived = -1
        self._epochs: tuple[Epoch, ...] | None = None

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs of what was folded, at most the last 33, without what waits."""
        if self._epochs is None:
            self._epochs = tuple(epoch_of(self._base + k, blocks) for k, blocks in enumerate(self._blocks))
        return self._epochs

    @property
    def next_due(self) -> int | None:
        """The element time (microseconds) of the slice that is due first; None if none waits."""
        return min((pending.due for pending in self._pending), default=None)

    def add(self, piece: Slice) -> Counts:
        """Let a slice wait for :meth:`fold`; returns what can be told at once: UNSEQUENCED, DUPLICATE, OUT_OF_ORDER."""
        return self._add(piece, piece.read())

    def add_all(self, pieces: Iterable[Slice]) -> Counts:
        """Add slices in order of event time: runners hand them over in any order, which is none of the log's."""
        read = [(piece, piece.read()) for piece in pieces]
        counts: Counts = Counter()
        for piece, content in sorted(read, key=lambda one: one[1].runs[0].first_time if one[1].runs else 0):
            counts.update(self._add(piece, content))
        return counts

    def _add(self, piece: Slice, content: SliceContent) -> Counts:
        counts: Counts = Counter()
        counts[SequenceClass.UNSEQUENCED] = content.nulls
        counts[SequenceClass.DUPLICATE] = content.duplicates
        if content.runs:
            out_of_order = max(content.out_of_order, sum(_behind(run, self._arrived) for run in content.runs))
            counts[SequenceClass.OUT_OF_ORDER] = out_of_order
            highest = max(run.last_sequence for run in content.runs)
            self._arrived = highest if highest < threshold(self._arrived) else max(highest, self._arrived)
            self._pending.append(_Pending(out_of_order, piece, content))
        return +counts

    def fold(self, up_to: int | None = None, grace: int = 0) -> FoldResult:
        """Fold the slices whose highest element time + ``grace`` is at most ``up_to`` (None: all); microseconds."""
        due = [p for p in self._pending if up_to is None or p.due + grace <= up_to]
        if not due:
            return FoldResult([], Counter())
        self._pending = [p for p in self._pending if up_to is not None and p.due + grace > up_to]
        runs = [run for p in due for run in p.content.runs]
        messages = sum(run.last_sequence - run.first_sequence + 1 for run in runs)
        return self._insert(blocks_of(runs), messages, sum(p.out_of_order for p in due))

    def observe(self, time: int, sequence: int) -> FoldResult:
        """Fold one message at once (microseconds); its OUT_OF_ORDER is the caller's to tell."""
        if self._extend(time, sequence):
            return FoldResult([], Counter({SequenceClass.OK: 1}))
        return self._insert([atom(time, sequence)], 1, 0)

    def _extend(self, time: int, sequence: int) -> bool:
        """The common case, without a fold: the next number after the last block."""
        if not self._blocks:
            return False
        run = self._blocks[-1][-1]
        plain = not run.settled and run.first != run.last
        follows = sequence == run.high + 1 and sequence.bit_length() == run.octave and time >= run.last[0]
        soon = not run.ordered or time < run.last[0] + HOUR
        if not (plain and follows and soon) or any(block.high > run.high for block in self._blocks[-1]):
            return False
        first, _, opened = run.spans[-1]
        self._blocks[-1][-1] = run._replace(last=(time, sequence), spans=(*run.spans[:-1], (first, sequence, opened)))
        self._epochs = None
        return True

    def _insert(self, fresh: list[SequenceBlock], messages: int, out_of_order: int) -> FoldResult:
        before = self.epochs
        epochs = self._refold(fresh)
        old, new = gaps_by_start(before), gaps_by_start(epochs)
        changes = diff_gaps(new, old)
        counts: Counts = Counter()
        received = sum(epoch.received for epoch in epochs) - sum(epoch.received for epoch in before)
        counts[SequenceClass.DUPLICATE] = max(messages - received, 0)
        counts[SequenceClass.LATE_FILL] = filled_count(new, old)
        counts[SequenceClass.RESET] = max(len(epochs) - max(len(before), 1), 0)
        for change in changes:
            if change.status == "OPEN":
                counts[_gap_class(change.last - change.first + 1)] += 1
        counts[SequenceClass.OK] = max(messages - out_of_order - counts.total(), 0)
        return FoldResult(changes, +counts)

    def _refold(self, fresh: list[SequenceBlock]) -> tuple[Epoch, ...]:
        """Put blocks in their places and find the epochs; older ones than are kept are in the result only."""
        if self._floor is not None and any(block.first <= self._floor for block in fresh):
            self.ambiguous = True
            if self._base:
                earliest = self._blocks[0][0].first
                fresh = [block for block in fresh if block.last >= earliest]
        folded = fold(arrange([*fresh, *(block for blocks in self._blocks for block in blocks)]))
        self.ambiguous |= folded.ambiguous
        self._blocks = []
        for members in folded.epochs:
            blocks, floor = settle(join_blocks(members))
            self._blocks.append(blocks)
            self._raise_floor(floor)
        self._epochs = None
        epochs = self.epochs
        dropped = max(len(self._blocks) - KEPT_EPOCHS, 0)
        if dropped:
            self._blocks, self._epochs = self._blocks[dropped:], epochs[dropped:]
            self._base += dropped
            self._raise_floor(self._blocks[0][0].first)
        return epochs

    def _raise_floor(self, floor: Point | None) -> None:
        if floor is not None:
            self._floor = floor if self._floor is None else max(floor, self._floor)

    @classmethod
    def from_messages(cls, event_times: Ints, sequences: Ints) -> KeyState:
        """The state after all of these messages (microseconds, sequences); what comes later folds as if after them."""
        slices = slice_runs(np.zeros(len(sequences), dtype=np.int64), sequences, event_times)
        return cls.from_slices(piece for _, piece in slices)

    @classmethod
    def from_slices(cls, slices: Iterable[Slice]) -> KeyState:
        """The state after slices that follow each other in event time: that of all their messages, never ambiguous."""
        state, waiting = cls(), 0
        for piece in slices:
            state.add(piece)
            waiting += len(piece.data)
            if waiting > _FOLDED_BYTES:
                state.fold()
                waiting = 0
        state.fold()
        return state

    def to_bytes(self) -> bytes:
        """The whole state, in a few dozen bytes for a clean feed."""
        floor = self._floor or (0, 0)
        numbers = [_VERSION, self.ambiguous, self._base, self._arrived, self._floor is not None, *floor]
        numbers += [len(self._pending), *(len(p.slice.data) for p in self._pending)]
        numbers += [p.out_of_order for p in self._pending]
        numbers += [len(blocks) for blocks in self._blocks]
        numbers.insert(0, len(self._blocks))
        time, sequence = 0, 0
        for block in (block for blocks in self._blocks for block in blocks):
            flags = block.ordered | block.settled << 1
            numbers += [flags, block.first[0] - time, block.first[1] - sequence]
            numbers += [block.last[0] - block.first[0], block.last[1] - block.first[1]]
            time, sequence = block.last
            if not block.ordered:
                numbers += _pack_spans(block)
        packed = pack_varints(numbers)
        return b"".join([pack_varints([len(packed)]), packed, *(p.slice.data for p in self._pending)])

    @classmethod
    def from_bytes(cls, data: bytes) -> KeyState:
        """Read what :meth:`to_bytes` wrote. Raises K2BeamError for a state of another version."""
        size = unpack_varints(data[:10])[0]
        begin = len(pack_varints([size]))
        body = iter(unpack_varints(data[begin : begin + size]))
        epochs, version = next(body), next(body)
        if version != _VERSION:
            raise K2BeamError(f"sequence state has version {version}, this program reads {_VERSION}; start a new job")
        state = cls()
        state.ambiguous, state._base, state._arrived = bool(next(body)), next(body), next(body)
        has_floor, floor = next(body), (next(body), next(body))
        state._floor = floor if has_floor else None
        sizes = [next(body) for _ in range(next(body))]
        at = begin + size
        for length in sizes:
            piece = Slice(data[at : at + length])
            state._pending.append(_Pending(next(body), piece, piece.read()))
            at += length
        previous = (0, 0)
        for count in [next(body) for _ in range(epochs)]:
            blocks = []
            for _ in range(count):
                flags = next(body)
                first = (signed(previous[0] + next(body)), previous[1] + next(body))
                previous = (signed(first[0] + next(body)), first[1] + next(body))
                ordered = bool(flags & 1)
                spans = ((first[1], previous[1], first[0]),) if ordered else _unpack_spans(body, first)
                blocks.append(SequenceBlock(first, previous, spans, ordered, bool(flags & 2)))
            state._blocks.append(blocks)
        return state


def _behind(run: Run, arrived: int) -> int:
    """How many messages of a run are below the highest that arrived, without being falls."""
    begin = max(run.first_sequence, threshold(arrived))
    return max(min(run.last_sequence, arrived - 1) - begin + 1, 0)


def _gap_class(missing: int) -> SequenceClass:
    return SequenceClass.SMALL_GAP if missing <= 10 else SequenceClass.LARGE_GAP


def _pack_spans(block: SequenceBlock) -> list[int]:
    numbers = [len(block.spans)]
    sequence, time = block.first[1], block.first[0]
    for first, last, opened in block.spans:
        numbers += [first - sequence, last - first, opened - time]
        sequence, time = last, opened
    return numbers


def _unpack_spans(body: Iterable[int], start: Point) -> tuple[tuple[int, int, int], ...]:
    numbers = iter(body)
    time, sequence = start
    spans = []
    for _ in range(next(numbers)):
        first = sequence + next(numbers)
        sequence = first + next(numbers)
        time = signed(time + next(numbers))
        spans.append((first, sequence, time))
    return tuple(spans)
