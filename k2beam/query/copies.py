"""Copies of a message among rows: looked for first, so that only a table that has any pays for taking them out.

Two rows are one event where they have one ``message_id``, or one number of the exchange: the same exchange, symbol,
kind, epoch and ``source_sequence`` (as the rules of sequences read it).
"""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.model import Kind
from k2beam.query import duck
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import KeyName, SequenceRules
from k2beam.sequence.rules import VENDOR_DATA, values_of

MOST_HASHED_ROWS = 32_000_000
"""Of more rows than these the identities are looked at in several rounds, to bound their memory."""

NO_EPOCH = -1
"""The epoch of a row whose rule is to guess where the numbers began anew."""

_MIX, _FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)

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


def may_have_copies(
    session: duck.Session, name: str, schema: pa.Schema, most_rows: int, kind: Kind, rules: SequenceRules
) -> bool:
    """Whether some rows of the relation ``name``, which has the columns of ``schema``, may be copies of others.

    It never misses one. It may take rows for copies that are none (numbers of two guessed epochs, two hashes alike):
    whoever acts on it looks at them exactly. There are ``most_rows`` at most.
    """
    counted = "source_sequence" in schema.names
    number = "hash(exchange, symbol, source_sequence)" if counted and not rules.rules else "NULL"
    hashed = f"""
        SELECT CASE WHEN message_id <> '' THEN hash(message_id) END AS id,
               CASE WHEN {"source_sequence >= 0" if counted else "false"} THEN {number} END AS number
        FROM {name}
    """  # noqa: S608
    rounds = max(1, -(-most_rows // MOST_HASHED_ROWS))
    for place in range(rounds):
        part = f"CASE WHEN {{0}} % {rounds} = {place} THEN {{0}} END AS {{0}}" if rounds > 1 else "{0}"
        columns = session.columns(f"SELECT {part.format('id')}, {part.format('number')} FROM ({hashed})")  # noqa: S608
        with ThreadPoolExecutor(len(columns)) as pool:
            if any(pool.map(_any_twice, columns)):
                return True
    return counted and bool(rules.rules) and _any_number_twice(session, name, schema, kind, rules)


def _any_number_twice(session: duck.Session, name: str, schema: pa.Schema, kind: Kind, rules: SequenceRules) -> bool:
    """The same where rules say what a number means."""
    ruling = {column if column in schema.names else VENDOR_DATA for column in rules.columns(kind)}
    names = ", ".join(sorted({"exchange", "symbol", "source_sequence", f'"{EVENT_TIME_COLUMN[kind]}"', *ruling}))
    batches = session.stream(f"SELECT {names} FROM {name}")  # noqa: S608
    return _any_twice(np.concatenate([np.empty(0, np.uint64), *(_hashed(rows, kind, rules) for rows in batches)]))


def _hashed(rows: pa.RecordBatch, kind: Kind, rules: SequenceRules) -> Hashes:
    epochs, numbers = number_rows(rows, kind, rules)
    mixed = (numbers.view(np.uint64) + epochs.view(np.uint64) * _FACTOR) * _MIX
    for name in ("exchange", "symbol"):
        names = rows.column(name).dictionary_encode()
        seeds = np.array([_seed(text) for text in names.dictionary.to_pylist()], np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(32)) ^ seeds[names.indices.to_numpy()]) * _FACTOR
    return np.asarray(mixed[numbers >= 0])


def _seed(text: str) -> int:
    data = text.encode()
    return zlib.crc32(data) << 32 | zlib.adler32(data)


def _any_twice(hashes: Hashes) -> bool:
    found = np.sort(hashes)
    return bool((found[1:] == found[:-1]).any())
