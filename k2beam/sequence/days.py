"""The epochs of a key, folded from slices that follow each other in event time, such as one for each day.

The runs of a slice are in order of (event time, sequence), and so are those of all slices one after the other. That is
enough for the rule of :mod:`k2beam.sequence.recount`, and exact: runs are cut at an hour of silence and at powers of
two, so a run is never a fall of its own numbers, and a reset is always the first message of its run. What lies within
a run is numbers that rise by one, and a gap ends at the first message of a run, whose time is known.

Whether a run begins an epoch depends on the two messages after its first. So the last two runs wait undecided; of
the runs before them in the open epoch only the numbers are kept.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from k2beam.arrays import Ints, Mask
from k2beam.sequence.recount import Epoch, MissingInterval
from k2beam.sequence.runs import HOUR, Run, Slice, half, unpack_slices

WAITING_BYTES = 1 << 14
"""Slices of a key are kept packed until they take so many bytes: most keys are folded once, at the end."""

_FEW_BYTES = 1 << 9
"""Slices of a key that take fewer bytes are read one number after the other: columns would cost more."""

_UNDECIDED = 2
_FIRST_WINDOW = 1024
_NOTHING: Ints = np.zeros((4, 0), dtype=np.int64)
_NONE_LEFT: Ints = np.full((4, 2), -1, dtype=np.int64)
"""Stand for the two runs after the last one: their numbers don't rise."""


class _Rising(NamedTuple):
    """Messages with a number, messages without, and the epochs of slices whose numbers only rise."""

    rows: int
    unsequenced: int
    epochs: tuple[Epoch, ...]


