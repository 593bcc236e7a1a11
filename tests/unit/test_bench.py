"""What the benchmarks judge by: when a job began, what rate a feed reached, whether a run of the demo was right."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from bench.demo import FAULTS, DemoFailed, demos
from bench.flink import first_seek
from bench.java_log import first_fetch
from bench.live_feed import Fed
from bench.processes import Usage

EARLIER = """\
900 [pool-2-thread-1] INFO org.apache.kafka.common.utils.AppInfoParser - Kafka startTimeMs: 1700000000897
"""
LATER = """\
5000 [pool-3-thread-1] INFO …AppInfoParser - Kafka startTimeMs: 1700000005000
5010 [pool-3-thread-1] INFO …Consumer - [groupId=k2beam-b] Seeking to offset 0 for partition other.t-0
5020 [pool-3-thread-1] INFO …ConsumerUtils - [groupId=k2beam-b] Setting offset for partition t.x-1
5030 [pool-3-thread-1] INFO …Consumer - [clientId=c-3, groupId=k2beam-b] Seeking to offset 7 for partition t.x-1
5040 [pool-3-thread-2] INFO …Consumer - [clientId=c-4, groupId=k2beam-b] Seeking to offset 0 for partition t.x-0
"""


def test_a_job_begins_with_its_first_reader_by_the_clock_of_its_clients() -> None:
    assert first_fetch(EARLIER, LATER, "t.x") == 1_700_000_005.030


def test_readers_of_an_earlier_job_do_not_count() -> None:
    seek = "{} [t] INFO … - [Consumer clientId=c-1, groupId=k2beam-a] Seeking to offset 3 for partition t.x-0\n"
    assert first_fetch(EARLIER + seek.format(800), seek.format(4000) + LATER, "t.x") == 1_700_000_005.030


def test_a_log_without_a_reader_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no consumer of t\.y"):
        first_fetch(EARLIER, LATER, "t.y")


def test_a_reader_in_a_taskmanager_begins_where_its_log_says_so() -> None:
    line = "2026-01-05 00:00:0{},500 INFO  ConsumerUtils [] - Setting offset for partition {}-0 to the committed offset"
    log = "\n".join((line.format(1, "other"), line.format(2, "t.x"), line.format(3, "t.x")))
    assert first_seek(log, "t.x") == datetime(2026, 1, 5, 0, 0, 2, 500_000).astimezone().timestamp()
    with pytest.raises(SystemExit, match=r"no consumer of t\.y"):
        first_seek(log, "t.y")


def test_processor_time_between_two_moments_is_that_of_the_last_looks_before_them() -> None:
    used = Usage(_seen=[(10.0, 1.0), (20.0, 3.0), (30.0, 7.0)])
    assert [used.between(*moments) for moments in ((20.0, 30.0), (5.0, 29.9), (31.0, 40.0))] == [4.0, 3.0, 0.0]


def test_a_feed_may_be_five_per_cent_slower_than_asked() -> None:
    Fed(messages=1000, asked=1000, elapsed_s=1.05).check(1000)


@pytest.mark.parametrize(
    ("fed", "reason"),
    [
        (Fed(messages=1000, asked=1000, elapsed_s=1.06), r"too slow .* 1,000 of 1,000 messages in 1.1 s, 943 a second"),
        (Fed(messages=960, asked=1000, elapsed_s=1.0), "too slow .* 960 of 1,000"),
        (Fed(messages=1000, asked=1000, elapsed_s=1.0, first_error="queue full"), "failed: .* queue full"),
    ],
    ids=["slow", "not all", "refused"],
)
def test_a_feed_that_is_not_of_its_rate_ends_the_benchmark(fed: Fed, reason: str) -> None:
    with pytest.raises(SystemExit, match=reason):
        fed.check(1000)


def report(ok: bool = True, problems: tuple[str, ...] = ()) -> str:
    counts = {"produced": 6000, "written": {"trades_v2": 5000, "quotes_v2": 990}, "dead_letters": 10, "gaps": 2}
    return json.dumps({"ok": ok, "problems": problems, **counts})


def test_demos_are_clean_and_faulty_in_turns_each_with_another_feed() -> None:
    given: list[tuple[str, ...]] = []

    def run(options: tuple[str, ...]) -> tuple[int, str, str]:
        given.append(options)
        return 0, report(), ""

    lines = list(demos(3, run))
    assert given == [("--seed", "1"), ("--seed", "2", "--faults", FAULTS), ("--seed", "3")]
    assert lines[1].startswith("2/3 faulty: ok, 6,000 messages, 5,990 rows, 10 dead letters, 2 gaps, ")


@pytest.mark.parametrize(
    ("code", "out", "reason"),
    [
        (1, report(ok=False, problems=("a gap is missing",)), "2/5 faulty: NOT ok, exit code 1: a gap is missing"),
        (0, report(ok=False), "2/5 faulty: NOT ok, exit code 0"),
        (3, report(), "2/5 faulty: NOT ok, exit code 3: the log"),
        (1, "", "2/5 faulty: no report, exit code 1: the log"),
    ],
    ids=["not right", "not ok", "exit code", "no report"],
)
def test_demos_end_at_the_first_that_is_not_right(code: int, out: str, reason: str) -> None:
    results = [(0, report(), ""), (code, out, "the log")]
    runs = demos(5, lambda _options: results.pop(0))
    next(runs)
    with pytest.raises(DemoFailed, match=reason):
        next(runs)
