"""Copies of a message among rows: found while the rows stream by, so that only tables that have any pay for them.

Two rows are one event where they have one ``message_id``, or one number of the exchange: the same exchange, symbol,
kind, epoch and ``source_sequence`` (as the rules of sequences read it).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.model import Kind
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import KeyName, SequenceRules
from k2beam.sequence.rules import values_of

MOST_HASHED_ROWS = 32_000_000
"""Of more rows than these the identities are not held here, 16 bytes a row: copies are then looked for on disk."""

NO_EPOCH = -1
"""The epoch of a row whose rule is to guess where the numbers began anew."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64)

Hashes = npt.NDArray[np.uint64]


class EpochNumbers(NamedTuple):
    """Of each row the epoch that its rule says (:data:`NO_EPOCH`: it is guessed), and its number, below 0 for none."""

    epochs: Ints
    numbers: Ints


def number_rows(rows: pa.RecordBatch, kind: Kind, rules: SequenceRules) -> EpochNumbers:
    """The numbers of rows by the rules of their kind; null and negative ones are none."""
    numbers = rows.column("source_sequence").fill_null(-1).to_numpy(zero_copy_only=False)
    if not rules.rules:
        return EpochNumbers(np.full(len(numbers), NO_EPOCH), numbers)
    times = rows.column(EVENT_TIME_COLUMN[kind]).cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy()
    exchange, symbol = (rows.column(name).dictionary_encode() for name in ("exchange", "symbol"))
    codes, keys, numbers = rules.number(exchange, symbol, times, numbers, values_of(rows))
    names = [KeyName.read(name) for _, name in keys]
    raised = np.array([name.raised for name in names], np.int64)[codes]
    epochs = np.array([NO_EPOCH if name.epoch is None else name.epoch for name in names], np.int64)[codes]
    return EpochNumbers(epochs, np.where(numbers < 0, -1, numbers - raised))


class CopyCheck:
    """Watches a stream of rows; once it has ended, ``found`` says whether some may be copies of others.

    It never misses one. It may take rows for copies that are none (numbers of two guessed epochs, two hashes alike):
    whoever acts on it looks at them exactly.
    """

    def __init__(self, kind: Kind, rules: SequenceRules) -> None:
        self.found = True
        self._kind = kind
        self._rules = rules
        self._hashes: list[Hashes] = []
        self._rows = 0

    def watched(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches, which have ``message_id``, and with ``source_sequence`` also what the rules need."""
        for batch in batches:
            self._rows += batch.num_rows
            if self._rows <= MOST_HASHED_ROWS:
                self._hashes += _hashed_ids(batch.column("message_id"))
                self._hashes += [self._hashed_numbers(batch)] if "source_sequence" in batch.schema.names else []
            else:
                self._hashes.clear()
            yield batch
        self.found = self._rows > MOST_HASHED_ROWS or _any_twice(self._hashes)
        self._hashes.clear()

    def _hashed_numbers(self, rows: pa.RecordBatch) -> Hashes:
        epochs, numbers = number_rows(rows, self._kind, self._rules)
        counted = numbers >= 0
        mixed = (numbers.view(np.uint64) + epochs.view(np.uint64) * _FACTORS[0]) * _MIX
        for name in ("exchange", "symbol"):
            names = rows.column(name).dictionary_encode()
            seeds = np.array([_seed(text) for text in names.dictionary.to_pylist()], np.uint64)
            mixed = (mixed ^ (mixed >> np.uint64(32)) ^ seeds[names.indices.to_numpy()]) * _FACTORS[1]
        return np.asarray(mixed[counted])


def _seed(text: str) -> int:
    data = text.encode()
    return zlib.crc32(data) << 32 | zlib.adler32(data)


def _any_twice(hashes: list[Hashes]) -> bool:
    if not hashes:
        return False
    found = np.concatenate(hashes)
    found.sort()
    return bool((found[1:] == found[:-1]).any())


def _hashed_ids(ids: Any) -> Iterator[Hashes]:
    """A number for each text that is not empty; the same texts have the same number."""
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    data = np.frombuffer(ids.buffers()[2] or b"", np.uint8)
    lengths = np.diff(offsets)
    for length in np.unique(lengths).tolist():
        if length:
            starts = offsets[:-1][lengths == length]
            yield _hashed(data, starts, length)


def _hashed(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int32], length: int) -> Hashes:
    """Texts of one length, eight bytes at a time; the last eight may overlap those before."""
    if len(starts) and len(starts) * length == starts[-1] + length - starts[0]:
        texts = data[starts[0] : starts[-1] + length].reshape(len(starts), length)
    else:
        texts = data[starts[:, np.newaxis] + np.arange(length)]
    hashes = np.full(len(starts), length, np.uint64)
    whole = length // 8 * 8
    for place, begin in enumerate([*range(0, whole, 8), *([max(length - 8, 0)] if length > whole else [])]):
        part = np.zeros((len(starts), 8), np.uint8)
        taken = texts[:, begin : begin + 8]
        part[:, : taken.shape[1]] = taken
        word = part.view(np.uint64)[:, 0]
        hashes = (hashes ^ (word * _FACTORS[place % 4])) * _MIX
        hashes ^= hashes >> np.uint64(29)
    return hashes
