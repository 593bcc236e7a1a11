"""Compression of one block, and its decompression, bounded: a bomb is found out before it is unpacked.

Source: Avro 1.11 specification, "Object Container Files / Required and Optional Codecs": ``deflate`` is
raw (RFC 1951), ``snappy`` is followed by the big-endian CRC-32 of the decompressed bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cramjam
import zstandard

from k2beam.errors import BlockTooLarge, BrokenBlock

_PIECE = 1 << 20


def decompress(codec: str, data: bytes, limit: int) -> bytes:
    """The decompressed bytes of a block, at most ``limit`` of them.

    No more than ``limit`` bytes and one piece of 1 MiB are ever unpacked before a block is refused.
    Raises BlockTooLarge above the limit, BrokenBlock when the data or its checksum is wrong.
    """
    return _DECODERS[codec](data, limit)


def compress(codec: str, data: bytes) -> bytes:
    """A block as it is stored."""
    if codec == "deflate":
        stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return stream.compress(data) + stream.flush()
    if codec == "snappy":
        return bytes(cramjam.snappy.compress_raw(data)) + zlib.crc32(data).to_bytes(4, "big")
    if codec == "zstandard":
        return zstandard.ZstdCompressor().compress(data)
    return data


def _null(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_large(limit)
    return data


def _deflate(data: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    pieces: list[bytes] = []
    total = 0
    pending = data
    try:
        while not stream.eof:
            piece = stream.decompress(pending, min(_PIECE, limit + 1 - total))
            pending = stream.unconsumed_tail
            total += len(piece)
            if total > limit:
                raise _too_large(limit)
            if not piece and not pending and not stream.eof:
                raise BrokenBlock("deflate data ends too early")
            pieces.append(piece)
    except zlib.error as error:
        raise BrokenBlock(f"deflate data is damaged: {error}") from error
    content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    _check_deflate_rest(stream.unused_data, content)
    return content


def _check_deflate_rest(rest: bytes, content: bytes) -> None:
    """Python writers leave the first three bytes of zlib's Adler-32 behind the data: then it is checked."""
    if rest and (len(rest) > 4 or not zlib.adler32(content).to_bytes(4, "big").startswith(rest)):
        raise BrokenBlock(f"{len(rest)} bytes follow the deflate data, and they are no checksum of it")


def _snappy(data: bytes, limit: int) -> bytes:
    declared = _declared_length(data)
    if declared > limit:
        raise _too_large(limit)
    try:
        content = bytes(cramjam.snappy.decompress_raw(data[:-4]))
    except cramjam.DecompressionError as error:
        raise BrokenBlock(f"snappy data is damaged: {error}") from error
    if zlib.crc32(content) != int.from_bytes(data[-4:], "big"):
        raise BrokenBlock("the CRC-32 of the snappy data is wrong")
    return content


def _declared_length(data: bytes) -> int:
    """The length that snappy data starts with: little-endian groups of 7 bits, at most 32 bits."""
    value = 0
    for index, byte in enumerate(data[: min(5, max(0, len(data) - 4))]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value
    raise BrokenBlock("snappy data has no length")


def _zstandard(data: bytes, limit: int) -> bytes:
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR) and declared > limit:
            raise _too_large(limit)
        # where the frame has no length, a buffer of limit + 1 bytes is reserved, and shrunk afterwards
        content = zstandard.ZstdDecompressor().decompress(data, max_output_size=limit + 1, allow_extra_data=False)
    except zstandard.ZstdError as error:
        if _zstandard_exceeds(data, limit):
            raise _too_large(limit) from error
        raise BrokenBlock(f"zstandard data is damaged: {error}") from error
    if len(content) > limit:
        raise _too_large(limit)
    return content


def _zstandard_exceeds(data: bytes, limit: int) -> bool:
    """Whether data that failed to decompress at once was too large, and not damaged."""
    total = 0
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as stream:
            while piece := stream.read(_PIECE):
                total += len(piece)
                if total > limit:
                    return True
    except zstandard.ZstdError:
        return False
    return False


def _too_large(limit: int) -> BlockTooLarge:
    return BlockTooLarge(f"the block decompresses to more than {limit} bytes")


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "null": _null,
    "deflate": _deflate,
    "snappy": _snappy,
    "zstandard": _zstandard,
}

CODECS = tuple(_DECODERS)
"""The codecs that are read."""
