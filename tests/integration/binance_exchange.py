"""What Binance sends: frames, replies, and scripts for a server."""

from __future__ import annotations

import json
from typing import Any

from websockets.asyncio.server import ServerConnection

from tests.integration.feed_servers import Script

MICROSECONDS = 1_672_515_782_136_000


def trade(number: int, **changed: Any) -> str:
    data = {"e": "trade", "E": MICROSECONDS, "s": "BTCUSDT", "t": number, "p": "16569.01", "q": "0.00250000",
            "T": MICROSECONDS, "m": number % 2 == 0, "M": True, **changed}  # fmt: skip
    return json.dumps({"stream": "btcusdt@trade", "data": data})


def quote(number: int) -> str:
    """A raw frame."""
    return json.dumps({"u": number, "s": "BTCUSDT", "b": "1.1", "B": "2", "a": "1.2", "A": "3"})


async def acknowledge(connection: ServerConnection) -> list[str]:
    request = json.loads(await connection.recv())
    assert request["method"] == "SUBSCRIBE"
    await connection.send(json.dumps({"result": None, "id": request["id"]}))
    streams: list[str] = request["params"]
    return streams


def plays(*frames: str | bytes, then: str = "wait") -> Script:
    """Acknowledge, send the frames, and wait for the client to go (or ``drop`` the connection)."""

    async def script(connection: ServerConnection) -> None:
        await acknowledge(connection)
        for frame in frames:
            await connection.send(frame)
        if then == "drop":
            connection.transport.abort()
        await connection.wait_closed()

    return script
