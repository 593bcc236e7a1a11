"""Version 1 records to version 2 columns. docs/reference/normalisation.md has the table of every field.

Nothing is lost: what version 2 has no field for goes to ``vendor_data``.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints
from k2beam.codec.columns import Fault
from k2beam.codec.uuids import uuid_texts
from k2beam.model import DECIMAL, TIMESTAMP, Kind
from k2beam.schemas import payload_arrow_schema, v2_name

MESSAGE_NAMESPACE = uuid.UUID("6f6b1f0e-9d0c-5b57-8f4e-2a6f3c1d7e90")
"""Namespace of the message ids of version 1 records, which carry none. Never change it: ids would change."""

CURRENCIES = {"ASX": "AUD"}
"""Currency by exchange code."""

NO_CURRENCY = "XXX"
"""ISO 4217: the transaction has no currency (here: none is known)."""

UNKNOWN_EXCHANGE = "UNKNOWN"
DATE_FORMAT = "%m/%d/%Y"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Columns = dict[str, pa.Array]


class Provenance(NamedTuple):
    """Where rows came from, one value each; ``timestamps`` (microseconds, UTC) are the log's, or null."""

    sources: pa.Array
    partitions: pa.Array
    offsets: pa.Array
    timestamps: pa.Array


class Normalised(NamedTuple):
    """Version 2 columns of the good rows, their positions in the input, and the faults of the others."""

    columns: pa.RecordBatch
    rows: Ints
    faults: tuple[Fault, ...]


def normalise(columns: pa.RecordBatch, kind: Kind, provenance: Provenance) -> Normalised:
    """The version 2 columns of version 1 rows of ``kind``.

    Faults: ``bad_date`` (a date that is not month/day/year).
    """
    builders = {"trades": _trades, "quotes": _quotes, "reference_data": _reference_data}
    faults: list[Fault] = []
    built = builders[kind](columns, provenance, faults)
    schema = payload_arrow_schema(v2_name(kind))
    batch = pa.RecordBatch.from_arrays([built[name] for name in schema.names], schema=schema)
    rows = np.arange(columns.num_rows, dtype=np.int64)
    if faults:
        good = np.ones(columns.num_rows, dtype=np.bool_)
        good[[fault.row for fault in faults]] = False
        batch, rows = batch.filter(pa.array(good)), rows[good]
    first = {fault.row: fault for fault in reversed(faults)}
    return Normalised(batch, rows, tuple(first[row] for row in sorted(first)))


def message_ids(provenance: Provenance) -> pa.Array:
    """UUIDv5 (RFC 9562) of ``source/partition/offset``: the same message has the same id on every run."""
    rows = zip(
        provenance.sources.to_pylist(),
        provenance.partitions.to_pylist(),
        provenance.offsets.to_pylist(),
        strict=True,
    )
    digests = b"".join(_digests(rows))
    data = np.frombuffer(digests, dtype=np.uint8).reshape(-1, _DIGEST_BYTES)[:, :16]
    return uuid_texts(data, version=5)


_DIGEST_BYTES = 20


