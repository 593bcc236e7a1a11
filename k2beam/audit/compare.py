"""Compares two lakes by content: the same rows, dead letters and gaps, however and whenever they were written.

A table's digest is a sum of row hashes, so it does not depend on the order of rows, on files, partitions or
snapshots, and memory does not grow with the table. A sum, not XOR: a row that is there twice must count twice.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.codec.decimals import to_column
from k2beam.errors import LakeError
from k2beam.lake.commit import read_coverage
from k2beam.lake.ledger import current_gaps
from k2beam.lake.scan import find_readable, plan_files, read_file, table_name
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, GAP_SCHEMA, SEQUENCE_GAPS, SPECS

TABLES: tuple[str, ...] = (*EVENT_TABLES.values(), DEAD_LETTERS, SEQUENCE_GAPS)
EXAMPLES = 10
"""How many rows of a difference are shown, for each table."""

_VOLATILE = frozenset({"_ingested_at", "failed_at", "detected_at", "status", "revision"})
"""When a row was written and by which steps a gap came to its extent: not what it says."""

_LOOKED_UP = "unknown_schema_id"
"""The class of dead letters whose message names where the schema was looked for: a registry or an archive."""

_BUCKET_BITS = 12
_SLICE_ROWS = 16_384
_MODULUS = 1 << 128

Side = Literal["this", "other"]


@dataclass(frozen=True, slots=True)
class Example:
    """A row that only one of the lakes has, or has more often (``count`` times more); its bytes are base64 texts."""

    only_in: Side
    count: int
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableComparison:
    """One table in both lakes: rows compared and their digests (32 hex digits); a table never made has 0 rows."""

    table: str
    rows: int
    other_rows: int
    digest: str
    other_digest: str
    examples: tuple[Example, ...] = ()

    @property
    def same(self) -> bool:
        return (self.rows, self.digest) == (self.other_rows, self.other_digest)


@dataclass(frozen=True, slots=True)
class CompareReport:
    """What two lakes differ in; ``same`` exactly when nothing."""

    tables: tuple[TableComparison, ...]

    @property
    def same(self) -> bool:
        return all(table.same for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """For ``k2beam audit --compare`` (docs/reference/audit.md); rows keep Decimals and times."""
        return {"same": self.same, "tables": [{"same": table.same, **asdict(table)} for table in self.tables]}


def _as_text(value: Any) -> Any:
    """The same with bytes as base64."""
    if isinstance(value, dict):
        return {name: _as_text(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def compare(catalog_a: Catalog, catalog_b: Catalog, namespace: str) -> CompareReport:
    """Compare all tables of ``namespace`` in two catalogs ("this" and "other"), at their current snapshots.

    Left out are ``_ingested_at``, ``failed_at`` and ``detected_at``, gaps that are FILLED with the revisions of
    all others, dead letters of whose offsets there are events, and the message of dead letters for an unknown schema
    id. Where a table differs, up to ten rows are given that only one of the lakes has.

    Holds one slice of one data file, and the unfilled gaps. Raises LakeError for a file that can't be read.

    Examples:
        >>> from k2beam import IngestConfig, Lake, LakeConfig, run_ingest
        >>> from k2beam.audit.compare import compare
        >>> from transforms.read_archive import ReadArchive
        >>> _ = run_ingest(ReadArchive(["samples/crypto/trades-*.avro"]), IngestConfig(LakeConfig("other")))
        >>> report = compare(Lake("warehouse").catalog, Lake("other").catalog, "market_data")
        >>> [(table.table, table.rows, table.other_rows) for table in report.tables if table.same]
        [('trades_v2', 2991, 2991), ('reference_data_v2', 0, 0)]
        >>> report.same
        False
    """
    lakes = (_Tables(catalog_a, namespace), _Tables(catalog_b, namespace))
    return CompareReport(tuple(_compare_table(name, *lakes) for name in TABLES))


def _compare_table(name: str, this: _Tables, other: _Tables) -> TableComparison:
    mine, theirs = _sums(this.rows(name)), _sums(other.rows(name))
    found = TableComparison(name, mine.rows, theirs.rows, mine.digest, theirs.digest)
    if found.same:
        return found
    examples = tuple(_examples(name, this, other, _differing(mine, theirs)))
    return TableComparison(name, mine.rows, theirs.rows, mine.digest, theirs.digest, examples)


@dataclass
class _Sums:
    """A multiset of row hashes: how many, and the sum in each bucket (the first bits of the hash)."""

    rows: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * (1 << _BUCKET_BITS))

    @property
    def digest(self) -> str:
        return f"{sum(self.buckets) % _MODULUS:032x}"


def _bucket(row_hash: int) -> int:
    return row_hash >> (128 - _BUCKET_BITS)


def _sums(batches: Iterable[pa.RecordBatch]) -> _Sums:
    sums = _Sums()
    for batch in batches:
        for row_hash in row_hashes(batch):
            bucket = _bucket(row_hash)
            sums.buckets[bucket] = (sums.buckets[bucket] + row_hash) % _MODULUS
        sums.rows += batch.num_rows
    return sums


def _differing(mine: _Sums, theirs: _Sums) -> list[int]:
    """Buckets that differ: enough for the examples, and few, since their hashes are held in memory."""
    pairs = zip(mine.buckets, theirs.buckets, strict=True)
    return [bucket for bucket, (left, right) in enumerate(pairs) if left != right][:EXAMPLES]


def _examples(name: str, this: _Tables, other: _Tables, buckets: list[int]) -> Iterator[Example]:
    """Rows of these buckets that one lake has more often than the other."""
    wanted = frozenset(buckets)
    surplus = _counted(this.rows(name), wanted)
    surplus.subtract(_counted(other.rows(name), wanted))
    differing = dict(sorted((row_hash, count) for row_hash, count in surplus.items() if count)[:EXAMPLES])
    here = {row_hash: count for row_hash, count in differing.items() if count > 0}
    there = {row_hash: -count for row_hash, count in differing.items() if count < 0}
    yield from _shown("this", this.rows(name), here)
    yield from _shown("other", other.rows(name), there)


def _counted(batches: Iterable[pa.RecordBatch], buckets: frozenset[int]) -> Counter[int]:
    hashes = (row_hash for batch in batches for row_hash in row_hashes(batch))
    return Counter(row_hash for row_hash in hashes if _bucket(row_hash) in buckets)


def _shown(side: Side, batches: Iterable[pa.RecordBatch], wanted: dict[int, int]) -> Iterator[Example]:
    for batch in batches:
        for row, row_hash in enumerate(row_hashes(batch)):
            if row_hash in wanted:
                yield Example(side, wanted.pop(row_hash), _as_text(batch.slice(row, 1).to_pylist()[0]))
        if not wanted:
            return


class _Tables:
    """The rows of one lake that count in a comparison."""

    def __init__(self, catalog: Catalog, namespace: str) -> None:
        self._catalog = catalog
        self._namespace = namespace
        self._tables = {name: find_readable(catalog, namespace, name) for name in TABLES}
        self._events = read_coverage(catalog, namespace, EVENT_TABLES.values())

    def rows(self, name: str) -> Iterator[pa.RecordBatch]:
        """The rows of a table in small batches, without the columns that may differ; in no order."""
        table = self._tables[name]
        if table is None:
            return
        batches = self._gaps() if name == SEQUENCE_GAPS else _stored(table, name)
        for batch in batches:
            for start in range(0, batch.num_rows, _SLICE_ROWS):
                part = batch.slice(start, _SLICE_ROWS)
                yield self._dead_letters(part) if name == DEAD_LETTERS else part

    def _gaps(self) -> Iterator[pa.RecordBatch]:
        columns = _columns(SEQUENCE_GAPS)
        gaps = current_gaps(self._catalog, self._namespace)
        arrays = [pa.array([getattr(gap, name) for gap in gaps], type=GAP_SCHEMA.field(name).type) for name in columns]
        yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _dead_letters(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Dead letters without those whose offsets are events, as audit and queries show them."""
        places = (batch.column(name).to_pylist() for name in ("_source", "_partition", "_offset", "_offset_last"))
        shown = [
            not self._events[source, partition].contains_range(first, last + 1)
            for source, partition, first, last in zip(*places, strict=True)
        ]
        kept = batch.filter(pa.array(shown, pa.bool_()))
        position = kept.schema.get_field_index("error_message")
        message = kept.column(position)
        unnamed = pc.if_else(pc.equal(kept.column("error_class"), _LOOKED_UP), pa.scalar("", message.type), message)
        return kept.set_column(position, "error_message", unnamed)


