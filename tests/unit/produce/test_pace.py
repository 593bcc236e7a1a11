"""The spacing of events: what is waited for, and how late what comes is."""

from __future__ import annotations

import math

import pytest

from k2beam.errors import UsageError
from k2beam.produce.pace import MAX_SPEED, Pacer, parse_speed

BEGIN = 1_767_571_200_000_000


class Clock:
    """Time that passes while one sleeps, ``slow`` seconds more each time."""

    def __init__(self, slow: float = 0.0) -> None:
        self.now, self.slow = 100.0, slow
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + self.slow


@pytest.mark.parametrize(("text", "factor"), [("1x", 1), ("10x", 10), ("0.5x", 0.5), ("max", math.inf)])
def test_speeds(text: str, factor: float) -> None:
    assert parse_speed(text) == factor


@pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "1", "fast", "1e3x", "nanx", "infx"])
def test_what_is_no_speed_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--speed is max, 1x, or a multiple"):
        parse_speed(text)


@pytest.mark.parametrize("speed", [1.0, 10.0, 0.5])
def test_events_have_their_spacing_divided_by_the_speed(speed: float) -> None:
    clock = Clock()
    pacer = Pacer(speed, clock, clock.sleep)
    times = [0, 0, 250_000, 250_001, 3_000_000]
    at = []
    for time in times:
        pacer.wait(BEGIN + time)
        at.append(clock.now - 100)
    assert at == pytest.approx([time / 1e6 / speed for time in times])
    assert pacer.late_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_at_full_speed_nothing_is_waited_for() -> None:
    clock = Clock()
    pacer = Pacer(MAX_SPEED, clock, clock.sleep)
    for time in (0, 10**9, 5):
        pacer.wait(BEGIN + time)
    assert (clock.slept, pacer.late_ms()) == ([], {})


def test_what_is_late_is_counted_and_not_made_up_for_by_less_spacing_later() -> None:
    clock = Clock()
    pacer = Pacer(1.0, clock, clock.sleep)
    pacer.wait(BEGIN)
    clock.now += 2  # what is behind was slow
    pacer.wait(BEGIN + 500_000)
    assert clock.now == 102
    pacer.wait(BEGIN + 3_000_000)
    assert clock.now == pytest.approx(103)
    assert pacer.late_ms() == {"p50": 0.0, "p99": 1500.0, "max": 1500.0}


def test_an_earlier_time_is_due_at_once() -> None:
    clock = Clock()
    pacer = Pacer(1.0, clock, clock.sleep)
    pacer.wait(BEGIN)
    pacer.wait(BEGIN - 10)
    assert clock.slept == []


def test_a_wait_ends_soon_after_it_is_to_stop() -> None:
    clock = Clock()
    pacer = Pacer(1.0, clock, clock.sleep, stopped=lambda: clock.now > 101)
    pacer.wait(BEGIN)
    pacer.wait(BEGIN + 3_600_000_000)
    assert clock.now < 102
