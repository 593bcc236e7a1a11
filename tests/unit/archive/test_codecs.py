"""Bounded decompression of one block."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.archive import codecs
from k2beam.archive.codecs import CODECS, decompress
from k2beam.errors import BlockTooLarge, BrokenBlock
from tests.archive_files import compress, long

MIB = 1 << 20


def zstandard_stream(data: bytes) -> bytes:
    """A frame that does not tell its length, as a streaming writer makes it."""
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(data) + stream.flush()


@given(data=st.binary(max_size=5000), codec=st.sampled_from(CODECS))
@settings(max_examples=100, deadline=None)
def test_round_trip_and_exact_limit(codec: str, data: bytes) -> None:
    stored = compress(codec, data)
    assert decompress(codec, stored, max(len(data), 1)) == data
    if data:
        with pytest.raises(BlockTooLarge):
            decompress(codec, stored, len(data) - 1)


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_of_several_pieces(codec: str) -> None:
    data = bytes(range(256)) * (12 * 1024)
    assert decompress(codec, compress(codec, data), len(data)) == data


def test_zstandard_without_a_length() -> None:
    data = b"abc" * 100_000
    stored = zstandard_stream(data)
    assert decompress("zstandard", stored, len(data)) == data
    with pytest.raises(BlockTooLarge):
        decompress("zstandard", stored, len(data) - 1)
    with pytest.raises(BrokenBlock, match="damaged"):
        decompress("zstandard", stored[:-3], len(data))


@pytest.mark.parametrize("codec", ["deflate", "snappy", "zstandard"])
def test_truncated_and_trailing_bytes_are_broken(codec: str) -> None:
    stored = compress(codec, b"market data " * 100)
    for damaged in (stored[:-1], stored[: len(stored) // 2], b"", stored + b"x"):
        with pytest.raises(BrokenBlock) as caught:
            decompress(codec, damaged, MIB)
        assert not isinstance(caught.value, BlockTooLarge)


def test_snappy_checksum_is_checked() -> None:
    stored = bytearray(compress("snappy", b"market data"))
    stored[-1] ^= 1
    with pytest.raises(BrokenBlock, match="CRC-32"):
        decompress("snappy", bytes(stored), MIB)


@given(codec=st.sampled_from(["deflate", "snappy", "zstandard"]), place=st.floats(0, 0.999), bits=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_never_raises_anything_else(codec: str, place: float, bits: int) -> None:
    stored = bytearray(compress(codec, b"".join(str(number).encode() for number in range(500))))
    stored[int(place * len(stored))] ^= bits
    try:
        content = decompress(codec, bytes(stored), MIB)
    except BrokenBlock:
        return
    assert len(content) <= MIB


def test_deflate_with_the_rest_of_a_checksum() -> None:
    # python writers cut zlib's output to [2:-1], which leaves three bytes of the Adler-32
    data = b"market data " * 100
    stored = zlib.compress(data)[2:-1]
    assert decompress("deflate", stored, MIB) == data
    with pytest.raises(BrokenBlock, match="no checksum"):
        decompress("deflate", stored[:-1] + b"x", MIB)


@given(data=st.binary(max_size=2000), codec=st.sampled_from(CODECS))
@settings(max_examples=50, deadline=None)
def test_what_is_compressed_decompresses(codec: str, data: bytes) -> None:
    assert decompress(codec, codecs.compress(codec, data), max(len(data), 1)) == data


def bombs() -> dict[str, tuple[str, bytes]]:
    zeros = bytes(200 * MIB)
    return {
        "deflate": ("deflate", compress("deflate", zeros)),
        "zstandard": ("zstandard", compress("zstandard", zeros)),
        "zstandard stream": ("zstandard", zstandard_stream(zeros)),
        "snappy": ("snappy", compress("snappy", zeros)),
        "snappy lie": ("snappy", long(2**30) + b"\x00\x00\x00\x00\x00"),
    }


@pytest.mark.parametrize("name", ["deflate", "zstandard", "zstandard stream", "snappy", "snappy lie"])
def test_bombs_are_refused_within_the_limit(name: str) -> None:
    codec, stored = bombs()[name]
    limit = 4 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(BlockTooLarge):
            decompress(codec, stored, limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit + 3 * MIB
