"""CSV files: checked, identified, numbered and split. Local files only.

Where offsets count: each line after the header has an offset, from 0, in partition 0, whether or not it can be used;
its line number, from 1, counts the header too. The source is ``csv:`` and 32 hex digits of SHA-256 over the mapping's
name, the file's variables, its header and its first line after that. So a file that is moved, renamed or grows
keeps its numbers, and the same line in the files of two symbols does not make them one.

A last line without a line feed has no offset until the file is said to be complete: it may be half a line of a file
that is still being written, and half a number is a number.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from k2beam.archive.files import check_path_is_text
from k2beam.archive.scan import ReadProblem
from k2beam.csv.convert import Context, Converter
from k2beam.csv.lines import header_columns
from k2beam.csv.mapping import CsvMapping, check_columns
from k2beam.csv.streams import is_packed, open_csv
from k2beam.errors import UsageError

MAX_FIRST_LINES = 1 << 20
"""Bytes within which the header and the first line must end."""

_PIECE = 1 << 20
_BOM = b"\xef\xbb\xbf"
_FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x05\x06": "an empty zip", b"Obj\x01": "Avro"}


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A checked file: its identity, where its lines begin (byte ``start``), and what to convert them with.

    ``source`` is empty where the file has no whole line yet.
    """

    path: str
    source: str
    start: int
    context: Context


@dataclass(frozen=True, slots=True)
class CsvChunk:
    """Whole lines of a file: bytes ``start`` to ``end``, offsets ``first`` to ``first + lines - 1``.

    ``total`` is the number of lines (offsets) that the file has. Small: it's all that is shuffled.
    """

    file: CsvFile
    start: int
    end: int
    first: int
    lines: int
    total: int


@dataclass(frozen=True, slots=True)
class CsvPlan:
    """The chunks of a file, how many lines they have, and what of the file has no offset."""

    chunks: tuple[CsvChunk, ...]
    lines: int
    problems: tuple[ReadProblem, ...]


@dataclass(frozen=True, slots=True)
class FileVariables:
    """Variables of files that do not come from their names: given for all, and symbols by company id."""

    given: tuple[tuple[str, str], ...] = ()
    symbols: tuple[tuple[str, str], ...] = ()

    def of(self, path: str, mapping: CsvMapping) -> dict[str, str]:
        """Those of one file. Raises UsageError for a company id without a symbol."""
        found = re.search(mapping.file, os.path.basename(path)) if mapping.file else None
        captured = {name: text for name, text in (found.groupdict() if found else {}).items() if text is not None}
        variables = {**captured, **dict(self.given)}
        company = variables.get("company_id")
        if self.symbols and company is not None and "symbol" not in variables:
            symbol = dict(self.symbols).get(company)
            if symbol is None:
                raise UsageError(
                    f"{path}: --companies has no symbol for company id {company!r}; add it, or give --symbol"
                )
            variables["symbol"] = symbol
        return variables


def check_files(
    paths: Sequence[str], mapping: CsvMapping, variables: FileVariables, loaded_at: int, *, complete: bool = False
) -> list[CsvFile]:
    """Look at the beginning of each file, each file once.

    Raises UsageError, naming the file, when it is not there, no regular file, no CSV text, lacks a column or variable
    that the mapping needs, has a path that is not UTF-8, or begins as another file does: the two would be taken for
    one.
    """
    if not paths:
        raise UsageError("no CSV file is named: give at least one")
    for path in paths:
        check_path_is_text(path)
    distinct = {os.path.realpath(path): path for path in reversed(paths)}
    files = [
        _check(path, mapping, variables.of(path, mapping), loaded_at, complete) for path in reversed(distinct.values())
    ]
    by_source: dict[str, CsvFile] = {}
    for file in files:
        other = by_source.setdefault(file.source, file) if file.source else file
        if other is not file:
            raise UsageError(
                f"{file.path} begins with the same line as {other.path} and has the same variables, so that they "
                "would be taken for one file; leave out the copy, or tell them apart by a group in the mapping's "
                "`file` pattern"
            )
    return files


