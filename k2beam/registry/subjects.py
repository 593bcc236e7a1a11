"""The project's schemas against the subjects of a registry: what is there, what may be registered, registering.

Subjects are named after the record (RecordNameStrategy: ``com.k2.marketdata.TradeV2``), which is one subject a
schema whatever the number of topics, or after topics (TopicNameStrategy: ``<topic>-value``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from k2beam.codec.avro_schema import Record, record_type
from k2beam.codec.writer_schema import WriterSchema
from k2beam.errors import NotRegistered, RegistryError, RegistryUnavailable, SchemaError, UsageError
from k2beam.registry.client import Registered, Registry
from k2beam.registry.compat import unreadable
from k2beam.schemas import SCHEMA_NAMES, avro_schema, full_name, identify, v2_name
from k2beam.topics import parse_topic

EVENT_SCHEMAS: tuple[str, ...] = tuple(name for name in SCHEMA_NAMES if name != "raw_record")
"""The schemas of messages: three kinds in two versions."""

State = Literal["registered", "missing", "compatible", "incompatible", "not_found", "invalid", "failed"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schema that should be in ``subject``; ``text`` is its JSON, or None where it was not found (``reason``)."""

    schema: str
    subject: str
    text: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a candidate.

    States: registered (the subject has it), missing (there is no such subject), compatible (the subject has other
    versions, which it could follow), incompatible, invalid (no schema of this kind), not_found (no such file), failed
    (the registry refused it). ``new`` says that it was registered now.
    """

    schema: str
    subject: str
    state: State
    id: int | None = None
    version: int | None = None
    new: bool = False
    reason: str = ""


def schema_text(name: str) -> str:
    """The JSON of a packaged schema, in the one form that is registered and looked up."""
    return json.dumps(avro_schema(name))


def candidates(
    names: Sequence[str] = (), topics: Sequence[str] = (), folder: Path | None = None
) -> tuple[Candidate, ...]:
    """The schemas to look at: all events', or ``names``; packaged, or ``NAME.avsc`` in ``folder``.

    ``topics`` gives subjects by topic instead: ``market.crypto.trades.binance`` has the v2 schema of its kind, and
    ``NAME=trade_v2`` names the schema. Raises UsageError for a topic whose schema is not known, for names together
    with topics, and for a folder that is not there.
    """
    if names and topics:
        raise UsageError("give names of schemas or --topic, not both: a topic says which schema it has")
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--from {folder} is not a folder of NAME.avsc files")
    if topics:
        return tuple(_of_topic(topic, folder) for topic in topics)
    return tuple(_candidate(name, "", folder) for name in names or EVENT_SCHEMAS)


def _of_topic(topic: str, folder: Path | None) -> Candidate:
    name, _, schema = topic.partition("=")
    parsed = parse_topic(name)
    if not schema:
        if parsed is None:
            raise UsageError(
                f"--topic {topic}: the name does not tell its schema, as market.crypto.trades.binance does;"
                f" write --topic {topic}=trade_v2"
            )
        schema = v2_name(parsed.kind)
    return _candidate(schema, f"{name}-value", folder)


def _candidate(name: str, subject: str, folder: Path | None) -> Candidate:
    try:
        schema = avro_schema(name) if folder is None else _from_file(folder / f"{name}.avsc")
    except SchemaError as error:
        return Candidate(name, subject or name, None, str(error))
    except (OSError, ValueError) as error:
        return Candidate(name, subject or name, None, f"the schema can't be read: {error}")
    return Candidate(name, subject or full_name(schema) or name, json.dumps(schema))


def _from_file(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def check(registry: Registry, wanted: Iterable[Candidate]) -> Iterator[Finding]:
    """How each candidate stands; nothing is changed.

    Raises RegistryUnavailable, and RegistryError where it answers no question.
    """
    for candidate in wanted:
        yield _check(registry, candidate)


def register(registry: Registry, wanted: Iterable[Candidate]) -> Iterator[Finding]:
    """Register what is missing or compatible; what can't be registered is told, and the rest goes on.

    Registering again changes nothing. Raises RegistryUnavailable: then what was told so far is registered.
    """
    for candidate in wanted:
        finding = _check(registry, candidate)
        if finding.state in ("missing", "compatible") and candidate.text is not None:
            finding = _register(registry, candidate, finding)
        yield finding


def _register(registry: Registry, candidate: Candidate, finding: Finding) -> Finding:
    text = candidate.text or ""
    try:
        schema_id = registry.register(candidate.subject, text)
        stored = registry.find(candidate.subject, text)
    except RegistryUnavailable:
        raise
    except RegistryError as error:
        return replace(finding, state="failed", reason=str(error))
    return replace(finding, state="registered", id=schema_id, version=stored.version if stored else None, new=True)


def _check(registry: Registry, candidate: Candidate) -> Finding:
    text = candidate.text
    if text is None:
        return Finding(candidate.schema, candidate.subject, "not_found", reason=candidate.reason)
    finding = Finding(candidate.schema, candidate.subject, "missing")
    try:
        schema = _readable(candidate.schema, text)
    except SchemaError as error:
        return replace(finding, state="invalid", reason=str(error))
    versions = registry.versions(candidate.subject)
    if not versions:
        return finding
    if (found := registry.find(candidate.subject, text)) is not None:
        return replace(finding, state="registered", id=found.id, version=found.version)
    stored = [registry.version(candidate.subject, version) for version in versions]
    if reasons := [reason for version in stored for reason in _reasons(version, schema)]:
        return replace(finding, state="incompatible", reason="; ".join(reasons))
    if not _allowed(registry, candidate.subject, text):
        return replace(
            finding, state="incompatible", reason="the registry's compatibility rule of the subject forbids it"
        )
    return replace(finding, state="compatible", reason=f"differs from version {versions[-1]}")


def _readable(name: str, text: str) -> Record:
    """The schema's tree, where the pipeline can take its messages. Raises SchemaError."""
    known = WriterSchema.parse(text).known
    if known.name != name:
        raise SchemaError(f"it is called {name}, but its record is that of {known.name}")
    # Not the parsed schema's own tree: that has no defaults and types of fields that the pipeline leaves out.
    return record_type(json.loads(text))


def _reasons(stored: Registered, schema: Record) -> Iterator[str]:
    try:
        WriterSchema.parse(stored.text)
        written = record_type(json.loads(stored.text))
    except SchemaError as error:
        yield f"version {stored.version} is none of ours: {error}"
        return
    for problem in unreadable(written, schema):
        yield f"what version {stored.version} wrote can't be read: {problem}"


def _allowed(registry: Registry, subject: str, text: str) -> bool:
    try:
        return registry.allows(subject, text)
    except NotRegistered:
        # The last version was deleted since: nothing is left to be compatible with.
        return True


@dataclass(frozen=True, slots=True)
class SubjectRow:
    """A subject of the registry: its latest version, and which of our schemas that is a version of, if any."""

    subject: str
    versions: int
    latest: int
    id: int
    schema: str | None


def list_subjects(registry: Registry) -> Iterator[SubjectRow]:
    """Every subject of the registry, ours or not, by name."""
    for subject in registry.subjects():
        versions = registry.versions(subject)
        if versions:
            latest = registry.version(subject, versions[-1])
            yield SubjectRow(subject, len(versions), latest.version, latest.id, _our_name(latest.text))


def _our_name(text: str) -> str | None:
    try:
        return identify(json.loads(text)).name
    except (SchemaError, ValueError):
        return None
