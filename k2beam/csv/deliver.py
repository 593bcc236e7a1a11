"""CSV files into an archive or a topic, without Beam: one after another, in order.

Lines that give no event are written as JSON lines (the columns of the table of dead letters), never left out, and
never over those of an earlier run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

from k2beam.archive.cells import CONTAINER_CODECS, Codec, ContainerWriter
from k2beam.archive.files import check_path_is_text
from k2beam.csv.encode import encode_events
from k2beam.csv.files import CsvChunk, CsvFile, plan_csv
from k2beam.csv.reader import CsvReader, Part
from k2beam.errors import InvalidRecord, UsageError
from k2beam.jsonable import to_json
from k2beam.lake.rows import dead_letter_rows
from k2beam.model import BlockBatch, DeadLetter, DeadLetterBatch, Kind
from k2beam.schemas import avro_schema, latest_name

_CHUNK_BYTES = 8 << 20


class Producer(Protocol):
    """What a topic is written through; records are v2 in Python values (Decimal, datetime in UTC)."""

    def produce_trade(self, record: dict[str, Any]) -> None: ...

    def produce_quote(self, record: dict[str, Any]) -> None: ...

    def produce_reference_data(self, record: dict[str, Any]) -> None: ...

    def flush(self) -> Any: ...


@dataclass(slots=True)
class Delivered:
    """What was done: lines, events and dead letters, and the file that these are in (None where there are none);
    ``errors`` are last lines that are not complete.
    """

    consumed: int = 0
    written: int = 0
    dead_letters: int = 0
    dead_letters_file: str | None = None
    errors: int = 0
    duration_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_archive(
    files: Sequence[CsvFile], reader: CsvReader, out: Path, codec: Codec = "deflate", *, complete: bool = False
) -> tuple[Delivered, list[str]]:
    """Write the events of all files into one plain container ``out``; returns the counts and what to warn of.

    The container is there when it is whole, and not before; the same files give the same bytes. Bad lines go to
    ``<out>.dead_letters.jsonl``, which appears with it. Raises UsageError, before anything is read, where one of the
    two is there already, or their folder is not.
    """
    if codec not in CONTAINER_CODECS:
        raise UsageError(f"codec {codec!r} is not known; take one of {', '.join(CONTAINER_CODECS)}")
    kept = _dead_letters_path(out)
    for path in (out, kept):
        _check_new(path)
    sync = hashlib.sha256("/".join(file.source for file in files).encode()).digest()[:16]
    partial, partly_kept = _partial(out), _partial(kept)
    partly_kept.unlink(missing_ok=True)  # of a run that was stopped, as the container that is written over
    schema = avro_schema(latest_name(reader.mapping.kind))
    dead_letters = _DeadLetters(partly_kept)
    with closing(dead_letters), ContainerWriter(partial, schema, codec, sync, {}) as writer:
        done = _Delivery(reader, dead_letters, complete)
        for block_batch in done.blocks(files):
            for block in block_batch.blocks:
                writer.write_block(block.count, block.payload)
                done.counts.written += block.count
    if dead_letters.made:
        os.replace(partly_kept, kept)
    os.replace(partial, out)
    return done.finish(kept)


def produce(
    files: Sequence[CsvFile],
    reader: CsvReader,
    producer: Producer,
    dead_letters_beside: Path | None = None,
    *,
    complete: bool = False,
) -> tuple[Delivered, list[str]]:
    """Hand the events of all files to ``producer``, and flush it.

    At least once: run again, it produces all again, with the same message ids. Bad lines, and events that the producer
    refuses (stage ``validate``, class ``invalid_record``), go to ``<letters_beside>.dead_letters.jsonl``; without a
    name, to a file of this run alone in the working folder. Raises UsageError, before anything is read, where that file
    is there already, or its folder is not.
    """
    kept = _dead_letters_path(dead_letters_beside or Path(_run_name()))
    _check_new(kept)
    with closing(_DeadLetters(kept)) as dead_letters:
        done = _Delivery(reader, dead_letters, complete)
        send = _sender(producer, reader.mapping.kind)
        for chunk, part in done.parts(files):
            for place, record in enumerate(part.events.to_pylist(maps_as_pydicts="strict")):
                try:
                    send(record)
                except InvalidRecord as error:
                    done.bad((_refused(reader, chunk, part, place, error),))
                else:
                    done.counts.written += 1
        producer.flush()
    return done.finish(kept)


class _DeadLetters:
    """A new file of dead letters, made with the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    @property
    def made(self) -> bool:
        """Whether the file is there."""
        return self._file is not None

    def write(self, dead_letters: tuple[DeadLetter, ...]) -> None:
        if dead_letters and self._file is None:
            self._file = self._path.open("x", encoding="utf-8")
        if self._file is not None:
            rows = dead_letter_rows(DeadLetterBatch(dead_letters)).data.to_pylist()
            self._file.writelines(f"{to_json(row)}\n" for row in rows)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Delivery:
    """Reads files chunk by chunk, writes their dead letters and counts."""

    def __init__(self, reader: CsvReader, dead_letters: _DeadLetters, complete: bool) -> None:
        self.counts = Delivered()
        self._reader = reader
        self._dead_letters = dead_letters
        self._complete = complete
        self._warnings: list[str] = []
        self._started = time.monotonic()

    def blocks(self, files: Sequence[CsvFile]) -> Iterator[BlockBatch]:
        for chunk in self._chunks(files):
            for batch in self._reader.read(chunk):
                if isinstance(batch, BlockBatch):
                    yield batch
                else:
                    self.bad(batch.dead_letters)

    def parts(self, files: Sequence[CsvFile]) -> Iterator[tuple[CsvChunk, Part]]:
        for chunk in self._chunks(files):
            for part in self._reader.parts(chunk):
                self.bad(part.dead_letters)
                yield chunk, part

    def bad(self, dead_letters: tuple[DeadLetter, ...]) -> None:
        self._dead_letters.write(dead_letters)
        self.counts.dead_letters += len(dead_letters)

    def finish(self, kept: Path) -> tuple[Delivered, list[str]]:
        """The counts and warnings; ``kept`` is where the dead letters are, if there are any."""
        self.counts.duration_s = round(time.monotonic() - self._started, 3)
        if self.counts.dead_letters:
            self.counts.dead_letters_file = str(kept)
            self._warnings.append(f"{self.counts.dead_letters} bad lines are in {kept}")
        return self.counts, self._warnings

    def _chunks(self, files: Sequence[CsvFile]) -> Iterator[CsvChunk]:
        for file in files:
            plan = plan_csv(file, _CHUNK_BYTES, complete=self._complete)
            self.counts.consumed += plan.lines
            self.counts.errors += sum(problem.kind == "truncated_tail" for problem in plan.problems)
            self._warnings.extend(problem.message for problem in plan.problems)
            yield from plan.chunks


