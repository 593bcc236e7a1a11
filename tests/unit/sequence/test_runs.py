"""Slices: nothing of a batch is lost in them but the times inside a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import K2BeamError
from k2beam.sequence import SequenceKey, Slice, format_key, parse_key, slice_runs, unpack_slices
from k2beam.sequence.runs import HOUR, pack_varints, unpack_varints

MICROS = st.integers(-(2**63), 2**63 - 1)
Row = tuple[int, int | None, int]

rows = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(-2, 70), st.sampled_from([2**63 - 1, 2**62])),
        st.one_of(st.integers(0, 5).map(lambda t: t * 1000), st.sampled_from([HOUR, 3 * HOUR - 1]), MICROS),
    ),
    max_size=40,
)


def cut(batch: list[Row], *, arrived: bool = True) -> dict[int, Slice]:
    codes, times = (np.array([row[k] for row in batch], dtype=np.int64) for k in (0, 2))
    sequences = np.array([-9 if row[1] is None else row[1] for row in batch], dtype=np.int64)
    valid = np.array([row[1] is not None for row in batch], dtype=np.bool_)
    return dict(slice_runs(codes, np.where(valid, sequences, 5), times, valid=valid, arrived=arrived))


@settings(max_examples=200, deadline=None)
@given(rows.flatmap(lambda batch: st.tuples(st.just(batch), st.permutations(batch))))
def test_slices_of_rows_that_did_not_arrive_are_the_same_in_any_order(orders: tuple[list[Row], list[Row]]) -> None:
    one, other = (cut(batch, arrived=False) for batch in orders)
    assert one == other


@settings(max_examples=200, deadline=None)
@given(st.lists(rows, max_size=4))
def test_slices_are_unpacked_together_as_one_by_one(batches: list[list[Row]]) -> None:
    pieces = [piece for batch in batches for piece in cut(batch).values()]
    contents = [piece.read() for piece in pieces]
    together = unpack_slices(pieces)
    assert together.messages == sum(content.messages for content in contents)
    assert together.nulls == sum(content.nulls for content in contents)
    assert list(map(tuple, together.runs.T.tolist())) == [tuple(run) for content in contents for run in content.runs]


@settings(max_examples=200, deadline=None)
@given(rows)
def test_a_slice_keeps_the_messages_of_its_key(batch: list[Row]) -> None:
    by_key: dict[int, list[Row]] = defaultdict(list)
    for row in batch:
        by_key[row[0]].append(row)
    slices = cut(batch)
    assert slices.keys() == by_key.keys()
    for key, mine in by_key.items():
        content = slices[key].read()
        sequenced = [(time, s) for _, s, time in mine if s is not None and s >= 0]
        distinct = sorted(set(sequenced))
        assert content.messages == len(mine)
        assert content.nulls == len(mine) - len(sequenced)
        assert content.duplicates == len(sequenced) - len(distinct)
        assert content.lowest_element_time == min(time for _, _, time in mine)
        assert content.highest_element_time == max(time for _, _, time in mine)
        packed = Slice(slices[key].data)
        assert slices[key].highest_element_time == packed.highest_element_time == content.highest_element_time
        rest = iter(distinct)
        for run in content.runs:
            messages = [next(rest) for _ in range(run.last_sequence - run.first_sequence + 1)]
            assert [s for _, s in messages] == list(range(run.first_sequence, run.last_sequence + 1))
            assert (messages[0][0], messages[-1][0]) == (run.first_time, run.last_time)
            assert all(b[0] - a[0] < HOUR for a, b in pairwise(messages))
            assert run.last_sequence == run.first_sequence or run.last_sequence < 2 * run.first_sequence
        assert next(rest, None) is None


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([1, 2, 4, 3, 5], 1),
        ([1, 2, 3, 4], 0),
        ([10, 9, 8, 8], 3),
        ([1000, 1001, 10, 11, 12], 0),
    ],
)
def test_out_of_order_counts_arrivals_below_the_highest(sequences: list[int], expected: int) -> None:
    batch: list[Row] = [(0, s, i) for i, s in enumerate(sequences)]
    assert cut(batch)[0].read().out_of_order == expected


@pytest.mark.parametrize(
    ("sequences", "silence", "expected"),
    [
        (range(65, 74), 0, [(65, 66), (67, 67), (68, 73)]),
        (range(120, 131), 0, [(120, 121), (122, 122), (123, 127), (128, 130)]),
        (range(65, 74), HOUR, [(65, 66), (67, 67), (68, 70), (71, 73)]),
        (range(65, 74), HOUR - 2, [(65, 66), (67, 67), (68, 73)]),
        ([65, 66, 67, 68, 69, 33, 34, 35, 36], 0, [(65, 66), (67, 67), (68, 69), (33, 34), (35, 35), (36, 36)]),
        ([65, 66, 67, 68, 69, 70, 72, 73, 74], 0, [(65, 66), (67, 67), (68, 70), (72, 74)]),
    ],
)
def test_runs_are_cut_where_the_fold_must_know_the_order(
    sequences: Sequence[int], silence: int, expected: list[tuple[int, int]]
) -> None:
    batch: list[Row] = [(0, sequence, i + silence * (i > 5)) for i, sequence in enumerate(sequences)]
    runs = cut(batch)[0].read().runs
    assert [(run.first_sequence, run.last_sequence) for run in runs] == expected


def test_element_times_of_the_log_are_kept_beside_event_times() -> None:
    times = np.array([1000, 2000], dtype=np.int64)
    [(_, piece)] = slice_runs(np.zeros(2, dtype=np.int32), times, times, element_times=times * 5 + 1)
    content = piece.read()
    assert (content.lowest_element_time, content.highest_element_time) == (5001, 10001)
    assert content.runs[0].first_time == 1000


def test_a_clean_batch_costs_a_few_bytes_a_key() -> None:
    rank = np.arange(50_000, dtype=np.int64)
    slices = slice_runs(rank % 200, 10_000_000 + rank // 200, 1_700_000_000_000_000 + rank * 1_000)
    assert len(slices) == 200
    assert max(len(piece.data) for _, piece in slices) <= 34
    slices = slice_runs(rank % 200, 10_000_000 + rank // 200, 1_700_000_000_000_000 + rank * 1_001)
    assert max(len(piece.data) for _, piece in slices) <= 40


def test_more_keys_than_16_bits_and_an_empty_batch() -> None:
    codes = np.array([70_000, 3, 70_000], dtype=np.int64)
    found = slice_runs(codes, np.array([1, 5, 2]), np.array([1, 2, 3]))
    assert [(code, piece.read().messages) for code, piece in found] == [(3, 1), (70_000, 2)]
    empty = np.zeros(0, dtype=np.int64)
    assert slice_runs(empty, empty, empty) == []


@pytest.mark.parametrize("runs", [1, 200])
def test_a_slice_that_ends_within_a_run_is_no_slice(runs: int) -> None:
    ((_, piece),) = slice_runs(np.zeros(runs, np.int64), np.arange(runs) * 2, np.arange(runs) * HOUR)
    values = unpack_varints(piece.data)
    with pytest.raises(ValueError, match=r"reshape|shorter"):
        Slice(pack_varints(values[:-1])).read()


@settings(max_examples=100, deadline=None)
@given(st.lists(MICROS, max_size=100))
def test_varints_come_back(values: list[int]) -> None:
    assert unpack_varints(pack_varints(values)) == values


def test_varints_are_those_of_avro() -> None:
    # Avro 1.11, "Binary Encoding", the table of zigzag values.
    assert pack_varints([0, -1, 1, -2, 2, -64, 64]).hex() == "0001020304" + "7f" + "8001"


@pytest.mark.parametrize("part", ["BTC|USDT", "100%", "%7C", "'; DROP TABLE trades; --", "µ|%", ""])
def test_a_key_is_reversible_whatever_the_symbol(part: str) -> None:
    key = format_key(part, part, "quotes")
    assert key.count("|") == 2
    assert parse_key(key) == SequenceKey(part, part, "quotes")


@pytest.mark.parametrize("text", ["a|b", "a|b|c|trades", "a|b|nothing"])
def test_a_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(K2BeamError, match=r"exchange\|symbol\|kind"):
        parse_key(text)
