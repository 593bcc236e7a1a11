"""A consumer as one writes it first: a message at a time into dicts, and 10,000 of these into pyiceberg's append.

``python -m bench.peers.plain_loop BOOTSTRAP REGISTRY TOPIC WAREHOUSE ROWS [--checked]`` ends after ROWS messages.
Offsets are committed after the rows, so that a crash between the two writes rows twice. With ``--checked`` each
message passes through rules, a check of its sequence number and a counter too, as in a consumer in K2's style; what
is wrong is counted and written all the same.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from confluent_kafka import Consumer, Message
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from bench.peers.checks import Checks
from bench.peers.table import NAME, NAMESPACE, open_peer_catalog

BATCH_ROWS = 10_000
BATCH_SECONDS = 5.0

Trade = dict[str, Any]


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("registry")
    parser.add_argument("topic")
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("--checked", action="store_true")
    given = parser.parse_args()
    table = open_peer_catalog(given.warehouse).load_table((NAMESPACE, NAME))
    schema = table.schema().as_arrow()
    consumer = Consumer(
        {
            "bootstrap.servers": given.bootstrap,
            "group.id": f"plain-loop-{given.warehouse.name}",  # a new one for each run
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        for batch in _batches(_trades(consumer, given)):
            table.append(pa.Table.from_pylist(batch, schema=schema))
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()


def _trades(consumer: Consumer, given: Namespace) -> Iterator[Trade]:
    decode = AvroDeserializer(SchemaRegistryClient({"url": given.registry}))
    context = SerializationContext(given.topic, MessageField.VALUE)
    check: Callable[[Trade, Message], None] | None = Checks().check if given.checked else None
    consumer.subscribe([given.topic])
    # As k2beam's reader says it; bench.live, which looks for it, would bring all of Beam into this process.
    print(json.dumps({"event": "reading begins", "timestamp": datetime.now(UTC).isoformat()}), file=sys.stderr)
    got = 0
    while got < given.rows:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise SystemExit(str(message.error()))
        trade = decode(message.value(), context)
        if check is not None:
            check(trade, message)
        got += 1
        yield trade


def _batches(trades: Iterator[Trade]) -> Iterator[list[Trade]]:
    batch: list[Trade] = []
    due = time.monotonic() + BATCH_SECONDS
    for trade in trades:
        batch.append(trade)
        if len(batch) >= BATCH_ROWS or time.monotonic() >= due:
            yield batch
            batch, due = [], time.monotonic() + BATCH_SECONDS
    if batch:
        yield batch


if __name__ == "__main__":
    main()
