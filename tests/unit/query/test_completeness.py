"""What is called complete: never over a message that is missing, and always where none can be."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from k2beam.cli.main import app
from k2beam.config import NAMESPACE
from k2beam.errors import IncompleteAnswer
from k2beam.lake.rules import keep_rules
from k2beam.query.lake import Lake
from k2beam.sequence import SequenceRules, recount
from tests.query_fixtures import (
    DAY,
    SECOND,
    append_events,
    append_gap_rows,
    gap,
    make_catalog,
    quote,
    trade,
)

MINUTE = 60 * SECOND
Messages = dict[str, list[tuple[int, int]]]
"""Of each symbol times and numbers."""


def moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def fed(seed: int, symbols: int, minutes: int) -> tuple[Messages, Messages]:
    """What a feed sent and what of it came: gaps of all lengths, ties, events out of order, one symbol begins anew."""
    rng = random.Random(seed)
    sent, came = Messages(), Messages()
    for place in range(symbols):
        number, messages = rng.randrange(1, 10**9), []
        for minute in range(minutes):
            if place == 0 and minute == minutes // 2:
                number = 1
            for _ in range(rng.choice((0, 1, 3, 6, 9))):
                messages.append((DAY + minute * MINUTE + rng.randrange(MINUTE), number))
                number += 1
        times = sorted(time for time, _ in messages)
        messages = [(time, number) for time, (_, number) in zip(times, messages, strict=True)]
        lost = set()
        for at in range(5, len(messages) - 5):
            if rng.random() < 0.01:
                lost.update(range(at, min(at + rng.choice((1, 1, 2, 5, 40)), len(messages) - 5)))
        for at in range(1, len(messages)):
            if rng.random() < 0.02 and place and lost.isdisjoint((at - 1, at)):
                (one, first), (two, second) = messages[at - 1 : at + 1]
                messages[at - 1 : at + 1] = [(one, second), (two, first)]
        name = f"S{place:02}"
        sent[name] = messages
        came[name] = [one for at, one in enumerate(messages) if at not in lost]
    return sent, came


def ledger_of(came: Messages, kind: str = "trades") -> list[dict[str, Any]]:
    return [
        gap(f"{symbol}-{epoch.number}-{found.first}", found.first, found.last, symbol=symbol, kind=kind)
        | {"epoch": epoch.number, "opened_at": found.opened_at}
        for symbol, messages in came.items()
        for epoch in recount(*(np.array(column) for column in zip(*messages, strict=True)))
        for found in epoch.gaps
    ]


def gaps_in_time(messages: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Of each gap the times that it lies between, and its size, in the most literal way."""
    found = []
    for epoch in recount(*(np.array(column) for column in zip(*messages, strict=True))):
        for one in epoch.gaps:
            before = [time for time, number in messages if number == one.first - 1]
            near = min(before, key=lambda time: abs(time - one.opened_at))
            found.append((min(near, one.opened_at), max(near, one.opened_at), one.count))
    return found


def stored(catalog: Any, came: Messages) -> None:
    offsets = itertools.count()
    rows = [
        trade(next(offsets), (time - DAY) / SECOND, symbol=symbol, source_sequence=number)
        for symbol, messages in came.items()
        for time, number in messages
    ]
    append_events(catalog, "trades", rows)


