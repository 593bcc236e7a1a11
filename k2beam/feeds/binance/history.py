"""Trades that are over, from Binance's REST interface, by their ids.

The rules are those of "Public Rest API for Binance" (rest-api.md of Binance's spot API documentation): "Old trade
lookup" for the request and the answer, "LIMITS" for the weight of requests and the codes 429 and 418, "HTTP Return
Codes", and "General Information on Data Sources" for the time unit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import tenacity

from k2beam.clock import now_us
from k2beam.errors import BadFrame, FeedError, UsageError
from k2beam.feeds.binance.frames import Pair, trade_record
from k2beam.feeds.feed import EventRecord

HISTORY_URL = "https://data-api.binance.vision"
"""The base endpoint for market data alone, which takes no account."""

PAGE = 1_000
"""Trades of one answer, at most."""

WEIGHT, WEIGHT_LIMIT = 25, 6_000
"""What a request costs, and what an address may spend in a minute."""

HISTORY_TRIES = 6
LONGEST_WAIT_S = 120.0

_log = logging.getLogger(__name__)

_PATH = "/api/v3/historicalTrades"
_TIMEOUT_S = 30.0
_FIELDS = {"id": "t", "time": "T", "price": "p", "qty": "q", "isBuyerMaker": "m"}
"""The names of the answer, and of the same in a frame."""


class _Later(Exception):
    """The server does not answer now; ``wait`` says for how many seconds, if it does."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(slots=True)
class TradeHistory:
    """Asks ``url`` for trades by id, page by page, and no faster than its limits let.

    ``api_key`` is the secret itself, for servers that ask for one. ``sleep`` and ``clock`` (seconds) are those of the
    waiting, and ``asked`` counts the requests. Raises UsageError for what is no base address.
    """

    url: str = HISTORY_URL
    api_key: str | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    asked: int = 0
    _next: float = 0.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.path.strip("/"):
            raise UsageError(f"--url {self.url!r} is not a base address such as {HISTORY_URL}")

    def page(self, pair: Pair, first: int) -> list[EventRecord]:
        """Up to :data:`PAGE` trades in the order of their ids, from ``first`` on; none where there are none from it on.

        Raises FeedError where the server refuses, gives what is no trade, or does not answer for long.
        """
        waits = tenacity.wait_exponential_jitter(initial=1, max=LONGEST_WAIT_S)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            told = error.wait if isinstance(error, _Later) else None
            return waits(state) if told is None else told

        retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Later),
            wait=wait,
            stop=tenacity.stop_after_attempt(HISTORY_TRIES),
            sleep=self.sleep,
            before_sleep=_told,
            reraise=True,
        )
        try:
            found = retry(self._ask, pair.symbol, first)
        except _Later as error:
            raise FeedError(f"{self.url} does not answer, after {HISTORY_TRIES} tries; the last: {error}") from error
        received_at = now_us()
        try:
            records = [self._record(one, pair, received_at) for one in found]
        except BadFrame as error:
            raise FeedError(f"{self.url} gives trades of {pair.symbol} that can't be read: {error}") from error
        return sorted(records, key=lambda record: int(record["source_sequence"]))

    def _record(self, trade: Any, pair: Pair, received_at: int) -> EventRecord:
        if not isinstance(trade, dict):
            raise BadFrame("shape", f"a trade is {trade!r:.100}")
        payload = {name: trade.get(given) for given, name in _FIELDS.items()}
        return trade_record(payload, pair, received_at, {"filled_from": _PATH.rpartition("/")[2]})

    def _ask(self, symbol: str, first: int) -> list[Any]:
        """One answer. Raises _Later for one that may be given to another try, FeedError for any other."""
        self.sleep(max(0.0, self._next - self.clock()))
        self._next = self.clock() + 60 * WEIGHT / WEIGHT_LIMIT
        self.asked += 1
        headers = {"X-MBX-TIME-UNIT": "MICROSECOND", **({"X-MBX-APIKEY": self.api_key} if self.api_key else {})}
        query: dict[str, str | int] = {"symbol": symbol, "fromId": first, "limit": PAGE}
        try:
            answer = requests.get(
                self.url.rstrip("/") + _PATH, params=query, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False
            )
            answer.content  # noqa: B018 - read whole, so that an end in between is an error of this try
        except requests.RequestException as error:
            raise _Later(f"{type(error).__name__}: {error}") from error
        if answer.status_code == 429:
            raise _Later("429: too many requests", _seconds(answer.headers.get("Retry-After")))
        if answer.status_code >= 500:
            raise _Later(f"{answer.status_code}: {answer.text[:200]}")
        return self._read(answer, symbol)

    def _read(self, answer: requests.Response, symbol: str) -> list[Any]:
        try:
            found = answer.json()
        except ValueError as error:
            raise _Later(f"{answer.status_code}: no JSON: {answer.text[:200]!r}") from error
        if answer.status_code == 200 and isinstance(found, list):
            return found
        if answer.status_code == 418:
            until = answer.headers.get("Retry-After", "some")
            raise FeedError(f"{self.url} has banned this address for {until} seconds: it was asked too often")
        said = f"code {found.get('code')}: {found.get('msg')}" if isinstance(found, dict) else f"{found!r:.200}"
        raise FeedError(f"{self.url} refuses the trades of {symbol} ({answer.status_code}, {said})")


def _told(state: tenacity.RetryCallState) -> None:
    """Say why a request is made again, and when."""
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    _log.warning("Binance's trades: %s; the next try is in %.1f s", error, wait)


def _seconds(text: str | None) -> float | None:
    """What a header Retry-After says, at most :data:`LONGEST_WAIT_S`."""
    return min(float(text), LONGEST_WAIT_S) if text is not None and text.strip().isdigit() else None
