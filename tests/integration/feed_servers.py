"""A websocket server that misbehaves as it is told, and a sink that remembers: for the feeds of all exchanges."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from k2beam.errors import UsageError

DEADLINE = 20.0
"""Seconds after which a run has hung."""

Script = Callable[[ServerConnection], Awaitable[None]]


class Recorder:
    """A sink that remembers what it was given, and in which order it was called."""

    def __init__(self, delay: float = 0.0, fails_at: int | None = None, exchange: str = "BINANCE") -> None:
        self.exchange = exchange
        self.trades: list[dict[str, Any]] = []
        self.quotes: list[dict[str, Any]] = []
        self.unreadable: list[tuple[bytes, str]] = []
        self.calls: list[str] = []
        self._delay = delay
        self._fails_at = fails_at

    def produce_trade(self, record: dict[str, Any]) -> None:
        if len(self.trades) == self._fails_at:
            raise UsageError("the sink is broken")
        time.sleep(self._delay)
        self.trades.append(record)
        self.calls.append("trade")

    def produce_quote(self, record: dict[str, Any]) -> None:
        self.quotes.append(record)
        self.calls.append("quote")

    def produce_unreadable(self, kind: str, asset_class: str, exchange: str, message: bytes, problem: str) -> None:
        assert (kind, asset_class, exchange) == ("trades", "crypto", self.exchange)
        self.unreadable.append((message, problem))

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")

    def stats(self) -> dict[str, int]:
        return {"produced": len(self.trades) + len(self.quotes)}

    @property
    def ids(self) -> list[int]:
        return [record["source_sequence"] for record in self.trades]


class Exchange:
    """A server: its connections follow the scripts in turn, and the last script from then on."""

    def __init__(self, *scripts: Script, reject: int = 0) -> None:
        self.scripts = scripts
        self.reject = reject
        self.paths: list[str] = []
        self.open = 0
        self.most_open = 0
        self._server: Server

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def __aenter__(self) -> Exchange:
        self._server = await serve(self._handle, "127.0.0.1", 0, process_request=self._greet, ping_interval=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close(close_connections=True)
        await self._server.wait_closed()

    def _greet(self, connection: ServerConnection, _request: object) -> Any:
        if self.reject:
            self.reject -= 1
            return connection.respond(503, "later\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self.scripts[min(len(self.paths), len(self.scripts)) - 1](connection)
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1


@contextmanager
def in_thread(
    server: AbstractAsyncContextManager[Any], act: Callable[[], Awaitable[None]] | None = None
) -> Iterator[None]:
    """A server in a thread of its own, for commands that have the main thread; meanwhile ``act`` again and again."""
    started, loop, done = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def run() -> None:
        async with server:
            started.set()
            while act is not None and not done.is_set():
                await act()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(DEADLINE)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(DEADLINE)
        loop.close()
