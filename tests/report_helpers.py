"""A small lake for the tests of the page, and what a page holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from k2beam.coverage import Coverage
from tests.query_fixtures import (
    DAY,
    HOSTILE,
    SECOND,
    append_dead_letters,
    append_events,
    append_gap_rows,
    dead_letter,
    gap,
    make_catalog,
    quote,
    trade,
)

MARKUP = "</script><script>alert(1)</script>"


def make_lake(folder: Path) -> Path:
    """Two symbols of trades with a gap, one with a hostile name, one of long ago; quotes; dead letters.

    Its audit passes.
    """
    catalog = make_catalog(folder)
    numbers = [*range(10), *range(14, 40)]
    trades = [
        trade(offset, offset * 10 + 1, str(100 + offset % 7), source_sequence=number)
        for offset, number in enumerate(numbers)
    ]
    other = [
        trade(n, 60 * n, "0.10", symbol=MARKUP, source_sequence=n, message_id=f"o{n}", _source="archive:other")
        for n in range(3)
    ]
    old = trade(3, -40 * 86_400, symbol="OLD", message_id="old", _source="archive:other")
    append_events(catalog, "trades", [*trades, *other, old])
    quotes = [quote(0, 5), quote(1, 70), quote(2, 80, symbol=HOSTILE)]
    append_events(catalog, "quotes", [{**row, "_source": "archive:quotes"} for row in quotes])
    append_gap_rows(catalog, [gap("a", 10, 13, opened_at=DAY + 101 * SECOND), gap("b", 90, 95, "FILLED")])
    letters = append_dead_letters(
        catalog,
        [
            dead_letter(0, _source="archive:letters", _offset_last=4),
            dead_letter(5, _source="archive:letters"),
            dead_letter(6, _source="archive:letters", stage="frame", error_class="BadMagic"),
        ],
    )
    covered = Coverage()
    covered.add_many("archive:letters", 0, range(7))
    with letters.transaction() as transaction:
        transaction.set_properties(covered.to_properties())
    return folder


def held_by(page: Path) -> Any:
    """The contents of a page that was written."""
    found = re.search(r'<script id="contents" type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found is not None, f"{page} has no contents"
    return json.loads(found[1])
