"""The digest of rows: the same for the same rows in any order and form, another for any change of any value."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.lake import digest
from k2beam.lake.digest import RowDigest, digest_rows
from k2beam.lake.tables import DEAD_LETTER_SCHEMA
from k2beam.model import DECIMAL, TIMESTAMP
from k2beam.schemas import event_arrow_schema
from tests.lake_helpers import trades

ROW: dict[str, Any] = {
    "text": "BTCUSDT",
    "long": "x" * 300,
    "bytes": b"\x00\x01",
    "number": 7,
    "small": 7,
    "price": Decimal("1.5"),
    "time": datetime(2026, 1, 5, tzinfo=UTC),
    "truth": True,
    "real": 0.5,
    "texts": ["a", "bc"],
    "pairs": [("k", "v"), ("l", None)],
    "headers": [{"key": "a", "value": b"b"}],
}
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "long": pa.string(),
        "bytes": pa.binary(),
        "number": pa.int64(),
        "small": pa.int32(),
        "price": DECIMAL,
        "time": TIMESTAMP,
        "truth": pa.bool_(),
        "real": pa.float64(),
        "texts": pa.list_(pa.string()),
        "pairs": pa.map_(pa.string(), pa.string()),
        "headers": DEAD_LETTER_SCHEMA.field("headers").type,
    }
)


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


CHANGES: list[dict[str, Any]] = [
    *({name: None} for name in ROW),
    {"text": ""},
    {"text": "BTCUSDt"},
    {"text": "BTCUSDT\x00"},
    {"text": "\x00" * 7},
    {"long": "x" * 299 + "y"},
    {"long": "x" * 301},
    {"bytes": b"\x00\x01\x00"},
    {"bytes": b"\x80" + bytes(7) + b"\x80"},
    {"number": 8},
    {"number": -(2**63)},
    {"small": -7},
    {"price": Decimal("1.50000001")},
    {"price": Decimal("-1.5")},
    {"time": datetime(2026, 1, 5, 0, 0, 0, 1, tzinfo=UTC)},
    {"truth": False},
    {"real": -0.5},
    {"texts": []},
    {"texts": ["ab", "c"]},
    {"texts": ["bc", "a"]},
    {"texts": ["a", "bc", ""]},
    {"texts": ["a", None]},
    {"pairs": []},
    {"pairs": [("l", None), ("k", "v")]},
    {"pairs": [("k", "v"), ("l", "")]},
    {"pairs": [("v", "k"), ("l", None)]},
    {"headers": [{"key": "a", "value": None}]},
    {"headers": [{"key": "b", "value": b"a"}]},
    {"text": "x" * 300, "long": "BTCUSDT"},
    {"number": 7 ^ -(2**63), "small": 7 ^ -(2**31)},
]


def test_no_two_of_many_changes_have_the_same_digest() -> None:
    digests = {digest_rows(table({**ROW, **change})).content for change in [{}, *CHANGES]}
    assert len(digests) == 1 + len(CHANGES)
    for lane in (0, 1):
        assert len({content[lane] for content in digests}) == 1 + len(CHANGES)


def test_a_value_in_another_row_is_another_digest() -> None:
    one, other = {**ROW, "text": "A"}, {**ROW, "number": 8}
    crossed = digest_rows(table({**one, "number": 8}, {**other, "text": "A", "number": 7}))
    assert digest_rows(table(one, other)).content != crossed.content


def test_rows_count_as_often_as_they_are_there() -> None:
    once, twice = digest_rows(table(ROW)), digest_rows(table(ROW, ROW))
    assert twice == once + once
    assert (twice.rows, twice.content) != (once.rows, once.content)
    assert digest_rows(table()) == RowDigest()


TEXT = st.one_of(st.none(), st.text(max_size=40), st.text(string.ascii_letters, min_size=250, max_size=270))
ROWS = st.fixed_dictionaries(
    {
        "text": TEXT,
        "long": TEXT,
        "bytes": st.one_of(st.none(), st.binary(max_size=30)),
        "number": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "small": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
        "price": st.one_of(st.none(), st.integers(-(10**17), 10**17).map(lambda n: Decimal(n).scaleb(-8))),
        "truth": st.one_of(st.none(), st.booleans()),
        "texts": st.one_of(st.none(), st.lists(TEXT, max_size=4)),
        "pairs": st.one_of(st.none(), st.lists(st.tuples(st.text(max_size=9), TEXT), max_size=3)),
    }
)


@given(st.lists(ROWS, max_size=12), st.randoms(use_true_random=False), st.integers(0, 12))
@settings(max_examples=100)
def test_order_chunks_slices_and_encodings_do_not_matter(rows: list[dict[str, Any]], random: Any, cut: int) -> None:
    whole = table(*rows)
    expected = digest_rows(whole)
    assert sum((digest_rows(table(row)) for row in rows), RowDigest()) == expected
    assert digest_rows(whole.slice(0, cut)) + digest_rows(whole.slice(cut)) == expected
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert digest_rows(table(*shuffled)) == expected
    encoded = whole.combine_chunks()
    for name in ("text", "long"):
        position = encoded.schema.get_field_index(name)
        encoded = encoded.set_column(position, name, encoded.column(name).dictionary_encode())
    wide = pa.schema([field.with_type(pa.large_string()) if field.name == "text" else field for field in SCHEMA])
    assert digest_rows(encoded) == digest_rows(whole.cast(wide)) == expected
    assert digest_rows(whole.select(SCHEMA.names[::-1])) == expected


@given(st.lists(ROWS, min_size=1, max_size=6), st.data())
@settings(max_examples=100)
def test_any_other_value_is_another_digest(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    row, name = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(sorted(rows[0])))
    value = data.draw(ROWS)[name]
    changed = [dict(each) for each in rows]
    changed[row][name] = value
    same = table(*changed).equals(table(*rows))
    assert (digest_rows(table(*changed)).content == digest_rows(table(*rows)).content) is same


def test_more_rows_than_are_hashed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.Table.from_batches([trades(range(100))])
    expected = digest_rows(rows)
    monkeypatch.setattr(digest, "_SLICE_ROWS", 7)
    assert digest_rows(rows) == expected


@pytest.mark.parametrize("name", ["_source", "_partition", "_offset"])
def test_the_origins_have_a_digest_of_their_own(name: str) -> None:
    rows = pa.Table.from_batches([trades(range(3))])
    other = {"_source": "archive:b", "_partition": 1, "_offset": 9}[name]
    field = event_arrow_schema("trades").field(name)
    changed = rows.set_column(rows.schema.get_field_index(name), field, pa.array([other] * 3, field.type))
    assert digest_rows(changed).origins != digest_rows(rows).origins
    dearer = rows.set_column(
        rows.schema.get_field_index("price"), rows.schema.field("price"), pa.array([Decimal(9)] * 3, DECIMAL)
    )
    assert digest_rows(dearer).origins == digest_rows(rows).origins
    assert digest_rows(dearer).content != digest_rows(rows).content


def test_a_type_that_no_table_has_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a column of decimal256\(40, 2\) has no hash"):
        digest_rows(pa.table({"a": pa.array([Decimal(1)], pa.decimal256(40, 2))}))
