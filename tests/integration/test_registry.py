"""The schema commands, the resolver and DecodeAvro against a real Schema Registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
import typer
from apache_beam.testing.test_pipeline import TestPipeline
from typer.testing import CliRunner, Result

from k2beam.cli import schemas
from k2beam.codec.frame import frame
from k2beam.errors import RegistryUnavailable, SchemaError
from k2beam.model import RAW_BATCH_SCHEMA, DeadLetterBatch, EventBatch, RawBatch
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.resolver import RegistryResolver
from k2beam.registry.subjects import EVENT_SCHEMAS, schema_text
from k2beam.stack.stack import LocalStack
from tests.codec_samples import encode, encode_as, evolved, trade
from transforms.decode_avro import DecodeAvro

pytestmark = pytest.mark.integration

Unique = Callable[[str], str]


@pytest.fixture
def registry(stack: LocalStack) -> Registry:
    return Registry(RegistryConfig(stack.registry_url, wait_s=5))


def run(stack: LocalStack, *arguments: str) -> Result:
    app = typer.Typer()
    schemas.register(app)
    return CliRunner().invoke(app, ["schemas", *arguments, "--registry", stack.registry_url])


def findings(stack: LocalStack, *arguments: str, exit_code: int = 0) -> dict[str, dict[str, Any]]:
    result = run(stack, *arguments, "--output", "json")
    assert result.exit_code == exit_code, result.output
    return {row["schema"]: row for row in json.loads(result.stdout)}


def raw(values: list[bytes]) -> RawBatch:
    rows = [
        {"source": "kafka:c/t/i", "partition": 0, "offset": offset, "value": value}
        for offset, value in enumerate(values)
    ]
    return RawBatch(pa.RecordBatch.from_pylist(rows, schema=RAW_BATCH_SCHEMA))


def decoded(resolver: RegistryResolver, values: list[bytes], out: Path) -> tuple[list[int], dict[int, str]]:
    """The offsets that became events, and the error class of those that became dead letters."""

    def write_events(batch: EventBatch) -> None:
        offsets = batch.data.column("_offset").to_pylist()
        (out / f"events-{offsets[0]}.json").write_text(json.dumps(offsets), encoding="utf-8")

    def write_dead_letters(batch: DeadLetterBatch) -> None:
        dead_letters = {dead_letter.offset: dead_letter.error_class for dead_letter in batch.dead_letters}
        (out / f"dead-letters-{min(dead_letters)}.json").write_text(json.dumps(dead_letters), encoding="utf-8")

    with TestPipeline(runner="FnApiRunner") as pipeline:
        result = pipeline | beam.Create([raw(values)]) | DecodeAvro(resolver)
        _ = result.events | "events" >> beam.Map(write_events)
        _ = result.errs | "letters" >> beam.Map(write_dead_letters)
    events = sorted(o for path in out.glob("events-*") for o in json.loads(path.read_text()))
    dead_letters = {
        int(o): name for path in out.glob("dead-letters-*") for o, name in json.loads(path.read_text()).items()
    }
    return events, dead_letters


def test_register_check_and_list_all_schemas(stack: LocalStack) -> None:
    first = findings(stack, "register")
    assert set(first) == set(EVENT_SCHEMAS)
    assert {row["state"] for row in first.values()} == {"registered"}
    again = findings(stack, "register")
    assert {row["new"] for row in again.values()} == {False}
    assert {name: row["id"] for name, row in again.items()} == {name: row["id"] for name, row in first.items()}
    assert findings(stack, "check") == again
    listed = json.loads(run(stack, "list", "--output", "json").stdout)
    assert {row["schema"] for row in listed} >= set(EVENT_SCHEMAS)


def test_what_is_missing_is_named_and_the_exit_code_tells(stack: LocalStack, unique: Unique) -> None:
    topic = f"market.crypto.trades.{unique('x')}"
    assert findings(stack, "check", "--topic", topic, exit_code=1)["trade_v2"]["state"] == "missing"
    found = findings(stack, "register", "trade_v2", "nothing", "quote_v2", exit_code=1)
    assert [row["state"] for row in found.values()] == ["registered", "not_found", "registered"]
    assert findings(stack, "register", "--topic", topic)["trade_v2"]["subject"] == f"{topic}-value"


def test_only_a_schema_that_reads_the_earlier_ones_is_registered(
    stack: LocalStack, registry: Registry, unique: Unique, tmp_path: Path
) -> None:
    topic = unique("ticks")
    arguments = ("register", "--topic", f"{topic}=trade_v2", "--from", str(tmp_path))
    assert findings(stack, "register", "--topic", f"{topic}=trade_v2")["trade_v2"]["version"] == 1
    file = tmp_path / "trade_v2.avsc"
    file.write_text(json.dumps(evolved("trade_v2", desk={"name": "desk", "type": "string"})), encoding="utf-8")
    refused = findings(stack, *arguments, exit_code=1)["trade_v2"]
    assert refused["state"] == "incompatible"
    assert "desk" in refused["reason"]
    assert registry.versions(f"{topic}-value") == [1]
    desk = {"name": "desk", "type": "string", "default": ""}
    file.write_text(json.dumps(evolved("trade_v2", desk=desk)), encoding="utf-8")
    assert findings(stack, *arguments)["trade_v2"]["version"] == 2


def test_an_older_writer_is_read_as_ours(registry: Registry, unique: Unique, stack: LocalStack, tmp_path: Path) -> None:
    """A field that the writer lacks takes its default, and a narrower type is widened."""
    older = evolved("trade_v2", vendor_data=None, source_sequence=["null", "int"])
    schema_id = registry.register(unique("older"), json.dumps(older))
    record = {name: value for name, value in trade(1).items() if name != "vendor_data"}
    values = [frame(schema_id, encode(older, record)) for _ in range(3)]
    events, dead_letters = decoded(RegistryResolver(stack.registry_url), values, tmp_path)
    assert (events, dead_letters) == ([0, 1, 2], {})


def test_poison_becomes_dead_letters_and_the_rest_events(registry: Registry, stack: LocalStack, tmp_path: Path) -> None:
    schema_id = registry.register("com.k2.marketdata.TradeV2", schema_text("trade_v2"))
    good = frame(schema_id, encode_as("trade_v2", trade()))
    values = [good, frame(987_654_321, b"x"), good, frame(0xDEADBEEF, b"x"), good[:-2], b"{}", good]
    events, dead_letters = decoded(RegistryResolver(stack.registry_url, unknown_wait_s=0.5), values, tmp_path)
    assert events == [0, 2, 6]
    assert dead_letters == {1: "unknown_schema_id", 3: "unknown_schema_id", 4: "truncated", 5: "bad_magic"}


def test_a_registry_that_is_down_fails_the_job_and_makes_no_dead_letters(
    registry: Registry, stack: LocalStack, tmp_path: Path
) -> None:
    schema_id = registry.register("com.k2.marketdata.TradeV2", schema_text("trade_v2"))
    values = [frame(schema_id, encode_as("trade_v2", trade()))]
    url = stack.registry_url
    stack.stop("registry")
    try:
        with pytest.raises(Exception, match="no answer within 1 s"):
            decoded(RegistryResolver(url, wait_s=1), values, tmp_path)
        assert list(tmp_path.iterdir()) == []
        resolver = RegistryResolver(url, wait_s=0.2)
        resolver.open()
        with pytest.raises(RegistryUnavailable) as raised:
            resolver.resolve(schema_id)
        assert not isinstance(raised.value, SchemaError)
        assert run(stack, "check", "--wait", "0").exit_code == 1
    finally:
        stack.start("registry")
    assert decoded(RegistryResolver(url), values, tmp_path) == ([0], {})
