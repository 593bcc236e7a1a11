"""All exceptions of k2beam.

::

    K2BeamError
    ├── UsageError              an option, a path or a configuration is wrong; exit code 2
    ├── SchemaError             a schema is unknown, refused or can't be mapped
    │   └── UnsupportedSchema   it is of another type than Avro
    ├── FrameError              a payload isn't in Confluent framing
    │   ├── TombstoneError      it's null
    │   ├── EmptyPayloadError   it has no bytes
    │   ├── BadMagicError       it doesn't begin with the magic byte
    │   ├── ShortFrameError     it ends within the schema id
    │   └── BadSchemaHeaderError its header names no schema
    ├── DecodeError             a payload doesn't decode under its schema
    │   ├── StrictError         by the second decoder, with its error class
    │   └── BadFrame            a frame of an exchange gives no event
    ├── ArchiveError            a container can't be read
    │   ├── ArchiveRefused      it's outside the root, too large or hostile: nothing is read
    │   └── BrokenBlock         one block is broken; the blocks around it are read
    │       └── BlockTooLarge   it would unpack to more than the limit
    ├── CsvError                a CSV file changed while it was read
    ├── MetricError             a metric was called with a wrong name or wrong labels
    ├── MetricsPushFailed       the Pushgateway did not take the metrics
    ├── PlatformError           a program or server that is needed can't be had
    │   └── FlinkRestError      Flink's REST API refused or did not answer
    ├── RunnerGone              the runner of a job does not answer any more
    ├── WorkerRefused           a worker can't do the work of its job
    ├── InvalidRecord           the producer refuses a record; names the field
    ├── NotDelivered            messages that the broker did not take
    ├── SpoolError              a spool file can't be read
    ├── KafkaFailed             the broker can't be reached, or refused
    ├── KafkaUnreachable        the cluster did not answer; asked again later, it may
    ├── LoginRefused            the broker rejected this client
    ├── FeedError               an exchange refuses, or the attempts are used up
    ├── RegistryError           the Schema Registry refused, or its answer is wrong
    │   ├── RegistryUnavailable it did not answer while it was waited for
    │   └── NotRegistered       it has no such schema or subject
    └── LakeError               a table can't be read or written
        ├── UnreadableFile      a data file is lost or damaged
        ├── QueryFailed         a statement of a query failed
        ├── IncompleteAnswer    an answer that was to be complete has gaps in it
        ├── StoreUnavailable    the catalog or the store did not answer while it was waited for
        ├── StoreRefused        the store does not let this program read or write
        ├── CommitConflict      another writer won, and the retries are used up
        └── CommitUnknown       the outcome of a commit could not be found out

A record that can't be used is never an exception at the level of the pipeline:
it becomes a :class:`k2beam.model.DeadLetter` whose ``error_class`` is one of the names
that the stage documents.

Two more end a wait from within and reach no caller of k2beam: :class:`NotReady`, :class:`Stopped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


class K2BeamError(Exception):
    """Base of everything that k2beam raises on purpose.

    Examples:
        >>> from k2beam import K2BeamError, Lake
        >>> try:
        ...     Lake(warehouse="nowhere")
        ... except K2BeamError as error:
        ...     print(type(error).__name__)
        UsageError
    """


class UsageError(K2BeamError):
    """The caller's options, paths or configuration are wrong. The command line exits with 2."""


class SchemaError(K2BeamError):
    """A schema is unknown, refused as unsafe, or has no mapping to the tables."""


class FrameError(K2BeamError):
    """A payload is not in Confluent framing (magic byte 0, four bytes of schema id)."""


class TombstoneError(FrameError):
    """The value is null: a deletion in a compacted topic, which market data does not have."""

    error_class = "tombstone"


class EmptyPayloadError(FrameError):
    """The value has no bytes at all."""

    error_class = "empty_payload"


class BadMagicError(FrameError):
    """The first byte is not the magic byte 0."""

    error_class = "bad_magic"


class ShortFrameError(FrameError):
    """The value ends within the schema id."""

    error_class = "short_frame"


class BadSchemaHeaderError(FrameError):
    """The header that names the writer's schema names none."""

    error_class = "bad_schema_header"


class UnsupportedSchema(SchemaError):
    """A schema that is there, and of a type that is not taken."""

    error_class = "schema_unsupported"


class DecodeError(K2BeamError):
    """A payload does not decode under its schema."""


class StrictError(DecodeError):
    """The bytes break a rule of the encoding; ``error_class`` names the rule."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class BadFrame(DecodeError):
    """A frame that can't be used; ``reason`` is one of :data:`k2beam.feeds.feed.REASONS`."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class ArchiveError(K2BeamError):
    """An Avro container can't be read."""