@pytest.mark.parametrize("told", ["whole", "late", "early", "none"])
def test_ten_thousand_bars_over_planted_gaps(tmp_path: Path, told: str) -> None:
    """The ledger has all gaps, or not yet some, or still some that were filled, or nothing: the bars say the same."""
    sent, came = fed(seed=11, symbols=26, minutes=600)
    catalog = make_catalog(tmp_path)
    stored(catalog, came)
    ledger = ledger_of(came)
    if told == "early":
        ledger += ledger_of({name: came[name][:7] + came[name][9:] for name in ("S03", "S04")})
    append_gap_rows(catalog, {"whole": ledger, "late": ledger[::2], "early": ledger, "none": ledger[:1]}[told])
    bars = Lake(str(tmp_path)).bars("1m", completeness=True).to_pylist()
    assert len(bars) > 10_000
    missing, ends = defaultdict(set), {name: (min(messages), max(messages)) for name, messages in came.items()}
    for symbol, messages in sent.items():
        for time, _ in set(messages) - set(came[symbol]):
            missing[symbol].add((time - DAY) // MINUTE)
    spans = {symbol: gaps_in_time(messages) for symbol, messages in came.items()}
    counts = defaultdict(int)
    for bar in bars:
        start, end, symbol = (
            *((bar[name] - moment(0)) // timedelta(microseconds=1) for name in ("start", "end")),
            bar["symbol"],
        )
        touching = sum(size for low, high, size in spans[symbol] if low < end and high >= start)
        is_edge = not (ends[symbol][0][0] < start and ends[symbol][1][0] >= end)
        wanted = (False, touching) if touching else (None, None) if is_edge else (True, 0)
        assert (bar["complete"], bar["missing"]) == wanted, bar
        assert not (bar["complete"] and (start - DAY) // MINUTE in missing[symbol])
        counts[bar["complete"]] += 1
    assert counts[False] > 500
    assert counts[True] > 5_000


def small(folder: Path) -> Lake:
    """Numbers 1 to 9, of which 4 and 5 are missing, ten seconds from each other; quotes likewise, 7 is missing."""
    catalog = make_catalog(folder)
    append_events(catalog, "trades", [trade(n, 10 * n, source_sequence=n) for n in (1, 2, 3, 6, 7, 8, 9)])
    append_events(catalog, "quotes", [quote(n, 10 * n - 5, source_sequence=n) for n in (1, 2, 3, 4, 5, 6, 8, 9, 10)])
    append_gap_rows(
        catalog,
        [
            gap("a", 4, 5, opened_at=DAY + 60 * SECOND),
            gap("q", 7, 7, kind="quotes", opened_at=DAY + 75 * SECOND),
            gap("f", 2, 2, "FILLED", 1, opened_at=DAY + 30 * SECOND),
        ],
    )
    return Lake(str(folder))


def told(rows: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["complete"], row["missing"]) for row in rows]


def test_messages_around_the_selection_tell_of_its_ends(tmp_path: Path) -> None:
    lake = small(tmp_path)

    def bars(start: int, end: int, every: str = "10s") -> list[tuple[Any, ...]]:
        span = {"start": moment(DAY + start * SECOND), "end": moment(DAY + end * SECOND)}
        return told(lake.bars(every, completeness=True, **span).to_pylist())

    assert bars(20, 30) == [(True, 0)]
    assert bars(80, 90) == [(True, 0)]
    assert bars(10, 20) == [(None, None)]  # nothing came before
    assert bars(90, 100) == [(None, None)]  # nothing came after
    assert bars(30, 40) == [(False, 2)]  # the gap may begin in it
    assert bars(60, 70) == [(False, 2)]  # and end in it
    assert bars(25, 31) == [(False, 2)]
    assert bars(75, 85) == [(None, None)]  # only a part of a bar was asked for


def test_bars_of_trades_and_empty_bars(tmp_path: Path) -> None:
    lake = small(tmp_path)
    rows = told(lake.bars("2 trades", completeness=True).to_pylist())
    assert rows == [(None, None), (False, 2), (True, 0), (None, None)]
    rows = told(lake.bars("10s", completeness=True, empty=True).to_pylist())
    assert rows == [(None, None), (True, 0), *[(False, 2)] * 4, (True, 0), (True, 0), (None, None)]
    rows = told(lake.bars("10s", zone="Asia/Kolkata", completeness=True).to_pylist())
    assert rows == [(None, None), (True, 0), (False, 2), (False, 2), (True, 0), (True, 0), (None, None)]


def test_summaries(tmp_path: Path) -> None:
    lake = small(tmp_path)
    day = lake.summary("BTCUSDT", "2026-01-05", completeness=True)
    assert (day.trades, day.complete, day.missing) == (7, False, 2)
    plain = lake.summary("BTCUSDT", "2026-01-05")
    assert (plain.complete, plain.missing) == (None, None)
    append_events(
        lake.catalog,
        "trades",
        [trade(n + 40, n * 3_600, symbol="ETHUSDT") for n in range(-1, 26)],
    )
    whole = lake.summary("ETHUSDT", "2026-01-05", completeness=True, strict=True)
    assert (whole.trades, whole.complete, whole.missing) == (24, True, 0)
    never = lake.summary("NONE", "2026-01-05", completeness=True)
    assert (never.complete, never.missing) == (None, None)
    with pytest.raises(IncompleteAnswer, match="BTCUSDT on BINANCE: 2 messages may be missing"):
        lake.summary("BTCUSDT", "2026-01-05", strict=True)


def test_a_trade_whose_quote_may_have_been_followed_by_a_missing_one(tmp_path: Path) -> None:
    lake = small(tmp_path)
    rows = lake.asof(completeness=True).to_pylist()
    found = {row["source_sequence"]: (row["complete"], row["missing"]) for row in rows}
    # Quote 6 is of second 55 and quote 8 of second 75: 7 may be before the trades of the seconds 60 and 70.
    assert found == {1: (True, 0), 2: (True, 0), 3: (True, 0), 6: (False, 1), 7: (False, 1), 8: (True, 0), 9: (True, 0)}
    late = lake.asof(start=moment(DAY + 65 * SECOND), end=moment(DAY + 72 * SECOND), completeness=True).to_pylist()
    assert [(row["source_sequence"], row["complete"]) for row in late] == [(7, False)]
    before = lake.asof(start=moment(DAY + 20 * SECOND), end=moment(DAY + 22 * SECOND), strict=True).to_pylist()
    assert [(row["source_sequence"], row["complete"]) for row in before] == [(2, True)]
    with pytest.raises(IncompleteAnswer):
        lake.asof(strict=True)


def test_without_numbers_nothing_is_known(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(n, 10 * n, source_sequence=None) for n in range(5)])
    lake = Lake(str(tmp_path))
    assert told(lake.bars("10s", completeness=True).to_pylist()) == [(None, None)] * 5
    append_events(catalog, "trades", [trade(n, 10 * n, symbol="X", source_sequence=n) for n in range(5)])
    assert told(lake.bars("10s", "X", completeness=True).to_pylist())[1:4] == [(True, 0)] * 3
    keep_rules(catalog, NAMESPACE, SequenceRules.parse('[[rule]]\nexchange = "BINANCE"\nunsequenced = true', "here"))
    assert told(lake.bars("10s", "X", completeness=True).to_pylist()) == [(None, None)] * 5


def test_rows_and_ledger_are_of_one_moment(tmp_path: Path) -> None:
    lake = small(tmp_path)
    before = lake.snapshots()
    append_events(lake.catalog, "trades", [trade(n, 10 * n, source_sequence=n) for n in (4, 5)])
    append_gap_rows(lake.catalog, [gap("a", 4, 5, "FILLED", 1, opened_at=DAY + 60 * SECOND)])
    assert told(lake.bars("1m", completeness=True, as_of=before).to_pylist()) == [(False, 2), (False, 2)]
    assert told(lake.bars("10s", completeness=True).to_pylist())[1:-1] == [(True, 0)] * 7
    number = before.ids["trades_v2"]
    assert told(lake.bars("1m", completeness=True, as_of=number).to_pylist())[0][0] is False


def test_the_commands(tmp_path: Path) -> None:
    small(tmp_path)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["query", *arguments, "--warehouse", str(tmp_path), "--output", "json"])

    bars = json.loads(run("bars", "--every", "10s", "--completeness").stdout)
    assert told(bars) == [(None, None), (True, 0), (False, 2), (False, 2), (True, 0), (True, 0), (None, None)]
    assert "complete" not in json.loads(run("bars", "--every", "10s").stdout)[0]
    assert json.loads(run("asof", "--completeness").stdout)[3]["complete"] is False
    day = ["--symbol", "BTCUSDT", "--day", "2026-01-05"]
    assert json.loads(run("summary", *day, "--completeness").stdout)["missing"] == 2
    for command in (["bars", "--every", "1m"], ["asof"], ["summary", *day]):
        result = run(*command, "--strict")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "messages may be missing there; `k2beam gaps` lists the gaps" in result.stderr
    span = ["--from", "2026-01-05T00:01:10", "--to", "2026-01-05T00:01:30"]
    assert told(json.loads(run("bars", "--every", "10s", "--strict", *span).stdout)) == [(True, 0), (True, 0)]
