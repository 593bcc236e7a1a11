"""Rows in every form, on standard output and in files that are there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2beam.cli.batches import BatchFormat, Destination, emit_batches
from k2beam.errors import LakeError, UsageError

SCHEMA = pa.schema(
    [("time", pa.timestamp("us", "UTC")), ("price", pa.decimal128(38, 18)), ("tags", pa.list_(pa.string()))]
)
ROWS = [
    {"time": 1_767_571_200_000_000 + place, "price": Decimal(place) / 8, "tags": [str(place)] if place else None}
    for place in range(5)
]


def batches() -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_pylist(ROWS, SCHEMA)
    return iter(table.to_batches(max_chunksize=2))


def in_file(fmt: BatchFormat, folder: Path) -> bytes:
    path = folder / "rows"
    emit_batches(SCHEMA, batches(), Destination(fmt, path))
    return path.read_bytes()


def test_parquet_and_arrow_have_the_rows_as_they_are(tmp_path: Path) -> None:
    wanted = pa.Table.from_pylist(ROWS, SCHEMA)
    assert pq.read_table(io.BytesIO(in_file(BatchFormat.PARQUET, tmp_path))).equals(wanted)
    assert pa.ipc.open_stream(in_file(BatchFormat.ARROW, tmp_path)).read_all().equals(wanted)


def test_text_is_what_goes_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fmt in (BatchFormat.TABLE, BatchFormat.JSON, BatchFormat.JSONL, BatchFormat.CSV):
        emit_batches(SCHEMA, batches(), Destination(fmt, None))
        assert capsys.readouterr().out == in_file(fmt, tmp_path).decode()
    rows = [json.loads(line) for line in in_file(BatchFormat.JSONL, tmp_path).splitlines()]
    assert rows[1] == {"time": "2026-01-05T00:00:00.000001Z", "price": "0.125", "tags": ["1"]}
    assert len(list(csv.reader(in_file(BatchFormat.CSV, tmp_path).decode().splitlines()))) == 6


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def breaks() -> Iterator[pa.RecordBatch]:
        yield next(batches())
        raise LakeError("file x is gone")

    path = tmp_path / "rows"
    path.write_text("before")
    for fmt in BatchFormat:
        with pytest.raises(LakeError):
            emit_batches(SCHEMA, breaks(), Destination(fmt, path))
        assert path.read_text() == "before"
        assert [one.name for one in tmp_path.iterdir()] == ["rows"]


def test_no_rows_have_columns_still(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    emit_batches(SCHEMA, iter(()), Destination(BatchFormat.PARQUET, path))
    assert pq.read_table(path).schema.names == SCHEMA.names


def test_where_it_can_not_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, tmp_path / "none" / "rows"):
        with pytest.raises(UsageError, match="name a file in a folder that is there"):
            emit_batches(SCHEMA, batches(), Destination(BatchFormat.CSV, place))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal: Any = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    with pytest.raises(UsageError, match="not for a terminal"):
        emit_batches(SCHEMA, batches(), Destination(BatchFormat.ARROW, None))
