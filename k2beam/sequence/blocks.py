"""Blocks: the messages of a key, boiled down so that :func:`fold` still finds every epoch.

A block stands for messages that follow each other in order of (event time, sequence). What it forgets is the
order inside, and it may forget that only where no message of the block is less than half of another (it is
*flat*): then none of them is a fall for another. Blocks are disjoint in that order, so a late message slots in
between or joins the one that it falls into, and the epochs follow from the blocks alone, whatever the order
in which messages came. Where joining makes a block that is not flat, a reset may hide in it: the fold then
says ``ambiguous`` and the key must be recounted from its rows (:func:`k2beam.sequence.recount.recount`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from k2beam.sequence.recount import Epoch, MissingInterval
from k2beam.sequence.runs import HOUR, Run

Point = tuple[int, int]
"""Event time (microseconds) and sequence; they sort as messages do."""

SequenceSpan = tuple[int, int, int]
"""First and last sequence received, and the earliest event time of the first."""

MOST_BLOCKS = 96
"""An epoch with more blocks has its older ones joined, see :func:`settle`."""


class SequenceBlock(NamedTuple):
    """Messages from ``first`` to ``last``; ``spans`` are the sequences among them.

    ``ordered``: sequences rise by one from message to message, less than an hour apart. ``settled``: decided
    already, and never looked into again.
    """

    first: Point
    last: Point
    spans: tuple[SequenceSpan, ...]
    ordered: bool
    settled: bool = False

    @property
    def low(self) -> int:
        return self.spans[0][0]

    @property
    def high(self) -> int:
        return self.spans[-1][1]

    @property
    def flat(self) -> bool:
        return self.low >= threshold(self.high)

    @property
    def octave(self) -> int | None:
        """The power of two that all of its sequences share; None if they don't."""
        bits = self.spans[0][0].bit_length()
        return bits if bits == self.spans[-1][1].bit_length() else None


class Member(NamedTuple):
    """A block in its epoch, and whether some of its messages are falls there."""

    block: SequenceBlock
    falls: bool


class Folded(NamedTuple):
    """The blocks of each epoch, in order, and whether a reset could be hidden."""

    epochs: list[list[Member]]
    ambiguous: bool


def threshold(highest: int) -> int:
    """Sequences below this are falls: 2 * sequence < highest."""
    return (highest + 1) // 2


def atom(time: int, sequence: int) -> SequenceBlock:
    """The block of one message."""
    return SequenceBlock((time, sequence), (time, sequence), ((sequence, sequence, time),), True)


def blocks_of(runs: Iterable[Run]) -> list[SequenceBlock]:
    """The blocks of some runs; a run of two messages is known to the message, so it is two blocks."""
    blocks = []
    for first, last, begin, end in runs:
        if last - first > 1:
            blocks.append(SequenceBlock((begin, first), (end, last), ((first, last, begin),), True))
            continue
        blocks.append(atom(begin, first))
        if last > first:
            blocks.append(atom(end, last))
    return blocks


def arrange(blocks: Iterable[SequenceBlock]) -> list[SequenceBlock]:
    """Sort blocks and join the ones that overlap."""
    result: list[SequenceBlock] = []
    cluster: list[SequenceBlock] = []
    end: Point | None = None
    for block in sorted(blocks):
        if end is not None and block.first > end:
            result.append(_join(cluster))
            cluster, end = [], None
        if not cluster or block != cluster[-1]:
            cluster.append(block)
        end = block.last if end is None else max(end, block.last)
    if cluster:
        result.append(_join(cluster))
    return result


def _join(cluster: list[SequenceBlock]) -> SequenceBlock:
    if len(cluster) == 1:
        return cluster[0]
    run = max(cluster, key=lambda block: block.high - block.low)
    if run.ordered and all(b is run or _is_end(b, run) for b in cluster):
        return run
    return SequenceBlock(
        first=cluster[0].first,
        last=max(block.last for block in cluster),
        spans=union(span for block in cluster for span in block.spans),
        ordered=False,
        settled=any(block.settled for block in cluster),
    )


def _is_end(block: SequenceBlock, run: SequenceBlock) -> bool:
    single = block.first == block.last and not block.settled
    return single and block.first in (run.first, run.last)


def union(spans: Iterable[SequenceSpan]) -> tuple[SequenceSpan, ...]:
    """Spans without overlap, adjacent ones joined; each keeps the earliest time of its first sequence."""
    result: list[SequenceSpan] = []
    first = last = opened = -1
    for span in sorted(spans):
        if last >= 0 and span[0] <= last + 1:
            if span[0] == first:
                opened = min(opened, span[2])
            last = max(last, span[1])
            continue
        if last >= 0:
            result.append((first, last, opened))
        first, last, opened = span
    if last >= 0:
        result.append((first, last, opened))
    return tuple(result)


