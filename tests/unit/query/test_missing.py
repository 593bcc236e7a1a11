"""Which events of another record fill gaps: all that are missing, and none that is there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from k2beam.config import NAMESPACE
from k2beam.lake.reconcile import reconcile
from k2beam.lake.rules import keep_rules
from k2beam.query.missing import SLACK, MissingNumbers
from k2beam.query.selections import EventSelection
from k2beam.schemas import event_arrow_schema
from k2beam.sequence import SequenceRules
from tests.query_fixtures import DAY, SECOND, append_events, make_catalog, trade

HOUR = 3_600 * SECOND
Numbered = tuple[int, int]
"""The number of a trade, and its time."""


def as_trades(messages: Sequence[Numbered], **fields: Any) -> list[dict[str, Any]]:
    return [
        {**trade(offset, 0, **fields), "source_sequence": number, "timestamp": time, "message_id": f"{number}-{time}"}
        for offset, (number, time) in enumerate(messages)
    ]


def offered(messages: Sequence[Numbered], **fields: Any) -> pa.RecordBatch:
    """Another record of trades."""
    rows = as_trades(messages, **{"_source": "csv:other", **fields})
    return pa.RecordBatch.from_pylist(rows, event_arrow_schema("trades"))


def open_gaps(catalog: Catalog, stored: Sequence[Numbered] = (), **selection: Any) -> MissingNumbers:
    """The gaps once these trades are stored."""
    if stored:
        append_events(catalog, "trades", as_trades(stored))
    reconcile(catalog, NAMESPACE)
    return MissingNumbers.of_now(catalog, NAMESPACE, "trades", EventSelection(**selection))


def numbers(rows: pa.RecordBatch) -> list[Numbered]:
    times = rows.column("timestamp").cast(pa.int64()).to_pylist()
    return list(zip(rows.column("source_sequence").to_pylist(), times, strict=True))


def every_second(first: int, last: int, begin: int = DAY) -> list[Numbered]:
    return [(number, begin + (number - first) * SECOND) for number in range(first, last + 1)]


def test_only_what_is_missing_is_wanted(tmp_path: Path) -> None:
    whole = every_second(100, 140)
    lacking = [one for one in whole if not (110 <= one[0] <= 119 or one[0] == 130)]
    gaps = open_gaps(make_catalog(tmp_path), lacking)
    assert gaps.missing == 11
    around = [*every_second(90, 140, DAY - 10 * SECOND), *every_second(141, 150, DAY + 41 * SECOND)]
    found = numbers(gaps.wanted(offered(around)))
    assert found == [one for one in whole if one not in lacking]


def test_a_number_is_wanted_once_however_often_it_is_offered(tmp_path: Path) -> None:
    gaps = open_gaps(make_catalog(tmp_path), [(1, DAY), (4, DAY + 3 * SECOND)])
    two, three = (2, DAY + SECOND), (3, DAY + 2 * SECOND)
    assert numbers(gaps.wanted(offered([two, two]))) == [two]
    assert numbers(gaps.wanted(offered([two, three, three]))) == [three]
    assert numbers(gaps.wanted(offered([two, three]))) == []


def test_another_symbol_exchange_or_no_number_is_not_wanted(tmp_path: Path) -> None:
    gaps = open_gaps(make_catalog(tmp_path), [(1, DAY), (3, DAY + 2 * SECOND)])
    missing = [(2, DAY + SECOND)]
    assert gaps.wanted(offered(missing, symbol="ETHUSDT")).num_rows == 0
    assert gaps.wanted(offered(missing, exchange="OTHER")).num_rows == 0
    without = offered(missing)
    without = without.set_column(
        without.schema.get_field_index("source_sequence"), "source_sequence", pa.nulls(1, pa.int64())
    )
    assert gaps.wanted(without).num_rows == 0
    assert gaps.wanted(offered(missing)).num_rows == 1


def test_only_the_gaps_selected_are_filled(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    assert open_gaps(catalog, [(1, DAY), (3, DAY + 2 * SECOND)], symbol="ETHUSDT").missing == 0
    assert MissingNumbers.of_now(catalog, NAMESPACE, "trades", EventSelection(symbol="BTCUSDT")).missing == 1


def test_of_two_trades_with_the_number_the_one_in_the_time_of_the_gap_is_wanted(tmp_path: Path) -> None:
    """Epoch 0 has 300, epoch 1 lacks it: a record of the day has both."""
    before, after = every_second(1, 900), every_second(1, 500, DAY + 2 * HOUR)
    gaps = open_gaps(make_catalog(tmp_path), [*before, *(one for one in after if one[0] != 300)])
    assert [(gap.epoch, gap.first_missing) for gap in gaps.gaps] == [(1, 300)]
    assert numbers(gaps.wanted(offered([before[299]]))) == []
    assert numbers(gaps.wanted(offered([*before, *after]))) == [after[299]]


def test_both_epochs_may_lack_a_number(tmp_path: Path) -> None:
    before, after = every_second(1, 900), every_second(1, 500, DAY + 2 * HOUR)
    stored = [one for one in [*before, *after] if one[0] not in (300, 301)]
    gaps = open_gaps(make_catalog(tmp_path), stored)
    missing = [one for one in [*before, *after] if one[0] in (300, 301)]
    assert numbers(gaps.wanted(offered([*after, *before]))) == [*missing[2:], *missing[:2]]


@pytest.mark.parametrize(("late", "wanted"), [(SLACK - SECOND, 1), (SLACK + 2 * SECOND, 0)])
def test_two_clocks_may_differ_a_little(tmp_path: Path, late: int, wanted: int) -> None:
    gaps = open_gaps(make_catalog(tmp_path), [(1, DAY), (3, DAY + SECOND)])
    assert gaps.wanted(offered([(2, DAY + SECOND + late)])).num_rows == wanted


def test_a_gap_of_a_month_is_filled_though_nothing_is_stored_near_it(tmp_path: Path) -> None:
    gaps = open_gaps(make_catalog(tmp_path), [(1, DAY), (5, DAY + 30 * 24 * HOUR)])
    missing = [(2, DAY + HOUR), (3, DAY + 15 * 24 * HOUR), (4, DAY + 29 * 24 * HOUR)]
    assert numbers(gaps.wanted(offered(missing))) == missing


def test_numbers_that_begin_anew_each_day_are_told_apart_by_the_rule(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    rules = '[[rule]]\nexchange = "BINANCE"\nrestart = "daily"\nzone = "UTC"'
    keep_rules(catalog, NAMESPACE, SequenceRules.parse(rules, "here"))
    monday, tuesday = every_second(1, 50), every_second(1, 50, DAY + 24 * HOUR)
    gaps = open_gaps(catalog, [*(one for one in monday if one[0] != 20), *(one for one in tuesday if one[0] != 30)])
    assert gaps.missing == 2
    assert numbers(gaps.wanted(offered([*monday, *tuesday]))) == [monday[19], tuesday[29]]


def test_numbers_of_channels_are_those_of_the_channel(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    rules = '[[rule]]\nexchange = "BINANCE"\nchannel = "line"'
    keep_rules(catalog, NAMESPACE, SequenceRules.parse(rules, "here"))
    append_events(catalog, "trades", as_trades([(1, DAY), (3, DAY + 2 * SECOND)], vendor_data={"line": "A"}))
    gaps = open_gaps(catalog)
    assert [(gap.symbol, gap.first_missing) for gap in gaps.gaps] == [("A", 2)]
    missing = [(2, DAY + SECOND)]
    assert gaps.wanted(offered(missing, vendor_data={"line": "B"})).num_rows == 0
    assert gaps.wanted(offered(missing, symbol="ETHUSDT", vendor_data={"line": "A"})).num_rows == 1


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_missing_is_found_among_everything(tmp_path: Path, seed: int) -> None:
    """Epochs, holes, copies and any order: what is wanted are the missing messages, each once."""
    chance = random.Random(seed)
    whole: list[Numbered] = []
    begin = DAY
    for _ in range(chance.randint(1, 3)):
        size = chance.randint(200, 600)
        whole += every_second(chance.randint(1, 50), size, begin)
        begin = whole[-1][1] + 2 * HOUR
    ends = {0, len(whole) - 1, *(place for place in range(1, len(whole)) if whole[place][0] < whole[place - 1][0])}
    ends |= {place + step for place in ends for step in (-1, 1, 2)}
    lost = {place for place in range(len(whole)) if place not in ends and chance.random() < 0.2}
    stored = [one for place, one in enumerate(whole) if place not in lost]
    gaps = open_gaps(make_catalog(tmp_path), stored)
    assert gaps.missing == len(lost)
    other = [*whole, *chance.sample(whole, 50)]
    chance.shuffle(other)
    found = []
    for at in range(0, len(other), 300):
        found += numbers(gaps.wanted(gaps.numbered(offered(other[at : at + 300]))))
    assert sorted(found) == sorted(whole[place] for place in lost)
