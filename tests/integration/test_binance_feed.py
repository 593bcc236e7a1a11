"""The websocket client against a real websocket server, which replays frames in Binance's form and misbehaves."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from collections import Counter
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from k2beam.errors import FeedError, UsageError
from k2beam.feeds.binance.frames import BinanceFeed, parse_pairs
from k2beam.feeds.client import FeedClient, FeedStats, Limits
from tests.integration.binance_exchange import acknowledge, plays, quote, trade
from tests.integration.feed_servers import DEADLINE, Exchange, Recorder

pytestmark = pytest.mark.integration

PAIRS = parse_pairs("btcusdt")
LIMITS = Limits(
    silence=5.0,
    overlap=0.1,
    open_timeout=2.0,
    reply_timeout=2.0,
    close_timeout=0.1,
    request_pause=0.01,
    backoff=0.01,
    backoff_limit=0.05,
)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not for the local server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class FakeMetrics:
    """Remembers what is counted; with ``event``, it's set when ``name`` is. Repeats and bad frames count at once."""

    def __init__(self, name: str = "", event: asyncio.Event | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.calls: list[tuple[str, dict[str, str]]] = []
        self._name, self._event = name, event

    def increment(self, name: str, /, value: float = 1, **labels: str) -> None:
        self.counts[name] += int(value)
        self.calls.append((name, labels))
        if name == self._name and self._event is not None:
            self._event.set()


def drive(
    exchange: Exchange,
    sink: Recorder,
    *,
    limits: Limits = LIMITS,
    messages: int | None = None,
    before: tuple[str, ...] = (),
    **options: Any,
) -> FeedStats:
    """Run a client against a server until it has ``messages``; ``before`` are addresses to be tried first."""

    async def run() -> FeedStats:
        async with exchange:
            subscription = BinanceFeed(PAIRS, bases=(*before, exchange.address))
            client = FeedClient(subscription, sink, limits, chance=random.Random(1), **options)
            async with asyncio.timeout(DEADLINE):
                return await client.run(asyncio.Event(), messages)

    return asyncio.run(run())


def test_events_arrive_in_order_and_are_flushed() -> None:
    sink, exchange = Recorder(), Exchange(plays(trade(1), quote(7), trade(2), quote(9), trade(3), trade(4)))
    stats = drive(exchange, sink, messages=5)

    assert sink.ids == [1, 2, 3]
    assert [record["vendor_data"]["update_id"] for record in sink.quotes] == ["7", "9"]
    assert sink.calls == ["trade", "quote", "trade", "quote", "trade", "flush"]
    assert (stats.trades, stats.quotes, stats.connections) == (3, 2, 1)
    assert (stats.reconnects, stats.bad_frames, stats.silent_streams) == ({}, {}, set())
    assert exchange.paths == ["/stream?timeUnit=MICROSECOND"]


def test_the_time_of_receipt_is_that_of_the_clock() -> None:
    sink = Recorder()
    drive(Exchange(plays(quote(7))), sink, messages=1, clock=lambda: 1_700_000_000_123_456_789)
    assert sink.quotes[0]["ingestion_timestamp"].isoformat() == "2023-11-14T22:13:20.123456+00:00"


def test_many_streams_are_asked_for_in_parts_that_are_each_acknowledged() -> None:
    asked: list[list[str]] = []

    async def script(connection: ServerConnection) -> None:
        asked.append(await acknowledge(connection))
        # What comes before the second acknowledgement is taken as well.
        await connection.send(trade(1, s="C1USDT"))
        asked.append(await acknowledge(connection))
        await connection.send(trade(2, s="C1USDT"))
        await connection.wait_closed()

    async def run() -> FeedStats:
        async with Exchange(script) as exchange:
            pairs = parse_pairs(",".join(f"c{number}usdt" for number in range(75)))
            client = FeedClient(BinanceFeed(pairs, bases=(exchange.address,)), sink, LIMITS)
            return await client.run(asyncio.Event(), 2)

    sink = Recorder()
    stats = asyncio.run(run())
    assert [len(part) for part in asked] == [100, 50]
    assert len({*asked[0], *asked[1]}) == 150
    assert sink.ids == [1, 2]
    assert len(stats.silent_streams) == 149
    assert "c1usdt@trade" not in stats.silent_streams


def test_garbage_is_counted_kept_and_logged_within_bounds(caplog: pytest.LogCaptureFixture) -> None:
    noise = ["not json", b"\xff\x00", "{}", trade(5, s="ETHUSDT"), trade(6, p="x")]
    frames = [frame for number in range(1, 31) for frame in (*noise, trade(number))]
    sink, metrics = Recorder(), FakeMetrics()
    with caplog.at_level(logging.WARNING, "k2beam"):
        stats = drive(Exchange(plays(*frames)), sink, messages=30, metrics=metrics)

    assert sink.ids == list(range(1, 31))
    assert stats.bad_frames == {"json": 60, "shape": 30, "symbol": 30, "value": 30}
    kept = [frame.encode() if isinstance(frame, str) else frame for frame in noise]
    assert [message for message, _ in sink.unreadable] == kept * 30
    assert sink.unreadable[4][1].startswith("p is not a number written as text")
    assert [record.args[0] for record in caplog.records if "bad frame" in record.msg] == [1, 2, 3, 4, 5, 10, 100]
    counted = [labels for name, labels in metrics.calls if name == "k2_feed_bad_frames_total"]
    assert len(counted) == 150
    assert counted[0] == {"exchange": "BINANCE", "reason": "json"}
    assert metrics.counts["k2_feed_messages_total"] == 30


def test_a_dropped_connection_is_made_again() -> None:
    exchange = Exchange(plays(trade(1), then="drop"), plays(trade(2), then="drop"), plays(trade(3)))
    sink, metrics = Recorder(), FakeMetrics()
    stats = drive(exchange, sink, messages=3, metrics=metrics)

    assert sink.ids == [1, 2, 3]
    assert (stats.connections, stats.reconnects, stats.handovers) == (3, {"closed": 2}, 0)
    assert [labels["reason"] for name, labels in metrics.calls if name == "k2_feed_reconnects_total"] == ["closed"] * 2


def test_a_repeated_trade_is_left_out() -> None:
    exchange = Exchange(plays(trade(1), trade(2), then="drop"), plays(trade(2), trade(1), trade(3)))
    sink = Recorder()
    stats = drive(exchange, sink, messages=3)
    assert (sink.ids, stats.duplicates, stats.trades) == ([1, 2, 3], 2, 3)


def test_silence_leads_to_the_next_address() -> None:
    """Garbage and replies are no market events: a connection that gives nothing else is silent.

    The trades come before the acknowledgement, from which on there may be silence, so that no stall can part them.
    """

    async def mutters(connection: ServerConnection) -> None:
        await connection.send(trade(1))
        await acknowledge(connection)
        while True:
            await connection.send('{"result": null, "id": 9}')
            await connection.send("garbage")
            await asyncio.sleep(0.05)

    async def speaks(connection: ServerConnection) -> None:
        await connection.send(trade(2))
        await plays()(connection)

    async def run() -> FeedStats:
        async with Exchange(mutters) as first, Exchange(speaks) as second:
            client = FeedClient(BinanceFeed(PAIRS, bases=(first.address, second.address)), sink, limits)
            async with asyncio.timeout(DEADLINE):
                return await client.run(asyncio.Event(), 2)

    sink, limits = Recorder(), Limits(silence=0.3, backoff=0.01, close_timeout=0.1)
    stats = asyncio.run(run())
    assert sink.ids == [1, 2]
    assert stats.reconnects == {"silence": 1}


def test_the_next_address_is_tried_where_one_can_not_be_reached() -> None:
    sink, exchange = Recorder(), Exchange(plays(trade(1)), reject=1)
    # Nothing listens on port 1; the server answers its first request with 503.
    stats = drive(exchange, sink, messages=1, before=("ws://127.0.0.1:1",))
    assert (sink.ids, stats.reconnects, stats.connections) == ([1], {"unreachable": 3}, 1)


def test_a_connection_that_gave_events_starts_the_backoff_anew() -> None:
    """Attempts are counted in a row: with two allowed, many drops in between do no harm."""
    drops = [plays(trade(number), then="drop") for number in range(1, 6)]
    sink, limits = Recorder(), Limits(backoff=0.01, attempts=2)
    drive(Exchange(*drops, plays(trade(6))), sink, messages=6, limits=limits)
    assert sink.ids == [1, 2, 3, 4, 5, 6]


REFUSAL = {"code": 2, "msg": "Invalid request"}


@pytest.mark.parametrize("error", [REFUSAL, {"error": REFUSAL, "id": 1}])
def test_a_refused_subscription_ends_the_first_connection_with_an_error(error: dict[str, Any]) -> None:
    async def refuses(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(json.dumps(error))
        await connection.wait_closed()

    with pytest.raises(FeedError, match=r"Invalid request.*--symbols"):
        drive(Exchange(refuses), Recorder())
    # Once it worked, a refusal is a fault of the server, and passes.
    sink = Recorder()
    stats = drive(Exchange(plays(trade(1), then="drop"), refuses, plays(trade(2))), sink, messages=2)
    assert (sink.ids, stats.reconnects) == ([1, 2], {"closed": 1, "refused": 1})


def test_a_request_without_a_reply_is_given_up() -> None:
    async def ignores(connection: ServerConnection) -> None:
        await connection.recv()
        # The reply to another request is not the one to ours, nor is one to nothing.
        await connection.send(json.dumps({"error": REFUSAL, "id": 99}))
        await connection.send('{"result": null, "id": null}')
        await connection.wait_closed()

    sink, limits = Recorder(), Limits(reply_timeout=0.2, backoff=0.01, close_timeout=0.1)
    stats = drive(Exchange(ignores, plays(trade(1))), sink, messages=1, limits=limits)
    assert (stats.reconnects, stats.connections, sink.ids) == ({"reply": 1}, 1, [1])


def test_pings_of_the_server_are_answered_with_their_payload() -> None:
    answered: list[float] = []

    async def pings(connection: ServerConnection) -> None:
        await acknowledge(connection)
        for number in range(3):
            answered.append(await (await connection.ping(f"payload {number}")))
        await connection.send(trade(1))
        await connection.wait_closed()

    drive(Exchange(pings), Recorder(), messages=1)
    assert len(answered) == 3


def test_a_server_that_answers_no_pings_is_left() -> None:
    left = asyncio.Event()

    async def freezes(connection: ServerConnection) -> None:
        await connection.send(trade(1))
        await acknowledge(connection)
        connection.transport.pause_reading()
        await asyncio.wait([asyncio.create_task(left.wait())], timeout=DEADLINE)
        connection.transport.abort()

    async def goes_on(connection: ServerConnection) -> None:
        left.set()
        await connection.send(trade(2))
        await plays()(connection)

    sink = Recorder()
    # The timeout is for a server that answers late on a loaded machine, as this one does before it freezes.
    limits = Limits(silence=DEADLINE, ping_interval=0.05, ping_timeout=1.5, backoff=0.01, close_timeout=0.1)
    stats = drive(Exchange(freezes, goes_on), sink, messages=2, limits=limits)
    assert (sink.ids, stats.reconnects) == ([1, 2], {"closed": 1})


class Market:
    """A market that all connections of a server see, each with a delay of its own, in trades.

    A connection that has given the first trade of its successor says so, by a frame that counts as a bad one.
    """

    def __init__(self) -> None:
        self.delays = itertools.cycle([0, 20, 5])
        self.last = 0
        self.firsts: list[int] = []

    async def trades(self) -> None:
        """The market goes on by itself, and stands still while this process does."""
        while True:
            await asyncio.sleep(0.002)
            self.last += 1

    async def __call__(self, connection: ServerConnection) -> None:
        delay, number, successor = next(self.delays), self.last + 1, len(self.firsts) + 1
        self.firsts.append(number)
        await acknowledge(connection)
        while True:
            while number <= self.last - delay:
                await connection.send(trade(number))
                if number in self.firsts[successor : successor + 1]:
                    await connection.send("caught up")
                number += 1
            await asyncio.sleep(0.002)


def test_planned_hand_overs_lose_nothing_and_repeat_nothing() -> None:
    """The overlap ends when the older connection has caught up, however slow this machine is.

    At that moment nothing is missing among what was read: there the run is stopped.
    """
    sink, market, waits = Recorder(), Market(), list[float]()

    async def run() -> FeedStats:
        caught_up, stop = asyncio.Event(), asyncio.Event()

        async def overlap(seconds: float) -> None:
            await caught_up.wait()
            caught_up.clear()
            waits.append(seconds)
            if len(waits) == 4:
                stop.set()

        async with exchange, asyncio.timeout(DEADLINE):
            # It goes on to the end: a connection sees that it's closed when it sends.
            trades = asyncio.create_task(market.trades())
            subscription = BinanceFeed(PAIRS, bases=(exchange.address,))
            metrics: Any = FakeMetrics("k2_feed_bad_frames_total", caught_up)
            client = FeedClient(subscription, sink, limits, metrics=metrics, sleep=overlap)
            stats = await client.run(stop)
            assert not trades.done()
            return stats

    exchange, limits = Exchange(market), Limits(lifetime=0.2, overlap=7.0, backoff=0.01, close_timeout=0.1)
    stats = asyncio.run(run())
    assert waits == [7.0] * 4
    assert stats.handovers >= 3
    assert stats.duplicates >= 3
    assert stats.reconnects == {"planned": stats.handovers}
    assert exchange.most_open == 2
    assert sorted(sink.ids) == list(range(min(sink.ids), max(sink.ids) + 1))


def test_a_notice_of_a_shutdown_leads_to_a_hand_over() -> None:
    async def leaves(connection: ServerConnection) -> None:
        await acknowledge(connection)
        await connection.send(trade(1))
        await connection.send('{"e": "serverShutdown", "E": 1770123456789}')
        await connection.send(trade(2))
        await connection.wait_closed()

    sink = Recorder()
    stats = drive(Exchange(leaves, plays(trade(2), trade(3))), sink, messages=3)
    assert (sink.ids, stats.connections) == ([1, 2, 3], 2)
    assert stats.reconnects.keys() <= {"planned"}


def test_the_old_connection_goes_on_while_its_successor_fails() -> None:

    async def old(connection: ServerConnection) -> None:
        await acknowledge(connection)
        for number in itertools.count(1):
            await connection.send(trade(number))
            await asyncio.sleep(0.01)

    async def fails(connection: ServerConnection) -> None:
        await acknowledge(connection)
        await overlapping.wait()
        overlapping.clear()
        connection.transport.abort()

    async def sleep(seconds: float) -> None:
        if seconds != limits.overlap or len(exchange.paths) > 3:
            await asyncio.sleep(seconds)
            return
        # The overlap with one that fails lasts until the client must have seen it.
        overlapping.set()
        while exchange.open > 1:
            await asyncio.sleep(0.005)
        for _ in range(100):
            await asyncio.sleep(0)

    async def after(connection: ServerConnection) -> None:
        await acknowledge(connection)
        open_then.append(exchange.open)
        for number in later:
            await connection.send(trade(number))
            await asyncio.sleep(0.01)

    sink, later, open_then, overlapping = Recorder(), itertools.count(1_000_000), list[int](), asyncio.Event()
    limits = Limits(lifetime=0.1, overlap=0.1, backoff=0.05, close_timeout=0.1)
    exchange = Exchange(old, fails, fails, after)
    stats = drive(exchange, sink, messages=80, limits=limits, sleep=sleep)
    olds = [number for number in sink.ids if number < 1_000_000]
    assert olds == list(range(1, len(olds) + 1))
    assert open_then[0] == 2
    assert stats.reconnects["closed"] == 2


def test_a_slow_sink_holds_reading_back_and_loses_nothing() -> None:
    """Nor is the exchange silent when it is the sink that is slow."""
    sink = Recorder(delay=0.08)
    limits = Limits(silence=0.25, queue=5, backoff=0.01)
    stats = drive(Exchange(plays(*(trade(number) for number in range(1, 21)))), sink, messages=20, limits=limits)
    assert sink.ids == list(range(1, 21))
    assert (stats.connections, stats.reconnects) == (1, {})


@pytest.mark.parametrize("queue", [2, 1000])
def test_an_error_of_the_sink_ends_the_run(queue: int) -> None:
    sink = Recorder(fails_at=3)
    frames = [trade(number) for number in range(1, 101)]
    with pytest.raises(UsageError, match="the sink is broken"):
        drive(Exchange(plays(*frames)), sink, limits=Limits(queue=queue))
    assert sink.ids == [1, 2, 3]
    assert "flush" not in sink.calls


def run_until_read(sink: Recorder, duration: float | None) -> bool:
    """Let a server send 100 trades, and end the run by ``duration`` or, without one, by a stop when all were read.

    Whether all were read; a duration may be too short for that. After them comes a bad frame, which counts when it's
    read.
    """

    async def run() -> bool:
        read, stop = asyncio.Event(), asyncio.Event()
        frames = [*(trade(number) for number in range(1, 101)), "the end"]
        async with Exchange(plays(*frames)) as exchange, asyncio.timeout(DEADLINE):
            subscription = BinanceFeed(PAIRS, bases=(exchange.address,))
            metrics: Any = FakeMetrics("k2_feed_bad_frames_total", read)
            client = FeedClient(subscription, sink, LIMITS, metrics=metrics)
            running = asyncio.create_task(client.run(stop, duration=duration))
            if duration is None:
                await read.wait()
                stop.set()
            await running
        return read.is_set()

    return asyncio.run(run())


def test_a_stop_delivers_what_was_read() -> None:
    sink = Recorder(delay=0.002)
    assert run_until_read(sink, None)
    assert sink.ids == list(range(1, 101))
    assert sink.calls[-1] == "flush"


def test_a_duration_delivers_what_was_read() -> None:
    for duration in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4):
        sink = Recorder(delay=0.01)
        read = run_until_read(sink, duration)
        assert sink.ids == list(range(1, len(sink.ids) + 1))
        assert sink.calls[-1] == "flush"
        if read:
            break
    assert sink.ids == list(range(1, 101))
