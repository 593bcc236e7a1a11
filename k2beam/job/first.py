"""A look at the first messages of a run: where most would be dead letters, nothing is taken.

The offset of a dead letter is covered, and never taken again: a wrong schema, mapping or clock must not cost a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, runtime_checkable

from k2beam.clock import now_us
from k2beam.codec.batches import BatchDecoder
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError
from k2beam.lake.evolve import ColumnCheck
from k2beam.model import BlockBatch, DeadLetterBatch, RawBatch
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


class _Judged(NamedTuple):
    """A message, or offsets that are a dead letter together; ``error_class`` is empty where it is good."""

    offset: int
    offsets: int = 1
    error_class: str = ""
    message: str = ""


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
    judged. ``columns`` sees those that the messages bring along, if the tables are to have them. Raises K2BeamError
    where more than ``max_dead_share`` of the messages (from 0.0 to 1.0) would be dead
    letters, with the classes and an example.
    """
    if max_dead_share == 1 and columns is None:
        return
    if resolver is not None:
        resolver.open()
    try:
        lookup = None if resolver is None else resolver.resolve
        decoder = BatchDecoder(ColumnarDecoder(), now_us, lookup, evolve=columns is not None)
        first = _first(_judged(_beginning(without_covered(batch, covered)), decoder, columns) for batch in batches)
    finally:
        if resolver is not None:
            resolver.close()
    looked = sum(one.offsets for one in first)
    failed = [one for one in first if one.error_class]
    if looked >= least and sum(one.offsets for one in failed) > max_dead_share * looked:
        raise K2BeamError(_refusal(failed, looked, max_dead_share))


def _first(batches: Iterable[list[_Judged]]) -> list[_Judged]:
    """The first messages. A batch of lines may come after that of the bad lines between them."""
    found: list[_Judged] = []
    for batch in batches:
        follows = not found or not batch or batch[0].offset > found[-1].offset
        if len(found) >= FIRST_MESSAGES and follows:
            break
        found = [*found, *batch] if follows else sorted([*found, *batch])
    return found[:FIRST_MESSAGES]


def _beginning(batch: Batch) -> Batch:
    """So much of a batch as is looked at."""
    if isinstance(batch, RawBatch):
        return replace(batch, data=batch.data.slice(0, FIRST_MESSAGES))
    if isinstance(batch, BlockBatch):
        before = accumulate((block.count for block in batch.blocks), initial=0)
        blocks = (block for block, first in zip(batch.blocks, before, strict=False) if first < FIRST_MESSAGES)
        return replace(batch, blocks=tuple(blocks))
    return batch


def _judged(batch: Batch, decoder: BatchDecoder, columns: ColumnCheck | None) -> list[_Judged]:
    """What becomes of each message, by offset."""
    events, dead_letters = ((), batch.dead_letters) if isinstance(batch, DeadLetterBatch) else decoder.decode(batch)
    found = [_Judged(one.offset, one.last - one.offset + 1, one.error_class, one.error_message) for one in dead_letters]
    for part in events:
        if columns is not None:
            columns.see(part.kind, part.data.schema)
        broken = {one.row: one for one in violations(part.kind, part.data, now_us())}
        for row, offset in enumerate(part.data.column("_offset").to_pylist()):
            one = broken.get(row)
            found.append(_Judged(offset) if one is None else _Judged(offset, 1, one.error_class, one.message))
    return sorted(found)


def _refusal(failed: list[_Judged], looked: int, most: float) -> str:
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
