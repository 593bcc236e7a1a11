"""The client of the registry: what is waited for, what is told apart, and how it is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k2beam.errors import NotRegistered, RegistryError, RegistryUnavailable, UsageError
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from tests.http_servers import closed_port
from tests.registry_server import NO_SCHEMA, NO_SUBJECT, Answer, Sleeps, in_turn, registry_server

SCHEMA = {"schema": '{"type":"string"}', "id": 3}


@pytest.mark.parametrize("passing", [(500, {}), (503, b"busy"), (429, {"error_code": 429, "message": "slow"})])
def test_what_may_pass_is_waited_for(passing: Answer) -> None:
    sleeps = Sleeps()
    with registry_server(in_turn(passing, passing, (200, SCHEMA))) as (url, asked):
        registry = Registry(RegistryConfig(url), sleeps)
        assert registry.schema(3).schema_str == SCHEMA["schema"]
        assert len(asked) == 3
        assert sleeps.total > 0
        registry.close()


def test_a_registry_that_does_not_answer_is_named_after_the_limit() -> None:
    sleeps, url = Sleeps(), f"http://127.0.0.1:{closed_port()}"
    registry = Registry(RegistryConfig(url, wait_s=20), sleeps)
    with pytest.raises(RegistryUnavailable, match=rf"looking up schema id 3 at .*{url}: no answer within 20 s"):
        registry.schema(3)
    assert sleeps.total >= 20


def test_what_does_not_exist_is_not_waited_for() -> None:
    sleeps = Sleeps()
    with registry_server(in_turn(NO_SCHEMA)) as (url, asked):
        with pytest.raises(NotRegistered, match="Schema not found"):
            Registry(RegistryConfig(url), sleeps).schema(3)
        assert len(asked) == 1
    assert sleeps.total == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, {"error_code": 401, "message": "no"}), "check the user and password"),
        ((403, {"error_code": 40301, "message": "no"}), "check the user and password"),
        ((404, b"<html>not here</html>"), "is the path right"),
        ((404, {"error_code": 404, "message": "HTTP 404 Not Found"}), "is the path right"),
        ((200, b"<html>a page</html>"), "the answer is not JSON"),
        ((422, {"error_code": 42201, "message": "Invalid schema"}), "Invalid schema"),
    ],
)
def test_a_refusal_is_no_unknown_schema_and_not_waited_for(answer: Answer, said: str) -> None:
    sleeps = Sleeps()
    with registry_server(in_turn(answer)) as (url, asked):
        with pytest.raises(RegistryError, match=said) as raised:
            Registry(RegistryConfig(url), sleeps).schema(3)
        assert not isinstance(raised.value, NotRegistered | RegistryUnavailable)
        assert url in str(raised.value)
        assert len(asked) == 1
    assert sleeps.total == 0


def test_a_subject_that_is_not_there_has_no_versions_and_no_schemas() -> None:
    with registry_server(in_turn(NO_SUBJECT)) as (url, _):
        registry = Registry(RegistryConfig(url))
        assert registry.versions("a") == []
        assert registry.find("a", "{}") is None


def test_a_version_is_given_with_its_id_and_text() -> None:
    def reply(method: str, path: str, body: Any) -> Answer:
        del method, body
        assert path.partition("?")[0] == "/subjects/a/versions/2"
        return 200, {"subject": "a", "version": 2, "id": 9, "schema": "text"}

    with registry_server(reply) as (url, _):
        found = Registry(RegistryConfig(url)).version("a", 2)
    assert (found.subject, found.version, found.id, found.text) == ("a", 2, 9, "text")


def test_credentials_are_read_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RegistryConfig("http://registry:1", user="${env:K2_USER}", password="${env:K2_PASSWORD}")
    assert "hush" not in repr(config)
    with pytest.raises(UsageError, match="K2_USER is not set"):
        Registry(config)
    monkeypatch.setenv("K2_USER", "me")
    monkeypatch.setenv("K2_PASSWORD", "hush")
    assert config.client_options()["basic.auth.user.info"] == "me:hush"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://me:hush@registry"}, "credentials in it"),
        ({"url": "me:hush@registry:8081"}, "credentials in it"),
        ({"url": "http://["}, "not the URL of a Schema Registry"),
        ({"url": "registry:8081"}, "not the URL of a Schema Registry"),
        ({"url": "http://registry", "user": "${env:A}"}, "both a user and a password"),
        ({"url": "http://registry", "user": "${env:A}", "password": "hush"}, "takes a reference"),
    ],
)
def test_a_configuration_that_holds_a_secret_or_no_address_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        RegistryConfig(**options)
    assert "hush" not in str(raised.value)


def test_a_certificate_that_is_not_there_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="can't be used with these options"):
        Registry(RegistryConfig("https://registry", ca_file="/nowhere/ca.pem"))


def test_an_object_is_sent_as_the_schema_that_it_is() -> None:
    bodies: list[Any] = []

    def reply(method: str, path: str, body: Any) -> Answer:
        del method
        bodies.append((path.partition("?")[0], body["schema"]))
        return 200, {"id": 4, "is_compatible": False}

    text = json.dumps({"type": "string"})
    with registry_server(reply) as (url, _):
        registry = Registry(RegistryConfig(url))
        assert registry.register("a", text) == 4
        assert registry.allows("a", text) is False
    assert bodies == [("/subjects/a/versions", text), ("/compatibility/subjects/a/versions/latest", text)]
