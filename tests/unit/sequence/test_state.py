"""The state of a key, case by case: what a slice changes, and what the state forgets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from k2beam.errors import K2BeamError
from k2beam.model import Gap
from k2beam.sequence import KeyState, SequenceClass, diff_ledger, gap_id, slice_runs
from k2beam.sequence.blocks import MOST_BLOCKS
from k2beam.sequence.runs import HOUR, pack_varints
from k2beam.sequence.state import KEPT_EPOCHS
from tests.sequence_helpers import (
    DAY,
    KEY,
    SECOND,
    Ledger,
    Message,
    count,
    feed,
    missing,
    naive,
    plain,
    run_batches,
    seeded,
    sliced,
)


def test_late_fill_after_restart_of_a_high_feed_is_exact() -> None:
    messages = feed(1_000_000, 100)
    late = messages[40:45]
    state, ledger = run_batches([late], [True], seeded(messages[:40] + messages[45:]))
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


def test_out_of_order_counts_against_earlier_slices_but_not_across_a_reset() -> None:
    state = KeyState()
    state.add(sliced(feed(200, 10)))
    assert state.add(sliced(feed(195, 10, 20))) == {SequenceClass.OUT_OF_ORDER: 10}
    assert state.add(sliced(feed(205, 10, 40))) == {SequenceClass.OUT_OF_ORDER: 4}
    assert state.add(sliced(feed(1, 10, 60))) == {}


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


def overlapping(first: int, start: int) -> tuple[list[Message], list[Message]]:
    """Two batches in which 11 numbers come twice, with other times: only the first message's place is known."""
    once = [*feed(first - 3, 3, start - 50 * SECOND), *feed(first, 11, start)]
    return once, [(time + SECOND // 2, sequence) for time, sequence in once[5:]]


@pytest.mark.parametrize(
    "batches",
    [
        pytest.param([feed(64, 37), [(30 * SECOND + i, 40 + i) for i in range(3)]], id="a fall within a run"),
        pytest.param([*overlapping(300, 0), [(-SECOND, 2000)]], id="falls in an order that is not known"),
    ],
)
def test_where_a_reset_may_be_hidden_the_key_is_ambiguous(batches: list[list[Message]]) -> None:
    state, ledger = run_batches(batches, [False] * len(batches))
    assert state.ambiguous
    assert len(state.epochs) == 1
    assert ledger.unfilled() == missing(state.epochs)


def test_an_hour_before_messages_in_an_unknown_order_is_no_reset_for_certain() -> None:
    state = seeded(feed(60, 11, 2 * HOUR))
    state.add(sliced(feed(40, 11, 2 * HOUR + SECOND // 2)))
    state.fold()
    assert not state.ambiguous
    state.add(sliced([(0, 110)]))
    state.fold()
    assert state.ambiguous


def test_a_day_of_which_only_parts_have_come_is_not_ambiguous() -> None:
    lost = {*range(1, 10), 57}
    days = [m for i, m in enumerate(feed(1, 40) + feed(1, 40, DAY), start=1) if i not in lost]
    batches = [days[46:], days[:3], days[3:24], days[24:46], days[:3]]
    state, _ = run_batches(batches, [True] * 5)
    assert (state.epochs, state.ambiguous) == (count(days), False)


def test_an_epoch_that_comes_late_finds_its_hour_of_silence() -> None:
    days = feed(1, 40) + feed(1, 40, DAY)
    batches = [days[43:], days[:4], days[4:43]]
    state, _ = run_batches(batches, [True, True, True])
    assert (state.epochs, state.ambiguous) == (count(days), False)


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
