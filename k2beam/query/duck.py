"""DuckDB over files that it is told and streams of Arrow batches, closed in: SQL reaches nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.errors import K2BeamError, QueryFailed, UsageError, first_line

if TYPE_CHECKING:
    import duckdb

ROWS_PER_BATCH = 10_000

_MISTAKES = ("Parser", "Syntax", "Binder", "Catalog", "Permission", "Conversion", "Out of Range", "Not implemented")
"""What DuckDB calls the errors that are those of the SQL, whatever is in the files."""

NOTHING: Mapping[str, object] = {}
"""No parameters."""


class Session:
    """One DuckDB in memory, for a few statements; what does not fit into memory is spilled to a temporary folder.

    Values come into SQL as ``$name`` parameters. Methods raise QueryFailed where a statement fails, and whatever k2beam
    error a stream of batches raised.
    """

    def __init__(self, duckdb: Any, connection: duckdb.DuckDBPyConnection, folder: str) -> None:
        self.folder = folder
        self._duckdb = duckdb
        self._connection = connection
        self._feeds: list[_Feed] = []

    def register(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """A relation that streams ``batches``, once: one statement may read it, and only once."""
        feed = _Feed(schema, batches)
        self._feeds.append(feed)
        self._connection.register(name, feed.reader())

    def register_table(self, name: str, table: Any) -> None:
        """A relation of an Arrow table or dataset, which any statement may read: filters are pushed into a dataset."""
        self._connection.register(name, table)

    def types_of(self, schema: pa.Schema) -> list[str]:
        """DuckDB's names of the types of Arrow's columns."""
        return [str(found) for found in self._connection.from_arrow(schema.empty_table()).types]

    @contextmanager
    def function(self, name: str, compute: Callable[[Any], Any], takes: str, gives: str) -> Iterator[None]:
        """A function of one Arrow column, for the statements within; what it raises fails the statement."""
        self._connection.create_function(name, compute, [takes], gives, type="arrow")
        try:
            yield
        finally:
            # Else it is reported as leaked where a result is not read to its end.
            self._connection.remove_function(name)

    def columns(self, sql: str) -> list[npt.NDArray[Any]]:
        """The columns of a result, at once, without their nulls."""
        with self._blamed():
            found = self._connection.sql(sql).to_arrow_table()
        return [np.asarray(column.drop_null().combine_chunks()) for column in found.columns]

    def run(self, sql: str, parameters: Mapping[str, object] = NOTHING) -> None:
        """A statement without a result."""
        with self._blamed():
            self._connection.execute(sql, dict(parameters))

    def stream(self, sql: str, parameters: Mapping[str, object] = NOTHING) -> Iterator[pa.RecordBatch]:
        """The result of a query, batch by batch."""
        with self._blamed():
            yield from self.reader(sql, parameters)

    def reader(self, sql: str, parameters: Mapping[str, object] = NOTHING) -> pa.RecordBatchReader:
        """The same as Arrow's reader, which has the schema too."""
        with self._blamed():
            return _reader(self._connection.sql(sql, params=dict(parameters)))

    def rows(self, sql: str, parameters: Mapping[str, object] = NOTHING) -> list[dict[str, Any]]:
        """All rows of a result at once, for aggregates."""
        return [row for batch in self.stream(sql, parameters) for row in batch.to_pylist()]

    def ask(self, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer to a query that a person wrote.

        Raises UsageError where it is none or can't be run, and QueryFailed where it may be that a file can't be read,
        also while the rows are taken.
        """
        try:
            statements = self._connection.extract_statements(sql)
            allowed = self._duckdb.StatementType.SELECT, self._duckdb.StatementType.EXPLAIN
            if len(statements) != 1 or statements[0].type not in allowed:
                raise UsageError("the SQL must be one query, such as SELECT, FROM, WITH, SUMMARIZE, SHOW or EXPLAIN")
            reader = _reader(self._connection.sql(sql))
        except self._duckdb.Error as error:
            raise self._refused(error) from None
        return reader.schema, self._answered(reader)

    def _answered(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except (self._duckdb.Error, OSError, pa.ArrowException) as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> K2BeamError:
        said = first_line(error)
        return (UsageError if said.startswith(_MISTAKES) else QueryFailed)(f"the SQL can't be run: {said}")

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except (self._duckdb.Error, OSError, pa.ArrowException) as error:
            for feed in self._feeds:
                if feed.error is not None:
                    raise feed.error from None
            raise QueryFailed(f"the query failed: {error}") from error


@contextmanager
def session(files: Iterable[str] = ()) -> Iterator[Session]:
    """A DuckDB that is gone at the end, and may read these files. Raises UsageError where DuckDB is not installed."""
    duckdb = _load()
    with tempfile.TemporaryDirectory(prefix="k2beam-query-") as folder, _connect(duckdb, folder, files) as connection:
        yield Session(duckdb, connection, folder)


def _reader(relation: Any) -> pa.RecordBatchReader:
    # DuckDB 2 renamed the method.
    read = relation.to_arrow_reader if hasattr(relation, "to_arrow_reader") else relation.fetch_arrow_reader
    reader: pa.RecordBatchReader = read(ROWS_PER_BATCH)
    return reader


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


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _connect(duckdb: Any, folder: str, files: Iterable[str]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            "temp_directory": folder,
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET allowed_paths = $files", {"files": list(files)})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection
