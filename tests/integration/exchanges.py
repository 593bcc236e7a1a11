"""Servers that behave as the manuals of Coinbase Exchange and Kraken say, with a market that goes on by itself.

A test makes trades happen, cuts connections, and lets new ones in again.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

SUBSCRIBE_WITHIN_S = 5.0
"""Coinbase ends a connection that has not subscribed by then."""


class MarketServer:
    """A server of one exchange. Trades are numbered from 1 for each symbol, whoever listens."""

    def __init__(self, *symbols: str, heartbeat_s: float | None = 0.05) -> None:
        self.symbols = symbols
        self.heartbeat_s = heartbeat_s
        self.accepts = True
        self.connections = 0
        self.trades: dict[str, list[dict[str, Any]]] = {symbol: [] for symbol in symbols}
        self.subscribed: dict[ServerConnection, set[str]] = defaultdict(set)
        self._server: Server

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/v2"

    async def __aenter__(self) -> MarketServer:
        self._server = await serve(self._handle, "127.0.0.1", 0, process_request=self._greet, ping_interval=None)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close(close_connections=True)
        await self._server.wait_closed()

    async def happen(self, symbol: str, count: int = 1) -> None:
        """So many trades of a symbol, told to whoever listens."""
        for _ in range(count):
            number = len(self.trades[symbol]) + 1
            trade = self.trade(symbol, number)
            self.trades[symbol].append(trade)
            for connection, streams in list(self.subscribed.items()):
                await self._tell(connection, streams, symbol, trade)

    def cut(self) -> None:
        """End all connections as a lost line does, and take no new ones until ``accepts``."""
        self.accepts = False
        for connection in list(self.subscribed):
            connection.transport.abort()
        self.subscribed.clear()

    async def listened_to(self, streams: int) -> None:
        """Wait until a connection has subscribed to so many streams."""
        while not any(len(found) >= streams for found in self.subscribed.values()):
            await asyncio.sleep(0.005)

    def trade(self, symbol: str, number: int) -> dict[str, Any]:
        raise NotImplementedError

    async def serve_one(self, connection: ServerConnection) -> None:
        raise NotImplementedError

    async def _tell(self, connection: ServerConnection, streams: set[str], symbol: str, trade: dict[str, Any]) -> None:
        try:
            for frame in self.frames(streams, symbol, trade):
                await connection.send(json.dumps(frame))
        except ConnectionClosed:
            self.subscribed.pop(connection, None)

    def frames(self, streams: set[str], symbol: str, trade: dict[str, Any]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _greet(self, connection: ServerConnection, _request: object) -> Any:
        return None if self.accepts else connection.respond(503, "later\n")

    async def _handle(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            await self.serve_one(connection)
        except ConnectionClosed:
            pass
        finally:
            self.subscribed.pop(connection, None)

    async def _beat(self, connection: ServerConnection, *frames: dict[str, Any]) -> None:
        while self.heartbeat_s is not None:
            for frame in frames:
                await connection.send(json.dumps(frame))
            await asyncio.sleep(self.heartbeat_s)


def moment() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class CoinbaseServer(MarketServer):
    """Coinbase Exchange: symbols such as BTC-USD."""

    def trade(self, symbol: str, number: int) -> dict[str, Any]:
        return {
            "type": "match",
            "trade_id": number,
            "sequence": 3 * number,
            "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
            "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
            "time": moment(),
            "product_id": symbol,
            "size": "0.25",
            "price": f"{40_000 + number}.10",
            "side": "sell" if number % 2 else "buy",
        }

    def frames(self, streams: set[str], symbol: str, trade: dict[str, Any]) -> list[dict[str, Any]]:
        ticker = {
            "type": "ticker",
            "sequence": trade["sequence"],
            "product_id": symbol,
            "price": trade["price"],
            "best_bid": "1.10",
            "best_bid_size": "2.00",
            "best_ask": "1.20",
            "best_ask_size": "3.00",
            "time": trade["time"],
            "trade_id": trade["trade_id"],
        }
        told = {"matches": trade, "ticker": ticker}
        return [frame for channel, frame in told.items() if f"{symbol}@{channel}" in streams]

    async def serve_one(self, connection: ServerConnection) -> None:
        async with asyncio.timeout(SUBSCRIBE_WITHIN_S):
            request = json.loads(await connection.recv())
        beats = []
        try:
            while True:
                assert request["type"] == "subscribe"
                if unknown := [name for name in request["product_ids"] if name not in self.symbols]:
                    reason = f"{unknown[0]} is not a valid product"
                    error = {"type": "error", "message": "Failed to subscribe", "reason": reason}
                    await connection.send(json.dumps(error))
                    return
                await self._subscribe(connection, request["product_ids"], request["channels"])
                beat = {"type": "heartbeat", "sequence": 1, "last_trade_id": 1, "time": moment()}
                frames = [{**beat, "product_id": symbol} for symbol in request["product_ids"]]
                beats.append(asyncio.create_task(self._beat(connection, *frames)))
                request = json.loads(await connection.recv())
        finally:
            for task in beats:
                task.cancel()

    async def _subscribe(self, connection: ServerConnection, symbols: list[str], channels: list[str]) -> None:
        """The reply lists all subscriptions of the connection; then comes the last trade of each new product."""
        assert "heartbeat" in channels
        for symbol in symbols:
            if "matches" in channels and self.trades[symbol]:
                await connection.send(json.dumps({**self.trades[symbol][-1], "type": "last_match"}))
        streams = self.subscribed[connection]
        streams |= {f"{symbol}@{channel}" for symbol in symbols for channel in channels}
        by_channel: dict[str, list[str]] = defaultdict(list)
        for stream in sorted(streams):
            by_channel[stream.partition("@")[2]].append(stream.partition("@")[0])
        listed = [{"name": name, "product_ids": found} for name, found in by_channel.items()]
        await connection.send(json.dumps({"type": "subscriptions", "channels": listed}))


class KrakenServer(MarketServer):
    """Kraken's websockets, version 2: symbols such as BTC/USD."""

    snapshot = 50

    def trade(self, symbol: str, number: int) -> dict[str, Any]:
        return {
            "symbol": symbol,
            "side": "buy" if number % 2 else "sell",
            "price": 40_000.1 + number,
            "qty": 0.25,
            "ord_type": "limit",
            "trade_id": number,
            "timestamp": moment(),
        }

    def frames(self, streams: set[str], symbol: str, trade: dict[str, Any]) -> list[dict[str, Any]]:
        ticker = {"symbol": symbol, "bid": 1.1, "bid_qty": 2, "ask": 1.2, "ask_qty": float(trade["trade_id"])}
        told = {"trade": trade, "ticker": {**ticker, "timestamp": trade["timestamp"]}}
        return [
            {"channel": channel, "type": "update", "data": [item]}
            for channel, item in told.items()
            if f"{symbol}@{channel}" in streams
        ]

    async def serve_one(self, connection: ServerConnection) -> None:
        status = {"version": "2.0.4", "system": "online", "api_version": "v2", "connection_id": self.connections}
        await connection.send(json.dumps({"channel": "status", "type": "update", "data": [status]}))
        beat: asyncio.Task[None] | None = None
        try:
            async for text in connection:
                request = json.loads(text)
                if request["method"] == "ping":
                    await connection.send(json.dumps({"method": "pong", "req_id": request.get("req_id")}))
                    continue
                for symbol in request["params"]["symbol"]:
                    await self._subscribe(connection, request, symbol)
                if beat is None:
                    beat = asyncio.create_task(self._beat(connection, {"channel": "heartbeat"}))
        finally:
            if beat is not None:
                beat.cancel()

    async def _subscribe(self, connection: ServerConnection, request: dict[str, Any], symbol: str) -> None:
        """Each symbol has a reply of its own, and a snapshot behind it."""
        channel = request["params"]["channel"]
        reply = {"method": "subscribe", "req_id": request["req_id"], "time_in": moment(), "time_out": moment()}
        if symbol not in self.symbols:
            error = {"error": f"Currency pair not supported {symbol}", "success": False, "symbol": symbol}
            await connection.send(json.dumps({**reply, **error}))
            return
        result = {"channel": channel, "symbol": symbol, "snapshot": True}
        last = self.trades[symbol][-self.snapshot :]
        self.subscribed[connection].add(f"{symbol}@{channel}")
        await connection.send(json.dumps({**reply, "result": result, "success": True}))
        if channel == "trade":
            await connection.send(json.dumps({"channel": "trade", "type": "snapshot", "data": last}))
