"""References to secrets: the whole value, read where it is used, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2beam.errors import UsageError
from k2beam.references import (
    Reference,
    check_reference,
    client_config,
    dereference,
    has_userinfo,
    parse_reference,
)

CANARY = "canary-51ab"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("K2_TEST_SECRET", CANARY)
    monkeypatch.setenv("K2_TEST_EMPTY", "")
    contents = {"unix": f"{CANARY}\n", "dos": f"{CANARY}\r\n", "inner": " a\n\n", "empty": "\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content.encode())
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    return tmp_path


def test_a_variable_and_a_file_are_read_without_the_last_line_break(folder: Path) -> None:
    assert dereference("${env:K2_TEST_SECRET}", "x") == CANARY
    assert dereference(f"${{file:{folder}/unix}}", "x") == CANARY
    assert dereference(f"${{file:{folder}/dos}}", "x") == CANARY
    assert dereference(f"${{file:{folder}/inner}}", "x") == " a\n"


@pytest.mark.parametrize("text", [CANARY, "a ${env:A}", "${env:A} ", "${env:}", "${vault:A}", "${env:A}${env:B}", ""])
def test_only_a_whole_value_is_a_reference(text: str) -> None:
    assert parse_reference(text) is None
    for work in (check_reference, dereference):
        with pytest.raises(UsageError, match="--password takes a reference") as refused:
            work(text, "--password")
        assert CANARY not in str(refused.value)


def test_a_reference_has_a_kind_and_a_name() -> None:
    assert parse_reference("${env:A}") == Reference("env", "A")
    assert parse_reference("${file:/a/b c}") == Reference("file", "/a/b c")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("env:K2_TEST_ABSENT", "variable K2_TEST_ABSENT is not set"),
        ("env:K2_TEST_EMPTY", "variable K2_TEST_EMPTY is not set"),
        ("file:{}/absent", "absent can't be read: No such file"),
        ("file:{}/empty", "empty is empty"),
        ("file:{}/binary", "binary can't be read: it is not UTF-8"),
    ],
)
def test_what_a_reference_names_must_be_there(folder: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        dereference(f"${{{name.format(folder)}}}", "--sasl-password")
    assert str(refused.value).startswith("--sasl-password: ")


def test_a_client_gets_values_and_its_configuration_must_not_hold_secrets(folder: Path) -> None:
    options = {
        "sasl.password": "${env:K2_TEST_SECRET}",
        "ssl.key.password": f"${{file:{folder}/unix}}",
        "linger.ms": "5",
    }
    assert client_config(options) == {"sasl.password": CANARY, "ssl.key.password": CANARY, "linger.ms": "5"}
    for option in ("sasl.password", "sasl.jaas.config", "ssl.keystore.key", "ssl.key.pem", "basic.auth.user.info"):
        with pytest.raises(UsageError, match=f"{option} takes a reference") as refused:
            client_config({option: CANARY})
        assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("http://user:secret@host/x", True),
        ("user:secret@host:9091", True),
        ("token@host", True),
        ("http://host:1/path@2", False),
        ("host:9092", False),
        ("http://[", False),
    ],
)
def test_names_and_passwords_before_a_host_are_seen(url: str, has: bool) -> None:
    assert has_userinfo(url) is has
