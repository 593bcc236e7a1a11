"""The gap machine against the exact recount, and the recount against a naive twin."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from k2beam.errors import K2BeamError
from k2beam.model import Gap
from k2beam.sequence import (
    Epoch,
    KeyState,
    SequenceClass,
    SequenceKey,
    Slice,
    diff_ledger,
    gap_id,
    gap_rows,
    recount,
    slice_runs,
)
from k2beam.sequence.blocks import MOST_BLOCKS
from k2beam.sequence.runs import HOUR, pack_varints
from k2beam.sequence.state import KEPT_EPOCHS

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
    ledger.apply(gap_rows(KEY, state.epochs))
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


@settings(max_examples=200, deadline=None)
@given(st.one_of(hostile_messages, stretches()))
def test_recount_agrees_with_the_naive_definition(messages: list[Message]) -> None:
    assert plain(count(messages)) == naive(messages)


@settings(max_examples=200, deadline=None)
@given(batched(st.one_of(hostile_messages, stretches())))
def test_machine_equals_recount_for_every_batching_unless_it_says_ambiguous(
    case: tuple[list[list[Message]], list[bool]],
) -> None:
    batches, folds = case
    state, ledger = run_batches(batches, folds)
    expected = count([m for batch in batches for m in batch])
    event(f"ambiguous {state.ambiguous}")
    assert ledger.unfilled() == missing(state.epochs)
    if not state.ambiguous:
        assert state.epochs == expected


def feed(first: int, length: int, start: int = 0, wait: int = SECOND) -> list[Message]:
    return [(start + i * wait, first + i) for i in range(length)]


@st.composite
def realistic(draw: st.DrawFn) -> tuple[list[Message], bool]:
    """A feed whose numbers rise with its time, with losses; and whether batches may come in any order."""
    kind = draw(st.sampled_from(["high", "restarts", "reset", "from one"]))
    if kind == "high":
        messages = feed(draw(st.integers(1_000_000, 2_000_000)), 120, wait=draw(st.sampled_from([0, 1, SECOND])))
    elif kind == "restarts":
        messages = [m for day in range(draw(st.integers(2, 4))) for m in feed(1, 40, day * DAY)]
    elif kind == "reset":
        messages = feed(26_941_100, 45) + feed(624_086, 60, 46 * SECOND)
    else:
        messages = feed(1, 120)
    lost = draw(st.sets(st.integers(0, len(messages) - 1), max_size=15))
    return [m for i, m in enumerate(messages) if i not in lost], kind == "high"


@settings(max_examples=100, deadline=None)
@given(realistic(), st.randoms(use_true_random=False), st.data())
def test_realistic_feeds_are_never_ambiguous(
    case: tuple[list[Message], bool], rng: random.Random, data: st.DataObject
) -> None:
    messages, shuffled = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(messages)), max_size=5)))
    batches = [messages[a:b] for a, b in zip([0, *cuts], [*cuts, len(messages)], strict=True)]
    if shuffled:
        messages = messages + rng.sample(messages, 5)
        rng.shuffle(messages)
        batches = [messages[:50], messages[50:60], messages[60:]]
    rng.shuffle(batches)
    batches.append(batches[0])
    state, ledger = run_batches(batches, [rng.random() < 0.5 for _ in batches])
    assert not state.ambiguous
    assert state.epochs == count(messages)
    assert ledger.unfilled() == missing(state.epochs)


def test_fifty_files_in_reverse_have_no_gap_and_no_reset() -> None:
    messages = feed(1, 5000)
    batches = [messages[i : i + 100] for i in range(0, 5000, 100)][::-1]
    state, ledger = run_batches(batches, [False] * 50)
    [epoch] = state.epochs
    assert (epoch.received, epoch.gaps, ledger.rows, state.ambiguous) == (5000, (), {}, False)


def test_fifty_files_in_reverse_with_one_true_reset_have_exactly_one() -> None:
    messages = feed(26_941_144 - 2499, 2500) + feed(624_086, 2500, 2500 * SECOND)
    batches = [messages[i : i + 100] for i in range(0, 5000, 100)][::-1]
    state, ledger = run_batches(batches, [False] * 50)
    assert [(e.number, e.first_sequence, e.last_sequence) for e in state.epochs] == [
        (0, 26_938_645, 26_941_144),
        (1, 624_086, 626_585),
    ]
    assert (ledger.unfilled(), state.ambiguous) == (set(), False)


def test_daily_restarts_are_one_reset_a_day() -> None:
    days = [feed(1, 500, day * DAY) for day in range(7)]
    state = KeyState()
    counts = sum((state.add(sliced(day)) for day in reversed(days)), start=state.fold().counts)
    counts += state.fold().counts
    assert counts[SequenceClass.RESET] == 6
    assert len(state.epochs) == 7
    assert not any(e.gaps for e in state.epochs)


@pytest.mark.parametrize("cut", [1, 99, 100, 101, 102, 103, 150])
@pytest.mark.parametrize("seeding", ["messages", "epochs"])
def test_a_job_cut_in_two_gives_the_same_as_one(cut: int, seeding: str) -> None:
    messages = feed(26_941_045, 100) + feed(624_086, 100, 100 * SECOND)
    messages = [m for i, m in enumerate(messages) if i % 9 != 4]
    before, after = [m for m in messages if m[0] < cut * SECOND], [m for m in messages if m[0] >= cut * SECOND]
    if seeding == "messages":
        seed = KeyState.from_messages(*(np.array([m[k] for m in before], dtype=np.int64) for k in (0, 1)))
    else:
        seed = KeyState.seed(count(before))
    state, ledger = run_batches([after], [True], seed)
    assert ledger.unfilled() == missing(state.epochs)
    # Cut within the three messages of the reset, counted epochs can't say, and the state must admit it.
    assert state.ambiguous == (seeding == "epochs" and cut in (101, 102))
    if not state.ambiguous:
        assert state.epochs == count(messages)


@settings(max_examples=200, deadline=None)
@given(st.one_of(hostile_messages, stretches()), st.one_of(hostile_messages, stretches()), st.booleans())
def test_a_seeded_state_equals_recount_or_says_ambiguous(
    before: list[Message], after: list[Message], later: bool
) -> None:
    if later:
        shift = max(before)[0] - min(after)[0] + 1
        after = [(time + shift, sequence) for time, sequence in after]
    state, ledger = run_batches([after], [True], KeyState.seed(count(before)))
    assert ledger.unfilled() == missing(state.epochs)
    event(f"ambiguous {state.ambiguous}")
    if not state.ambiguous:
        assert state.epochs == count(before + after)


def test_late_fill_after_restart_of_a_high_feed_is_exact() -> None:
    messages = feed(1_000_000, 100)
    late = messages[40:45]
    state, ledger = run_batches([late], [True], KeyState.seed(count(messages[:40] + messages[45:])))
    assert (state.epochs, state.ambiguous, ledger.unfilled()) == (count(messages), False, set())


def statuses(changes: Iterable[object]) -> list[tuple[int, int, str, int]]:
    return [(c.first, c.last, c.status, c.opened_at) for c in changes]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        ([5, 6], [(5, 10, "FILLED", 11), (7, 10, "PARTIAL", 11)]),
        ([7], [(5, 6, "PARTIAL", 7), (8, 10, "PARTIAL", 11)]),
        ([9, 10], [(5, 8, "PARTIAL", 9)]),
        ([5, 6, 7, 8, 9, 10], [(5, 10, "FILLED", 11)]),
    ],
)
def test_a_late_fill_trims_splits_or_closes_its_gap(
    filled: list[int], expected: list[tuple[int, int, str, int]]
) -> None:
    state = KeyState()
    state.add(sliced([(s, s) for s in [1, 2, 3, 4, 11, 12]]))
    opened = state.fold()
    assert statuses(opened.changes) == [(5, 10, "OPEN", 11)]
    assert opened.counts == {SequenceClass.OK: 5, SequenceClass.SMALL_GAP: 1}
    state.add(sliced([(s, s) for s in filled]))
    folded = state.fold()
    assert statuses(folded.changes) == expected
    assert folded.counts[SequenceClass.LATE_FILL] == len(filled)
    assert folded.counts[SequenceClass.OK] == 0


def test_counts_of_every_class() -> None:
    state = KeyState()
    sequences = np.array([100, 101, 103, 102, 103, 120, 0, 400], dtype=np.int64)
    times = np.array([1, 2, 4, 3, 4, 5, 6, 7], dtype=np.int64)
    valid = np.array([True] * 6 + [False, True])
    [(_, piece)] = slice_runs(np.zeros(8, dtype=np.int64), sequences, times, valid=valid)
    counts = state.add(piece) + state.fold().counts
    assert counts == {
        SequenceClass.OK: 3,
        SequenceClass.OUT_OF_ORDER: 1,
        SequenceClass.DUPLICATE: 1,
        SequenceClass.LARGE_GAP: 2,
        SequenceClass.UNSEQUENCED: 1,
    }
    state.add(sliced(feed(1, 3, HOUR)))
    state.add(sliced([(1, 100)]))
    assert state.fold().counts == {SequenceClass.RESET: 1, SequenceClass.OK: 2, SequenceClass.DUPLICATE: 1}


def test_fold_takes_only_what_the_watermark_passed() -> None:
    state = KeyState()
    state.add(sliced([(1, 1), (2, 2)], element_time=100))
    state.add(sliced([(5, 5)], element_time=200))
    assert state.fold(up_to=104, grace=5).changes == []
    assert state.epochs == ()
    assert statuses(state.fold(up_to=105, grace=5).changes) == []
    assert state.next_due == 200
    state.add(sliced([(3, 3), (4, 4)], element_time=150))
    state = KeyState.from_bytes(state.to_bytes())
    assert state.fold(up_to=300, grace=5).changes == []
    assert state.next_due is None
    assert state.epochs[-1].last_sequence == 5


def test_state_of_a_clean_feed_is_small_however_long() -> None:
    state = KeyState()
    sizes = set()
    for start in range(0, 4000, 100):
        state.add(sliced(feed(1_100_000 + start, 100, start * SECOND)))
        state.fold()
        sizes.add(len(state.to_bytes()))
    assert max(sizes) < 120


def test_state_is_bounded_where_two_feeds_share_a_key_and_the_result_still_right() -> None:
    messages = [m for i in range(0, 4000, 2) for m in ((i, 1_000_000 + i), (i + 1, 7 + i * 3 % 1000))]
    state = KeyState()
    for start in range(0, len(messages), 200):
        state.add(sliced(messages[start : start + 200]))
        state.fold()
    assert len(state._blocks) == len(state.epochs)
    assert sum(map(len, state._blocks)) <= (MOST_BLOCKS + 1) * len(state._blocks)
    assert (state.epochs, state.ambiguous) == (count(messages), False)
    late = [(1001, 3)]
    state.add(sliced(late))
    state.fold()
    assert state.ambiguous


def test_a_fall_inside_the_time_of_a_run_makes_the_key_ambiguous_and_no_reset() -> None:
    state = KeyState()
    state.add(sliced(feed(64, 37)))
    state.add(sliced([(10 * SECOND + i, 20 + i) for i in range(3)]))
    state.fold()
    assert state.ambiguous
    assert len(state.epochs) == 1
    state.add(sliced(feed(101, 3, 100)))
    assert state.fold().changes == []
    assert KeyState.from_bytes(state.to_bytes()).ambiguous


def test_an_illiquid_key_stays_small_and_exact_for_late_data() -> None:
    messages = feed(1_100_000, 400, wait=2 * HOUR)
    state = KeyState()
    for start in range(0, len(messages), 8):
        state.add(sliced(messages[start : start + 7]))
        state.fold()
    assert sum(map(len, state._blocks)) <= MOST_BLOCKS + 1
    state.add(sliced(messages[7::8]))
    state.fold()
    assert (state.epochs, state.ambiguous) == (count(messages), False)


def test_old_epochs_are_dropped_and_numbers_go_on() -> None:
    state = KeyState()
    ledger = Ledger()
    messages = [m for day in range(50) for m in [*feed(1, 10, day * DAY), (day * DAY + 20 * SECOND, 20)]]
    for start in range(0, len(messages), 11):
        state.add(sliced(messages[start : start + 11]))
        ledger.apply(change.to_gap(KEY) for change in state.fold().changes)
        state = KeyState.from_bytes(state.to_bytes())
    assert state.epochs == count(messages)[-KEPT_EPOCHS:]
    assert ledger.unfilled() == missing(count(messages))
    assert not state.ambiguous
    state.add(sliced([(5, 15)]))
    assert state.fold().changes == []
    assert state.ambiguous


def test_hostile_numbers_do_not_overflow() -> None:
    low, high = -(2**63), 2**63 - 1
    messages = [(low, high), (high, 0), (0, high - 1), (high, high)]
    state, _ = run_batches([messages[:2], messages[2:]], [True, True])
    assert state.epochs == count(messages)
    assert plain(state.epochs) == naive(messages)


def test_state_of_another_version_is_refused() -> None:
    packed = pack_varints([0, 99])
    with pytest.raises(K2BeamError, match="version 99"):
        KeyState.from_bytes(pack_varints([len(packed)]) + packed)


def ledger_row(first: int, last: int, status: str = "OPEN", opened_at: int = 0) -> Gap:
    return Gap("BINANCE", "BTCUSDT", "trades", 0, first, last, status, opened_at, gap_id(*KEY, 0, first), revision=3)  # type: ignore[arg-type]


def test_diff_ledger_gives_only_changed_rows() -> None:
    desired = [ledger_row(5, 8), ledger_row(20, 20), ledger_row(30, 39), ledger_row(50, 50, opened_at=7)]
    current = [
        ledger_row(5, 10), ledger_row(30, 39), ledger_row(19, 22), ledger_row(40, 41), ledger_row(20, 20, "FILLED"),
        ledger_row(50, 50, "PARTIAL", opened_at=9),
    ]  # fmt: skip
    rows = diff_ledger(desired, current)
    assert sorted((r.first_missing, r.last_missing, r.status, r.opened_at, r.revision) for r in rows) == [
        (5, 8, "PARTIAL", 0, 0),
        (19, 22, "FILLED", 0, 0),
        (20, 20, "PARTIAL", 0, 0),
        (40, 41, "FILLED", 0, 0),
        (50, 50, "PARTIAL", 7, 0),
    ]


@settings(max_examples=100, deadline=None)
@given(hostile_messages, hostile_messages)
def test_diff_ledger_applied_once_leaves_nothing_to_do(one: list[Message], two: list[Message]) -> None:
    current, desired = gap_rows(KEY, count(one)), gap_rows(KEY, count(two))
    applied = {row.gap_id: row for row in [*current, *diff_ledger(desired, current)]}
    unfilled = [gap for gap in applied.values() if gap.status != "FILLED"]
    assert {(g.gap_id, g.last_missing, g.opened_at) for g in unfilled} == {
        (g.gap_id, g.last_missing, g.opened_at) for g in desired
    }
    assert diff_ledger(desired, applied.values()) == []
