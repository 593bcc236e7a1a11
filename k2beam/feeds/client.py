"""The websocket client of market data: from an exchange, as its feed describes it, to a sink, without an end.

Delivery: every market event that was read is given to the sink exactly once in the life of a
client, before :meth:`FeedClient.run` returns; what can't be a record, as it came. What the exchange
sends while no connection stands is lost, and shows as a gap in the trade ids. A planned hand-over has
no such time: the new connection is subscribed before the old one goes, both are read for a while, and
repeats go by their message id.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from k2beam.errors import BadFrame, FeedError, InvalidRecord, UsageError
from k2beam.feeds.feed import EventRecord, Feed, FeedMessage, Heartbeat, Market, Reply, Request, Shutdown, Unreadable
from k2beam.feeds.recent_ids import RecentIds
from k2beam.jsonable import to_json
from k2beam.metrics.handle import Metrics, NullMetrics
from k2beam.model import Kind

_log = logging.getLogger(__name__)

_BATCH = 500
_LOGGED_WHOLE = 5


class Sink(Protocol):
    """Where records go; called from one thread at a time, never the event loop's, and may block."""

    def produce_trade(self, record: EventRecord) -> Any: ...
    def produce_quote(self, record: EventRecord) -> Any: ...
    def produce_unreadable(self, kind: Kind, asset_class: str, exchange: str, message: bytes, problem: str) -> Any: ...
    def flush(self) -> Any: ...
    def close(self) -> Any: ...
    def stats(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The times of a client, in seconds, and its sizes.

    ``silence`` and ``lifetime`` are those of the feed (None) or others: a connection without an event or a heartbeat
    for ``silence`` is given up, and one is replaced after ``lifetime``; then both are read for ``overlap``.
    ``remember``: how long message ids are kept. ``backoff`` and ``backoff_limit``: the first and longest wait between
    attempts (Binance takes 300 in five minutes, Kraken 150 in ten, Coinbase 8 a second). ``request_pause``: between
    two requests (Binance takes five messages a second, pings and pongs included). ``ping_*``: our pings; those of an
    exchange are answered by the websocket library. ``queue``: events that wait for the sink before reading waits.
    ``attempts``: failures in a row after which the client gives up; None means never.
    """

    silence: float | None = None
    lifetime: float | None = None
    overlap: float = 5.0
    remember: float = 60.0
    open_timeout: float = 10.0
    reply_timeout: float = 10.0
    close_timeout: float = 5.0
    request_pause: float = 0.5
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    backoff: float = 2.0
    backoff_limit: float = 60.0
    queue: int = 100_000
    attempts: int | None = None

    def __post_init__(self) -> None:
        if self.overlap >= self.remember:
            raise UsageError(f"overlap ({self.overlap} s) must be below remember ({self.remember} s)")


@dataclass(slots=True)
class FeedStats:
    """Counts of a client: ``trades`` and ``quotes`` given to the sink, ``duplicates`` left out,
    ``bad_frames`` by reason (given to the sink as they came), ``connections`` that were subscribed,
    ``handovers`` that were planned, ``reconnects`` by reason, and ``silent_streams`` that never gave an event.
    """

    trades: int = 0
    quotes: int = 0
    duplicates: int = 0
    connections: int = 0
    handovers: int = 0
    bad_frames: Counter[str] = field(default_factory=Counter)
    reconnects: Counter[str] = field(default_factory=Counter)
    silent_streams: set[str] = field(default_factory=set)


def backoff(attempt: int, limits: Limits, chance: random.Random) -> float:
    """Seconds to wait after ``attempt`` failures in a row (from 1): doubled each time, half of it by chance."""
    longest = min(limits.backoff_limit, limits.backoff * 2.0 ** min(attempt - 1, 30))
    return longest * (0.5 + chance.random() / 2)


class _Lost(Exception):
    """A connection is over. ``reason``: unreachable, refused, reply, silence or closed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class _Link:
    """One connection: the task that reads it, and what is known of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.subscribed = asyncio.Event()
        self.leaving = asyncio.Event()
        self.delivered = False
        self.due = math.inf
        self.task: asyncio.Task[None]

    async def ended_or(self, event: asyncio.Event, timeout: float | None = None) -> None:
        """Wait for the end of the task, the event or the timeout, in seconds."""
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait([self.task, waiting], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    def lost(self) -> _Lost:
        """Why it ended. What is no loss of the connection is a defect, and raised."""
        error = self.task.exception()
        if isinstance(error, _Lost):
            return error
        raise error if error else AssertionError("a connection's task ended without a reason")

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.lost()


class FeedClient:
    """Reads ``feed`` into ``sink`` until it is told to stop.

    ``metrics`` counts k2_feed_* where given; ``clock`` gives nanoseconds since the epoch, UTC; ``chance``
    and ``sleep`` are those of the backoff and the hand-over.
    """

    def __init__(
        self,
        feed: Feed,
        sink: Sink,
        limits: Limits | None = None,
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], int] = time.time_ns,
        chance: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.limits = limits or Limits()
        self._feed = feed
        self._silence = feed.silence if self.limits.silence is None else self.limits.silence
        self._lifetime = feed.lifetime if self.limits.lifetime is None else self.limits.lifetime
        self._sink = sink
        self._metrics = NullMetrics() if metrics is None else metrics
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads attempts, keeps no secret
        self._sleep = sleep
        self._stats = FeedStats(silent_streams=set(feed.streams))
        self._recent = RecentIds(self.limits.remember, feed.repeats)
        self._queue: asyncio.Queue[Market | Unreadable | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._links: set[_Link] = set()
        self._address = 0
        self._failures = 0
        self._taken = 0
        self._most: int | None = None
        self._full = asyncio.Event()

    async def run(
        self, stop: asyncio.Event, max_messages: int | None = None, duration: float | None = None
    ) -> FeedStats:
        """Read until ``stop`` is set, ``max_messages`` events were taken or ``duration`` seconds are over; then flush.

        To be called once. Raises FeedError where the first connection is refused or the attempts are
        used up, and what the sink raises.
        """
        self._most = max_messages
        supervisor = asyncio.create_task(self._supervise())
        delivery = asyncio.create_task(self._deliver())
        ends = [asyncio.create_task(event.wait()) for event in (stop, self._full)]
        try:
            await asyncio.wait([supervisor, delivery, *ends], timeout=duration, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (supervisor, *ends):
                task.cancel()
            await asyncio.wait([supervisor, *ends])
            for link in self._links:
                await link.end()
            # What was taken is delivered, whatever ended the reading; but a sink that failed takes nothing more.
            self._queue.put_nowait(None)
            await asyncio.wait([delivery])
        delivery.result()
        await asyncio.to_thread(self._sink.flush)
        if not supervisor.cancelled():
            supervisor.result()
        return self._stats

    async def _deliver(self) -> None:
        """Give the queue to the sink in its order, a batch at a time, up to a None."""
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty() and len(batch) < _BATCH:
                batch.append(self._queue.get_nowait())
            if self._queue.qsize() < self.limits.queue:
                self._room.set()
            await asyncio.to_thread(self._produce, [item for item in batch if item is not None])
            if None in batch:
                return

    def _produce(self, items: list[Market | Unreadable]) -> None:
        """Give a batch to the sink. What it refuses as a record goes as the frames that are none."""
        done: Counter[str] = Counter()
        for item in items:
            if isinstance(item, Unreadable):
                self._keep(item)
                continue
            try:
                self._give(item)
            except InvalidRecord as error:
                self._count_bad("value", str(error))
                self._keep(Unreadable(to_json(item.record).encode(), str(error)))
                continue
            done[item.kind] += 1
        self._stats.trades += done["trades"]
        self._stats.quotes += done["quotes"]
        for kind, number in done.items():
            self._metrics.increment("k2_feed_messages_total", number, exchange=self._feed.exchange, kind=kind)

    def _give(self, market: Market) -> None:
        if market.kind == "quotes":
            self._sink.produce_quote(market.record)
        else:
            self._sink.produce_trade(market.record)

    def _keep(self, found: Unreadable) -> None:
        feed = self._feed
        self._sink.produce_unreadable(feed.kinds[0], feed.asset_class, feed.exchange, found.frame, found.problem)

    async def _supervise(self) -> None:
        """Keep one connection, and two during a hand-over."""
        current = await self._connected()
        while True:
            await current.ended_or(current.leaving, max(0.0, current.due - asyncio.get_running_loop().time()))
            if current.task.done():
                await self._wait_after(current)
                current = await self._connected()
                continue
            successor = await self._connected()
            await self._sleep(self.limits.overlap)
            if successor.task.done():
                await self._wait_after(successor)
                continue
            await self._replaced(current)
            current = successor

    async def _replaced(self, link: _Link) -> None:
        """End the older connection of a hand-over, which may have ended before its time."""
        reason = link.lost().reason if link.task.done() else "planned"
        self._stats.handovers += reason == "planned"
        self._stats.reconnects[reason] += 1
        self._metrics.increment("k2_feed_reconnects_total", exchange=self._feed.exchange, reason=reason)
        self._links.discard(link)
        await link.end()

    async def _connected(self) -> _Link:
        """A connection whose streams are all acknowledged, after as many attempts as it takes."""
        while True:
            link = _Link(self._feed.addresses[self._address % len(self._feed.addresses)])
            link.task = asyncio.create_task(self._read(link))
            self._links.add(link)
            await link.ended_or(link.subscribed)
            if not link.task.done():
                return link
            await self._wait_after(link)

    async def _wait_after(self, link: _Link) -> None:
        """Note a connection's end, and wait. One that gave nothing, or fell silent, is followed by the next address."""
        self._links.discard(link)
        lost = link.lost()
        self._stats.reconnects[lost.reason] += 1
        self._metrics.increment("k2_feed_reconnects_total", exchange=self._feed.exchange, reason=lost.reason)
        if lost.reason == "refused" and not self._stats.connections:
            raise FeedError(f"{link.address} refuses the subscription: {lost}; look at --symbols and --streams")
        if not link.delivered or lost.reason == "silence":
            self._address += 1
        self._failures = 1 if link.delivered else self._failures + 1
        if self.limits.attempts is not None and self._failures >= self.limits.attempts:
            raise FeedError(f"gave up after {self._failures} failures in a row; the last, of {link.address}: {lost}")
        wait = backoff(self._failures, self.limits, self._chance)
        _log.warning("the connection to %s is over (%s); the next attempt is in %.1f s", link.address, lost, wait)
        await self._sleep(wait)

    async def _read(self, link: _Link) -> None:
        """Subscribe and read; ends with _Lost, or when it is cancelled."""
        limits = self.limits
        try:
            async with connect(
                link.address,
                open_timeout=limits.open_timeout,
                close_timeout=limits.close_timeout,
                ping_interval=limits.ping_interval,
                ping_timeout=limits.ping_timeout,
                max_queue=1024,
            ) as socket:
                await self._subscribe(link, socket)
                await self._receive(link, socket)
        except (WebSocketException, OSError, EOFError, UnicodeError) as error:
            reason = "closed" if link.subscribed.is_set() else "unreachable"
            raise _Lost(reason, f"{type(error).__name__}: {error}") from error
        raise _Lost("closed", "the server ended it")

    async def _subscribe(self, link: _Link, socket: ClientConnection) -> None:
        """Ask for the streams, a part at a time, and see each request acknowledged."""
        for number, request in enumerate(self._feed.requests, start=1):
            if number > 1:
                await asyncio.sleep(self.limits.request_pause)
            await socket.send(request.text)
            try:
                async with asyncio.timeout(self.limits.reply_timeout):
                    await self._acknowledged(link, socket, number, request)
            except TimeoutError:
                raise _Lost("reply", f"no reply to request {number} in {self.limits.reply_timeout} s") from None
        # Earlier by chance, so that many clients do not come back in one moment.
        lifetime = self._lifetime * (0.95 + self._chance.random() / 20)
        link.due = asyncio.get_running_loop().time() + lifetime
        self._stats.connections += 1
        link.subscribed.set()
        _log.info("subscribed to %d streams at %s", len(self._feed.streams), link.address)

    async def _acknowledged(self, link: _Link, socket: ClientConnection, number: int, request: Request) -> None:
        """Read up to the replies to a request; events that come before them are taken too."""
        waiting = set(request.streams)
        while waiting:
            for found in self._take(link, await socket.recv()):
                # What does not say which request it is about can only be about the one that is open.
                if not isinstance(found, Reply) or found.request not in (number, None):
                    continue
                if found.error is not None:
                    raise _Lost("refused", found.error)
                waiting -= request.streams if found.request == number and not found.streams else found.streams

    async def _receive(self, link: _Link, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._silence) as limit:
                async for frame in socket:
                    alive = any(isinstance(found, Market | Heartbeat) for found in self._take(link, frame))
                    if not self._room.is_set():
                        # It's the sink that is slow now, not the exchange.
                        limit.reschedule(None)
                        await self._room.wait()
                    if alive or limit.when() is None:
                        limit.reschedule(loop.time() + self._silence)
        except TimeoutError:
            raise _Lost("silence", f"no market event in {self._silence} s") from None

    def _take(self, link: _Link, frame: str | bytes) -> Sequence[FeedMessage]:
        """Read one frame and queue its events, and what of it can't be used."""
        messages: Sequence[FeedMessage]
        try:
            messages = self._feed.read(frame, self._clock() // 1_000)
        except BadFrame as error:
            messages = (error,)
        for found in messages:
            if isinstance(found, BadFrame):
                self._count_bad(found.reason, f"from {link.address}: {found}")
                as_it_came = frame if isinstance(frame, bytes) else frame.encode("utf-8", "replace")
                self._put(Unreadable(as_it_came, str(found)))
            elif isinstance(found, Market):
                link.delivered = True
                self._enqueue(found)
            elif isinstance(found, Shutdown):
                link.leaving.set()
            elif isinstance(found, Reply) and found.error is not None and link.subscribed.is_set():
                _log.warning("%s says: %s", link.address, found.error)
        return messages

    def _enqueue(self, market: Market) -> None:
        """Queue an event that is new. At once: a connection that ends while it waits for room loses none."""
        if self._most is not None and self._taken >= self._most:
            return
        self._stats.silent_streams.discard(market.stream)
        if not self._recent.add(market.stream, market.message_id, self._clock() / 1e9):
            self._stats.duplicates += 1
            self._metrics.increment("k2_feed_duplicates_total", exchange=self._feed.exchange, kind=market.kind)
            return
        self._taken += 1
        self._put(market)
        if self._taken == self._most:
            self._full.set()

    def _put(self, item: Market | Unreadable) -> None:
        self._queue.put_nowait(item)
        if self._queue.qsize() >= self.limits.queue:
            self._room.clear()

    def _count_bad(self, reason: str, problem: str) -> None:
        """Count, and log the first ones and then at powers of ten: garbage must not fill the log."""
        self._stats.bad_frames[reason] += 1
        self._metrics.increment("k2_feed_bad_frames_total", exchange=self._feed.exchange, reason=reason)
        number = self._stats.bad_frames.total()
        if number <= _LOGGED_WHOLE or str(number).strip("0") == "1":
            _log.warning("bad frame %d %s", number, problem)