def _columns(name: str) -> list[str]:
    return [column for column in SPECS[name].schema.names if column not in _VOLATILE]


def _stored(table: Table, name: str) -> Iterator[pa.RecordBatch]:
    columns = _columns(name)
    absent = sorted(set(columns) - {column.name for column in table.schema().columns})
    if absent:
        raise LakeError(f"table {table_name(table)} has no column {', '.join(absent)}: it can't be compared")
    for task in plan_files(table):
        yield from read_file(table, task, columns)


def row_hashes(batch: pa.RecordBatch) -> list[int]:
    """The first 128 bits of SHA-256 over each row.

    A row is its columns in order, each as ``<bytes>:<text>``, null as ``-``, so that no two rows read alike; what is
    within a list, map or struct is written the same way, a map in the order of its keys.
    """
    if not batch.num_rows:
        return []
    rows = _joined([_framed(column) for column in batch.columns])
    return [int.from_bytes(hashlib.sha256(row).digest()[:16], "big") for row in rows.to_pylist()]


def _joined(parts: list[pa.Array], between: bytes = b"") -> pa.Array:
    return pc.binary_join_element_wise(*parts, pa.scalar(between, pa.large_binary()))


def _framed(column: pa.Array) -> pa.Array:
    texts = _texts(column)
    lengths = pc.binary_length(texts).cast(pa.large_string()).cast(pa.large_binary())
    return pc.fill_null(_joined([lengths, texts], b":"), pa.scalar(b"-", pa.large_binary()))


def _texts(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_struct(kind):
        return _joined([_framed(child) for child in column.flatten()])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _list_texts(column)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    if pa.types.is_decimal(kind):
        # One number in two tables, one of which may have fewer places.
        wide, beyond = to_column(column)
        column = column if beyond.any() else wide
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        column = column.cast(pa.large_string())
    return column.cast(pa.large_binary())


def _list_texts(column: pa.Array) -> pa.Array:
    valid = column.is_valid()
    ends = column.offsets.to_numpy()
    if pa.types.is_map(column.type):
        items = pa.StructArray.from_arrays([column.keys, column.items], names=["key", "value"])
        items = items.slice(ends[0], ends[-1] - ends[0])
        entries = pa.table(
            {"owner": np.repeat(np.arange(len(column)), np.diff(ends)), "key": pc.struct_field(items, "key")}
        )
        items = items.take(pc.sort_indices(entries, [("owner", "ascending"), ("key", "ascending")]))
    else:
        items = column.values.slice(ends[0], ends[-1] - ends[0])
    lists = pa.ListArray.from_arrays(pa.array(ends - ends[0], pa.int32()), _framed(items))
    joined = pc.binary_join(lists, pa.scalar(b"", pa.large_binary()))
    return pc.if_else(valid, joined, pa.scalar(None, pa.large_binary()))
