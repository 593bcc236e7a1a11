"""Schemas against subjects: found, checked, registered; what is missing is named and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from k2beam.errors import RegistryError, UsageError
from k2beam.registry.client import Registered, Registry
from k2beam.registry.subjects import EVENT_SCHEMAS, candidates, check, list_subjects, register, schema_text
from k2beam.schemas import avro_schema, full_name
from tests.codec_samples import evolved

TRADE = "com.k2.marketdata.TradeV2"


class FakeRegistry:
    """The calls that the check makes, in memory."""

    def __init__(self, **subjects: list[str]) -> None:
        self.stored = subjects
        self.rule = True
        self.refuses: set[str] = set()

    def subjects(self) -> list[str]:
        return sorted(self.stored)

    def versions(self, subject: str) -> list[int]:
        return list(range(1, len(self.stored.get(subject, [])) + 1))

    def version(self, subject: str, version: int) -> Registered:
        return Registered(subject, version, 100 + version, self.stored[subject][version - 1])

    def find(self, subject: str, text: str) -> Registered | None:
        known = self.stored.get(subject, [])
        return self.version(subject, known.index(text) + 1) if text in known else None

    def allows(self, subject: str, text: str) -> bool:
        del subject, text
        return self.rule

    def register(self, subject: str, text: str) -> int:
        if subject in self.refuses:
            raise RegistryError("422 Invalid schema")
        self.stored.setdefault(subject, []).append(text)
        return 100 + len(self.stored[subject])


def faked(registry: FakeRegistry) -> Registry:
    return cast("Registry", registry)


def changed(**changes: Any) -> str:
    return json.dumps(evolved("trade_v2", **changes))


def test_all_schemas_are_registered_under_their_records_names() -> None:
    registry = FakeRegistry()
    found = list(register(faked(registry), candidates()))
    assert [(finding.schema, finding.state, finding.new) for finding in found] == [
        (name, "registered", True) for name in EVENT_SCHEMAS
    ]
    assert registry.subjects() == sorted(str(full_name(avro_schema(name))) for name in EVENT_SCHEMAS)


def test_registering_again_changes_nothing() -> None:
    registry = FakeRegistry()
    list(register(faked(registry), candidates()))
    stored = {subject: list(texts) for subject, texts in registry.stored.items()}
    again = list(register(faked(registry), candidates()))
    assert {(finding.state, finding.new, finding.version) for finding in again} == {("registered", False, 1)}
    assert registry.stored == stored


def test_a_check_changes_nothing() -> None:
    registry = FakeRegistry()
    assert {finding.state for finding in check(faked(registry), candidates())} == {"missing"}
    assert registry.stored == {}


def test_what_is_missing_or_refused_is_named_and_the_rest_goes_on() -> None:
    registry = FakeRegistry()
    registry.refuses = {TRADE}
    found = list(register(faked(registry), candidates(["no_such", "trade_v2", "quote_v2"])))
    assert [finding.state for finding in found] == ["not_found", "failed", "registered"]
    assert "no_such" in found[0].reason
    assert "422" in found[1].reason


def test_a_folder_without_a_file_and_with_a_wrong_one(tmp_path: Path) -> None:
    (tmp_path / "trade_v2.avsc").write_text(schema_text("trade_v2"), encoding="utf-8")
    (tmp_path / "quote_v2.avsc").write_text(schema_text("trade_v2"), encoding="utf-8")
    (tmp_path / "trade.avsc").write_text("{", encoding="utf-8")
    found = {f.schema: f for f in register(faked(FakeRegistry()), candidates(folder=tmp_path))}
    assert {name: finding.state for name, finding in found.items()} == {
        "trade": "not_found",
        "quote": "not_found",
        "reference_data": "not_found",
        "trade_v3": "not_found",
        "quote_v3": "not_found",
        "trade_v2": "registered",
        "quote_v2": "invalid",
        "reference_data_v2": "not_found",
    }
    assert "quote.avsc" in found["quote"].reason
    assert "trade_v2" in found["quote_v2"].reason


def test_a_schema_that_can_follow_an_earlier_version_is_registered() -> None:
    earlier = changed(vendor_data=None)
    registry = FakeRegistry(**{TRADE: [earlier]})
    [before] = check(faked(registry), candidates(["trade_v2"]))
    assert (before.state, before.reason) == ("compatible", "differs from version 1")
    [after] = register(faked(registry), candidates(["trade_v2"]))
    assert (after.state, after.version, after.new) == ("registered", 2, True)


def test_a_schema_that_can_not_read_an_earlier_version_is_not_registered() -> None:
    good, bad = schema_text("trade_v2"), changed(price="string")
    registry = FakeRegistry(**{TRADE: [bad, changed(vendor_data=None)]})
    [finding] = register(faked(registry), candidates(["trade_v2"]))
    assert finding.state == "incompatible"
    assert "version 1" in finding.reason
    assert good not in registry.stored[TRADE]


def test_a_new_field_without_default_is_incompatible(tmp_path: Path) -> None:
    desk = changed(desk={"name": "desk", "type": "string"})
    (tmp_path / "trade_v2.avsc").write_text(desk, encoding="utf-8")
    registry = FakeRegistry(**{TRADE: [schema_text("trade_v2")]})
    [finding] = register(faked(registry), candidates(["trade_v2"], folder=tmp_path))
    assert finding.state == "incompatible"
    assert "desk: is new and has no default" in finding.reason


def test_a_new_field_with_a_default_is_registered(tmp_path: Path) -> None:
    desk = changed(desk={"name": "desk", "type": "string", "default": ""})
    (tmp_path / "trade_v2.avsc").write_text(desk, encoding="utf-8")
    registry = FakeRegistry(**{TRADE: [schema_text("trade_v2")]})
    [finding] = register(faked(registry), candidates(["trade_v2"], folder=tmp_path))
    assert (finding.state, finding.version) == ("registered", 2)


def test_the_registrys_own_rule_counts_too() -> None:
    registry = FakeRegistry(**{TRADE: [changed(vendor_data=None)]})
    registry.rule = False
    [finding] = register(faked(registry), candidates(["trade_v2"]))
    assert finding.state == "incompatible"
    assert "the registry's compatibility rule" in finding.reason


def test_topics_have_the_schema_of_their_kind() -> None:
    found = candidates(topics=["market.crypto.quotes.binance", "ticks=trade"])
    assert [(c.schema, c.subject) for c in found] == [
        ("quote_v2", "market.crypto.quotes.binance-value"),
        ("trade", "ticks-value"),
    ]


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--topic ticks=trade_v2"):
        candidates(topics=["ticks"])
    with pytest.raises(UsageError, match="not both"):
        candidates(["trade"], ["market.crypto.quotes.binance"])
    with pytest.raises(UsageError, match="not a folder"):
        candidates(folder=tmp_path / "none")


def test_subjects_of_others_are_listed_too() -> None:
    registry = FakeRegistry(
        **{TRADE: [changed(vendor_data=None), schema_text("trade_v2")], "other": ['"string"'], "odd": ["{"]}
    )
    rows = {row.subject: row for row in list_subjects(faked(registry))}
    assert (rows[TRADE].schema, rows[TRADE].versions, rows[TRADE].latest, rows[TRADE].id) == ("trade_v2", 2, 2, 102)
    assert rows["other"].schema is None
    assert rows["odd"].schema is None
