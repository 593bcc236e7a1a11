"""A key folded day by day has the epochs of all its messages, wherever the days are cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.sequence import DayFold, KeyState, Slice, days, state
from k2beam.sequence.runs import HOUR
from tests.sequence_helpers import (
    DAY,
    SECOND,
    Message,
    count,
    feed,
    hostile_messages,
    naive,
    plain,
    seeded,
    sliced,
    stretches,
)


def divided(messages: Sequence[Message], cuts: Sequence[int]) -> list[Slice]:
    """One slice for each stretch of event time between the cuts that has messages, in order."""
    bounds = [-(10 * DAY), *sorted(cuts), 1000 * DAY]
    parts = [[one for one in messages if low <= one[0] < high] for low, high in pairwise(bounds)]
    return [sliced(part) for part in parts if part]


def folded(slices: Sequence[Slice]) -> DayFold:
    fold = DayFold()
    for piece in slices:
        fold.add(piece)
    return fold


@st.composite
def days_of_messages(draw: st.DrawFn) -> tuple[list[Message], list[int]]:
    messages = draw(st.one_of(hostile_messages, stretches()))
    times = sorted({time for time, _ in messages})
    # Cuts at messages, so that a reset and the two that decide it fall on different days.
    return draw(st.permutations(messages)), draw(st.lists(st.sampled_from(times), max_size=6))


@pytest.mark.parametrize("waiting", [0, days.WAITING_BYTES])
@settings(max_examples=250, deadline=None)
@given(data=days_of_messages())
def test_the_fold_over_any_days_is_the_recount_of_all_messages(
    waiting: int, data: tuple[list[Message], list[int]]
) -> None:
    messages, cuts = data
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(days, "WAITING_BYTES", waiting)
        fold = folded(divided(messages, cuts))
        assert fold.epochs == count(messages)
    assert plain(fold.epochs) == naive(messages)
    assert (fold.rows, fold.unsequenced) == (len(messages), 0)


@settings(max_examples=100, deadline=None)
@given(days_of_messages())
def test_epochs_may_be_asked_for_between_two_days(data: tuple[list[Message], list[int]]) -> None:
    messages, cuts = data
    fold, seen = DayFold(), -(10 * DAY)
    for cut in [*sorted(cuts), 1000 * DAY]:
        for piece in divided([one for one in messages if seen <= one[0] < cut], []):
            fold.add(piece)
        seen = max(cut, seen)
        before = [one for one in messages if one[0] < cut]
        assert fold.epochs == (count(before) if before else ())


@pytest.mark.parametrize("together", [0, state._FOLDED_BYTES])
@settings(max_examples=250, deadline=None)
@given(data=days_of_messages(), later=stretches())
def test_the_state_after_days_is_that_of_all_messages(
    together: int, data: tuple[list[Message], list[int]], later: list[Message]
) -> None:
    messages, cuts = data
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(state, "_FOLDED_BYTES", together)
        found = KeyState.from_slices(divided(messages, cuts))
    assert (found.epochs, found.ambiguous) == (count(messages), False)
    whole = seeded(messages)
    for one in (found, whole):
        one.add(sliced(later))
        one.fold()
    assert found.ambiguous or found.epochs == count([*messages, *later])


def test_more_epochs_than_a_state_keeps_are_all_found() -> None:
    messages = [one for epoch in range(100) for one in feed(1000 + epoch, 5, epoch * DAY)]
    messages += [one for epoch in range(100) for one in feed(1 + epoch, 4, (100 + epoch) * DAY + HOUR)]
    fold = folded(divided(messages, [day * DAY for day in range(200)]))
    assert fold.epochs == count(messages)


def test_a_fall_at_the_end_of_a_day_is_decided_by_the_next_day() -> None:
    day = [*feed(1000, 5), (6 * SECOND, 1)]
    fold = folded([sliced(day)])
    assert [epoch.number for epoch in fold.epochs] == [0]
    fold.add(sliced([(7 * SECOND, 2), (8 * SECOND, 3)]))
    assert [(epoch.first_sequence, epoch.last_sequence) for epoch in fold.epochs] == [(1000, 1004), (1, 3)]


def test_what_it_holds_grows_with_gaps_and_not_with_messages() -> None:
    fold = DayFold()
    held = set()
    for day in range(200):
        # Numbers in disorder: each message is a run of its own, and nothing is missing in the end.
        shuffled = [(day * DAY + (i ^ 1) * SECOND, 1_000_000 + 3000 * day + i) for i in range(3000)]
        fold.add(sliced(shuffled))
        held.add(fold._numbers.nbytes + fold._tail.nbytes)
        assert fold._waiting_bytes <= days.WAITING_BYTES + max(held)
    assert max(held) < 1000
    assert fold.rows == 600_000
    assert [epoch.gaps for epoch in fold.epochs] == [()]


def test_messages_without_a_number_are_counted_and_nothing_else() -> None:
    fold = folded([sliced([(0, -1), (1, -5)]), sliced([(DAY, 5), (DAY + 1, 5), (DAY + 1, 5), (DAY + 2, -1)])])
    assert (fold.rows, fold.unsequenced) == (3, 3)
    assert plain(fold.epochs) == [(1, [])]


def test_what_was_counted_before_a_fold_stays_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages without a number leave no runs behind by which a fold could be told."""
    monkeypatch.setattr(days, "WAITING_BYTES", 0)
    fold = folded([sliced([(0, -1), (1, -5)])])
    monkeypatch.undo()
    fold.add(sliced([(DAY, 5)]))
    assert (fold.rows, fold.unsequenced) == (1, 2)
    assert plain(fold.epochs) == [(1, [])]
