"""Closing gaps of sequences with another record of the same market: a vendor's files, or what the exchange gives."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from k2beam.archive.write import write_raw_archive
from k2beam.config import LakeConfig
from k2beam.coverage import FILL_PREFIX
from k2beam.csv.encode import archive_schemas, encode_messages
from k2beam.feeds.binance.frames import EXCHANGE, parse_pairs
from k2beam.feeds.binance.history import TradeHistory
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.job.first import decode_here, good_rows, opened_decoder
from k2beam.job.opening import opened
from k2beam.lake.reconcile import reconcile
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import PROVENANCE_FIELDS, SEQUENCED_KINDS, Kind, RawRecord
from k2beam.query.missing import MissingNumbers
from k2beam.query.selections import EventSelection
from k2beam.schemas import latest_name, payload_arrow_schema
from transforms.filter_covered import Batch
from transforms.read_archive import ReadArchive

FILL_ROWS = 200_000
"""Rows that are looked at together, and taken with one commit."""

_EVERYTHING = EventSelection()

GapsByKind = Mapping[Kind, MissingNumbers]
"""What is missing, by kind."""


class OtherRecord(Protocol):
    """Another record of the same events."""

    unreadable: int
    """How many of its messages are no events; they are left where they are."""

    def events(self, gaps: GapsByKind) -> Iterator[tuple[Kind, pa.RecordBatch]]:
        """Its events, with their provenance; at least those that are missing."""


@dataclass(frozen=True, slots=True)
class FillStats:
    """What a fill did: events it was ``offered``, of which so many were ``filled`` in, and messages ``unreadable``.

    ``missing_before`` and ``missing_after`` count the numbers of the open gaps that it was asked to fill.
    """

    offered: int
    unreadable: int
    filled: int
    missing_before: int
    missing_after: int
    duration_s: float

    def as_dict(self) -> dict[str, Any]:
        """The stats, as the command line prints them."""
        return asdict(self)


@dataclass(slots=True)
class RecordOfFiles:
    """Messages that were read from files, to be decoded; ``resolver`` gives writer schemas by id."""

    batches: Iterable[Batch]
    resolver: Any = None
    unreadable: int = field(default=0, init=False)

    def events(self, gaps: GapsByKind) -> Iterator[tuple[Kind, pa.RecordBatch]]:
        """The good events of the kinds that have numbers."""
        with opened_decoder(self.resolver) as decoder:
            for batch in self.batches:
                events, dead_letters = decode_here(batch, decoder)
                self.unreadable += sum(one.last - one.offset + 1 for one in dead_letters)
                for part in events:
                    good = good_rows(part.kind, part.data)
                    self.unreadable += part.num_rows - good.num_rows
                    if part.kind in gaps:
                        yield part.kind, good


@dataclass(slots=True)
class RecordOfBinance:
    """The trades that Binance gives by their ids, a page at a time, where some are missing."""

    history: TradeHistory
    unreadable: int = field(default=0, init=False)

    def events(self, gaps: GapsByKind) -> Iterator[tuple[Kind, pa.RecordBatch]]:
        """The pages with trades that are missing. Raises FeedError as the history does, UsageError for no pair."""
        missing: dict[str, list[tuple[int, int]]] = {}
        for gap in gaps["trades"].gaps:
            if gap.exchange == EXCHANGE:
                missing.setdefault(gap.symbol, []).append((gap.first_missing, gap.last_missing))
        for symbol, spans in missing.items():
            (pair,) = parse_pairs(symbol)
            ahead = 0
            for first, last in sorted(spans):
                ahead = max(ahead, first)
                while ahead <= last:
                    page = self.history.page(pair, ahead)
                    if not page or page[-1]["source_sequence"] < ahead:
                        break
                    yield "trades", _as_rows(page, f"binance:{symbol}")
                    ahead = page[-1]["source_sequence"] + 1


def fill_gaps(
    lake: LakeConfig,
    record: OtherRecord,
    selection: EventSelection = _EVERYTHING,
    *,
    metrics: MetricsConfig = DEFAULT_METRICS,
    advance: Callable[[float], None] = lambda _offered: None,
) -> FillStats:
    """Take from another record the events with the numbers that open gaps lack, and nothing else; close the gaps.

    ``selection`` says of which symbols and exchanges. The events keep where they came from: their source is that of
    the other record, after ``fill:``, and the offset the one that they have there. Messages that are no events are
    counted, and stay where they are. ``advance`` is told how many events were looked at.

    Exactly once: what was filled in is not taken again, however often it is run, killed or not. Raises as
    :func:`k2beam.job.bounded.run_ingest` does, and what reading the other record raises.
    """
    started = time.monotonic()
    config, catalog, _ = opened(IngestConfig(lake, metrics=metrics, max_dead_share=1), None)
    namespace = config.lake.namespace
    reconcile(catalog, namespace, metrics=metrics)  # a run that was killed may have left the ledger behind

    def open_now() -> dict[Kind, MissingNumbers]:
        return {kind: MissingNumbers.of_now(catalog, namespace, kind, selection) for kind in SEQUENCED_KINDS}

    gaps, offered, filled = open_now(), 0, 0
    before = sum(one.missing for one in gaps.values())
    likely: list[tuple[Kind, pa.RecordBatch]] = []
    for kind, rows in record.events(gaps) if before else ():
        offered += rows.num_rows
        advance(rows.num_rows)
        likely.append((kind, gaps[kind].numbered(rows)))
        if sum(part.num_rows for _, part in likely) >= FILL_ROWS:
            filled += _take(lake, gaps, likely, metrics)
            likely = []
    filled += _take(lake, gaps, likely, metrics)
    after = sum(one.missing for one in open_now().values())
    return FillStats(offered, record.unreadable, filled, before, after, round(time.monotonic() - started, 3))


def _take(
    lake: LakeConfig, gaps: GapsByKind, likely: Sequence[tuple[Kind, pa.RecordBatch]], metrics: MetricsConfig
) -> int:
    """Ingest what of these rows fills gaps; how many there were."""
    messages: list[RawRecord] = []
    for kind in gaps:
        parts = [part for one, part in likely if one == kind and part.num_rows]
        if parts:
            rows = pa.concat_batches([part.select(_columns(kind)) for part in parts])
            messages += encode_messages(kind, gaps[kind].wanted(rows), FILL_PREFIX)
    if not messages:
        return 0
    with tempfile.TemporaryDirectory(prefix="k2beam-fill-") as folder:
        path = str(Path(folder, "fill.avro"))
        write_raw_archive(path, messages, archive_schemas())
        config = IngestConfig(lake, metrics=metrics, max_dead_share=1)
        return sum(run_ingest(ReadArchive([path]), config).written.values())


def _columns(kind: Kind) -> list[str]:
    """What is kept of an event, and where it was."""
    return [*payload_arrow_schema(latest_name(kind)).names, *_PLACE]


_PLACE = ("_source", "_partition", "_offset")


def _as_rows(records: Sequence[Mapping[str, Any]], source: str) -> pa.RecordBatch:
    """Trades as events; the offset of each is its number."""
    schema = pa.schema(
        [*payload_arrow_schema(latest_name("trades")), *(f for f in PROVENANCE_FIELDS if f.name in _PLACE)]
    )
    places = ({"_source": source, "_partition": 0, "_offset": one["source_sequence"]} for one in records)
    rows = [{**one, **place} for one, place in zip(records, places, strict=True)]
    return pa.RecordBatch.from_pylist(rows, schema)
