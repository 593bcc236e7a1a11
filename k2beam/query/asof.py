"""Each trade with the quote that held at its time, the spread and the mid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.errors import UsageError
from k2beam.model import DECIMAL, TIMESTAMP
from k2beam.query import duck
from k2beam.query.completeness import COMPLETENESS, VERDICT, Ledger, place_open_gaps, read_open_gaps, refuse_gaps
from k2beam.query.events import PLACE, StoredEvents, answer, in_order, stored_events
from k2beam.query.nearest import nearest_events
from k2beam.query.selections import EventSelection
from k2beam.query.times import to_instant

AS_OF_SCHEMA = pa.schema(
    [
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        pa.field("price", DECIMAL, nullable=False),
        pa.field("quantity", DECIMAL, nullable=False),
        pa.field("side", pa.string()),
        pa.field("trade_id", pa.string()),
        pa.field("source_sequence", pa.int64()),
        pa.field("quote_timestamp", TIMESTAMP),
        pa.field("bid_price", DECIMAL),
        pa.field("bid_quantity", DECIMAL),
        pa.field("ask_price", DECIMAL),
        pa.field("ask_quantity", DECIMAL),
        pa.field("spread", DECIMAL),
        pa.field("mid", DECIMAL),
    ]
)
"""A trade and its quote; spread is ask - bid, mid their mean, to 18 places. Null where no quote held."""

_TRADE = ("exchange", "symbol", "timestamp", "price", "quantity", "side", "trade_id", "source_sequence")
_HELD = ("timestamp", "source_sequence", "bid_price", "bid_quantity", "ask_price", "ask_quantity")
_PRICES = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
_QUOTE = ("exchange", "symbol", *_HELD)
_FOREVER = 2**62


def join_as_of(
    catalog: Catalog,
    namespace: str,
    selection: EventSelection,
    *,
    tolerance: timedelta | None = None,
    with_duplicates: bool = False,
    completeness: bool = False,
    strict: bool = False,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The selected trades in order, each with the last quote of its exchange and symbol at or before its time.

    Of quotes of one time the last by sequence and offset holds. A quote that is older than ``tolerance`` holds no more;
    without one the last quote before the selection is looked for as far back as there are any. ``completeness`` adds
    whether a quote between the one that held and the trade may be missing. Raises UsageError and LakeError, and with
    ``strict`` IncompleteAnswer where one may be.
    """
    if tolerance is not None and tolerance < timedelta(0):
        raise UsageError("--tolerance must not be below 0")
    ledger = None
    if completeness or strict:
        ledger = read_open_gaps(catalog, namespace, "quotes", selection, ["trades"], strict=strict)
        selection = ledger.selection
    schema = AS_OF_SCHEMA if ledger is None else pa.schema([*AS_OF_SCHEMA, *COMPLETENESS])
    trades = stored_events(catalog, namespace, "trades", selection, _TRADE)
    quotes = stored_events(catalog, namespace, "quotes", selection, _QUOTE)
    before = None
    if selection.start is not None:
        start = to_instant(selection.start, "--from")
        since = None if tolerance is None else start - tolerance
        before = stored_events(catalog, namespace, "quotes", replace(selection, start=since, end=start), _QUOTE)

    def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
        _join(session, before, tolerance)
        if ledger is not None:
            _judge(session, ledger)
        names = ", ".join(schema.names)
        return session.stream(f"SELECT {names} FROM quoted ORDER BY {in_order('trades')}")  # noqa: S608

    found = answer({"trades": trades, "quotes": quotes}, ask, with_duplicates)
    return schema, (batch.cast(schema) for batch in found)


def _join(session: duck.Session, before: StoredEvents | None, tolerance: timedelta | None) -> None:
    """Make the table ``quoted``: the trades with their quotes."""
    quote = "struct_pack(" + ", ".join(f'"{name}" := {{0}}."{name}"' for name in _HELD) + ")"
    session.run(f"""
        CREATE TEMP TABLE joined AS
        WITH held AS (
            SELECT * FROM quotes QUALIFY row_number() OVER (
                PARTITION BY exchange, symbol, timestamp ORDER BY {in_order("quotes", reverse=True)}
            ) = 1
        )
        SELECT trades.*, CASE WHEN held.symbol IS NOT NULL THEN {quote.format("held")} END AS quote
        FROM trades ASOF LEFT JOIN held ON trades.exchange = held.exchange AND trades.symbol = held.symbol
            AND trades.timestamp >= held.timestamp
    """)  # noqa: S608
    session.register_table("opening", _opening(session, before))
    prices = ", ".join(f"quote.{name} AS {name}" for name in _PRICES)
    session.run(
        f"""
        CREATE TEMP TABLE quoted AS
        WITH found AS (
            SELECT joined.* REPLACE (coalesce(quote, {quote.format("opening")}) AS quote)
            FROM joined LEFT JOIN opening USING (exchange, symbol)
        ),
        valid AS (
            SELECT * REPLACE (
                CASE WHEN epoch_us(timestamp) - epoch_us(quote.timestamp) <= $longest THEN quote END AS quote
            ) FROM found
        )
        SELECT {", ".join(dict.fromkeys((*_TRADE, *PLACE)))}, quote.timestamp AS quote_timestamp, {prices},
               ask_price - bid_price AS spread, quote.source_sequence AS _quote_number,
               CAST((bid_price + ask_price) * CAST(0.5 AS DECIMAL(1, 1)) AS DECIMAL(38, 18)) AS mid
        FROM valid
        """,  # noqa: S608
        {"longest": _FOREVER if tolerance is None else tolerance // timedelta(microseconds=1)},
    )


def _judge(session: duck.Session, ledger: Ledger) -> None:
    """Add to the table ``quoted`` what is known of quotes between the one that held and the trade."""
    numbers = "exchange, symbol, timestamp, source_sequence"
    session.run(
        f"CREATE TEMP VIEW known_quotes AS SELECT {numbers} FROM quotes UNION ALL SELECT {numbers} FROM opening"  # noqa: S608
    )
    place_open_gaps(session, "known_quotes", ledger)
    session.run(f"""
        CREATE OR REPLACE TEMP TABLE quoted AS
        WITH numbered AS (SELECT *, epoch_us(timestamp) AS _from, row_number() OVER () AS _row FROM quoted),
        touched AS (
            SELECT _row, sum(missing)::BIGINT AS missing FROM numbered JOIN placed USING (exchange, symbol)
            WHERE low_time <= _from AND high_time > epoch_us(quote_timestamp) GROUP BY _row
        ),
        told AS (
            SELECT numbered.*, coalesce(missing, 0) AS found,
                   coalesce(told AND _quote_number >= 0 AND latest > _from, false) AS known
            FROM numbered LEFT JOIN touched USING (_row) LEFT JOIN ends USING (exchange, symbol)
        )
        SELECT * EXCLUDE (found, known), {VERDICT} FROM told
    """)  # noqa: S608
    refuse_gaps(session, "quoted", ledger)


def _opening(session: duck.Session, before: StoredEvents | None) -> pa.Table:
    """The last quote before the selection, of what has trades that no quote of the selection came before."""
    schema = pa.schema([AS_OF_SCHEMA.field(name) for name in _QUOTE])
    rows = session.rows("SELECT DISTINCT exchange, symbol FROM joined WHERE quote IS NULL")
    if before is None or not rows:
        return schema.empty_table()
    found = nearest_events(before, [(row["exchange"], row["symbol"]) for row in rows], last=True)
    return found.select(list(_QUOTE)).cast(schema)
