"""The raw_record envelope, taken apart into columns.

Written out by hand for the one schema (``schemas/raw_record.avsc``): it has twice the speed of a general decoder,
and each length, union branch and number is checked before it is used: the bytes come from a file that nobody vouches
for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate

import pyarrow as pa

from k2beam.archive.varint import read_long
from k2beam.errors import BrokenBlock
from k2beam.model import RAW_BATCH_SCHEMA, log_timestamps

_HEADERS = RAW_BATCH_SCHEMA.field("headers").type
_INT32_MAX = 2**31 - 1
_PRESENT = 2  # the index of the second branch of a union, zig-zag
_ROW_COLUMNS = ("source", "partition", "offset", "timestamp", "key", "value", "headers")


@dataclass(slots=True)
class EnvelopeColumns:
    """The columns of raw records, as lists of equal length.

    ``headers`` says how many headers each record has; their keys and values are flat lists: an object for each
    would make two hostile bytes into a hundred.
    """

    source: list[str] = field(default_factory=list)
    partition: list[int] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    timestamp: list[int | None] = field(default_factory=list)
    key: list[bytes | None] = field(default_factory=list)
    value: list[bytes | None] = field(default_factory=list)
    headers: list[int] = field(default_factory=list)
    header_keys: list[str] = field(default_factory=list)
    header_values: list[bytes | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offset)

    def slice(self, start: int, stop: int) -> EnvelopeColumns:
        """The rows from ``start`` up to ``stop``."""
        rows = {name: getattr(self, name)[start:stop] for name in _ROW_COLUMNS}
        first = sum(self.headers[:start])
        last = first + sum(self.headers[start:stop])
        return EnvelopeColumns(
            **rows, header_keys=self.header_keys[first:last], header_values=self.header_values[first:last]
        )

    def extend(self, other: EnvelopeColumns) -> None:
        """Append the rows of ``other``."""
        for name in self.__slots__:
            getattr(self, name).extend(getattr(other, name))

    def to_arrow(self) -> pa.RecordBatch:
        """The columns in :data:`k2beam.model.RAW_BATCH_SCHEMA`; a time outside the years 1 to 9999 becomes null."""
        arrays = [
            pa.array(self.source, pa.string()),
            pa.array(self.partition, pa.int32()),
            pa.array(self.offset, pa.int64()),
            log_timestamps(pa.array(self.timestamp, pa.int64())),
            pa.array(self.key, pa.binary()),
            pa.array(self.value, pa.binary()),
            self._headers_array(),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=RAW_BATCH_SCHEMA)

    def _headers_array(self) -> pa.Array:
        offsets = pa.array([0, *accumulate(self.headers)], pa.int32())
        keys, values = pa.array(self.header_keys, pa.string()), pa.array(self.header_values, pa.binary())
        items = pa.StructArray.from_arrays([keys, values], fields=list(_HEADERS.value_type))
        return pa.ListArray.from_arrays(offsets, items, type=_HEADERS)


def decode_envelopes(data: bytes, count: int) -> EnvelopeColumns:
    """The ``count`` raw records of one decompressed block; payloads are kept byte for byte.

    Raises BrokenBlock, with the record's place in the block, unless exactly ``count`` records fill ``data``.
    """
    columns = EnvelopeColumns()
    try:
        position = _decode(data, count, columns)
    except IndexError:
        raise BrokenBlock(f"record {len(columns)} of {count} of the block reaches past its end") from None
    except ValueError as error:
        raise BrokenBlock(f"record {len(columns)} of {count} of the block is damaged: {error}") from error
    if position != len(data):
        raise BrokenBlock(f"{len(data) - position} bytes follow the {count} records of the block")
    return columns


def _decode(data: bytes, count: int, columns: EnvelopeColumns) -> int:
    """Decode ``count`` records and return the position after them.

    Every number, length and union of a record is read in this one loop, and short numbers without a call: calls would
    take more than half of the time. The offset is appended last, so that ``len(columns)`` counts whole records.
    """
    size = len(data)
    position = 0
    source, stored_source = "", b""
    add_source, add_partition, add_offset = columns.source.append, columns.partition.append, columns.offset.append
    add_timestamp, add_headers = columns.timestamp.append, columns.headers.append
    optional = (columns.key.append, columns.value.append)
    for _ in range(count):
        end, position = _text_end(data, position)
        if data[position:end] != stored_source or not stored_source:
            stored_source = data[position:end]
            source = stored_source.decode("utf-8")
        partition, position = read_long(data, end)
        offset, position = read_long(data, position)
        if not 0 <= partition <= _INT32_MAX or offset < 0:
            raise ValueError(f"partition {partition}, offset {offset}")
        timestamp: int | None = None
        if data[position] == _PRESENT:
            timestamp, position = read_long(data, position + 1)
        else:
            position = _absent(data, position)
        add_source(source)
        add_partition(partition)
        add_timestamp(timestamp)
        for add in optional:
            if data[position] != _PRESENT:
                position = _absent(data, position)
                add(None)
                continue
            length = data[position + 1]
            position += 2
            if length & 0x80:
                length, position = read_long(data, position - 1)
                end = position + length
            else:
                end = position + (length >> 1)
                length = -(length & 1)
            if length < 0 or end > size:
                raise _bad_length(length, position)
            add(data[position:end])
            position = end
        if data[position]:
            before = len(columns.header_keys)
            position = _headers(data, position, columns)
            add_headers(len(columns.header_keys) - before)
        else:
            position += 1
            add_headers(0)
        add_offset(offset)
    return position


def _absent(data: bytes, position: int) -> int:
    """The position after the index of a union that holds null: one byte, 0 (and 2 for the other branch)."""
    if data[position]:
        raise ValueError(f"a union index that is neither 0 nor 1 at byte {position}")
    return position + 1


def _bad_length(length: int, position: int) -> Exception:
    return ValueError(f"a negative length before byte {position}") if length < 0 else IndexError()


def _text_end(data: bytes, position: int) -> tuple[int, int]:
    """End and beginning of the string or bytes whose length is at ``position``."""
    length, position = read_long(data, position)
    if length < 0 or position + length > len(data):
        raise _bad_length(length, position)
    return position + length, position


def _headers(data: bytes, position: int, columns: EnvelopeColumns) -> int:
    count, position = read_long(data, position)
    while count:
        if count < 0:  # a negative count is followed by the size of the array's block in bytes
            count, (_, position) = -count, read_long(data, position)
        for _ in range(count):
            end, position = _text_end(data, position)
            columns.header_keys.append(data[position:end].decode("utf-8"))
            value: bytes | None = None
            if data[end] == _PRESENT:
                last, position = _text_end(data, end + 1)
                value, position = data[position:last], last
            else:
                position = _absent(data, end)
            columns.header_values.append(value)
        count, position = read_long(data, position)
    return position
