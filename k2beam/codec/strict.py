"""A strict decoder in plain Python: slow, independent of fastavro, and the last word on doubtful bytes.

It follows the Avro 1.11 specification ("Binary Encoding"): arrays and maps may come in several
blocks and with negative counts and byte sizes. It refuses what no writer produces and lenient
readers let pass: overlong or overflowing varints, union and enum indices out of range, lengths
that are negative or reach beyond the message, booleans other than 0 and 1, invalid UTF-8, a map
key twice, a block size that is not the block's, and bytes left over.

Values are physical: bytes for decimals, int for timestamps, str for enums.

Of some errors it is known where the value ends nevertheless: an enum index or boolean out of range, a string that is
not UTF-8, a map key twice, an int of more than 32 bits. In a block they cost the record, and not the block.
"""

from __future__ import annotations

import struct
from typing import Any

from k2beam.codec.avro_schema import Array, AvroType, Enum, Fixed, Map, Primitive, Record, Union
from k2beam.errors import StrictError

_MAX_VARINT_BYTES = 10


def decode_exact(data: bytes, start: int, end: int, schema: Record) -> dict[str, Any]:
    """The record in ``data[start:end]``, which it must fill. Raises StrictError."""
    cursor = _Cursor(data, start, end)
    record = cursor.record(schema)
    if cursor.position != end:
        left = end - cursor.position
        raise StrictError("trailing_bytes", f"{left} bytes are left over after the record (of {end - start} bytes)")
    return record


def decode_many(data: bytes, count: int, schema: Record) -> tuple[list[dict[str, Any] | None], list[int]]:
    """``count`` records that fill ``data``, and the position at which each ends.

    A record with an error that leaves its end known is None; :func:`decode_exact` tells which. Any other error raises
    StrictError.
    """
    cursor = _Cursor(data, 0, len(data), pass_over=True)
    records: list[dict[str, Any] | None] = []
    ends: list[int] = []
    for number in range(count):
        try:
            record = cursor.record(schema)
        except StrictError as error:
            raise StrictError(error.error_class, f"record {number}: {error}") from None
        records.append(None if cursor.passed_over else record)
        ends.append(cursor.position)
        cursor.passed_over = False
    if cursor.position != len(data):
        left = len(data) - cursor.position
        raise StrictError("trailing_bytes", f"{left} bytes are left over after {count} records")
    return records, ends


class _Cursor:
    """Reads values from ``data``, never beyond ``end``.

    ``pass_over``: an error after which the value's end is known is not raised, but makes ``passed_over`` true.
    """

    def __init__(self, data: bytes, start: int, end: int, *, pass_over: bool = False) -> None:
        self._data = data
        self._start = start
        self._end = end
        self._pass_over = pass_over
        self.position = start
        self.passed_over = False

    def record(self, schema: Record) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for field in schema.fields:
            try:
                values[field.name] = self._value(field.type)
            except StrictError as error:
                raise StrictError(error.error_class, f"{field.name}: {error}") from None
        return values

    def _value(self, schema: AvroType) -> Any:
        match schema:
            case Primitive(name=name):
                return self._primitive(name)
            case Union(branches=branches):
                return self._value(branches[self._branch(len(branches))])
            case Enum(symbols=symbols):
                return self._symbol(symbols)
            case Fixed(size=size):
                return self._take(size)
            case Array(items=items):
                return self._array(items)
            case Map(values=values):
                return self._map(values)
            case Record():
                return self.record(schema)

    def _primitive(self, name: str) -> Any:
        match name:
            case "null":
                return None
            case "string":
                return self._string()
            case "bytes":
                return self._take(self._length())
            case "long":
                return self._long()
            case "int":
                return self._int()
            case "boolean":
                return self._boolean()
            case "float":
                return struct.unpack("<f", self._take(4))[0]
            case _:
                return struct.unpack("<d", self._take(8))[0]

    def _note(self, error_class: str, message: str) -> None:
        """An error of a value that has been read to its end."""
        if not self._pass_over:
            raise StrictError(error_class, message)
        self.passed_over = True

    def _at(self) -> str:
        return f"at byte {self.position - self._start}"

    def _take(self, size: int) -> bytes:
        if size > self._end - self.position:
            left = self._end - self.position
            raise StrictError("truncated", f"{self._at()}: {size} bytes are announced, {left} are there")
        taken = self._data[self.position : self.position + size]
        self.position += size
        return taken

    def _long(self) -> int:
        value = 0
        for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise StrictError("overlong_varint", f"{self._at()}: a number has more bytes than it needs")
                if value >> 64:
                    break
                return (value >> 1) ^ -(value & 1)
        raise StrictError("varint_overflow", f"{self._at()}: a number does not fit into 64 bits")

    def _int(self) -> int:
        value = self._long()
        if not -(1 << 31) <= value < 1 << 31:
            self._note("int_overflow", f"{self._at()}: {value} does not fit into 32 bits")
        return value

    def _length(self) -> int:
        length = self._long()
        if length < 0:
            raise StrictError("negative_length", f"{self._at()}: the length {length} is negative")
        return length

    def _branch(self, count: int) -> int:
        index = self._long()
        if not 0 <= index < count:
            raise StrictError("bad_union_index", f"{self._at()}: union index {index} is not in 0 to {count - 1}")
        return index

    def _symbol(self, symbols: tuple[str, ...]) -> str:
        index = self._long()
        if 0 <= index < len(symbols):
            return symbols[index]
        self._note("bad_enum_index", f"{self._at()}: enum index {index} is not in 0 to {len(symbols) - 1}")
        return ""

    def _boolean(self) -> bool:
        byte = self._take(1)[0]
        if byte > 1:
            self._note("bad_boolean", f"{self._at()}: a boolean is 0 or 1, not 0x{byte:02x}")
        return byte == 1

    def _string(self) -> str:
        taken = self._take(self._length())
        try:
            return taken.decode("utf-8")
        except UnicodeDecodeError as error:
            self._note("invalid_utf8", f"{self._at()}: a string is not UTF-8 ({error.reason})")
            return ""

    def _block(self) -> tuple[int, int | None]:
        """Items of the next block, and where it must end if it says so."""
        count = self._long()
        if count >= 0:
            end = None
        else:
            count = -count
            size = self._length()
            end = self.position + size
        if count > self._end - self.position:
            left = self._end - self.position
            raise StrictError("truncated", f"{self._at()}: {count} items are announced, {left} bytes are there")
        return count, end

    def _close(self, end: int | None) -> None:
        if end is not None and self.position != end:
            raise StrictError("bad_block_size", f"{self._at()}: a block says that it ends at {end - self._start}")

    def _array(self, items: AvroType) -> list[Any]:
        values: list[Any] = []
        count, end = self._block()
        while count:
            values.extend(self._value(items) for _ in range(count))
            self._close(end)
            count, end = self._block()
        return values

    def _map(self, schema: AvroType) -> dict[str, Any]:
        values: dict[str, Any] = {}
        count, end = self._block()
        while count:
            for _ in range(count):
                key = self._string()
                if key in values:
                    self._note("duplicate_key", f"{self._at()}: the map has the key {key[:40]!r} twice")
                values[key] = self._value(schema)
            self._close(end)
            count, end = self._block()
        return values
