"""Columns to Avro bytes, many rows at once, and the containers that hold them.

A :class:`Cells` is a rectangle of bytes with a mask: the row-wise concatenation of the masked
bytes is the encoding of the rows, so a whole record type is encoded by a few array operations.
The encodings are those of the Avro 1.11 specification, "Binary Encoding" (zig-zag varints, strings
and bytes with their length before them) and "Object Container Files".
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, get_args

import fastavro
import numpy as np
import numpy.typing as npt

from k2beam.archive.codecs import compress
from k2beam.archive.varint import write_long
from k2beam.arrays import Bytes, Ints, Mask
from k2beam.codec.uuids import TEXT_BYTES, uuid_characters

Codec = Literal["null", "deflate", "snappy", "zstandard"]
CONTAINER_CODECS: tuple[Codec, ...] = get_args(Codec)

_BLOCK_BYTES = 128 * 1024
"""Bytes of a block before compression."""


_LONGEST_VARINT = 10


class Cells(NamedTuple):
    """Bytes of n rows: ``data`` and ``mask`` are n (or 1, for every row the same) by width."""

    data: Bytes
    mask: Mask

    def lengths(self) -> Ints:
        """Encoded bytes of each row."""
        lengths: Ints = np.count_nonzero(self.mask, axis=1).astype(np.int64)
        return lengths

    def flat(self) -> Bytes:
        """All rows one after another."""
        return self.data[self.mask]

    def where(self, chosen: Mask) -> Cells:
        """These bytes in the chosen rows, none in the others."""
        mask = self.mask & chosen[:, None]
        return Cells(np.broadcast_to(self.data, mask.shape), mask)


def constant(text: bytes) -> Cells:
    """The same bytes in every row."""
    return Cells(np.frombuffer(text, np.uint8)[None, :], np.ones((1, len(text)), np.bool_))


def stack(fields: Sequence[Cells], rows: int) -> Cells:
    """Fields side by side: the encoding of a record is that of its fields in order."""
    width = sum(field.data.shape[1] for field in fields)
    data, mask = np.empty((rows, width), np.uint8), np.empty((rows, width), np.bool_)
    start = 0
    for field in fields:
        end = start + field.data.shape[1]
        data[:, start:end] = field.data
        mask[:, start:end] = field.mask
        start = end
    return Cells(data, mask)


def long(values: Ints) -> Cells:
    """An Avro ``int`` or ``long``: zig-zag, seven bits a byte, low bits first."""
    rest = ((values << 1) ^ (values >> 63)).view(np.uint64)
    columns, masks = [], []
    used = np.ones(len(values), np.bool_)
    for _ in range(_LONGEST_VARINT):
        more = rest > 0x7F
        columns.append((rest & 0x7F).astype(np.uint8) | (more.astype(np.uint8) << 7))
        masks.append(used)
        rest, used = rest >> np.uint64(7), used & more
        if not used.any():
            break
    return Cells(np.stack(columns, axis=1), np.stack(masks, axis=1))


def decimal(unscaled: Ints) -> Cells:
    """An Avro ``decimal`` on ``bytes``: length, then the fewest bytes of two's complement, high byte first."""
    magnitude = (unscaled ^ (unscaled >> 63)).view(np.uint64)
    length = np.ones(len(unscaled), np.int64)
    for used in range(1, 8):
        length += magnitude >= np.uint64(1 << (8 * used - 1))
    data = np.empty((len(unscaled), 9), np.uint8)
    data[:, 0] = length << 1
    data[:, 1:] = unscaled.astype(">i8").view(np.uint8).reshape(-1, 8)
    mask = np.ones(data.shape, np.bool_)
    mask[:, 1:] = np.arange(8) >= 8 - length[:, None]
    return Cells(data, mask)


def wide_decimal(low: Ints, high: Ints) -> Cells:
    """The same of values of two words, the low and the high one."""
    sign = high >> 63
    data = np.empty((len(low), 17), np.uint8)
    data[:, 1:9] = high.astype(">i8").view(np.uint8).reshape(-1, 8)
    data[:, 9:] = low.astype(">i8").view(np.uint8).reshape(-1, 8)
    # Bytes at the front that only repeat the sign are left out, but for one that says it.
    idle = data[:, 1:] == sign[:, None].astype(np.uint8)
    idle[:, :-1] &= (data[:, 2:] >> 7) == (sign & 1)[:, None].astype(np.uint8)
    idle[:, -1] = False
    mask = np.ones(data.shape, np.bool_)
    mask[:, 1:] = ~np.logical_and.accumulate(idle, axis=1)
    data[:, 0] = mask[:, 1:].sum(axis=1) << 1
    return Cells(data, mask)


def lookup(texts: Sequence[bytes], codes: npt.NDArray[Any]) -> Cells:
    """An Avro ``string`` or ``bytes`` for each row, by its index in ``texts``."""
    encoded = [bytes_field(text) for text in texts]
    width = max(map(len, encoded))
    table = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in encoded), np.uint8).reshape(-1, width)
    lengths = np.array([len(text) for text in encoded])
    return Cells(table[codes], np.arange(width) < lengths[codes][:, None])


def digits(values: Ints, width: int = 18) -> Cells:
    """An Avro ``string`` of the decimal digits of values from 0 to 10**width - 1."""
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    first = max(width - len(str(int(values.max(initial=0)))), 0)
    shown = values[:, None] // powers[first:]
    mask = shown > 0
    mask[:, -1] = True
    text = Cells((shown % 10).astype(np.uint8) + ord("0"), mask)
    return stack([long(text.lengths()), text], len(values))


def uuid_text(identifiers: Bytes) -> Cells:
    """An Avro ``string``: 16 bytes a row as a UUID of version 8 (RFC 9562, "custom")."""
    data = np.empty((len(identifiers), 1 + TEXT_BYTES), np.uint8)
    data[:, 0] = TEXT_BYTES << 1
    data[:, 1:] = uuid_characters(identifiers, version=8)
    return Cells(data, np.ones((1, data.shape[1]), np.bool_))


def bytes_field(text: bytes) -> bytes:
    """One Avro ``string`` or ``bytes``: length and content."""
    return write_long(len(text)) + text


class ContainerWriter:
    """Writes one Avro container from encoded rows. A context manager; the file is replaced."""

    def __init__(
        self, path: Path, schema: dict[str, Any], codec: Codec, sync_marker: bytes, metadata: Mapping[str, Any]
    ) -> None:
        header = io.BytesIO()
        texts = {name: json.dumps(value) for name, value in metadata.items()}
        fastavro.writer(header, schema, [], codec=codec, metadata=texts, sync_marker=sync_marker)
        self._codec = codec
        self._sync_marker = sync_marker
        self._file = path.open("wb")
        self._file.write(header.getvalue())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, rows: Cells) -> None:
        """Append rows in blocks of about :data:`_BLOCK_BYTES`."""
        ends = np.cumsum(rows.lengths())
        content = rows.flat().tobytes()
        row = start = 0
        while row < len(ends):
            last = max(int(np.searchsorted(ends, start + _BLOCK_BYTES, side="right")), row + 1)
            end = int(ends[last - 1])
            self.write_block(last - row, content[start:end])
            row, start = last, end

    def write_block(self, count: int, content: bytes) -> None:
        """Append ``count`` encoded records as one block."""
        block = compress(self._codec, content)
        self._file.write(b"".join((write_long(count), write_long(len(block)), block, self._sync_marker)))
