"""A market of which a lake lacks some trades: what the exchange and a vendor have of it, and the true volume."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from k2beam.query.lake import Lake
from tests.binance_history import History, quantity
from tests.replay_helpers import open_gaps

MAPPING = """
name = "dump"
kind = "trades"
formats = ["epoch"]

[fields]
trade_id = "{id}"
symbol = "{symbol}"
exchange = "BINANCE"
asset_class = "crypto"
timestamp = "{time}"
price = "{price}"
quantity = "{qty}"
currency = "USDT"
side = "{side}"
source_sequence = "{id}"
"""


def stored_trades(warehouse: Path) -> list[dict[str, Any]]:
    """The trades of a lake that have numbers, each once: symbol, number, time, quantity."""
    schema, batches = Lake(str(warehouse)).sql(
        "SELECT symbol, source_sequence AS number, epoch_us(timestamp) AS time, quantity FROM trades "
        "WHERE source_sequence IS NOT NULL ORDER BY symbol, number"
    )
    return pa.Table.from_batches(batches, schema).to_pylist()


def history_of(warehouse: Path) -> History:
    """What the exchange has of these trades: all numbers from the first to the last of each symbol."""
    stored = stored_trades(warehouse)
    times = {(row["symbol"], row["number"]): row["time"] for row in stored}
    spans = {
        symbol: (min(numbers), max(numbers))
        for symbol in {row["symbol"] for row in stored}
        if (numbers := [row["number"] for row in stored if row["symbol"] == symbol])
    }

    def time(symbol: str, number: int) -> int:
        later = number
        while (symbol, later) not in times:
            later += 1
        return int(times[symbol, later]) - (later - number)

    return History(spans, time)


def true_volume(warehouse: Path, history: History) -> Decimal:
    """The volume once nothing is missing."""
    stored = stored_trades(warehouse)
    have = {(row["symbol"], row["number"]) for row in stored}
    missing = [
        number
        for symbol, (first, last) in history.spans.items()
        for number in range(first, last + 1)
        if (symbol, number) not in have
    ]
    assert len(missing) == sum(last - first + 1 for *_, first, last in open_gaps(warehouse)), "one epoch a symbol"
    return Decimal(sum(row["quantity"] for row in stored) + sum(Decimal(quantity(number)) for number in missing))


def csv_of(history: History, path: Path, every: int = 1) -> Path:
    """A vendor's dump of all these trades, or of each second or third, with its mapping beside it."""
    lines = ["symbol,time,id,price,qty,side"]
    for symbol, (first, last) in sorted(history.spans.items()):
        for number in range(first, last + 1, every):
            trade = history.trade(symbol, number)
            side = "SELL" if trade["isBuyerMaker"] else "BUY"
            lines.append(f"{symbol},{trade['time']},{number},{trade['price']},{trade['qty']},{side}")
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".toml").write_text(MAPPING)
    return path
