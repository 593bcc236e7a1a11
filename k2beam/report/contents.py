"""What the page shows, as values that JSON can hold. Times are milliseconds since 1970, UTC, as charts take them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from k2beam.audit.audit import audit
from k2beam.audit.report import SourceFinding
from k2beam.clock import now_us
from k2beam.errors import UsageError
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import SEQUENCED_KINDS, Gap, Kind
from k2beam.query.bar_rules import BarRule
from k2beam.query.dead_letters import count_dead_letters
from k2beam.query.events import answer, stored_events
from k2beam.query.lake import Lake
from k2beam.query.missing import MissingNumbers
from k2beam.query.overview import (
    SnapshotInfo,
    SymbolCount,
    TableStats,
    list_snapshots,
    list_symbols,
    stats_and_sizes,
)
from k2beam.query.selections import DeadLetterSelection, EventSelection, Snapshots, names_of
from k2beam.query.times import micros_of, moment, to_instant
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.version import RELEASE

if TYPE_CHECKING:
    from k2beam.exporter.lag import TopicLag

MOST_BARS = 5_000
"""So many bars of one symbol a page takes; more can't be told apart, and make it slow."""

MOST_GAPS = 500
"""So many gaps are shown, the largest; the count is of all."""

MOST_SOURCES = 500
"""So many partitions of sources are shown, those with something wrong first; the sums are of all."""

MOST_SNAPSHOTS = 500
"""So many snapshots of each table are shown, the last ones."""

SIZE_CLASSES = tuple(1 << power for power in (16, 20, 23, 26, 27, 28))
"""Bounds of the classes of file sizes: 64 KiB, 1, 8, 64, 128 and 256 MiB."""

