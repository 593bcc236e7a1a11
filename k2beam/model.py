"""What flows through the pipeline: small frozen values and columnar batches.

A batch is the unit of work (see ARCHITECTURE.md): a :class:`RawBatch` or a :class:`BlockBatch`
becomes one :class:`EventBatch` per event kind. Times are microseconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["trades", "quotes", "reference_data"]
KINDS: tuple[Kind, ...] = ("trades", "quotes", "reference_data")
SEQUENCED_KINDS: tuple[Kind, ...] = ("trades", "quotes")
"""The kinds whose events have a ``source_sequence``."""


SchemaRef = int | str
"""What names a writer's schema: a registry's id, or a GUID as text."""

TIMESTAMP = pa.timestamp("us", tz="UTC")
DECIMAL = pa.decimal128(38, 18)
"""Prices and quantities: twenty digits before the point, eighteen behind it."""

MIN_TIMESTAMP = -62_135_596_800_000_000
MAX_TIMESTAMP = 253_402_300_799_999_999
"""Microseconds of years 1 and 9999: beyond them no calendar type of Python, Arrow or Iceberg agrees."""

RAW_BATCH_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", TIMESTAMP),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))),
    ]
)
"""Columns of a :class:`RawBatch`; ``value`` is Confluent-framed, null for a tombstone.

``timestamp`` is the log's, null where it has none or one outside the years 1 to 9999, which no table can hold.
"""

PROVENANCE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("_source", pa.string(), nullable=False),
    pa.field("_partition", pa.int32(), nullable=False),
    pa.field("_offset", pa.int64(), nullable=False),
    pa.field("_ingested_at", TIMESTAMP, nullable=False),
)
"""The columns that every event table has beside the fields of its Avro schema."""


NO_TIMESTAMP = -1
"""What Kafka gives as the milliseconds of a message without a time."""


def log_time(milliseconds: int) -> int | None:
    """The microseconds of a message's time in Kafka; None without one and outside the years 1 to 9999."""
    if milliseconds == NO_TIMESTAMP or not MIN_TIMESTAMP <= milliseconds * 1000 <= MAX_TIMESTAMP:
        return None
    return milliseconds * 1000


def log_timestamps(micros: pa.Int64Array) -> pa.TimestampArray:
    """Times of a log (microseconds, UTC) as the column ``timestamp``; null outside the years 1 to 9999.

    A log takes any 64 bits from its producers. The message is worth keeping without them.
    """
    within = pc.and_(pc.greater_equal(micros, MIN_TIMESTAMP), pc.less_equal(micros, MAX_TIMESTAMP))
    return pc.if_else(within, micros, None).cast(TIMESTAMP)


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One message of a log as it was read: payload byte for byte, with its provenance."""

    source: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """What a reader found that there is to expect: offsets 0 to ``end`` (exclusive) of a source."""

    source: str
    partition: int
    end: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Messages as columns (:data:`RAW_BATCH_SCHEMA`), in the order in which they were read."""

    data: pa.RecordBatch
    path: str = ""
    schemas: tuple[tuple[SchemaRef, str], ...] = ()
    """Writer schemas by Confluent id or GUID (JSON text) that came with the archive; empty when live."""
    extents: tuple[Extent, ...] = ()

    @property
    def num_rows(self) -> int:
        return int(self.data.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a plain Avro container, decompressed: ``count`` records in ``payload``.

    The records have the offsets ``first_offset`` to ``first_offset + count - 1``; ``position``
    is the block's first byte in the file.
    """

    first_offset: int
    count: int
    position: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """Blocks of one plain container, all under one writer schema (JSON text)."""

    source: str
    partition: int
    path: str
    schema_json: str
    blocks: tuple[Block, ...]
    extent: Extent | None = None

    @property
    def num_rows(self) -> int:
        return sum(block.count for block in self.blocks)

    @property
    def nbytes(self) -> int:
        return sum(len(block.payload) for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Origin:
    """The batch that events were decoded from, and of each event its row there (int64; through all blocks)."""

    batch: RawBatch | BlockBatch
    rows: pa.Int64Array


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Decoded events of one kind: the v2 columns followed by :data:`PROVENANCE_FIELDS`.

    ``element_time`` (``timestamp('us', 'UTC')``, one for each row) says which window a row
    belongs to: the log's timestamp when live. None means that the event's own time counts. ``origin`` is there until
    the rows are validated, so that one that is refused becomes a dead letter with its message whole.
    """

    kind: Kind
    data: pa.RecordBatch
    element_time: pa.Array | None = None
    extents: tuple[Extent, ...] = ()
    origin: Origin | None = None

    @property
    def num_rows(self) -> int:
        return int(self.data.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self.data.nbytes)


Stage = Literal["read", "frame", "schema", "decode", "normalise", "validate"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be used, kept whole.

    ``offset`` to ``offset_last`` (inclusive) are the offsets it stands for: one, but for a broken
    block of a container, which stands for all of its records. ``record_json`` is set where the
    record was decoded. ``headers`` may carry file and position (``k2.path``, ``k2.position``).
    """

    source: str
    partition: int
    offset: int
    stage: Stage
    error_class: str
    error_message: str
    payload: bytes | None
    offset_last: int | None = None
    timestamp: int | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    schema_id: int | None = None
    record_json: str | None = None
    failed_at: int | None = None

    @property
    def last(self) -> int:
        """The last offset it stands for."""
        return self.offset if self.offset_last is None else self.offset_last


@dataclass(frozen=True, slots=True)
class DeadLetterBatch:
    """The dead letters of one batch; a batch so that a bad feed costs no element a message."""

    dead_letters: tuple[DeadLetter, ...]
    extents: tuple[Extent, ...] = ()

    @property
    def num_rows(self) -> int:
        return len(self.dead_letters)

    @property
    def nbytes(self) -> int:
        return sum(len(dead_letter.payload or b"") + 256 for dead_letter in self.dead_letters)


GapStatus = Literal["OPEN", "PARTIAL", "FILLED"]
Severity = Literal["SMALL", "LARGE"]


@dataclass(frozen=True, slots=True)
class Gap:
    """One row of the ledger of sequence gaps; the highest ``revision`` of a ``gap_id`` counts."""

    exchange: str
    symbol: str
    kind: Kind
    epoch: int
    first_missing: int
    last_missing: int
    status: GapStatus
    opened_at: int
    gap_id: str
    revision: int = 0
    detected_at: int | None = None

    @property
    def missing_count(self) -> int:
        return self.last_missing - self.first_missing + 1

    @property
    def severity(self) -> Severity:
        return "SMALL" if self.missing_count <= 10 else "LARGE"


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    """What one commit did: ids of the snapshots before and after, counts, microseconds taken."""

    table: str
    snapshot_before: int | None
    snapshot_after: int | None
    rows: int
    files: int
    bytes: int
    duration_us: int
    attempts: int
    rows_left_out: int
    coverage_digest: str
    windows: tuple[int, ...] = ()
    """Starts of the windows of the committed files, microseconds, ascending."""
    sources: tuple[str, ...] = ()
    """The sources of the committed rows, sorted."""
    element_times: tuple[tuple[int, int], ...] = ()
    """Of each committed file the least and greatest element time, microseconds; without files that do not know it."""
    offsets_left_out: int = 0
    """The source offsets of the rows that were left out: more than the rows, where a dead letter stands for a block."""
