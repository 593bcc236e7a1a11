"""Simulated messages as Avro records: plain v2 records, or raw_record envelopes around them.

The order of the encoded fields is that of the schemas trade_v2, quote_v2 and raw_record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from k2beam.archive import cells
from k2beam.archive.cells import Cells
from k2beam.archive.varint import write_long
from k2beam.arrays import Bytes, Ints, Mask
from k2beam.model import Kind
from k2beam.simulate.faults import FIRST_MALFORMED, MALFORMED
from k2beam.simulate.market import Messages

UNKNOWN_SCHEMA_ID = 99_999

_CRYPTO = write_long(1)
_BUY, _SELL = write_long(0), write_long(1)
_NULL, _PRESENT, _EMPTY = write_long(0), write_long(1), write_long(0)
_ONE_ITEM, _END = write_long(1), write_long(0)
_BLOCK_CONDITION = _ONE_ITEM + cells.bytes_field(b"BLOCK")
_BLOCK_VENDOR_DATA = _PRESENT + _ONE_ITEM + cells.bytes_field(b"venue") + cells.bytes_field(b"OTC") + _END
_FRAME_BYTES = 5
_TRAILING = b"\xde\xad\xbe\xef"
_CUT = 3


@dataclass(frozen=True, slots=True)
class RecordEncoder:
    """Encodes messages of one kind and exchange as v2 records (trade_v2 or quote_v2)."""

    kind: Kind
    exchange: str
    symbols: tuple[str, ...]

    def encode(self, messages: Messages) -> Cells:
        """The records, one a row."""
        middle = self._trade(messages) if self.kind == "trades" else self._quote(messages)
        # One more text than there are symbols: that of the class empty_symbol.
        no_symbol = messages["fault"] == FIRST_MALFORMED + MALFORMED.index("empty_symbol")
        fields = [
            cells.uuid_text(messages["identifier"]),
            cells.digits(messages["sequence"]),
            cells.lookup(
                [*(symbol.encode() for symbol in self.symbols), b""],
                np.where(no_symbol, len(self.symbols), messages["key"]),
            ),
            cells.constant(cells.bytes_field(self.exchange.encode()) + _CRYPTO),
            cells.long(messages["timestamp"]),
            *middle,
        ]
        return cells.stack(fields, len(messages))

    def _trade(self, messages: Messages) -> list[Cells]:
        sell, block = messages["sell"], messages["block"]
        return [
            cells.decimal(messages["price"]),
            cells.decimal(messages["quantity"]),
            cells.constant(cells.bytes_field(b"USDT")),
            Cells(np.where(sell, _SELL[0], _BUY[0]).astype(np.uint8)[:, None], np.ones((1, 1), np.bool_)),
            cells.constant(_BLOCK_CONDITION).where(block),
            cells.constant(_EMPTY + _PRESENT),
            cells.long(messages["sequence"]),
            cells.long(messages["ingestion"]),
            cells.constant(_NULL),
            cells.constant(_BLOCK_VENDOR_DATA).where(block),
            cells.constant(_NULL).where(~block),
        ]

    def _quote(self, messages: Messages) -> list[Cells]:
        return [
            cells.decimal(messages["price"]),
            cells.decimal(messages["quantity"]),
            cells.decimal(messages["ask_price"]),
            cells.decimal(messages["ask_quantity"]),
            cells.constant(cells.bytes_field(b"USDT") + _PRESENT),
            cells.long(messages["sequence"]),
            cells.long(messages["ingestion"]),
            cells.constant(_NULL + _NULL),
        ]


@dataclass(frozen=True, slots=True)
class EnvelopeEncoder:
    """Encodes messages as raw_record: records in Confluent framing, with where they came from."""

    records: RecordEncoder
    source: str
    schema_id: int

    def encode(self, messages: Messages, partitions: Ints, offsets: Ints, log_times: Ints) -> Cells:
        """The envelopes, one a row; ``log_times`` are the log's timestamps in microseconds UTC."""
        value = self._framed(messages)
        present = messages["fault"] != FIRST_MALFORMED + MALFORMED.index("tombstone")
        keys = [f"{self.records.exchange}|{symbol}".encode() for symbol in self.records.symbols]
        fields = [
            cells.constant(cells.bytes_field(self.source.encode())),
            cells.long(partitions),
            cells.long(offsets),
            cells.constant(_PRESENT),
            cells.long(log_times),
            cells.constant(_PRESENT),
            cells.lookup(keys, messages["key"]),
            cells.constant(_PRESENT).where(present),
            cells.long(value.lengths()).where(present),
            value.where(present),
            cells.constant(_NULL).where(~present),
            cells.constant(_EMPTY),
        ]
        return cells.stack(fields, len(messages))

    def _framed(self, messages: Messages) -> Cells:
        frame = b"\0" + self.schema_id.to_bytes(4, "big")
        nothing = np.zeros(len(messages), np.bool_)
        fields = [
            cells.constant(frame),
            self.records.encode(messages),
            cells.constant(_TRAILING).where(nothing),
        ]
        framed = cells.stack(fields, len(messages))
        for row in np.flatnonzero(messages["fault"] >= FIRST_MALFORMED):
            name = MALFORMED[int(messages["fault"][row]) - FIRST_MALFORMED]
            _spoil_bytes(framed.data[row], framed.mask[row], name)
        return framed


def _spoil_bytes(data: Bytes, mask: Mask, name: str) -> None:
    """Break one framed payload in place; classes that are wrong in values leave it as it is."""
    if name == "bad_magic":
        data[0] = ord("{")
    elif name == "unknown_schema_id":
        data[1:_FRAME_BYTES] = np.frombuffer(UNKNOWN_SCHEMA_ID.to_bytes(4, "big"), np.uint8)
    elif name == "truncated":
        mask[np.flatnonzero(mask)[-_CUT:]] = False
    elif name == "trailing_bytes":
        mask[-len(_TRAILING) :] = True
