"""Avro's variable-length zig-zag numbers (Avro 1.11 specification, "Binary Encoding")."""

from __future__ import annotations

MAX_BYTES = 10
"""The longest encoding of a 64-bit number."""

_LAST_SHIFT = 7 * (MAX_BYTES - 1)


def read_long(data: bytes, position: int) -> tuple[int, int]:
    """The number at ``position`` and the position after it.

    Raises IndexError when ``data`` ends within the number, ValueError when it is longer than 64 bits.
    """
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    value = byte & 0x7F
    shift = 7
    while (byte := data[position]) > 0x7F:
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > _LAST_SHIFT:
            raise ValueError(f"a number of more than 64 bits before byte {position}")
    position += 1
    value |= byte << shift
    if value >> 64:
        raise ValueError(f"a number of more than 64 bits before byte {position}")
    return (value >> 1) ^ -(value & 1), position


def write_long(value: int) -> bytes:
    """The encoding of a signed 64-bit number."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
