"""A server that answers as Binance does when it is asked for old trades, and as badly as it may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_servers import QuietHandler, serving

MOST = 1_000
Time = Callable[[str, int], int]


@dataclass
class History:
    """The trades ``first`` to ``last`` of each symbol, at the times (microseconds) that ``time`` says.

    ``troubles`` are statuses that are given first, in turn (0: the connection ends in between); ``lacks`` are trades
    that the server has lost.
    """

    spans: dict[str, tuple[int, int]]
    time: Time
    troubles: list[int] = field(default_factory=list)
    lacks: set[tuple[str, int]] = field(default_factory=set)
    asked: list[tuple[str, int]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def trade(self, symbol: str, number: int, micros: bool = True) -> dict[str, Any]:
        """One trade as the answer has it."""
        time = self.time(symbol, number)
        return {
            "id": number,
            "price": f"{100 + number % 7}.25000000",
            "qty": quantity(number),
            "quoteQty": "0.00000000",
            "time": time if micros else time // 1_000,
            "isBuyerMaker": number % 2 == 0,
            "isBestMatch": True,
        }


def quantity(number: int) -> str:
    """What is traded in the trade of a number."""
    return f"{number % 13 + 1}.50000000"


@contextmanager
def history_server(history: History) -> Iterator[str]:
    """Serves it; gives the base address."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            parts = urlsplit(self.path)
            asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            history.keys.add(self.headers.get("X-MBX-APIKEY"))
            if parts.path != "/api/v3/historicalTrades":
                self.answer(404)
            elif history.troubles:
                self._trouble(history.troubles.pop(0))
            elif asked["symbol"] not in history.spans:
                self.answer(400, json.dumps({"code": -1121, "msg": "Invalid symbol."}).encode())
            else:
                self.answer(200, json.dumps(self._page(asked)).encode())

        def _page(self, asked: dict[str, str]) -> list[dict[str, Any]]:
            symbol, limit = asked["symbol"], min(int(asked.get("limit", 500)), MOST)
            first, last = history.spans[symbol]
            begin = max(first, int(asked["fromId"]))
            history.asked.append((symbol, begin))
            there = (number for number in range(begin, last + 1) if (symbol, number) not in history.lacks)
            micros = self.headers.get("X-MBX-TIME-UNIT") == "MICROSECOND"
            return [history.trade(symbol, number, micros) for _, number in zip(range(limit), there, strict=False)]

        def _trouble(self, status: int) -> None:
            if not status:
                self.close_connection = True
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"[{")
                return
            body = json.dumps({"code": -1003, "msg": "Too many requests."}).encode()
            self.send_response(status)
            if status in (418, 429):
                self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as url:
        yield url
