"""Feeds, a naive recount, and a ledger in memory, for the tests of the gap machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from k2beam.model import Gap
from k2beam.sequence import Epoch, KeyState, SequenceKey, Slice, missing_gaps, recount, slice_runs
from k2beam.sequence.runs import HOUR

SECOND = 1_000_000
DAY = 24 * HOUR
KEY = SequenceKey("BINANCE", "BTCUSDT", "trades")
Message = tuple[int, int]


def naive(messages: Iterable[Message]) -> list[tuple[int, list[tuple[int, int, int]]]]:
    """For each epoch the number of sequences received and the gaps, by the definition, one message at a time."""
    ordered = sorted(set(messages))
    epochs: list[list[Message]] = []
    for i, (time, sequence) in enumerate(ordered):
        reset = not epochs
        if epochs:
            highest = max(s for _, s in epochs[-1])
            if 2 * sequence < highest:
                reset = time - ordered[i - 1][0] >= HOUR
                following = [s for _, s in ordered[i : i + 3]]
                if len(following) == 3 and following[0] < following[1] < following[2]:
                    reset = reset or all(2 * s < highest for s in following)
        if reset:
            epochs.append([])
        epochs[-1].append((time, sequence))
    result = []
    for epoch in epochs:
        received = sorted({s for _, s in epoch})
        gaps = []
        for before, after in pairwise(received):
            if after - before > 1:
                gaps.append((before + 1, after - 1, min(t for t, s in epoch if s == after)))
        result.append((len(received), gaps))
    return result


def count(messages: Sequence[Message]) -> tuple[Epoch, ...]:
    times, sequences = (np.array([m[k] for m in messages], dtype=np.int64) for k in (0, 1))
    return recount(times, sequences)


def seeded(messages: Sequence[Message]) -> KeyState:
    """The state that a job begins with after these messages."""
    times, sequences = (np.array([m[k] for m in messages], dtype=np.int64) for k in (0, 1))
    return KeyState.from_messages(times, sequences)


def sliced(messages: Sequence[Message], element_time: int | None = None) -> Slice:
    times, sequences = (np.array([m[k] for m in messages], dtype=np.int64) for k in (0, 1))
    elements = None if element_time is None else np.full(len(messages), element_time, dtype=np.int64)
    [(_, piece)] = slice_runs(np.zeros(len(messages), dtype=np.int32), sequences, times, element_times=elements)
    return piece


def plain(epochs: Sequence[Epoch]) -> list[tuple[int, list[tuple[int, int, int]]]]:
    return [(e.received, [(g.first, g.last, g.opened_at) for g in e.gaps]) for e in epochs]


class Ledger:
    """The rows that a table would hold: the last one of each gap_id counts."""

    def __init__(self) -> None:
        self.rows: dict[str, Gap] = {}

    def apply(self, rows: Iterable[Gap]) -> None:
        for row in rows:
            if row.status == "FILLED":
                assert self.rows[row.gap_id].status != "FILLED"
            self.rows[row.gap_id] = row

    def unfilled(self) -> set[tuple[int, int, int]]:
        return {(g.epoch, g.first_missing, g.last_missing) for g in self.rows.values() if g.status != "FILLED"}


def missing(epochs: Iterable[Epoch]) -> set[tuple[int, int, int]]:
    return {(e.number, g.first, g.last) for e in epochs for g in e.gaps}


def run_batches(
    batches: Iterable[Sequence[Message]], folds: Iterable[bool], state: KeyState | None = None
) -> tuple[KeyState, Ledger]:
    """Feed batches, folding (and going through bytes) after some of them and at the end."""
    state, ledger = state or KeyState(), Ledger()
    ledger.apply(missing_gaps(KEY, state.epochs))
    for batch, fold in zip(batches, folds, strict=True):
        if batch:
            state.add(sliced(batch))
        if fold:
            ledger.apply(change.to_gap(KEY) for change in state.fold().changes)
        state = KeyState.from_bytes(state.to_bytes())
    ledger.apply(change.to_gap(KEY) for change in state.fold().changes)
    return KeyState.from_bytes(state.to_bytes()), ledger


# Times of few values make ties, hours and disorder; small numbers make falls.
hostile_messages = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 12).map(lambda t: t * SECOND), st.integers(0, 5).map(lambda t: t * HOUR)),
        st.one_of(st.integers(0, 40), st.integers(90, 130)),
    ),
    min_size=1,
    max_size=40,
)


@st.composite
def stretches(draw: st.DrawFn) -> list[Message]:
    """Rising stretches with steps, resets, pauses and falls: nearer to feeds than single messages."""
    messages: list[Message] = []
    time = 0
    for _ in range(draw(st.integers(1, 5))):
        sequence = draw(st.sampled_from([0, 1, 5, 60, 100, 127, 250, 1000]))
        time += draw(st.sampled_from([0, SECOND, HOUR - SECOND, HOUR, DAY]))
        for step, wait in draw(
            st.lists(
                st.tuples(st.sampled_from([1, 1, 1, 1, 2, 7, -1, 0]), st.sampled_from([0, 1, SECOND])), max_size=20
            )
        ):
            messages.append((time, max(sequence, 0)))
            sequence += step
            time += wait * draw(st.sampled_from([1, 1, 1, -3]))
    return messages or [(0, 1)]


@st.composite
def batched(draw: st.DrawFn, messages: st.SearchStrategy[list[Message]]) -> tuple[list[list[Message]], list[bool]]:
    """Messages in batches: some twice, in any order or the right one, with folds in between."""
    trace = draw(messages)
    trace = trace + [draw(st.sampled_from(trace)) for _ in range(draw(st.integers(0, 4)))]
    if draw(st.booleans()):
        trace = draw(st.permutations(trace))
    cuts = sorted(draw(st.lists(st.integers(0, len(trace)), max_size=6)))
    batches = [trace[a:b] for a, b in zip([0, *cuts], [*cuts, len(trace)], strict=True)]
    return batches, [draw(st.booleans()) for _ in batches]


def feed(first: int, length: int, start: int = 0, wait: int = SECOND) -> list[Message]:
    return [(start + i * wait, first + i) for i in range(length)]
