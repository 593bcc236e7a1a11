"""A look at the first messages of a run: where most would be dead letters, nothing is taken.

The offset of a dead letter is covered, and never taken again: a wrong schema, mapping or clock must not cost a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from k2beam.clock import now_us
from k2beam.codec.batches import BatchDecoder, DecodedBatch
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError
from k2beam.lake.evolve import ColumnCheck
from k2beam.model import BlockBatch, DeadLetterBatch, Kind, RawBatch
from k2beam.validation import violations
from transforms.filter_covered import Batch, without_covered

FIRST_MESSAGES = 1_000
"""So many are looked at, or what there is."""

_FUTURE = "timestamp_in_future"


@runtime_checkable
class LocalSource(Protocol):
    """A source whose beginning can be read without a pipeline."""

    def local_batches(self) -> Iterator[Batch]:
        """What there is to be read, in its order."""

    def writer_schemas(self) -> Iterator[str]:
        """The writers' schemas (JSON) that are known before anything is read."""


class Judged(NamedTuple):
    """A message, or offsets that are a dead letter together; ``error_class`` is empty where it is good.

    ``place`` is its source partition.
    """

    offset: int
    offsets: int = 1
    error_class: str = ""
    message: str = ""
    place: tuple[str, int] = ("", 0)


def check_first(
    batches: Iterable[Batch],
    covered: Coverage,
    resolver: Any,
    max_dead_share: float,
    *,
    least: int = 1,
    columns: ColumnCheck | None = None,
) -> None:
    """Decode and validate the first messages of ``batches`` that are not ``covered``, and write nothing.

    ``resolver`` gives writer schemas by id (None: the batches bring them along); fewer than ``least`` messages are not
    judged. Covered offsets between those that are looked at count as good: a run that was killed between the commits of
    two tables has left its dead letters alone. ``columns`` sees the fields that messages bring along, if the tables are
    to have them. Raises K2BeamError where more than ``max_dead_share`` of the messages (from 0.0 to 1.0) would be dead
    letters, with the classes and an example.
    """
    if max_dead_share == 1 and columns is None:
        return
    with opened_decoder(resolver, evolve=columns is not None) as decoder:
        first = _first(
            judge_messages(_beginning(without_covered(batch, covered)), decoder, columns) for batch in batches
        )
    looked = sum(one.offsets for one in first) + _taken_between(first, covered)
    failed = [one for one in first if one.error_class]
    if looked >= least and sum(one.offsets for one in failed) > max_dead_share * looked:
        raise K2BeamError(_refusal(failed, looked, max_dead_share))


def _first(batches: Iterable[list[Judged]]) -> list[Judged]:
    """The first messages. A batch of lines may come after that of the bad lines between them."""
    found: list[Judged] = []
    for batch in batches:
        follows = not found or not batch or batch[0].offset > found[-1].offset
        if len(found) >= FIRST_MESSAGES and follows:
            break
        found = [*found, *batch] if follows else sorted([*found, *batch])
    return found[:FIRST_MESSAGES]


def _taken_between(first: list[Judged], covered: Coverage) -> int:
    """How many offsets are covered from the first to the last that is looked at, of each source partition."""
    ends: dict[tuple[str, int], tuple[int, int]] = {}
    for one in first:
        begin, end = ends.get(one.place, (one.offset, one.offset))
        ends[one.place] = min(begin, one.offset), max(end, one.offset)
    return sum(covered[place].range_cardinality(begin, end + 1) for place, (begin, end) in ends.items())


def _beginning(batch: Batch) -> Batch:
    """So much of a batch as is looked at."""
    if isinstance(batch, RawBatch):
        return replace(batch, data=batch.data.slice(0, FIRST_MESSAGES))
    if isinstance(batch, BlockBatch):
        before = accumulate((block.count for block in batch.blocks), initial=0)
        blocks = (block for block, first in zip(batch.blocks, before, strict=False) if first < FIRST_MESSAGES)
        return replace(batch, blocks=tuple(blocks))
    return batch


@contextmanager
def opened_decoder(resolver: Any, *, evolve: bool = False) -> Iterator[BatchDecoder]:
    """A decoder for use here and now, which asks ``resolver`` for schemas that batches don't bring along (or None)."""
    if resolver is None:
        yield BatchDecoder(ColumnarDecoder(), now_us, None, evolve=evolve)
        return
    resolver.open()
    try:
        yield BatchDecoder(ColumnarDecoder(), now_us, resolver.resolve, evolve=evolve)
    finally:
        resolver.close()


def decode_here(batch: Batch, decoder: BatchDecoder) -> DecodedBatch:
    """The events and dead letters of a batch, some of which a reader may have made."""
    return DecodedBatch((), batch.dead_letters) if isinstance(batch, DeadLetterBatch) else decoder.decode(batch)


def good_rows(kind: Kind, rows: pa.RecordBatch) -> pa.RecordBatch:
    """The events that break no rule."""
    broken = {one.row for one in violations(kind, rows, now_us())}
    return rows.filter(pa.array([row not in broken for row in range(rows.num_rows)], pa.bool_())) if broken else rows


def judge_messages(batch: Batch, decoder: BatchDecoder, columns: ColumnCheck | None = None) -> list[Judged]:
    """What becomes of each message, by offset."""
    events, dead_letters = decode_here(batch, decoder)
    found = [
        Judged(one.offset, one.last - one.offset + 1, one.error_class, one.error_message, (one.source, one.partition))
        for one in dead_letters
    ]
    for part in events:
        if columns is not None:
            columns.see(part.kind, part.data.schema)
        broken = {one.row: one for one in violations(part.kind, part.data, now_us())}
        names = ("_offset", "_source", "_partition")
        rows = zip(*(part.data.column(name).to_pylist() for name in names), strict=True)
        for row, (offset, *place) in enumerate(rows):
            one = broken.get(row)
            told = ("", "") if one is None else (one.error_class, one.message)
            found.append(Judged(offset, 1, *told, place=(place[0], place[1])))
    return sorted(found)


def _refusal(failed: list[Judged], looked: int, most: float) -> str:
    classes = Counter[str]()
    for one in failed:
        classes[one.error_class] += one.offsets
    told = ", ".join(f"{count:,} {name}" for name, count in classes.most_common(3))
    if set(classes) == {_FUTURE}:
        now = datetime.fromtimestamp(now_us() / 1_000_000, UTC)
        why = f"whose times are ahead of this machine's clock, which says {now:%Y-%m-%dT%H:%M:%SZ}: is it right?"
    else:
        common = classes.most_common(1)[0][0]
        why = f"such as: {next(one.message for one in failed if one.error_class == common)}."
    return (
        f"{classes.total():,} of the first {looked:,} messages would be dead letters ({told}), {why} Nothing was "
        f"taken. Mend that, or raise --max-dead-share, which is {most:g}"
    )