def fold(blocks: Sequence[SequenceBlock]) -> Folded:
    """Divide arranged blocks into epochs, by the rule of :mod:`k2beam.sequence.recount`."""
    epochs: list[list[Member]] = []
    ambiguous = False
    highest, before = -1, 0
    for index, block in enumerate(blocks):
        limit = threshold(highest)
        falls = block.low < limit
        reset = not epochs
        if falls and not reset and not block.settled:
            decision = _decide(blocks, index, limit, before)
            reset = decision is True
            ambiguous |= decision is None
        if not (block.ordered or block.settled or block.flat):
            ambiguous = True
        if reset:
            epochs.append([])
            highest = -1
        epochs[-1].append(Member(block, falls and not reset))
        highest, before = max(highest, block.high), block.last[0]
    return Folded(epochs, ambiguous)


def _decide(blocks: Sequence[SequenceBlock], index: int, limit: int, before: int) -> bool | None:
    """Whether a reset begins with this block, some of whose messages fall; None if that can't be told."""
    block = blocks[index]
    if block.first[1] >= limit:
        return None
    if block.first[0] - before >= HOUR:
        return True
    return _continued(blocks, index, limit)


def _continued(blocks: Sequence[SequenceBlock], index: int, limit: int) -> bool | None:
    """Whether three messages in a row, from the first of the block, rise and are falls."""
    seen, previous = 0, -1
    for block in blocks[index : index + 3]:
        for offset in range(min(3 - seen, block.high - block.low + 1) if block.ordered else 1):
            sequence = block.first[1] + offset
            if sequence >= limit or sequence <= previous:
                return False
            seen, previous = seen + 1, sequence
        if seen == 3:
            return True
        if not block.ordered:
            return None
    return False


def join_blocks(members: Sequence[Member]) -> list[SequenceBlock]:
    """Fewer blocks for an epoch, from which the fold still finds the same.

    The first three messages stay as they are, since they decide where the epoch begins, also when
    older data comes; so do falls. Neighbours of one octave are joined, which keeps them flat, but not over an
    hour of silence, since an epoch that is still to come may lie there.
    """
    result: list[SequenceBlock] = []
    chain: list[SequenceBlock] = []
    shared: int | None = None
    known = 0
    for block, falls in members:
        protected = known < 3 and block.ordered
        known = known + block.high - block.low + 1 if protected else max(known, 3)
        octave = None if protected or falls or block.settled else block.octave
        if chain and (octave != shared or block.first[0] - chain[-1].last[0] >= HOUR):
            result.append(_chain(chain))
            chain = []
        if octave is not None:
            chain.append(block)
            shared = octave
        else:
            result.append(block if block.ordered or block.flat else block._replace(settled=True))
    if chain:
        result.append(_chain(chain))
    return result


def _chain(chain: list[SequenceBlock]) -> SequenceBlock:
    if len(chain) == 1:
        return chain[0]
    ordered = all(block.ordered for block in chain) and all(b.first[1] == a.last[1] + 1 for a, b in pairwise(chain))
    spans = union(span for block in chain for span in block.spans)
    return SequenceBlock(chain[0].first, chain[-1].last, spans, ordered)


def settle(blocks: list[SequenceBlock]) -> tuple[list[SequenceBlock], Point | None]:
    """Join the older half of an epoch that has too many blocks; if it has falls, they are decided for good.

    Returns the blocks and up to where messages that come later can't be judged any more (None: all can).
    """
    if len(blocks) <= MOST_BLOCKS:
        return blocks, None
    head, keep = 4, MOST_BLOCKS // 2
    joined = _join(blocks[head:-keep])._replace(ordered=False)
    if joined.low >= threshold(max(block.high for block in blocks[:-keep])):
        return [*blocks[:head], joined, *blocks[-keep:]], None
    # Two more messages can decide about a fall, so data that slots in there could change what is settled.
    return [*blocks[:head], joined._replace(settled=True), *blocks[-keep:]], blocks[-keep + 3].last


def epoch_of(number: int, blocks: Sequence[SequenceBlock]) -> Epoch:
    """What an epoch's blocks amount to."""
    spans = union(span for block in blocks for span in block.spans)
    return Epoch(
        number=number,
        first_time=blocks[0].first[0],
        last_time=blocks[-1].last[0],
        first_sequence=spans[0][0],
        last_sequence=spans[-1][1],
        opened_at=spans[0][2],
        received=sum(last - first + 1 for first, last, _ in spans),
        gaps=tuple(MissingInterval(a[1] + 1, b[0] - 1, b[2]) for a, b in pairwise(spans)),
    )