def _digests(rows: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
    """SHA-1 of the namespace and the name of each row; what the rows of a partition share is hashed once."""
    begun: dict[tuple[str, int], Any] = {}
    for source, partition, offset in rows:
        if (source, partition) not in begun:
            start = MESSAGE_NAMESPACE.bytes + f"{source}/{partition}/".encode()
            begun[source, partition] = hashlib.sha1(start, usedforsecurity=False)
        state = begun[source, partition].copy()
        state.update(b"%d" % offset)
        yield state.digest()


def _trades(columns: pa.RecordBatch, provenance: Provenance, _faults: list[Fault]) -> _Columns:
    ids = message_ids(provenance)
    count = columns.num_rows
    extras = ("company_id", "qualifiers", "venue", "buyer_id")
    return {
        **_market_columns(columns, ids),
        "trade_id": _identifiers(columns, ids),
        "price": columns.column("price"),
        "quantity": columns.column("volume").cast(DECIMAL),
        "side": _constant("UNKNOWN", count),
        "trade_conditions": _conditions(columns.column("qualifiers")),
        "vendor_data": _vendor_data(columns, extras),
    }


def _quotes(columns: pa.RecordBatch, provenance: Provenance, _faults: list[Fault]) -> _Columns:
    ids = message_ids(provenance)
    return {
        **_market_columns(columns, ids),
        "quote_id": _identifiers(columns, ids),
        "bid_price": columns.column("bid_price"),
        "bid_quantity": columns.column("bid_volume").cast(DECIMAL),
        "ask_price": columns.column("ask_price"),
        "ask_quantity": columns.column("ask_volume").cast(DECIMAL),
        "vendor_data": _vendor_data(columns, ("company_id",)),
    }


def _market_columns(columns: pa.RecordBatch, ids: pa.Array) -> _Columns:
    """What trades and quotes share."""
    count = columns.num_rows
    exchange = columns.column("exchange")
    return {
        "message_id": ids,
        "symbol": columns.column("symbol"),
        "exchange": exchange,
        "asset_class": _constant("equities", count),
        "timestamp": columns.column("exchange_timestamp"),
        "currency": _currencies(exchange, NO_CURRENCY),
        "source_sequence": columns.column("sequence_number"),
        "ingestion_timestamp": columns.column("ingestion_timestamp"),
        "platform_sequence": pa.nulls(count, pa.int64()),
    }


def _reference_data(columns: pa.RecordBatch, provenance: Provenance, faults: list[Fault]) -> _Columns:
    count = columns.num_rows
    listing = _dates(columns, "start_date", faults)
    delisting = _dates(columns, "end_date", faults)
    schema = payload_arrow_schema(v2_name("reference_data"))
    return {
        "message_id": message_ids(provenance),
        "company_id": columns.column("company_id").cast(pa.string()),
        "symbol": columns.column("symbol"),
        "exchange": _constant(UNKNOWN_EXCHANGE, count),
        "company_name": columns.column("company_name"),
        "isin": columns.column("isin"),
        "currency": pa.nulls(count, pa.string()),
        "listing_date": listing,
        "delisting_date": delisting,
        "is_active": delisting.is_null(),
        "asset_class": _constant("equities", count),
        "ingestion_timestamp": _ingestion_times(provenance.timestamps, listing),
        "vendor_data": pa.nulls(count, schema.field("vendor_data").type),
    }


def _ingestion_times(timestamps: pa.Array, listing: pa.Array) -> pa.Array:
    """The log's time, else the listing date, else the epoch; a listing before the epoch counts as the epoch."""
    after_epoch = pc.max_element_wise(listing.cast(pa.int64()), 0, skip_nulls=True)
    return pc.coalesce(timestamps, after_epoch.cast(TIMESTAMP))


def _constant(value: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)


def _currencies(exchange: pa.Array, default: str) -> pa.Array:
    known = pa.array(list(CURRENCIES.values()))
    found = known.take(pc.index_in(exchange, pa.array(list(CURRENCIES))))
    return found.fill_null(default)


def _identifiers(columns: pa.RecordBatch, ids: pa.Array) -> pa.Array:
    """The sequence number as text; the message id where there is none."""
    return pc.coalesce(columns.column("sequence_number").cast(pa.string()), ids)


def _conditions(qualifiers: pa.Array) -> pa.Array:
    """The qualifiers as the one condition of a trade; none where they are 0."""
    numbers = qualifiers.to_numpy()
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(numbers != 0))).astype(np.int32)
    texts = qualifiers.filter(pa.array(numbers != 0)).cast(pa.string())
    return pa.ListArray.from_arrays(
        pa.array(offsets), texts, type=payload_arrow_schema("trade_v2").field("trade_conditions").type
    )


def _vendor_data(columns: pa.RecordBatch, names: tuple[str, ...]) -> pa.Array:
    """Maps of ``names`` to their values as text, without the nulls."""
    count = columns.num_rows
    texts = [columns.column(name).cast(pa.string()) for name in names]
    valid = np.stack([text.is_valid().to_numpy(zero_copy_only=False) for text in texts], axis=1)
    # Entry (row, name) lies at name * count + row of the concatenated columns.
    entries = np.arange(count)[:, None] + np.arange(len(names))[None, :] * count
    items = pa.concat_arrays(texts).take(pa.array(entries[valid]))
    keys = pa.array(names).take(pa.array(np.broadcast_to(np.arange(len(names)), valid.shape)[valid]))
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(valid.sum(axis=1)))).astype(np.int32)
    map_type = payload_arrow_schema("trade_v2").field("vendor_data").type
    return pa.MapArray.from_arrays(pa.array(offsets), keys, items, type=map_type)


def _dates(columns: pa.RecordBatch, name: str, faults: list[Fault]) -> pa.Array:
    """Midnight UTC of month/day/year dates; null where there is none (null or an empty string)."""
    encoded = columns.column(name).dictionary_encode()
    micros: list[int | None] = []
    bad: set[int] = set()
    for number, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            micros.append(_micros(text))
        except ValueError:
            micros.append(None)
            bad.add(number)
    indices = encoded.indices
    if bad:
        faults.extend(_bad_dates(name, columns.column(name), indices, bad))
    return pa.array(micros, type=pa.int64()).take(indices).cast(TIMESTAMP)


def _micros(text: str) -> int | None:
    if not text:
        return None
    day = datetime.strptime(text, DATE_FORMAT).replace(tzinfo=UTC)
    return (day - _EPOCH) // timedelta(microseconds=1)


def _bad_dates(name: str, texts: pa.Array, indices: pa.Array, bad: set[int]) -> Iterable[Fault]:
    rows: Any = np.flatnonzero(pc.is_in(indices, pa.array(bad, type=indices.type)).to_numpy(zero_copy_only=False))
    for row in rows:
        shown = repr(texts[int(row)].as_py()[:40])
        yield Fault(int(row), "bad_date", f"{name}: {shown} is not a date as month/day/year, such as 07/31/2014")
