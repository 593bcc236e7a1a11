"""Batches of rows as what a query gives: text on standard output, Parquet or Arrow, or a file of any of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple

import typer

from k2beam.cache import whole
from k2beam.cli.output import OutputFormat, emit_rows
from k2beam.cli.progress import progress
from k2beam.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa


class BatchFormat(StrEnum):
    """How the rows of a query are given; ``arrow`` is Arrow's IPC stream."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


_BINARY = (BatchFormat.PARQUET, BatchFormat.ARROW)


class Destination(NamedTuple):
    """In which form rows are given, and in which file (None: standard output)."""

    format: BatchFormat
    file: Path | None


def destination_options(
    output: Annotated[BatchFormat, typer.Option("--output", "-o", help="The form of the rows.")] = BatchFormat.TABLE,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Write to this file; it is replaced once all is read."),
    ] = None,
) -> Destination:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return Destination(output, file)


def emit_batches(schema: pa.Schema, batches: Iterable[pa.RecordBatch], to: Destination) -> None:
    """Give the rows as ``to`` says, batch by batch, with the progress of a file on standard error.

    A file is there with all rows or not at all. Raises UsageError where Parquet or Arrow would go to a terminal, or
    the file can't be made.
    """
    if to.file is None:
        if to.format in _BINARY and sys.stdout.isatty():
            raise UsageError(f"--output {to.format} is not for a terminal; name a --file or pipe it")
        # What fails before the first rows fails before anything is written.
        rows = iter(batches)
        first = list(islice(rows, 1))
        batches = chain(first, rows)
        _write(schema, batches, to.format, sys.stdout.buffer if to.format in _BINARY else sys.stdout)
        return
    check_file(to.file, "--file")
    with whole(to.file.absolute()) as partial, progress(f"write {to.file.name}") as advance:
        binary = to.format in _BINARY
        out: Any = partial.open("wb") if binary else partial.open("w", encoding="utf-8", newline="")
        with out:
            _write(schema, _counted(batches, advance), to.format, out)


def check_file(path: Path, option: str) -> None:
    """Raises UsageError, naming ``option``, for a file that can't be made."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {path}: name a file in a folder that is there")


def _counted(batches: Iterable[pa.RecordBatch], advance: Any) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        advance(batch.num_rows)


def _write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], fmt: BatchFormat, out: Any) -> None:
    if fmt is BatchFormat.PARQUET:
        _write_parquet(schema, batches, out)
    elif fmt is BatchFormat.ARROW:
        _write_arrow(schema, batches, out)
    else:
        rows = (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
        emit_rows(schema.names, rows, OutputFormat(fmt), out)


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch], out: BinaryIO) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
