"""What a consumer in K2's style does with each message beside writing it, one at a time and in Python."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import Message
from prometheus_client import CollectorRegistry, Counter, Histogram

_TEXTS = ("message_id", "trade_id", "symbol", "exchange", "currency")
_FUTURE = timedelta(days=1)


class Checks:
    """Rules, the last sequence number of each symbol, and metrics with labels."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._last: dict[tuple[str, str], int] = {}
        self._consumed = Counter("consumed", "Messages.", ("topic", "exchange"), registry=registry)
        self._invalid = Counter("invalid", "Broken rules.", ("topic", "rule"), registry=registry)
        self._sequence = Counter("sequence", "Gaps and repetitions.", ("exchange", "event"), registry=registry)
        self._age = Histogram("age_seconds", "From the event to here.", ("topic",), registry=registry)

    def check(self, trade: Mapping[str, Any], message: Message) -> None:
        """Count a message, and what is wrong with it."""
        topic, exchange = message.topic(), trade["exchange"]
        if rule := self._broken_rule(trade):
            self._invalid.labels(topic, rule).inc()
        if event := self._sequence_event(trade):
            self._sequence.labels(exchange, event).inc()
        self._consumed.labels(topic, exchange).inc()
        self._age.labels(topic).observe((datetime.now(UTC) - trade["timestamp"]).total_seconds())

    def _broken_rule(self, trade: Mapping[str, Any]) -> str | None:
        for name in _TEXTS:
            if not trade[name]:
                return f"{name} is empty"
        if trade["price"] <= 0:
            return "price is not positive"
        if trade["quantity"] <= 0:
            return "quantity is not positive"
        if trade["timestamp"] > datetime.now(UTC) + _FUTURE:
            return "timestamp is in the future"
        return None

    def _sequence_event(self, trade: Mapping[str, Any]) -> str | None:
        sequence = trade["source_sequence"]
        if sequence is None:
            return None
        key = (trade["exchange"], trade["symbol"])
        last = self._last.get(key)
        if last is None or sequence > last:
            self._last[key] = sequence
        if last is None or sequence == last + 1:
            return None
        return "gap" if sequence > last else "late or twice"
