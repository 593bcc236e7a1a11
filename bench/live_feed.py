"""Trades at a steady rate, each with the moment at which it is produced as its event time."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
from confluent_kafka import KafkaError, Producer

from k2beam.registry.subjects import schema_text

SYMBOLS = 20
TICK_SECONDS = 0.02
TOLERANCE = 0.05
"""How much slower than asked, as a fraction, a feed may be and still count as one of that rate."""

FLUSH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Fed:
    """Messages that the broker acknowledged, of the ``asked`` ones, and the seconds from the first to the last."""

    messages: int
    asked: int
    elapsed_s: float
    first_error: str | None = None

    @property
    def rate(self) -> float:
        """Messages a second that were reached."""
        return self.messages / self.elapsed_s

    def check(self, rate: int) -> None:
        """Raises SystemExit unless all was produced, at ``rate`` messages a second or 5 % less."""
        reached = f"{self.messages:,} of {self.asked:,} messages in {self.elapsed_s:.1f} s, {self.rate:,.0f} a second"
        if self.first_error:
            raise SystemExit(f"the feed failed: {reached}; first error of the broker: {self.first_error}")
        if self.messages < self.asked or self.rate < rate * (1 - TOLERANCE):
            raise SystemExit(
                f"the feed is too slow for a measurement of latency at {rate:,} messages a second: {reached}; "
                "ask for a lower --rate, or end what else runs on this machine"
            )


def feed(bootstrap: str, topic: str, schema_id: int, rate: int, seconds: int) -> Fed:
    """Produce ``rate`` messages a second for ``seconds``, in small bursts of 20 ms; ends early where it can't keep up.

    The time counts until the last acknowledgement.
    """
    schema = fastavro.parse_schema(json.loads(schema_text("trade_v2")))
    failed: list[KafkaError] = []
    options = {
        "bootstrap.servers": bootstrap,
        "linger.ms": 5,
        "queue.buffering.max.messages": 1_000_000,
        "delivery.report.only.error": True,
        "on_delivery": lambda error, _message: failed.append(error) if error else None,
    }
    producer = Producer(options)
    frame = b"\x00" + schema_id.to_bytes(4, "big")
    asked, latest = rate * seconds, seconds / (1 - TOLERANCE)
    started, sent = time.monotonic(), 0
    while sent < asked and (passed := time.monotonic() - started) < latest:
        due = min(int(passed * rate), asked)
        for number in range(sent, due):
            out = io.BytesIO()
            out.write(frame)
            fastavro.schemaless_writer(out, schema, trade(number))
            producer.produce(topic, value=out.getvalue(), key=f"BENCH|S{number % SYMBOLS}".encode())
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    waiting = producer.flush(FLUSH_SECONDS)
    first_error = failed[0].str() if failed else None
    return Fed(sent - waiting - len(failed), asked, time.monotonic() - started, first_error)


def trade(number: int) -> dict[str, Any]:
    """One trade of now."""
    now = datetime.now(UTC)
    return {
        "message_id": f"bench-{number}",
        "trade_id": str(number),
        "symbol": f"S{number % SYMBOLS}",
        "exchange": "BENCH",
        "asset_class": "crypto",
        "timestamp": now,
        "price": Decimal("101.25"),
        "quantity": Decimal("3"),
        "currency": "USD",
        "side": "BUY",
        "trade_conditions": [],
        "source_sequence": number // SYMBOLS + 1,
        "ingestion_timestamp": now,
        "platform_sequence": None,
        "vendor_data": None,
    }
