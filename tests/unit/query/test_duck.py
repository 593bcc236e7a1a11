"""DuckDB as the queries have it: closed in, its errors ours, its results streamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2beam.errors import LakeError, QueryFailed, UnreadableFile
from k2beam.query import duck
from tests.query_fixtures import HOSTILE


def rows(
    sql: str, parameters: Mapping[str, object], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> list[dict[str, Any]]:
    with duck.session() as session:
        session.register("events", schema, batches)
        return session.rows(sql, parameters)


def batch(*offsets: int) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(offsets, pa.int64())})


def test_sql_reaches_no_file_and_no_setting(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    schema = batch(1).schema
    with pytest.raises(LakeError, match="disabled by configuration"):
        rows(f"SELECT * FROM read_csv('{secret}')", {}, schema, [])
    for statement in ("SET enable_external_access = true", "SET threads = 1", "INSTALL httpfs"):
        with pytest.raises(LakeError):
            rows(statement, {}, schema, [])


def test_sql_sees_no_python_variable_and_loads_no_extension() -> None:
    names = ("python_enable_replacements", "autoinstall_known_extensions", "autoload_known_extensions")
    columns = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    assert rows(f"SELECT {columns}", {}, batch(1).schema, []) == [dict.fromkeys(names, False)]


def test_parameters_are_values() -> None:
    assert rows("SELECT $x AS x, n FROM events", {"x": HOSTILE}, batch(1).schema, [batch(4)]) == [
        {"x": HOSTILE, "n": 4}
    ]


def test_an_error_of_the_source_comes_through_as_it_is() -> None:
    def broken() -> Any:
        yield batch(1)
        raise UnreadableFile("t", "f.parquet", "is gone")

    with pytest.raises(UnreadableFile, match=r"file f\.parquet is gone"):
        rows("SELECT sum(n) FROM events", {}, batch(1).schema, broken())


def test_results_are_streamed() -> None:
    with duck.session() as session:
        session.register("events", batch(1).schema, [batch(*range(50_000))])
        assert next(session.stream("SELECT n FROM events")).num_rows <= 2 * duck.ROWS_PER_BATCH


def test_only_the_files_that_it_is_told_of_are_read(tmp_path: Path) -> None:
    told, other = (str(tmp_path / f"{name} 'x'.parquet") for name in ("told", "other"))
    for path in (told, other):
        pq.write_table(pa.table({"n": [1, 2]}), path)
    with duck.session([told]) as session:
        assert session.rows(f"SELECT sum(n) AS n FROM read_parquet({duck.quoted(told)})") == [{"n": 3}]
        for path in (other, str(tmp_path / "*.parquet")):
            with pytest.raises(QueryFailed, match="disabled by configuration"):
                session.rows(f"SELECT sum(n) AS n FROM read_parquet({duck.quoted(path)})")


def test_a_function_is_gone_after_its_statements() -> None:
    with duck.session() as session:
        with session.function("twice", lambda column: pa.compute.multiply(column, 2), "BIGINT", "BIGINT"):
            assert session.rows("SELECT twice(21) AS n") == [{"n": 42}]
        with pytest.raises(QueryFailed, match="twice"):
            session.rows("SELECT twice(21) AS n")


def test_columns_come_without_nulls() -> None:
    with duck.session() as session:
        first, second = session.columns("SELECT nullif(range, 1) AS a, NULL AS b FROM range(3)")
    assert (first.tolist(), second.tolist()) == ([0, 2], [])


def test_the_zone_of_the_machine_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    assert rows("SELECT hour(make_timestamptz(0)) AS h", {}, batch(1).schema, []) == [{"h": 0}]
