"""DetectGaps: the real stateful step, driven by watermarks and over bounded input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from apache_beam.transforms.userstate import is_stateful_dofn
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from k2beam.errors import UsageError
from k2beam.metrics.config import DEFAULT_METRICS
from k2beam.model import Gap
from k2beam.sequence import GapBatch, KeyState, SequenceKey, Slice, slice_runs
from k2beam.sequence.runs import HOUR
from transforms.detect_gaps import DetectGaps, _FoldSlices

SECOND = 1_000_000
KEY = "X|S|trades"
Message = tuple[int, int]


def sliced(messages: Sequence[Message]) -> Slice:
    times, sequences = (np.array([m[k] for m in messages], dtype=np.int64) for k in (0, 1))
    [(_, piece)] = slice_runs(np.zeros(len(messages), dtype=np.int32), sequences, times)
    return piece


def feed(first: int, length: int, start: int = 0) -> list[Message]:
    return [((start + i) * SECOND, first + i) for i in range(length)]


def files(messages: Sequence[Message], number: int = 50) -> list[list[Message]]:
    size = len(messages) // number
    return [list(messages[i : i + size]) for i in range(0, len(messages), size)]


def is_exactly(expected: Iterable[tuple[Any, ...]]) -> Any:
    """Checks (symbol, epoch, first, last, status) of all rows, in any order."""
    wanted = sorted(expected)

    def check(batches: list[GapBatch]) -> None:
        rows = sorted(
            (g.symbol, g.epoch, g.first_missing, g.last_missing, g.status) for batch in batches for g in batch.gaps
        )
        if rows != wanted:
            raise AssertionError(f"{rows} is not {wanted}")

    return check


def run_bounded(slices: list[tuple[str, Slice]], expected: Iterable[tuple[Any, ...]], **options: Any) -> dict[str, int]:
    pipeline = TestPipeline(runner="FnApiRunner")
    assert_that(pipeline | beam.Create(slices) | DetectGaps(**options), is_exactly(expected))
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace("k2beam"))["counters"]
    return {counter.key.metric.name: counter.committed for counter in counters}


def test_fifty_files_in_reverse_have_no_gap_and_no_reset() -> None:
    slices = [(KEY, sliced(messages)) for messages in reversed(files(feed(1, 5000)))]
    counts = run_bounded(slices, [])
    assert "sequence_reset" not in counts
    assert "sequence_out_of_order" not in counts


def test_messages_that_a_log_holds_out_of_order_are_counted_and_no_gap() -> None:
    first, second = feed(1, 20), feed(21, 20, 20)
    swapped = [*second[:4], second[5], second[4], *second[6:]]
    swapped = [(time, message[1]) for (time, _), message in zip(second, swapped, strict=True)]
    counts = run_bounded([(KEY, sliced(swapped)), (KEY, sliced(first))], [])
    assert counts["sequence_out_of_order"] == 1


def test_fifty_files_in_reverse_with_a_true_reset_have_one_and_other_symbols_none() -> None:
    messages = feed(26_941_144 - 2499, 2500) + feed(624_086, 2500, 2500)
    slices = [(KEY, sliced(part)) for part in reversed(files(messages))]
    slices += [("X|T|trades", sliced(feed(26_941_144, 10) + feed(26_941_156, 2, 20)))]
    counts = run_bounded(slices, [("T", 0, 26_941_154, 26_941_155, "OPEN")])
    assert counts["sequence_reset"] == 1
    assert counts["sequence_small_gap"] == 1


def test_messages_without_a_number_are_counted_and_leave_the_ledger_alone() -> None:
    rows = 6
    [(_, piece)] = slice_runs(
        np.zeros(rows, dtype=np.int32),
        np.array([1, 0, 2, 0, 0, 5], dtype=np.int64),
        np.arange(rows, dtype=np.int64) * SECOND,
        valid=np.array([True, False, True, False, False, True]),
    )
    nothing = slice_runs(
        np.zeros(2, dtype=np.int32),
        np.zeros(2, dtype=np.int64),
        np.arange(2, dtype=np.int64),
        valid=np.zeros(2, dtype=np.bool_),
    )
    other = [("X|N|trades", empty) for _, empty in nothing]
    counts = run_bounded([(KEY, piece), *other], [("S", 0, 3, 4, "OPEN")])
    assert counts["sequence_unsequenced"] == 5
    assert counts["sequence_small_gap"] == 1


def test_daily_restarts_are_one_reset_a_day() -> None:
    days = [feed(1, 300, day * 86_400) for day in range(5)]
    counts = run_bounded([(KEY, sliced(day)) for day in reversed(days)], [])
    assert counts["sequence_reset"] == 4


class FixedSeed:
    """Gives one state, and counts what is asked of it."""

    def __init__(self, before: list[Message]) -> None:
        self.before = before
        self.opened = False

    def open(self) -> None:
        self.opened = True

    def load(self, exchange: str, symbol: str, kind: str) -> KeyState | None:
        assert self.opened
        if symbol != "S":
            return None
        times, sequences = (np.array([m[k] for m in self.before], dtype=np.int64) for k in (0, 1))
        return KeyState.from_messages(times, sequences)

    def close(self) -> None:
        self.opened = False


def test_a_job_cut_in_two_and_seeded_declares_the_rest_only() -> None:
    messages = feed(1_000_000, 10) + feed(1_000_015, 10, 15)
    after = [*feed(1_000_012, 1, 12), *feed(1_000_030, 3, 30)]
    expected = [
        ("S", 0, 1_000_010, 1_000_011, "PARTIAL"),
        ("S", 0, 1_000_013, 1_000_014, "PARTIAL"),
        ("S", 0, 1_000_025, 1_000_029, "OPEN"),
        ("T", 0, 2, 3, "OPEN"),
    ]
    slices = [(KEY, sliced(after)), ("X|T|trades", sliced([(1, 1), (2, 4)]))]
    run_bounded(slices, expected, seed=FixedSeed(messages))
    run_bounded([(KEY, sliced(messages))], [], seed=FixedSeed(messages))


def run_stream(stream: TestStream, expected: Iterable[tuple[Any, ...]]) -> None:
    # Without the shuffle: this runner takes the stream's next events before a shuffle has let the last ones through.
    with TestPipeline(runner=BundleBasedDirectRunner()) as pipeline:
        step = beam.ParDo(_FoldSlices(5 * SECOND, None, DEFAULT_METRICS)).with_output_types(GapBatch)
        assert_that(pipeline | stream | step, is_exactly(expected))


def element(messages: Sequence[Message]) -> TimestampedValue:
    return TimestampedValue((KEY, sliced(messages).data), max(messages)[0] / SECOND)


def stream() -> TestStream:
    return TestStream(coder=beam.coders.registry.get_coder(tuple[str, bytes]))


def test_a_late_fill_after_the_gap_was_declared_splits_and_then_fills_it() -> None:
    events = (
        stream()
        .add_elements([element([(1 * SECOND, 1), (2 * SECOND, 2), (9 * SECOND, 9)])])
        .advance_watermark_to(20)
        .add_elements([element([(5 * SECOND, 5)])])
        .advance_watermark_to(40)
        .add_elements([element([(3 * SECOND, 3), (4 * SECOND, 4)])])
        .advance_watermark_to_infinity()
    )
    run_stream(
        events,
        [
            ("S", 0, 3, 8, "OPEN"),
            ("S", 0, 3, 4, "PARTIAL"),
            ("S", 0, 6, 8, "PARTIAL"),
            ("S", 0, 3, 4, "FILLED"),
        ],
    )


def test_a_straggler_within_the_grace_opens_no_gap() -> None:
    events = (
        stream()
        .add_elements([element([(1 * SECOND, 1), (3 * SECOND, 3)])])
        .advance_watermark_to(7)
        .add_elements([element([(2 * SECOND, 2)])])
        .advance_watermark_to(9)
        .add_elements([element([(5 * SECOND, 5)])])
        .advance_watermark_to_infinity()
    )
    run_stream(events, [("S", 0, 4, 4, "OPEN")])


def test_a_busy_key_is_folded_without_waiting_for_its_end() -> None:
    events = stream()
    for i in range(10):
        events = events.add_elements([element([(10 * i * SECOND, 10 * i)])]).advance_watermark_to(10 * i)
    events = events.add_elements([element([(75 * SECOND, 75)])]).advance_watermark_to_infinity()
    # Folded only at the end, 75 would have come in time, and 71 to 79 never have been a gap.
    expected = [("S", 0, 10 * i + 1, 10 * i + 9, "OPEN") for i in range(9)]
    expected += [("S", 0, 71, 74, "PARTIAL"), ("S", 0, 76, 79, "PARTIAL")]
    run_stream(events, expected)


class FakeBag(list[bytes]):
    add = list.append

    def read(self) -> list[bytes]:
        return list(self)


class FakeValue:
    def __init__(self) -> None:
        self.value: Any = None

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def clear(self) -> None:
        self.value = None


class FakeTimer:
    def __init__(self) -> None:
        self.at: Timestamp | None = None

    def set(self, at: Timestamp) -> None:
        self.at = at


class Step:
    """The DoFn with its state in plain objects, so that a timer can fire when it should not."""

    def __init__(self) -> None:
        self.fn = _FoldSlices(5 * SECOND, None, DEFAULT_METRICS)
        self.fn.setup()
        self.bag, self.state, self.timer_at, self.timer = FakeBag(), FakeValue(), FakeValue(), FakeTimer()

    def process(self, messages: Sequence[Message]) -> None:
        self.fn.process((KEY, sliced(messages).data), self.bag, self.timer_at, self.timer)  # type: ignore[arg-type]

    def fire(self, at: Timestamp) -> list[Gap]:
        self.timer.at = None
        batches = list(self.fn.fold(KEY, at, self.bag, self.state, self.timer_at, self.timer))  # type: ignore[arg-type]
        return [gap for batch in batches for gap in batch.gaps]


def test_a_timer_that_fires_early_declares_no_false_gap() -> None:
    step = Step()
    step.process([(1 * SECOND, 1), (3 * SECOND, 3)])
    assert step.timer.at == Timestamp(8)
    assert step.fire(Timestamp(2)) == []
    assert step.timer.at == Timestamp(8)
    step.process([(2 * SECOND, 2)])
    assert step.timer.at == Timestamp(7)
    assert step.fire(Timestamp(7)) == []
    assert step.bag == []
    assert step.timer.at == Timestamp(8)
    assert step.fire(Timestamp(8)) == []
    assert step.timer.at is None
    [epoch] = KeyState.from_bytes(step.state.value).epochs
    assert (epoch.received, epoch.gaps) == (3, ())


def test_a_timer_has_whole_milliseconds_and_covers_its_slice() -> None:
    step = Step()
    step.process([(1 * SECOND, 1), (1 * SECOND + 1, 3)])
    assert step.timer.at == Timestamp(micros=6 * SECOND + 1000)
    assert [gap.first_missing for gap in step.fire(step.timer.at)] == [2]
    assert step.timer.at is None


def test_a_later_slice_does_not_push_the_timer_back() -> None:
    step = Step()
    step.process([(3 * SECOND, 3)])
    step.process([(60 * SECOND, 4)])
    assert step.timer.at == Timestamp(8)


class Stateful(PipelineVisitor):
    """The labels of the steps that keep a state for each key."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def visit_transform(self, node: AppliedPTransform) -> None:
        if isinstance(node.transform, beam.ParDo) and is_stateful_dofn(node.transform.fn):
            self.labels.append(node.full_label)


