"""What the client of :mod:`k2beam.feeds.client` must know of an exchange: a feed.

A feed is pure. It says where to connect and what to ask for, and turns each frame into what it says: the same frame,
received at the same time, gives the same messages. docs/add-an-exchange.md makes one, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from k2beam.errors import BadFrame
from k2beam.model import Kind

EventRecord = dict[str, Any]
"""A v2 record in Python values: Decimal, and datetime with UTC."""

Reason = Literal["json", "shape", "symbol", "value"]
REASONS: tuple[Reason, ...] = ("json", "shape", "symbol", "value")
"""Why a frame can't be used: no JSON object; no known message; a symbol that was not asked for; a
field that is missing, has a wrong type or does not fit its column."""


@dataclass(frozen=True, slots=True)
class Market:
    """A market event. ``stream`` is the name of the stream it belongs to, such as btcusdt@trade."""

    kind: Literal["trades", "quotes"]
    stream: str
    record: EventRecord

    @property
    def message_id(self) -> str:
        """The same for the same event, whichever connection it came over."""
        return str(self.record["message_id"])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that is no record, as it came, and what is wrong with it."""

    frame: bytes
    problem: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to a request: to the one of that number (None: it does not say), or about ``streams`` of it.

    ``error`` is None if it was done.
    """

    request: int | None
    error: str | None
    streams: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The connection is alive, though there may be nothing to tell."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The server is about to shut down: a new connection should be made at once."""


FeedMessage = Market | Reply | Heartbeat | Shutdown | BadFrame
"""A BadFrame stands for a part of a frame that can't be used, where the other parts can."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent to subscribe, and the streams that its replies must acknowledge."""

    text: str
    streams: frozenset[str]


class Feed(Protocol):
    """An exchange's market data.

    ``silence``: after so many seconds without an event or a heartbeat a connection is given up. ``lifetime``: so many
    seconds after it was made a connection is replaced by a second one, before the exchange ends it; infinity where it
    does not. ``repeats``: so many events of a stream a subscription may begin with that were told before. ``numbered``
    are the kinds whose ``source_sequence`` counts each message of a symbol; how it counts stands in
    k2beam/sequence/known.toml.
    """

    @property
    def exchange(self) -> str: ...
    @property
    def asset_class(self) -> str: ...
    @property
    def kinds(self) -> Sequence[Kind]: ...
    @property
    def numbered(self) -> Sequence[Kind]: ...
    @property
    def addresses(self) -> Sequence[str]: ...
    @property
    def streams(self) -> Sequence[str]: ...
    @property
    def requests(self) -> Sequence[Request]: ...
    @property
    def silence(self) -> float: ...
    @property
    def lifetime(self) -> float: ...
    @property
    def repeats(self) -> int: ...

    def read(self, frame: str | bytes, received_at: int) -> Sequence[FeedMessage]:
        """What a frame says; nothing where it is of no interest. ``received_at`` is in microseconds, UTC.

        Raises BadFrame, with the reason and the beginning of the frame, for one that can't be used at all.
        """
        ...