class ArchiveRefused(ArchiveError):
    """An archive was refused before anything of it was read."""


class BrokenBlock(ArchiveError):
    """One block of a container is broken; the blocks around it are still read."""


class BlockTooLarge(BrokenBlock):
    """A block decompresses to more than the limit."""


class CsvError(K2BeamError):
    """A CSV file changed while it was read."""


class MetricError(K2BeamError):
    """A metric was called with a name or labels that the registry does not know."""


class MetricsPushFailed(K2BeamError):
    """The Pushgateway can't be reached, or did not take the metrics; what was ingested is not touched by it."""


class PlatformError(K2BeamError):
    """A program that the local stack needs is not there and can't be had."""


class FlinkRestError(PlatformError):
    """Flink's REST API does not answer, or refuses."""


class RunnerGone(K2BeamError):
    """The runner of a job does not answer any more."""


class WorkerRefused(K2BeamError):
    """A worker of a cluster can't do the work of its job: it has other versions, or its runner does not answer."""


class InvalidRecord(K2BeamError):
    """A record can't be produced; ``field`` says which of its fields is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class NotDelivered(K2BeamError):
    """Messages did not reach the broker; ``spool`` is the file that keeps them, if there is one."""

    def __init__(self, message: str, spool: Path | None = None) -> None:
        super().__init__(message)
        self.spool = spool


class SpoolError(K2BeamError):
    """A spool file can't be read."""


class KafkaFailed(K2BeamError):
    """The broker can't be reached, or refused a request."""


class KafkaUnreachable(K2BeamError):
    """The cluster did not answer. Asked again later, it may."""


class LoginRefused(K2BeamError):
    """The broker takes the credentials for wrong, or one side does not trust the other's certificate."""


class FeedError(K2BeamError):
    """The exchange refuses what is asked for, or can't be reached within the attempts allowed."""


class RegistryError(K2BeamError):
    """The registry refused a request, or what answers is no Schema Registry."""


class RegistryUnavailable(RegistryError):
    """The registry did not answer within the limit. Tried again later, the request may succeed."""


class NotRegistered(RegistryError):
    """The subject, version or schema id is not in the registry."""


class LakeError(K2BeamError):
    """A table can't be opened, read or written."""


class QueryFailed(LakeError):
    """A statement of a query failed: a file can't be read, or a value is too large for what was asked."""


class IncompleteAnswer(LakeError):
    """An answer that was to be complete has gaps of the ledger in it; nothing of it is given."""


class UnreadableFile(LakeError):
    """A file that a table's snapshot refers to is gone or damaged; ``path`` says which."""

    def __init__(self, table: str, path: str, reason: str) -> None:
        super().__init__(f"table {table}: file {path} {reason}")
        self.table = table
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableFile], tuple[str, str, str]]:
        return type(self), (self.table, self.path, self.reason)


class StoreUnavailable(LakeError):
    """The catalog, or the store of the tables, did not answer. Tried again later, it may."""


class StoreRefused(LakeError):
    """The store of the tables refuses: the credentials, the rights or the bucket are not right."""


class CommitConflict(LakeError):
    """Other writers kept winning until the retries were used up; nothing of this commit landed."""


class CommitUnknown(LakeError):
    """The outcome of a commit could not be found out; no file was deleted."""


class NotReady(Exception):
    """A server does not answer yet; the message says what was tried."""


class Stopped(Exception):
    """The job was told to stop while an answer was waited for."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of one that says nothing."""
    return next(iter(f"{error}".splitlines()), "") or type(error).__name__


def mendable(trace: str, *kinds: type[BaseException]) -> str | None:
    """The last exception that a traceback names, where it tells whoever runs the program all that there is to mend.

    That is one of ``kinds`` (without any: a K2BeamError, or an error of the operating system); None for anything else,
    which is a defect.
    """
    lines = (line.strip().removeprefix("RuntimeError: ") for line in reversed(trace.splitlines()))
    named = next((found for line in lines if (found := _NAMED.fullmatch(line))), None)
    known = {kind.__name__ for kind in _kinds_of(*(kinds or (K2BeamError, OSError)))}
    return named["text"] or named["name"] if named is not None and named["name"] in known else None


_NAMED = re.compile(r"(?:\w+\.)*(?P<name>\w+)(?:: (?P<text>.*?))?(?: \[while running '[^']*'\])*")


def _kinds_of(*kinds: type[BaseException]) -> Iterator[type[BaseException]]:
    for kind in kinds:
        yield kind
        yield from _kinds_of(*kind.__subclasses__())