@pytest.mark.parametrize("bounded", [True, False])
def test_only_unbounded_input_costs_a_state_for_each_key(bounded: bool) -> None:
    """Beam weighs a state's values by all that hangs on them: some milliseconds a key, several times."""
    pipeline, stateful = TestPipeline(), Stateful()
    _ = pipeline | beam.Create([(KEY, sliced([(1, 1)]))]) | DetectGaps(bounded=bounded)
    pipeline.visit(stateful)
    assert stateful.labels == ([] if bounded else ["DetectGaps/Fold"])


def test_each_of_many_keys_is_folded_apart() -> None:
    keys = [f"X|S{number}|trades" for number in range(300)]
    slices = [(key, sliced([(time, 2 * time)])) for time in (2, 1) for key in keys]
    counts = run_bounded(slices, [(f"S{number}", 0, 3, 3, "OPEN") for number in range(300)])
    assert (counts["sequence_ok"], counts["gaps_small"]) == (300, 300)


def test_a_slice_of_the_far_future_does_not_break_the_timer() -> None:
    step = Step()
    step.process([(2**63 - 1, 1)])
    assert step.timer.at == GlobalWindow().max_timestamp()


def test_reset_numbers_of_the_ledger_rows() -> None:
    step = Step()
    step.process(feed(26_941_140, 5) + feed(624_086, 4, 5) + feed(624_092, 1, 12))
    [gap] = step.fire(Timestamp(10_000))
    assert (gap.exchange, gap.symbol, gap.kind, gap.epoch) == (*SequenceKey("X", "S", "trades"), 1)
    assert (gap.first_missing, gap.last_missing, gap.opened_at, gap.revision) == (624_090, 624_091, 12 * SECOND, 0)
    assert gap.gap_id != ""
    step.process(feed(1, 1, 12 + HOUR // SECOND))
    step.fire(Timestamp(10_000))
    assert len(KeyState.from_bytes(step.state.value).epochs) == 3


def test_a_negative_grace_is_refused() -> None:
    with pytest.raises(UsageError, match="grace_seconds is -1"):
        DetectGaps(grace_seconds=-1)
