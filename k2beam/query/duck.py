"""DuckDB over one stream of Arrow batches, closed in: no files, no network, no configuration from SQL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from k2beam.errors import K2BeamError, LakeError, UsageError

if TYPE_CHECKING:
    import duckdb

ROWS_PER_BATCH = 10_000


def query(
    sql: str, parameters: Mapping[str, object], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Run ``sql`` over the relation ``events``, which streams ``batches``; values come in as ``$name`` parameters.

    What does not fit into memory is spilled to a temporary folder. Raises UsageError where DuckDB is
    not installed, LakeError where the query fails, and whatever k2beam error ``batches`` raises.
    """
    duckdb = _load()
    feed = _Feed(schema, batches)
    with tempfile.TemporaryDirectory(prefix="k2beam-query-") as folder, _connect(duckdb, folder) as connection:
        try:
            connection.register("events", feed.reader())
            relation = connection.sql(sql, params=dict(parameters))
            yield from _arrow_reader(relation)
        except duckdb.Error as error:
            if feed.error is not None:
                raise feed.error from None
            raise LakeError(f"the query failed: {error}") from error


def rows(
    sql: str, parameters: Mapping[str, object], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> list[dict[str, Any]]:
    """As :func:`query`, but all rows at once, for aggregates."""
    return [row for batch in query(sql, parameters, schema, batches) for row in batch.to_pylist()]


class _Feed:
    """Hands batches to DuckDB and keeps the error that DuckDB would turn into a text."""

    def __init__(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        self.error: K2BeamError | None = None
        self._schema = schema
        self._batches = batches

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._conformed())

    def _conformed(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                yield batch.cast(self._schema)
        except K2BeamError as error:
            self.error = error
            raise


def _load() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise UsageError("this query needs DuckDB; install it with: pip install 'k2beam[query]'") from error
    return duckdb


def _connect(duckdb: Any, folder: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            "temp_directory": folder,
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _arrow_reader(relation: Any) -> pa.RecordBatchReader:
    """DuckDB 2 renamed the method."""
    if hasattr(relation, "to_arrow_reader"):
        return relation.to_arrow_reader(ROWS_PER_BATCH)
    return relation.fetch_arrow_reader(ROWS_PER_BATCH)