def _refused(reader: CsvReader, chunk: CsvChunk, part: Part, place: int, error: InvalidRecord) -> DeadLetter:
    """The dead letter of an event: its payload is the event in Avro, as it is when the pipeline refuses one."""
    event = part.events.slice(place, 1)
    line = int(part.offsets[place]) + 1 + reader.mapping.header_lines
    return DeadLetter(
        source=chunk.file.source,
        partition=0,
        offset=int(part.offsets[place]),
        stage="validate",
        error_class="invalid_record",
        error_message=f"{chunk.file.path}, line {line}: {error}",
        payload=encode_events(reader.mapping.kind, event)[0].as_py(),
        headers=(("k2.payload", latest_name(reader.mapping.kind).encode()), ("k2.line", str(line).encode())),
        record_json=to_json(event.to_pylist(maps_as_pydicts="strict")[0]),
    )


def _sender(producer: Producer, kind: Kind) -> Any:
    return {
        "trades": producer.produce_trade,
        "quotes": producer.produce_quote,
        "reference_data": producer.produce_reference_data,
    }[kind]


def _dead_letters_path(beside: Path) -> Path:
    return beside.with_name(f"{beside.name}.dead_letters.jsonl")


def _run_name() -> str:
    return f"ingest-csv-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _check_new(path: Path) -> None:
    check_path_is_text(str(path))
    if os.path.lexists(path):
        raise UsageError(f"{path}: already exists and would be lost; move it away or name a new file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist; create it first")
