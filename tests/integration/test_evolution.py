"""A producer adds a field to its schema while a live job's tables are in use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from k2beam import Lake
from k2beam.errors import K2BeamError
from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.stack.stack import LocalStack
from tests.codec_samples import encode, evolved, framed, trade
from tests.live_helpers import assert_live_audit, ingest_live

pytestmark = pytest.mark.integration

EACH = 25
DESK = {"name": "desk", "type": ["null", "int"], "default": None}


@pytest.fixture
def topic(stack: LocalStack, unique: Callable[[str], str]) -> str:
    name = unique("evolving")
    list(create_topics(stack.bootstrap, [TopicSpec(name)]))
    return name


def send(stack: LocalStack, topic: str, first: int, schema: Any, **added: Any) -> None:
    """Trades from the number ``first`` on, by a schema that is registered for it."""
    registry = Registry(RegistryConfig(stack.registry_url))
    try:
        schema_id = registry.register(f"{topic}-{first}", json.dumps(schema))
    finally:
        registry.close()
    producer = Producer({"bootstrap.servers": stack.bootstrap, "enable.idempotence": True})
    for number in range(first, first + EACH):
        producer.produce(topic, framed(encode(schema, {**trade(number), **added}), schema_id))
    assert producer.flush(30) == 0


@pytest.mark.parametrize("evolve", [True, False])
def test_a_field_that_comes_later(stack: LocalStack, prism: Path, topic: str, tmp_path: Path, evolve: bool) -> None:
    send(stack, topic, 0, evolved("trade_v2"))
    assert ingest_live(stack, [topic], tmp_path, prism, evolve=evolve).written["trades_v2"] == EACH
    send(stack, topic, EACH, evolved("trade_v2", desk=DESK), desk=7)
    assert ingest_live(stack, [topic], tmp_path, prism, evolve=evolve).written["trades_v2"] == EACH
    rows = Lake(str(tmp_path)).trades().to_pylist()
    assert len(rows) == 2 * EACH
    later = [row for row in rows if int(row["trade_id"].removeprefix("t-")) >= EACH]
    if evolve:
        assert {row["desk"] for row in later} == {7}
        assert {row["desk"] for row in rows if row not in later} == {None}
    else:
        assert "desk" not in rows[0]
        assert {dict(row["vendor_data"])["desk"] for row in later} == {"7"}
    assert_live_audit(stack, [topic], tmp_path)


def test_another_type_ends_the_job_before_it_writes(stack: LocalStack, prism: Path, topic: str, tmp_path: Path) -> None:
    send(stack, topic, 0, evolved("trade_v2", desk=DESK), desk=7)
    ingest_live(stack, [topic], tmp_path, prism, evolve=True)
    send(stack, topic, EACH, evolved("trade_v2", desk={"name": "desk", "type": "string"}), desk="x")
    with pytest.raises(K2BeamError, match=r"a field desk of type string, and .* the column desk of type int"):
        ingest_live(stack, [topic], tmp_path, prism, evolve=True)
    assert Lake(str(tmp_path)).trades().num_rows == EACH
    # Without the option, the rest is taken.
    assert ingest_live(stack, [topic], tmp_path, prism).written["trades_v2"] == EACH
    assert_live_audit(stack, [topic], tmp_path)