def plan_csv(file: CsvFile, chunk_bytes: int, *, complete: bool = False) -> CsvPlan:
    """Count the lines of a file, and split it at line starts into chunks of about ``chunk_bytes``; a packed one is one
    chunk.

    A file that had no whole line when it was checked has no source to count in: it gives no chunks, whatever it has got
    since, and a problem that says so.
    """
    if not file.source:
        return CsvPlan((), 0, (_without_source(file),))
    chunks: list[tuple[int, int, int, int]] = []
    with open_csv(file.path) as stream:
        start = position = end = file.start
        first = lines = 0
        stream.seek(start)
        while piece := stream.read(_PIECE):
            cut = piece.rfind(b"\n") + 1
            lines += piece.count(b"\n")
            if cut:
                end = position + cut
            position += len(piece)
            if end - start >= chunk_bytes and not is_packed(stream):
                chunks.append((start, end, first, lines - first))
                start, first = end, lines
        if complete and position > end:
            end, lines = position, lines + 1
        if end > start:
            chunks.append((start, end, first, lines - first))
    made = tuple(CsvChunk(file, *chunk, lines) for chunk in chunks)
    return CsvPlan(made, lines, tuple(_problems(file, end, position, lines)))


def same_file(stream: BinaryIO, file: CsvFile, mapping: CsvMapping) -> bool:
    """Whether an open file still begins as it did when it was checked."""
    stream.seek(0)
    head = _Head.of(stream.read(MAX_FIRST_LINES), mapping)
    return head.source(mapping, dict(file.context.variables)) == file.context.identity


def _without_source(file: CsvFile) -> ReadProblem:
    with open_csv(file.path) as stream:
        size = sum(len(piece) for piece in iter(lambda: stream.read(_PIECE), b""))
    if size <= file.start:
        return _empty(file)
    message = (
        f"{file.path}: had no whole line when the job was started; what it has from byte {file.start} on was not read "
        "and has no offset; read the file again later, or with --complete if nobody writes it any more"
    )
    return ReadProblem(file.path, file.start, "truncated_tail", message)


def _problems(file: CsvFile, end: int, size: int, lines: int) -> list[ReadProblem]:
    if size > end:
        message = (
            f"{file.path}: the last line ({size - end} bytes, from byte {end} on) has no line end; it was not "
            "read and has no offset; if the file is still being written, read it again later, otherwise use --complete"
        )
        return [ReadProblem(file.path, end, "truncated_tail", message)]
    return [] if lines else [_empty(file)]


def _empty(file: CsvFile) -> ReadProblem:
    return ReadProblem(file.path, file.start, "empty", f"{file.path}: the file has no lines")


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of a file: its header line and first line (b"" where there is none), and where lines begin."""

    header: bytes
    first: bytes
    start: int
    terminated: bool

    @staticmethod
    def of(data: bytes, mapping: CsvMapping) -> _Head:
        bom = len(_BOM) if mapping.encoding == "utf-8" and data.startswith(_BOM) else 0
        start, header = bom, b""
        for number in range(mapping.header_lines):
            line, feed, _ = data[start:].partition(b"\n")
            start += len(line) + len(feed)
            header = line if number >= mapping.skip_lines else b""
        first, feed, _ = data[start:].partition(b"\n")
        return _Head(header, first, start, bool(feed))

    def source(self, mapping: CsvMapping, variables: Mapping[str, str]) -> str:
        """The source in which the file's lines count."""
        parts = [mapping.name.encode(), *(text.encode() for pair in sorted(variables.items()) for text in pair)]
        sha = hashlib.sha256()
        for part in (*parts, self.header.rstrip(b"\r"), self.first.rstrip(b"\r")):
            sha.update(b"%d:" % len(part) + part)
        return f"csv:{sha.hexdigest()[:32]}"


def _check(path: str, mapping: CsvMapping, variables: dict[str, str], loaded_at: int, complete: bool) -> CsvFile:
    with open_csv(path) as stream:
        data = stream.read(MAX_FIRST_LINES)
        more = stream.read(1)
    for magic, what in _FOREIGN.items():
        if data.startswith(magic):
            raise UsageError(f"{path}: is {what}, not CSV text in {mapping.encoding}; convert or unpack it first")
    head = _Head.of(data, mapping)
    if not head.terminated and more:
        raise UsageError(f"{path}: no line ends within the first {MAX_FIRST_LINES} bytes; is it CSV text?")
    whole = head.terminated or (complete and bool(head.first))
    source = head.source(mapping, variables) if whole else ""
    columns = mapping.columns or _header(path, head.header, mapping)
    name = os.path.basename(path)
    context = Context(columns, tuple(sorted(variables.items())), name, source, loaded_at)
    Converter(mapping, context)
    return CsvFile(path, source, head.start, context)


def _header(path: str, line: bytes, mapping: CsvMapping) -> tuple[str, ...]:
    names = header_columns(line, mapping.delimiter, mapping.encoding)
    if not names or not any(names):
        raise UsageError(
            f"{path}: mapping {mapping.name} reads the columns from the file's first line, which names none"
        )
    check_columns(names, path)
    return tuple(names)
