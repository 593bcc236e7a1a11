"""The examples in docstrings that need servers.

Such an example runs in an empty folder, and may use these names beside what it imports:

- ``bootstrap``, ``registry``, ``expansion``: where Kafka, the Schema Registry and the Java expansion service are;
- ``trade``, ``quote``, ``company``: records of the exchange EXAMPLE (crypto), whose topics are there;
- ``topic``: a topic of three trades, which no other example has; ``schema_id``: the id of their schema.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.model import KINDS
from k2beam.produce.producer import MarketDataProducer
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.subjects import schema_text
from k2beam.schemas import avro_schema, full_name
from k2beam.stack.stack import LocalStack
from k2beam.topics import topic_name
from tests.example_helpers import needs_servers, public_things, run_example

pytestmark = pytest.mark.integration

PUBLIC = {name: thing for name, thing in public_things().items() if needs_servers(name)}
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
COMMON = {"exchange": "EXAMPLE", "asset_class": "crypto", "symbol": "BTCUSDT", "currency": "USDT"}
TIMES = {"timestamp": NOW, "ingestion_timestamp": NOW}
TRADE = {"message_id": "m", "trade_id": "t", "side": "BUY", "price": Decimal(93_120), "quantity": Decimal("0.5")}
BOOK = {"bid_price": 93_119, "bid_quantity": 1, "ask_price": 93_121, "ask_quantity": 2}
QUOTE = {"message_id": "m", "quote_id": "q", **BOOK}
COMPANY = {"message_id": "m", "company_id": "1", "company_name": "Bitcoin", "ingestion_timestamp": NOW}
RECORDS = {"trade": TRADE | TIMES | COMMON, "quote": QUOTE | TIMES | COMMON, "company": COMPANY | COMMON}


@pytest.fixture(scope="module")
def schema_id(stack: LocalStack) -> int:
    """The schemas are registered and the topics of EXAMPLE made; gives the id of trades."""
    list(create_topics(stack.bootstrap, [TopicSpec(topic_name("crypto", kind, "EXAMPLE")) for kind in KINDS]))
    registry = Registry(RegistryConfig(stack.registry_url))
    names = ("quote_v2", "reference_data_v2", "trade_v2")
    ids = [registry.register(full_name(avro_schema(name)) or name, schema_text(name)) for name in names]
    registry.close()
    return ids[-1]


@pytest.fixture
def topic(stack: LocalStack, schema_id: int, unique: Callable[[str], str], tmp_path: Path) -> str:
    """A topic of three trades."""
    del schema_id
    exchange = unique("EXAMPLE")
    name = topic_name("crypto", "trades", exchange)
    list(create_topics(stack.bootstrap, [TopicSpec(name)]))
    with MarketDataProducer(stack.bootstrap, stack.registry_url, spool=tmp_path / "spool") as producer:
        for number in range(3):
            producer.produce_trade({**RECORDS["trade"], "exchange": exchange, "message_id": f"m-{number}"})
    return name


@pytest.mark.usefixtures("prism")
@pytest.mark.parametrize("name", list(PUBLIC))
def test_an_example_on_servers_gives_what_it_says(
    name: str, live: LocalStack, schema_id: int, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = {
        "bootstrap": live.bootstrap,
        "registry": live.registry_url,
        "expansion": live.expansion_address,
    }
    names: dict[str, Any] = {**addresses, **RECORDS, "topic": topic, "schema_id": schema_id}
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run_example(name, PUBLIC[name], names)