class DayFold:
    """The epochs of one key by the slices of its days: what :func:`k2beam.sequence.recount` finds in all messages.

    Memory grows with gaps, not with messages. Not safe for threads.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import DayFold, slice_runs
        >>> fold = DayFold()
        >>> for times, numbers in (([0, 1], [7, 8]), ([86_400_000_000], [11])):
        ...     [(_, day)] = slice_runs(np.zeros(len(times), np.int64), np.array(numbers), event_times=np.array(times))
        ...     fold.add(day)
        >>> fold.rows, fold.epochs[0].gaps
        (3, (MissingInterval(first=9, last=10, opened_at=86400000000),))
    """

    __slots__ = (
        "_before",
        "_began",
        "_closed",
        "_numbers",
        "_rising",
        "_rows",
        "_tail",
        "_unsequenced",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self) -> None:
        self._rows = self._unsequenced = 0
        self._closed: list[Epoch] = []
        self._numbers = _NOTHING  # of the open epoch up to the tail, as runs; their order is forgotten
        self._began = self._before = 0  # event times of its first message, and of its last before the tail
        self._tail = _NOTHING
        self._waiting: list[Slice] = []
        self._waiting_bytes = 0
        self._rising: _Rising | None = None

    def add(self, piece: Slice) -> None:
        """Take in the next slice: each of its messages comes after those of all slices before, by event time."""
        self._rising = None
        self._waiting.append(piece)
        self._waiting_bytes += len(piece.data)
        # Each fold sorts the numbers so far: with many gaps it waits for more.
        if self._waiting_bytes > WAITING_BYTES + self._numbers.nbytes // 4:
            self._fold()

    @property
    def rows(self) -> int:
        """The messages with a sequence number so far, repeated ones too."""
        if (rising := self._told()) is not None:
            return rising.rows
        self._fold()
        return self._rows

    @property
    def unsequenced(self) -> int:
        """The messages without a sequence number so far."""
        if (rising := self._told()) is not None:
            return rising.unsequenced
        self._fold()
        return self._unsequenced

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs of all messages so far."""
        if (rising := self._told()) is not None:
            return rising.epochs
        self._fold()
        rest = DayFold()
        rest._numbers, rest._began, rest._before = self._numbers, self._began, self._before
        rest._decide(self._tail, self._tail.shape[1], len(self._closed))
        return (*self._closed, *rest._closed, *rest._open(len(self._closed) + len(rest._closed)))

    def _told(self) -> _Rising | None:
        """What the slices say where they are few and their numbers only rise, as most do; None: they must be folded."""
        folded = self._rows or self._unsequenced
        if self._rising is None and self._waiting and not folded and self._waiting_bytes <= _FEW_BYTES:
            self._rising = _rising(self._waiting)
        return self._rising

    def _fold(self) -> None:
        if not self._waiting:
            return
        messages, nulls, fresh = unpack_slices(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._rows += messages - nulls
        self._unsequenced += nulls
        runs = np.concatenate((self._tail, fresh), axis=1)
        decided = max(runs.shape[1] - _UNDECIDED, 0)
        self._decide(runs, decided, 0)
        self._tail = runs[:, decided:]

    def _decide(self, runs: Ints, end: int, number: int) -> None:
        """Divide the first ``end`` of the runs into epochs; those that end there are counted from ``number``."""
        runs = np.concatenate((runs, _NONE_LEFT), axis=1)
        begin = 0
        while begin < end:
            reset = self._next_reset(runs, begin, end)
            mine = runs[:, begin:reset]
            if not self._numbers.shape[1]:
                self._began = int(runs[2, begin])
            if mine.shape[1]:
                self._numbers = _joined(np.concatenate((self._numbers, mine), axis=1))
                self._before = int(mine[3, -1])
            if reset < end:
                self._closed += self._open(number + len(self._closed))
                self._numbers = _NOTHING
            begin = reset

    def _open(self, number: int) -> list[Epoch]:
        """The epoch of the numbers so far; none where there are none."""
        first, last, opened, _ = self._numbers
        if not len(first):
            return []
        holes = zip((last[:-1] + 1).tolist(), (first[1:] - 1).tolist(), opened[1:].tolist(), strict=True)
        epoch = Epoch(
            number=number,
            first_time=self._began,
            last_time=self._before,
            first_sequence=int(first[0]),
            last_sequence=int(last[-1]),
            opened_at=int(opened[0]),
            received=int((last - first).sum()) + len(first),
            gaps=tuple(MissingInterval(*hole) for hole in holes),
        )
        return [epoch]

    def _next_reset(self, runs: Ints, begin: int, end: int) -> int:
        """The first run from ``begin`` on that begins another epoch, else ``end``; windows grow, as in the recount."""
        numbers = self._numbers
        at, window = begin, _FIRST_WINDOW
        highest, before = (int(numbers[1, -1]), self._before) if numbers.shape[1] else (-1, 0)
        while at < end:
            stop = min(at + window, end)
            running = np.maximum.accumulate(np.concatenate(([highest], runs[1, at:stop])))
            limit = half(running[:-1])
            falls = np.flatnonzero(runs[0, at:stop] < limit)
            ends = np.concatenate(([before], runs[3, at:stop]))
            if len(falls):
                resets = falls[_is_new_epoch(runs, at + falls, ends[falls], limit[falls])]
                if len(resets):
                    return at + int(resets[0])
            highest, before, at, window = int(running[-1]), int(ends[-1]), stop, window * 2
        return end


def _rising(pieces: list[Slice]) -> _Rising | None:
    """One epoch at most, where each number is above the one before."""
    contents = [piece.read() for piece in pieces]
    runs = [run for content in contents for run in content.runs]
    if any(run.first_sequence <= before.last_sequence for before, run in pairwise(runs)):
        return None
    nulls = sum(content.nulls for content in contents)
    rows = sum(content.messages for content in contents) - nulls
    return _Rising(rows, nulls, (_epoch_of(runs),) if runs else ())


def _epoch_of(runs: list[Run]) -> Epoch:
    holes = (
        MissingInterval(before.last_sequence + 1, run.first_sequence - 1, run.first_time)
        for before, run in pairwise(runs)
        if run.first_sequence > before.last_sequence + 1
    )
    return Epoch(
        number=0,
        first_time=runs[0].first_time,
        last_time=runs[-1].last_time,
        first_sequence=runs[0].first_sequence,
        last_sequence=runs[-1].last_sequence,
        opened_at=runs[0].first_time,
        received=sum(run.last_sequence - run.first_sequence + 1 for run in runs),
        gaps=tuple(holes),
    )


def _is_new_epoch(runs: Ints, falls: Ints, before: Ints, limit: Ints) -> Mask:
    """Which of the runs that begin with a fall are resets; ``before`` are the times of the messages before them."""
    late = runs[2, falls].view(np.uint64) - before.view(np.uint64) >= HOUR
    first, last = runs[0], runs[1]
    begin, after = first[falls], first[falls + 1]
    length = last[falls] - begin
    second = np.where(length > 0, begin + 1, after)
    # The third is in the same run, the first of the next, the second of the next, or the first of the one after it.
    beyond = np.where(last[falls + 1] > after, after + 1, first[falls + 2])
    third = np.where(length > 1, begin + 2, np.where(length > 0, after, beyond))
    result: Mask = late | ((begin < second) & (second < third) & (third < limit))
    return result


def _joined(runs: Ints) -> Ints:
    """The numbers of some runs without overlap, sorted; each with the earliest time of its first one, twice."""
    first, last, begin, _ = runs[:, np.lexsort((runs[2], runs[0]))]
    highest = np.maximum.accumulate(last)
    starts = np.flatnonzero(np.concatenate(([True], first[1:] - highest[:-1] > 1)))
    ends = np.append(starts[1:], len(first)) - 1
    return np.stack((first[starts], highest[ends], begin[starts], begin[starts]))
