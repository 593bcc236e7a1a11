"""What is known to be missing: the open gaps of the ledger, placed in time, and the spans of time that they touch.

A gap says which numbers are missing; when their messages were sent, nobody knows. They lie between the message with the
number before the gap and the one with the number after it. A span of time (a bar, a day) is *complete* if no gap may
have a message in it, the feed has numbers, and there are messages before and after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.arrays import Ints
from k2beam.errors import IncompleteAnswer
from k2beam.lake.rules import read_rules
from k2beam.lake.tables import EVENT_TABLES, SEQUENCE_GAPS
from k2beam.model import Gap, Kind
from k2beam.query import duck
from k2beam.query.events import numbers_by_key, stored_events
from k2beam.query.gaps import open_gaps
from k2beam.query.nearest import Key, nearest_events
from k2beam.query.selection import bounds_of_selection, pin_snapshots
from k2beam.query.selections import EventSelection, Snapshots
from k2beam.query.times import moment, to_instant
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import recount

NEIGHBOURS_WITHIN = timedelta(days=1)
"""Messages before and after a selection are looked for so far away."""

COMPLETENESS = (pa.field("complete", pa.bool_()), pa.field("missing", pa.int64()))
"""Whether all messages of the row's time are there (null: not known), and how many numbers of gaps may be in it."""

_NUMBER = "CASE WHEN source_sequence >= 0 THEN source_sequence END"
NUMBERS = f"count({_NUMBER}) AS numbered, min({_NUMBER}) AS low_number, max({_NUMBER}) AS high_number"
"""SQL: what :func:`judge_spans` needs to know of the numbers of a span's rows."""

VERDICT = """
    CASE WHEN found > 0 THEN false WHEN known THEN true END AS complete,
    CASE WHEN found > 0 OR known THEN found END AS missing
"""
"""SQL: :data:`COMPLETENESS`, by the numbers that were ``found`` missing, and whether all else is ``known``."""

