"""What the first lines of files become under a mapping: for a look before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from k2beam.csv.files import CsvFile, plan_csv
from k2beam.csv.reader import CsvReader

LINES = 5
"""So many of each file."""
_CHUNK_BYTES = 8 << 20


class Explained(NamedTuple):
    """A line, and the event that it becomes, by field, or why it becomes a dead letter; neither where it's left out."""

    file: str
    line: int
    event: dict[str, Any] | None
    error_class: str | None
    error_message: str | None


def explain(files: Iterable[CsvFile], reader: CsvReader, *, complete: bool = False) -> Iterator[Explained]:
    """The first lines of each file, in their order. Raises CsvError for a file that changes meanwhile."""
    for file in files:
        for chunk in plan_csv(file, _CHUNK_BYTES, complete=complete).chunks[:1]:
            for part in islice(reader.parts(chunk), 1):
                events = part.events.slice(0, LINES).to_pylist(maps_as_pydicts="strict")
                found = [
                    Explained(file.path, int(offset), event, None, None)
                    for offset, event in zip(part.offsets.tolist(), events, strict=False)
                ]
                found += [
                    Explained(file.path, one.offset, None, one.error_class, one.error_message)
                    for one in part.dead_letters[:LINES]
                ]
                found += [Explained(file.path, int(offset), None, None, None) for offset in part.left_out[:LINES]]
                for one in sorted(found, key=lambda one: one.line)[:LINES]:
                    yield one._replace(line=one.line + 1 + reader.mapping.header_lines)
