"""The exact count of epochs and gaps from all messages of a key at once.

This is the definition that everything else about sequences is measured by. The messages of a key, a set of
(event time, sequence), are taken in order of event time, then sequence. With H the highest sequence of the
epoch so far, a message below H / 2 is a *fall*. A fall is a *reset*, and begins the next epoch, if it comes an
hour or more after the message before it, or if it and the two messages that follow rise strictly and are all
below H / 2. Any other fall is a late fill or a duplicate. The gaps of an epoch are the maximal intervals that
are missing between its lowest and its highest sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from k2beam.arrays import Ints, Mask
from k2beam.sequence.runs import HOUR, half

_FIRST_WINDOW = 4096


@dataclass(frozen=True, slots=True)
class MissingInterval:
    """Sequences ``first`` to ``last`` (inclusive) are missing.

    ``opened_at`` is the event time of the message numbered ``last + 1``, the earliest if there are several.

    Examples:
        >>> from k2beam.sequence import MissingInterval
        >>> MissingInterval(first=3, last=4, opened_at=1_767_571_200_000_000).count
        2
    """

    first: int
    last: int
    opened_at: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Epoch:
    """One count of a key's numbers, from its start to the reset that ends it. Times in microseconds.

    ``first_sequence`` and ``last_sequence`` are the lowest and the highest received, ``opened_at`` is the event
    time of the lowest (the earliest, if several), ``received`` the number of different sequences.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import recount
        >>> [epoch] = recount(event_times=np.array([0, 1, 2]), sequences=np.array([1, 2, 5]))
        >>> epoch.first_sequence, epoch.last_sequence, epoch.received, epoch.missing
        (1, 5, 3, 2)
    """

    number: int
    first_time: int
    last_time: int
    first_sequence: int
    last_sequence: int
    opened_at: int
    received: int
    gaps: tuple[MissingInterval, ...]

    @property
    def missing(self) -> int:
        return sum(gap.count for gap in self.gaps)


def recount(event_times: Ints, sequences: Ints) -> tuple[Epoch, ...]:
    """The epochs of one key, from all of its messages in any order (microseconds; sequences of 0 or more).

    Negative sequences are no sequence numbers and are left out, as nulls must be.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import recount
        >>> sequences = np.array([900, 901, 903, 1, 2, 3])
        >>> before, after = recount(event_times=np.arange(6) * 1_000_000, sequences=sequences)
        >>> before.gaps
        (MissingInterval(first=902, last=902, opened_at=2000000),)
        >>> after.number, after.first_sequence, after.gaps
        (1, 1, ())
    """
    sequenced = sequences >= 0
    time, seq = _in_order(event_times[sequenced], sequences[sequenced])
    epochs: list[Epoch] = []
    begin = 0
    while begin < len(seq):
        end = _next_reset(time, seq, begin)
        epochs.append(_epoch(len(epochs), time[begin:end], seq[begin:end]))
        begin = end
    return tuple(epochs)


def _in_order(time: Ints, seq: Ints) -> tuple[Ints, Ints]:
    if np.all((time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (seq[1:] > seq[:-1]))):
        return time, seq
    order = np.lexsort((seq, time))
    time, seq = time[order], seq[order]
    keep = np.concatenate(([True], (time[1:] != time[:-1]) | (seq[1:] != seq[:-1])))
    return time[keep], seq[keep]


def _next_reset(time: Ints, seq: Ints, begin: int) -> int:
    """Index of the first reset after ``begin``; windows grow, so that many short epochs stay linear."""
    highest, at, window = int(seq[begin]), begin + 1, _FIRST_WINDOW
    while at < len(seq):
        end = min(at + window, len(seq))
        running = np.maximum.accumulate(np.concatenate(([highest], seq[at:end])))
        threshold = half(running[:-1])
        falls = np.flatnonzero(seq[at:end] < threshold)
        if len(falls):
            resets = falls[_is_reset(time, seq, at + falls, threshold[falls])]
            if len(resets):
                return at + int(resets[0])
        highest, at, window = int(running[-1]), end, window * 2
    return len(seq)


def _is_reset(time: Ints, seq: Ints, falls: Ints, threshold: Ints) -> Mask:
    late = time[falls].view(np.uint64) - time[falls - 1].view(np.uint64) >= HOUR
    inside = falls + 2 < len(seq)
    second, third = (seq[np.minimum(falls + k, len(seq) - 1)] for k in (1, 2))
    continued = inside & (seq[falls] < second) & (second < third) & (third < threshold)
    result: Mask = late | continued
    return result


def _epoch(number: int, time: Ints, seq: Ints) -> Epoch:
    distinct, earliest = seq, time
    if np.any(seq[1:] <= seq[:-1]):
        order = np.lexsort((time, seq))
        keep = np.concatenate(([True], np.diff(seq[order]) != 0))
        distinct, earliest = seq[order][keep], time[order][keep]
    holes = np.flatnonzero(distinct[1:] - distinct[:-1] > 1)
    bounds = zip(distinct[holes].tolist(), distinct[holes + 1].tolist(), earliest[holes + 1].tolist(), strict=True)
    return Epoch(
        number=number,
        first_time=int(time[0]),
        last_time=int(time[-1]),
        first_sequence=int(distinct[0]),
        last_sequence=int(distinct[-1]),
        opened_at=int(earliest[0]),
        received=len(distinct),
        gaps=tuple(MissingInterval(before + 1, after - 1, opened) for before, after, opened in bounds),
    )