_GAPS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("exchange", "symbol")),
        *(pa.field(name, pa.int64()) for name in ("gap", "before", "opened", "missing")),
    ]
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The open gaps of one kind, and what else tells whether a selection has all messages."""

    catalog: Catalog
    namespace: str
    kind: Kind
    selection: EventSelection
    gaps: tuple[Gap, ...]
    untold: frozenset[str] | None
    """Exchanges whose gaps are not those of symbols, by their rules; None means all."""
    ruled: bool
    strict: bool
    """Whether an answer over a gap is refused."""


def read_open_gaps(
    catalog: Catalog,
    namespace: str,
    kind: Kind,
    selection: EventSelection,
    further: Iterable[Kind] = (),
    *,
    strict: bool = False,
) -> Ledger:
    """The ledger of the selection's symbols and exchanges, and the selection as of one moment.

    That moment is the same for the ledger and for the tables of ``kind`` and of ``further`` ones. Raises UsageError for
    a moment that is gone, LakeError for an unreadable file.
    """
    if not isinstance(selection.as_of, Snapshots):
        names = (*(EVENT_TABLES[one] for one in (kind, *further)), SEQUENCE_GAPS)
        selection = replace(selection, as_of=pin_snapshots(catalog, namespace, selection.as_of, names))
    rules = read_rules(catalog, namespace).of_kind(kind).rules
    other = [rule.exchange for rule in rules if rule.channel is not None or rule.unsequenced]
    untold = None if None in other else frozenset(name for name in other if name is not None)
    found = tuple(open_gaps(catalog, namespace, kind, selection))
    return Ledger(catalog, namespace, kind, selection, found, untold, bool(rules), strict)


def judge_spans(session: duck.Session, spans: str, events: str, ledger: Ledger) -> None:
    """Make ``judged``, a table of ``spans`` with ``complete`` and ``missing``, which :func:`refuse_gaps` looks at.

    ``spans`` has ``exchange``, ``symbol`` and ``_bar``, which name a row, ``_from`` and ``_until`` (inclusive,
    microseconds), ``trades`` (rows), and of these :data:`NUMBERS`, ``first`` and ``last`` (times), all of which were
    summed from the relation ``events``.
    """
    keys = session.rows(f"""
        SELECT exchange, symbol, min(low_number) AS low_number, max(high_number) AS high_number,
               sum(numbered)::BIGINT AS numbered, min(first) AS first, max(last) AS last
        FROM {spans} GROUP BY exchange, symbol
    """)  # noqa: S608
    _place_told(session, spans, events, ledger, keys)
    start, end = bounds_of_selection(ledger.selection)
    session.run(
        f"""
        CREATE TEMP TABLE judged AS
        WITH touched AS (
            SELECT exchange, symbol, _bar, sum(missing)::BIGINT AS missing
            FROM {spans} JOIN placed USING (exchange, symbol) WHERE low_time <= _until AND high_time >= _from
            GROUP BY exchange, symbol, _bar
        ),
        told AS (
            SELECT spans.*, coalesce(touched.missing, 0) AS found,
                   numbered = trades AND told AND earliest < _from AND latest > _until
                   AND coalesce(_from >= $start, true) AND coalesce(_until < $end, true) AS known
            FROM {spans} AS spans JOIN ends USING (exchange, symbol)
            LEFT JOIN touched USING (exchange, symbol, _bar)
        )
        SELECT * EXCLUDE (found, known), {VERDICT} FROM told
        """,  # noqa: S608
        {"start": start, "end": end},
    )
    refuse_gaps(session, "judged", ledger)


def place_open_gaps(session: duck.Session, events: str, ledger: Ledger) -> None:
    """Make ``placed`` (:func:`place_gaps`) of the gaps that touch ``events``, and ``ends``.

    That has ``exchange``, ``symbol``, ``earliest`` and ``latest``, between which there are messages, and ``told``:
    whether the gaps of the key are known.
    """
    sum_up_keys(session, events)
    keys = session.rows("SELECT * FROM summed")
    _place_told(session, "summed", events, ledger, keys, exactly=True)


def sum_up_keys(session: duck.Session, events: str) -> None:
    """Make ``summed``, the spans of :func:`place_gaps` that are all events of a symbol."""
    session.run(f"""
        CREATE TEMP TABLE summed AS
        SELECT exchange, symbol, {NUMBERS}, epoch_us(min(timestamp)) AS first, epoch_us(max(timestamp)) AS last
        FROM {events} GROUP BY exchange, symbol
    """)  # noqa: S608


def events_around(symbols: Iterable[str], exchanges: Iterable[str], first: int, last: int) -> EventSelection:
    """The events of these names from ``first`` to ``last`` (microseconds), and those :data:`NEIGHBOURS_WITHIN`."""
    start, end = moment(first) - NEIGHBOURS_WITHIN, moment(last) + NEIGHBOURS_WITHIN
    return EventSelection(sorted(set(symbols)), sorted(set(exchanges)), start, end)


def _place_told(
    session: duck.Session, spans: str, events: str, ledger: Ledger, keys: list[dict[str, Any]], *, exactly: bool = False
) -> None:
    place_gaps(session, spans, events, list(_gaps_of(session, events, ledger, keys)), exactly=exactly)
    session.register_table("ends", _ends(ledger, keys))


def place_gaps(session: duck.Session, spans: str, events: str, gaps: Iterable[Gap], *, exactly: bool = False) -> None:
    """Make ``placed``: of gaps ``gap`` (their places in the order given), ``exchange``, ``symbol``, ``missing``, and
    ``low_time`` and ``high_time``, between which their messages lie.

    ``events`` is a relation with ``exchange``, ``symbol``, ``timestamp`` and ``source_sequence``, and ``spans`` sums it
    up (:func:`judge_spans`): a gap begins at the message with the number before it, and where one span only can have
    that, any time of it will do (unless ``exactly``). Of several such messages the nearest to the one after the gap
    counts; where there is none in ``events``, the message before that one, and else the beginning. A gap that begins
    and ends outside of them is left out.
    """
    columns = [
        (gap.exchange, gap.symbol, number, gap.first_missing - 1, gap.opened_at, gap.missing_count)
        for number, gap in enumerate(gaps)
    ]
    rows = [dict(zip(_GAPS.names, row, strict=True)) for row in columns]
    session.register_table("gaps", pa.Table.from_pylist(rows, _GAPS))
    session.run(f"""
        CREATE TEMP TABLE begun AS
        SELECT gap, any_value(last) AS time, count(*) + {int(exactly)} AS spans, min(first) AS low, max(last) AS high
        FROM {spans} JOIN gaps USING (exchange, symbol) WHERE before BETWEEN low_number AND high_number GROUP BY gap
    """)  # noqa: S608
    _place_exactly(session, events)
    session.run("""
        CREATE TEMP TABLE placed AS
        SELECT gap, exchange, symbol, missing, least(time, opened) AS low_time, greatest(time, opened) AS high_time
        FROM gaps JOIN begun USING (gap)
    """)


def _place_exactly(session: duck.Session, events: str) -> None:
    """Look for the rows before the gaps of ``begun`` that several spans may have, and of those that none has."""
    time = "epoch_us(timestamp)"
    (several,) = session.rows("SELECT count(*) AS gaps, min(low) AS low, max(high) AS high FROM begun WHERE spans > 1")
    if several["gaps"]:
        session.run(f"""
            CREATE OR REPLACE TEMP TABLE begun AS
            SELECT gap, time FROM begun WHERE spans = 1 UNION ALL
            SELECT gap, arg_min({time}, abs({time} - opened))
            FROM {events} AS rows JOIN (FROM gaps SEMI JOIN (FROM begun WHERE spans > 1) USING (gap)) AS asked
            ON rows.exchange = asked.exchange AND rows.symbol = asked.symbol AND source_sequence = before
            WHERE timestamp BETWEEN make_timestamptz({several["low"]}) AND make_timestamptz({several["high"]})
            GROUP BY gap
        """)  # noqa: S608
    session.run("CREATE TEMP TABLE without AS SELECT * FROM gaps ANTI JOIN begun USING (gap)")
    (left,) = session.rows("SELECT count(*) AS gaps FROM without")
    if left["gaps"]:
        session.run(f"""
            INSERT INTO begun BY NAME
            SELECT gap, coalesce(max({time}) FILTER ({time} < opened), {-(2**63)}) AS time
            FROM without JOIN {events} USING (exchange, symbol)
            GROUP BY gap, opened HAVING opened BETWEEN min({time}) AND max({time})
        """)  # noqa: S608


def refuse_gaps(session: duck.Session, judged: str, ledger: Ledger) -> None:
    """Raises IncompleteAnswer where the ledger is strict and a row of ``judged`` is not complete."""
    if not ledger.strict:
        return
    (found,) = session.rows(f"SELECT count(*) AS rows FROM {judged} WHERE NOT complete")  # noqa: S608
    if found["rows"]:
        (first,) = session.rows(
            f"SELECT * FROM {judged} WHERE NOT complete ORDER BY _from, exchange, symbol LIMIT 1"  # noqa: S608
        )
        when = moment(first["_from"]).isoformat()
        raise IncompleteAnswer(
            f"{found['rows']:,} rows of the answer have gaps in them, the first at {when} of {first['symbol']} on "
            f"{first['exchange']}: {first['missing']:,} messages may be missing there; `k2beam gaps` lists the gaps"
        )


def _gaps_of(session: duck.Session, events: str, ledger: Ledger, keys: list[dict[str, Any]]) -> Iterator[Gap]:
    """The open gaps; of a key whose rows say something else than the ledger, those that a recount of its rows finds.

    The ledger is written beside the rows: it may be a moment older or newer.
    """
    by_key: dict[Key, list[Gap]] = {}
    for gap in ledger.gaps:
        by_key.setdefault((gap.exchange, gap.symbol), []).append(gap)
    differing = []
    for key in keys:
        name = key["exchange"], key["symbol"]
        if ledger.ruled or key["low_number"] is None or _agree(by_key.get(name, []), key):
            yield from by_key.get(name, [])
        else:
            differing.append(name)
    if not differing:
        return
    names = pa.table({"exchange": [name[0] for name in differing], "symbol": [name[1] for name in differing]})
    session.register_table("differing", names)
    counted = session.stream(f"""
        SELECT exchange, symbol, epoch_us(timestamp) AS time, source_sequence AS number
        FROM {events} SEMI JOIN differing USING (exchange, symbol) WHERE source_sequence >= 0 ORDER BY exchange, symbol
    """)  # noqa: S608
    for (exchange, symbol), times, numbers in numbers_by_key(counted, ("exchange", "symbol")):
        yield from _recounted((exchange, symbol), times, numbers, ledger.kind, by_key.get((exchange, symbol), []))


def _agree(gaps: Iterable[Gap], key: dict[str, Any]) -> bool:
    """Whether as many numbers are missing between the lowest and the highest one as the gaps say."""
    low, high, numbered = (key[name] for name in ("low_number", "high_number", "numbered"))
    missing = sum(max(0, min(gap.last_missing, high) - max(gap.first_missing, low) + 1) for gap in gaps)
    return bool(high - low + 1 - numbered == missing)


def _recounted(key: Key, times: Ints, numbers: Ints, kind: Kind, gaps: list[Gap]) -> Iterator[Gap]:
    """The gaps that rows of a key have between them, and those of the ledger that begin or end outside of them."""
    for epoch in recount(times, numbers):
        for gap in epoch.gaps:
            yield Gap(*key, kind, epoch.number, gap.first, gap.last, "OPEN", gap.opened_at, "")
    first, last = int(times.min()), int(times.max())
    have = set(numbers.tolist())
    for known in gaps:
        begins_here = known.first_missing - 1 in have
        ends_here = first <= known.opened_at <= last
        if begins_here != ends_here:
            yield known


def _ends(ledger: Ledger, keys: list[dict[str, Any]]) -> pa.Table:
    """Of each key the first and last time that it is known to have a message at, and whether its gaps are told."""
    names = [(key["exchange"], key["symbol"]) for key in keys]
    before, after = _neighbours(ledger, names, last=True), _neighbours(ledger, names, last=False)
    return pa.table(
        {
            "exchange": pa.array([name[0] for name in names], pa.string()),
            "symbol": pa.array([name[1] for name in names], pa.string()),
            "earliest": pa.array([before.get(n, k["first"]) for n, k in zip(names, keys, strict=True)], pa.int64()),
            "latest": pa.array([after.get(n, k["last"]) for n, k in zip(names, keys, strict=True)], pa.int64()),
            "told": [ledger.untold is not None and name[0] not in ledger.untold for name in names],
        }
    )


def _neighbours(ledger: Ledger, names: list[Key], *, last: bool) -> dict[Key, int]:
    """The times of the last messages before the selection, or of the first ones after it."""
    selection, time = ledger.selection, EVENT_TIME_COLUMN[ledger.kind]
    edge = selection.start if last else selection.end
    if edge is None or not names:
        return {}
    at = to_instant(edge, "--from" if last else "--to")
    try:
        span = (at - NEIGHBOURS_WITHIN, at) if last else (at, at + NEIGHBOURS_WITHIN)
    except OverflowError:  # at an end of the calendar
        return {}
    near = replace(selection, start=span[0], end=span[1])
    stored = stored_events(ledger.catalog, ledger.namespace, ledger.kind, near, ["exchange", "symbol", time])
    found = nearest_events(stored, names, last=last)
    times = found.column(time).cast(pa.int64()).to_pylist()
    return dict(
        zip(zip(*(found.column(n).to_pylist() for n in ("exchange", "symbol")), strict=True), times, strict=True)
    )
