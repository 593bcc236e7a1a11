"""RegistryResolver: cached by id, patient with what may come, and never a dead letter for a registry that is away."""

from __future__ import annotations

import json
import pickle
from typing import Any

import fastavro
import pytest

from k2beam.errors import RegistryError, RegistryUnavailable, SchemaError, UnsupportedSchema, UsageError
from k2beam.registry.config import RegistryConfig
from k2beam.registry.resolver import MAX_ID, RegistryResolver
from tests.http_servers import closed_port
from tests.registry_server import NO_SCHEMA, Answer, Sleeps, in_turn, registry_server

KNOWN: Answer = (200, {"schema": '{"type":"string"}'})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(url: str, **options: Any) -> RegistryResolver:
    resolver = RegistryResolver(url, **options)
    resolver.open()
    return resolver


def test_a_schema_is_asked_for_once() -> None:
    with registry_server(in_turn(KNOWN)) as (url, asked):
        resolver = opened(url)
        assert [resolver.resolve(5) for _ in range(3)] == ['{"type":"string"}'] * 3
        assert len(asked) == 1
        assert asked[0].startswith("GET /schemas/ids/5")
        resolver.close()
        with pytest.raises(RuntimeError, match="not open"):
            resolver.resolve(5)


def test_a_schema_that_comes_late_is_waited_for() -> None:
    sleeps = Sleeps()
    with registry_server(in_turn(NO_SCHEMA, NO_SCHEMA, KNOWN)) as (url, asked):
        assert opened(url, sleep=sleeps).resolve(5) == '{"type":"string"}'
        assert len(asked) == 3
    assert 0 < sleeps.total < 3


def test_an_unknown_id_is_a_schema_error_after_a_few_seconds_and_remembered() -> None:
    sleeps, clock = Sleeps(), Clock()
    with registry_server(in_turn(NO_SCHEMA)) as (url, asked):
        resolver = opened(url, sleep=sleeps, clock=clock, unknown_wait_s=3.0)
        with pytest.raises(SchemaError, match=f"schema id 5 is not in the Schema Registry {url}"):
            resolver.resolve(5)
        assert 3 <= sleeps.total < 5
        before = len(asked)
        with pytest.raises(SchemaError, match="schema id 5"):
            resolver.resolve(5)
        assert len(asked) == before
        clock.now = 61
        with pytest.raises(SchemaError):
            resolver.resolve(5)
        assert len(asked) > before


def test_many_unknown_ids_do_not_wait_each_for_itself() -> None:
    sleeps = Sleeps()
    with registry_server(in_turn(NO_SCHEMA)) as (url, asked):
        resolver = opened(url, sleep=sleeps, clock=Clock(), unknown_wait_s=3.0)
        for schema_id in range(1, 31):
            with pytest.raises(SchemaError):
                resolver.resolve(schema_id)
        assert 6 <= sleeps.total < 9
        assert len({line.partition("?")[0] for line in asked}) == 30


@pytest.mark.parametrize("schema_id", [MAX_ID + 1, 0xDEADBEEF, -1])
def test_an_id_that_no_registry_gives_is_not_asked_for(schema_id: int) -> None:
    with registry_server(in_turn(KNOWN)) as (url, asked), pytest.raises(SchemaError, match=f"{schema_id} can't be"):
        opened(url).resolve(schema_id)
    assert asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"schema": "{}", "schemaType": "JSON"}, "of type JSON"),
        ({"schema": "{}", "schemaType": "PROTOBUF"}, "of type PROTOBUF"),
    ],
)
def test_a_schema_that_can_not_be_used_is_unsupported(answer: dict[str, Any], said: str) -> None:
    with registry_server(in_turn((200, answer))) as (url, _), pytest.raises(UnsupportedSchema, match=said):
        opened(url).resolve(5)


def test_a_guid_is_asked_for_as_one() -> None:
    guid = "12345678-1234-5678-1234-567812345678"
    with registry_server(in_turn((200, {"schema": '{"type":"string"}'}))) as (url, asked):
        assert opened(url).resolve(guid) == '{"type":"string"}'
    assert f"/schemas/guids/{guid}" in str(asked[0])


def test_what_a_schema_refers_to_is_written_out_once() -> None:
    main = {
        "type": "record",
        "name": "a.Trade",
        "fields": [{"name": "side", "type": ["null", "b.Side"]}, {"name": "was", "type": "b.Side"}],
    }
    side = {"type": "record", "name": "Side", "namespace": "b", "fields": [{"name": "word", "type": "Word"}]}
    word = {"type": "enum", "name": "b.Word", "symbols": ["X"]}
    answers = (
        {"schema": json.dumps(main), "references": [{"name": "b.Side", "subject": "side", "version": 3}]},
        {
            "subject": "side",
            "version": 3,
            "id": 7,
            "schema": json.dumps(side),
            "references": [{"name": "b.Word", "subject": "word", "version": 1}],
        },
        {"subject": "word", "version": 1, "id": 8, "schema": json.dumps(word)},
    )
    with registry_server(in_turn(*((200, answer) for answer in answers))) as (url, _):
        found = json.loads(opened(url).resolve(5))
    written = {**side, "fields": [{"name": "word", "type": word}]}
    assert found["fields"] == [{"name": "side", "type": ["null", written]}, {"name": "was", "type": "b.Side"}]
    fastavro.parse_schema(found)


def test_a_registry_that_is_away_is_no_schema_error() -> None:
    sleeps = Sleeps()
    resolver = opened(f"http://127.0.0.1:{closed_port()}", sleep=sleeps, wait_s=30)
    with pytest.raises(RegistryUnavailable) as raised:
        resolver.resolve(5)
    assert not isinstance(raised.value, SchemaError)
    assert sleeps.total >= 30


def test_a_registry_that_refuses_is_no_schema_error() -> None:
    with registry_server(in_turn((401, {"error_code": 401, "message": "no"}))) as (url, _):
        with pytest.raises(RegistryError) as raised:
            opened(url).resolve(5)
        assert not isinstance(raised.value, SchemaError)


def test_it_is_pickled_as_its_configuration() -> None:
    with registry_server(in_turn(KNOWN)) as (url, asked):
        resolver = opened(url, wait_s=12)
        resolver.resolve(5)
        copy = pickle.loads(pickle.dumps(resolver))
        assert copy.config == resolver.config
        with pytest.raises(RuntimeError, match="not open"):
            copy.resolve(5)
        copy.open()
        assert copy.resolve(5) == '{"type":"string"}'
        assert len(asked) == 2


def test_a_whole_configuration_may_be_given_and_its_secrets_stay_references() -> None:
    config = RegistryConfig("http://registry:1", "${env:K2_USER}", "${env:K2_PASSWORD}", wait_s=7)
    resolver = pickle.loads(pickle.dumps(RegistryResolver(config)))
    assert resolver.config == config
    with pytest.raises(UsageError, match="K2_USER is not set"):
        resolver.open()