_SYMBOLS = 8
_FITTING_BARS = 300
_FITTING_STRETCHES = 1_500
_SECONDS = {"1s": 1, "5s": 5, "15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}
_OFFSETS = ("expected", "received", "dead", "missing", "duplicate")
_PRICES = ("open", "high", "low", "close", "volume", "vwap")


@dataclass(frozen=True, slots=True)
class ReportSelection:
    """What the page is about: a stretch of time, and the symbols of its candles (None: those with the most trades).

    ``events`` chooses both; the time begins ``last`` before its end, or before the newest event, where it has no start.
    ``every`` is the size of a bar (None: by the length of the time).

    Examples:
        >>> from k2beam.report.contents import ReportSelection
        >>> ReportSelection(every="1m").last
        datetime.timedelta(days=1)
    """

    events: EventSelection = field(default_factory=EventSelection)
    every: str | None = None
    last: timedelta = timedelta(days=1)


def audit_verdict(lake: Lake, on_step: Callable[[str], None] = lambda _step: None) -> dict[str, Any]:
    """The verdict of an audit, which reads the provenance of all rows and writes nothing; ``on_step`` as there.

    Examples:
        >>> from k2beam import Lake
        >>> from k2beam.report import audit_verdict
        >>> verdict = audit_verdict(Lake("warehouse"))
        >>> verdict["ok"], verdict["offsets"]["expected"], verdict["offsets"]["dead"]
        (True, 6000, 18)
    """
    report = audit(lake.catalog, lake.namespace, mend=False, on_step=on_step)
    return {
        "at": now_ms(),
        "ok": report.ok,
        "problems": list(report.problems),
        "notes": list(report.notes),
        "offsets": {name: sum(getattr(one, name) for one in report.sources) for name in _OFFSETS},
        "sources": [asdict(one) for one in sorted(report.sources, key=_wrong_first)[:MOST_SOURCES]],
        "sources_in_all": len(report.sources),
        "copies": sum(one.duplicate for one in report.symbols),
    }


def _wrong_first(source: SourceFinding) -> tuple[int, str, int]:
    return -(source.missing + source.duplicate), source.source, source.partition


class LagRows(TypedDict):
    """The lag of each partition that could be read, and what is wrong with the others."""

    partitions: list[dict[str, Any]]
    problems: list[str]


def topic_lag_rows(lag: TopicLag) -> LagRows:
    """What ``lag`` says now: ``topic``, ``partition``, ``lag``, ``behind`` (seconds), ``covered``, ``lost``.

    Raises as :meth:`TopicLag.read` does.
    """
    found, problems = lag.read()
    rows = [{"topic": topic, "partition": int(number), **asdict(one)} for (topic, number), one in found.items()]
    return {"partitions": sorted(rows, key=lambda row: (row["topic"], row["partition"])), "problems": problems}


def gather_contents(
    lake: Lake, asked: ReportSelection, verdict: Mapping[str, Any] | None = None, lag: LagRows | None = None
) -> dict[str, Any]:
    """All that the page shows of the tables as they are now, with what is at hand of verdict and lag.

    Raises UsageError for a symbol without trades in the time and for more than :data:`MOST_BARS` bars, LakeError for
    an unreadable file.

    Examples:
        >>> from k2beam import EventSelection, Lake
        >>> from k2beam.report import ReportSelection, gather_contents
        >>> asked = ReportSelection(EventSelection("BTCUSDT"), every="5m")
        >>> (bars,) = gather_contents(Lake("warehouse"), asked)["candles"]["of"]
        >>> bars["bars"]["trades"], bars["bars"]["missing"][0]
        ([128, 121, 124, 120, 102], 10)
    """
    catalog, namespace, now = lake.catalog, lake.namespace, lake.snapshots()
    sized = stats_and_sizes(catalog, namespace, now)
    events = _with_time(asked, now, [stats for stats, _ in sized])
    of_all = replace(events, symbol=None, exchange=None)
    symbols = list_symbols(catalog, namespace, of_all)
    return {
        "made_at": now_ms(),
        "release": RELEASE,
        "size_classes": SIZE_CLASSES,
        "verdict": verdict,
        "tables": [_table(stats, sizes) for stats, sizes in sized],
        "snapshots": [row for stats, _ in sized for row in _snapshots(lake, stats.table)],
        "symbols": len({(one.exchange, one.symbol) for one in symbols}),
        "rows": _rows_over_time(lake, of_all, symbols),
        "gaps": _gaps(lake, now),
        "dead_letters": _dead_letters(lake),
        "candles": _candles(lake, asked, events, symbols),
        "lag": lag,
    }


def now_ms() -> int:
    """The time by this machine's clock, milliseconds since 1970."""
    return now_us() // 1_000


def _ms(when: datetime | None) -> int | None:
    return None if when is None else round(when.timestamp() * 1_000)


def _with_time(asked: ReportSelection, now: Snapshots, stats: Iterable[TableStats]) -> EventSelection:
    """The selection as of now, with a start. Raises UsageError for a time that can't be read."""
    tables = {EVENT_TABLES[kind] for kind in SEQUENCED_KINDS}
    newest = max((one.last_event for one in stats if one.table in tables and one.last_event), default=None)
    end = newest if asked.events.end is None else to_instant(asked.events.end, "--to")
    start = asked.events.start
    if start is None and end is not None:
        start = end - asked.last
    return replace(asked.events, start=start, as_of=now)


def _table(stats: TableStats, sizes: Iterable[int]) -> dict[str, Any]:
    """A table, with its files counted by :data:`SIZE_CLASSES`."""
    counts = Counter(bisect_right(SIZE_CLASSES, size) for size in sizes)
    return {
        **{name: getattr(stats, name) for name in ("table", "rows", "files", "bytes")},
        "first_event": _ms(stats.first_event),
        "last_event": _ms(stats.last_event),
        "events": stats.table in EVENT_TABLES.values(),
        "sizes": [counts[number] for number in range(len(SIZE_CLASSES) + 1)],
    }


def _snapshots(lake: Lake, table: str) -> list[dict[str, Any]]:
    """The last :data:`MOST_SNAPSHOTS` of a table, oldest first."""
    found: list[SnapshotInfo] = list_snapshots(lake.catalog, lake.namespace, [table])
    names = ("table", "snapshot_id", "operation", "added_rows", "added_files", "total_rows")
    return [
        {
            **{name: getattr(one, name) for name in names},
            "snapshot_id": str(one.snapshot_id),
            "at": _ms(one.committed_at),
        }
        for one in found[-MOST_SNAPSHOTS:]
    ]


def _fitting(seconds: float, most: int, least: str) -> str:
    """The shortest stretch, ``least`` or longer, of which so long a time has ``most`` at most."""
    names = [name for name, length in _SECONDS.items() if length >= _SECONDS[least]]
    return next((name for name in names if seconds / _SECONDS[name] < most), names[-1])


def _rows_over_time(lake: Lake, events: EventSelection, symbols: Sequence[SymbolCount]) -> dict[str, Any]:
    """Rows of trades and of quotes in each stretch of event time, copies too, all symbols together."""
    mine = [one for one in symbols if one.kind in SEQUENCED_KINDS]
    if not mine:
        return {"every": "1m", "seconds": 60, "at": [], **{kind: [] for kind in SEQUENCED_KINDS}}
    begun, ended = min(one.first_event for one in mine), max(one.last_event for one in mine)
    every = _fitting((ended - begun).total_seconds(), _FITTING_STRETCHES, "1m")
    seconds = _SECONDS[every]
    stretches = range(int(begun.timestamp()) // seconds, int(ended.timestamp()) // seconds + 1)
    counts = {kind: _count_rows(lake, kind, events, seconds) for kind in SEQUENCED_KINDS}
    return {
        "every": every,
        "seconds": seconds,
        "at": [number * seconds * 1_000 for number in stretches],
        **{kind: [counts[kind].get(number, 0) for number in stretches] for kind in SEQUENCED_KINDS},
    }


def _count_rows(lake: Lake, kind: Kind, events: EventSelection, seconds: int) -> dict[int, int]:
    """The rows of each stretch that has some, by its number since 1970."""
    time = EVENT_TIME_COLUMN[kind]
    stored = stored_events(lake.catalog, lake.namespace, kind, events, [time])
    sql = f"""
        SELECT epoch_us("{time}") // {seconds * 1_000_000} AS stretch, count(*) AS rows FROM events GROUP BY stretch
    """  # noqa: S608
    batches = answer({"events": stored}, lambda session: session.stream(sql), True)
    return {row["stretch"]: row["rows"] for batch in batches for row in batch.to_pylist()}


def _gaps(lake: Lake, now: Snapshots) -> dict[str, Any]:
    """How many gaps are open, and the largest of them, each between the times of the messages around it."""
    asked = EventSelection(as_of=now)
    ledgers = [MissingNumbers.of_now(lake.catalog, lake.namespace, kind, asked) for kind in SEQUENCED_KINDS]
    gaps = [(ledger, place) for ledger in ledgers for place in range(len(ledger.gaps))]
    largest = sorted(gaps, key=lambda one: -one[0].gaps[one[1]].missing_count)[:MOST_GAPS]
    spans = {one.kind: one.spans([place for ledger, place in largest if ledger is one]) for one in ledgers}
    return {
        "open": len(gaps),
        "missing": sum(ledger.missing for ledger in ledgers),
        "shown": [_gap(ledger.gaps[place], *spans[ledger.kind][place]) for ledger, place in largest],
    }


def _gap(gap: Gap, low: int | None, high: int) -> dict[str, Any]:
    return {
        **{name: getattr(gap, name) for name in ("exchange", "symbol", "kind", "severity")},
        # As text: numbers of an exchange may be larger than a script's are exact.
        "first": str(gap.first_missing),
        "last": str(gap.last_missing),
        "missing": gap.missing_count,
        "from": None if low is None else low // 1_000,
        "until": high // 1_000,
    }


def _dead_letters(lake: Lake) -> list[dict[str, Any]]:
    """How many there are of each class, the most first; a letter that became an event is none."""
    letters, offsets = Counter[str](), Counter[str]()
    for one in count_dead_letters(lake.catalog, lake.namespace, DeadLetterSelection()):
        letters[one.error_class] += one.letters
        offsets[one.error_class] += one.offsets
    return [{"error_class": name, "letters": count, "offsets": offsets[name]} for name, count in letters.most_common()]


def _candles(
    lake: Lake, asked: ReportSelection, events: EventSelection, symbols: Iterable[SymbolCount]
) -> dict[str, Any]:
    """Bars of the chosen symbols, or of those with the most trades, most first."""
    chosen = _chosen(events, sorted((one for one in symbols if one.kind == "trades"), key=lambda one: -one.rows))
    if not chosen:
        return {"every": asked.every, "of": []}
    begun, ended = min(one.first_event for one in chosen), max(one.last_event for one in chosen)
    size = asked.every or _fitting((ended - begun).total_seconds(), _FITTING_BARS, "1s")
    rule = BarRule.parse(size)
    start = events.start
    if asked.events.start is None and rule.micros:
        # A bar that is cut in two would be one of which nobody knows whether it is complete.
        start = moment(int(rule.starts(np.array([micros_of(begun)]))[0]))
    names = [one.symbol for one in chosen], [one.exchange for one in chosen]
    found = lake.bars(size, *names, start, events.end, empty=rule.micros > 0, as_of=events.as_of, completeness=True)
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {(one.exchange, one.symbol): [] for one in chosen}
    for row in found.to_pylist():
        rows.get((row["exchange"], row["symbol"]), []).append(row)
    for (exchange, symbol), bars in rows.items():
        if len(bars) > MOST_BARS:
            raise UsageError(
                f"--every {size} makes {len(bars):,} bars of {symbol} on {exchange}, and a page shows {MOST_BARS:,} at "
                "most: choose longer bars, or a shorter time by --from and --to or --last"
            )
    return {
        "every": size,
        "of": [{"exchange": key[0], "symbol": key[1], "bars": _columns(bars)} for key, bars in rows.items()],
    }


def _chosen(events: EventSelection, traded: Sequence[SymbolCount]) -> list[SymbolCount]:
    """Those of the symbols that are asked for. Raises UsageError for a name that has no trades."""
    for what, names, have in (
        ("symbol", names_of(events.symbol, "symbol"), {one.symbol for one in traded}),
        ("exchange", names_of(events.exchange, "exchange"), {one.exchange for one in traded}),
    ):
        if lacking := [name for name in names if name not in have]:
            raise UsageError(
                f"there are no trades of {what} {', '.join(lacking)} in the time of the page: `k2beam query symbols` "
                "shows what there is and when; --from, --to and --last choose the time"
            )
        traded = [one for one in traded if not names or getattr(one, what) in names]
    return list(traded) if events.symbol is not None else list(traded[:_SYMBOLS])


def _columns(bars: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Prices and volume as text: no digit is lost on the way to the page's table."""
    return {
        "at": [_ms(bar["start"]) for bar in bars],
        **{name: [_text(bar[name]) for bar in bars] for name in _PRICES},
        **{name: [bar[name] for bar in bars] for name in ("trades", "complete", "missing")},
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount.normalize(), "f")
