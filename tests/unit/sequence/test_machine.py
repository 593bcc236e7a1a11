"""The gap machine against the exact recount, and the recount against a naive twin."""

from __future__ import annotations

import random

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from k2beam.sequence import KeyState, SequenceClass, diff_ledger, missing_gaps
from k2beam.sequence.runs import HOUR
from tests.sequence_helpers import (
    DAY,
    KEY,
    SECOND,
    Message,
    batched,
    count,
    feed,
    hostile_messages,
    missing,
    naive,
    plain,
    run_batches,
    seeded,
    sliced,
    stretches,
)


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
def test_a_job_cut_in_two_gives_the_same_as_one(cut: int) -> None:
    messages = feed(26_941_045, 100) + feed(624_086, 100, 100 * SECOND)
    messages = [m for i, m in enumerate(messages) if i % 9 != 4]
    before, after = [m for m in messages if m[0] < cut * SECOND], [m for m in messages if m[0] >= cut * SECOND]
    state, ledger = run_batches([after], [True], seeded(before))
    assert (state.epochs, state.ambiguous) == (count(messages), False)
    assert ledger.unfilled() == missing(state.epochs)


@settings(max_examples=200, deadline=None)
@given(st.one_of(hostile_messages, stretches()), st.one_of(hostile_messages, stretches()), st.booleans())
@example(before=[(0, 90), (SECOND, 0), (2 * HOUR, 1)], after=[(3 * HOUR, 2)], later=False)
def test_a_seeded_state_equals_recount_or_says_ambiguous(
    before: list[Message], after: list[Message], later: bool
) -> None:
    if later:
        shift = max(before)[0] - min(after)[0] + 1
        after = [(time + shift, sequence) for time, sequence in after]
    state, ledger = run_batches([after], [True], seeded(before))
    assert ledger.unfilled() == missing(state.epochs)
    event(f"ambiguous {state.ambiguous}")
    if not state.ambiguous:
        assert state.epochs == count(before + after)


@settings(max_examples=100, deadline=None)
@given(hostile_messages, hostile_messages)
def test_diff_ledger_applied_once_leaves_nothing_to_do(one: list[Message], two: list[Message]) -> None:
    current, desired = missing_gaps(KEY, count(one)), missing_gaps(KEY, count(two))
    applied = {row.gap_id: row for row in [*current, *diff_ledger(desired, current)]}
    unfilled = [gap for gap in applied.values() if gap.status != "FILLED"]
    assert {(g.gap_id, g.last_missing, g.opened_at) for g in unfilled} == {
        (g.gap_id, g.last_missing, g.opened_at) for g in desired
    }
    assert diff_ledger(desired, applied.values()) == []
