"""Trades at a steady rate, each with the moment at which it is produced as its event time."""

from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
from confluent_kafka import Producer

from k2beam.registry.subjects import schema_text

SYMBOLS = 20
TICK_SECONDS = 0.02


def feed(bootstrap: str, topic: str, schema_id: int, rate: int, seconds: int) -> None:
    """Produce ``rate`` messages a second for ``seconds``, in small bursts of 20 ms."""
    schema = fastavro.parse_schema(json.loads(schema_text("trade_v2")))
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 1_000_000})
    frame = b"\x00" + schema_id.to_bytes(4, "big")
    started, sent = time.monotonic(), 0
    while sent < rate * seconds:
        due = min(int((time.monotonic() - started) * rate), rate * seconds)
        for number in range(sent, due):
            out = io.BytesIO()
            out.write(frame)
            fastavro.schemaless_writer(out, schema, trade(number))
            producer.produce(topic, value=out.getvalue(), key=f"BENCH|S{number % SYMBOLS}".encode())
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(TICK_SECONDS)
    producer.flush(60)


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
