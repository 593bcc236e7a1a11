"""Runs and slices: the sequence numbers of a batch, boiled down to a few bytes for each key.

A key is exchange, symbol and kind. A *run* is a stretch of a key's messages, in order of event time, whose
sequence rises by one each message; a *slice* is what one batch holds of one key: its runs and some counts.
Only slices are shuffled, never rows. Times are microseconds since the epoch, UTC.

Runs are cut where the fold (:mod:`k2beam.sequence.blocks`) needs to know the order exactly:

- at an hour without a message, since an hour's silence can make a fall a reset;
- at powers of two, so that no number of a run is less than half of another one;
- after the second and the third message of a slice and of a fall, since three messages decide a reset
  and runs of one or two messages are known to the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from k2beam.arrays import Bytes, Ints, Mask
from k2beam.errors import K2BeamError
from k2beam.model import KINDS, Kind

HOUR = 3_600_000_000
"""Microseconds of silence after which a single fall is a reset."""


_HEADER = 7
_SMALL = 256
_FEW = 128
_WORD = 1 << 64


class SequenceKey(NamedTuple):
    """Whose numbers are counted: one feed of one symbol.

    Examples:
        >>> from k2beam.sequence import SequenceKey, format_key
        >>> key = SequenceKey("BINANCE", "BTCUSDT", "trades")
        >>> key.symbol, format_key(*key)
        ('BTCUSDT', 'BINANCE|BTCUSDT|trades')
    """

    exchange: str
    symbol: str
    kind: Kind


def format_key(exchange: str, symbol: str, kind: str) -> str:
    """``exchange|symbol|kind``, with ``%`` and ``|`` inside a part percent-encoded.

    Examples:
        >>> from k2beam.sequence import format_key
        >>> format_key("BINANCE", "BTCUSDT", "trades")
        'BINANCE|BTCUSDT|trades'
        >>> format_key("A|B", "100%", "quotes")
        'A%7CB|100%25|quotes'
    """
    plain = f"{exchange}|{symbol}|{kind}"
    if plain.count("|") == 2 and "%" not in plain:
        return plain
    return "|".join(part.replace("%", "%25").replace("|", "%7C") for part in (exchange, symbol, kind))


def parse_key(text: str) -> SequenceKey:
    """The inverse of :func:`format_key`. Raises K2BeamError for a text that is not such a key.

    Examples:
        >>> from k2beam.sequence import parse_key
        >>> parse_key("BINANCE|BTCUSDT|trades")
        SequenceKey(exchange='BINANCE', symbol='BTCUSDT', kind='trades')
    """
    parts = text.split("|")
    if "%" in text:
        parts = [unquote(part, errors="strict") for part in parts]
    if len(parts) != 3 or parts[2] not in KINDS:
        raise K2BeamError(f"{text!r} is not a sequence key; it must read exchange|symbol|kind, kind one of {KINDS}")
    return SequenceKey(parts[0], parts[1], parts[2])


class Run(NamedTuple):
    """Messages first_sequence, +1, …, last_sequence whose event time never falls (microseconds).

    Examples:
        >>> from k2beam.sequence import Run
        >>> run = Run(first_sequence=5, last_sequence=8, first_time=0, last_time=3_000_000)
        >>> run.last_sequence - run.first_sequence + 1
        4
    """

    first_sequence: int
    last_sequence: int
    first_time: int
    last_time: int


class SliceContent(NamedTuple):
    """What a slice says.

    ``messages`` counts all of them, ``nulls`` those without a (non-negative) sequence number, ``duplicates`` those
    with the event time and sequence of another one, ``out_of_order`` those that arrived after a higher number
    (unless they are a fall of more than half). Element times in microseconds. ``runs`` are in order.
    """

    messages: int
    nulls: int
    duplicates: int
    out_of_order: int
    lowest_element_time: int
    highest_element_time: int
    runs: list[Run]


@dataclass(frozen=True, slots=True)
class Slice:
    """What one batch holds of one key; ``data`` is its packed form and its only content.

    ``latest``: the highest element time again, so that who has just made the slice need not unpack it (None: unknown).
    The layout, as zigzag varints: messages, nulls, duplicates, out of order, time unit (0: microseconds,
    1: milliseconds), how far the highest and the lowest element time are from those of the events; then
    for each run the step from the run before in sequence, its length less one, the step in time, its duration.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import slice_runs
        >>> [(code, piece)] = slice_runs(np.zeros(3, np.int64), np.array([5, 6, 9]), event_times=np.array([0, 1, 2]))
        >>> content = piece.read()
        >>> content.messages, [(run.first_sequence, run.last_sequence) for run in content.runs]
        (3, [(5, 6), (9, 9)])
    """

    data: bytes
    latest: int | None = field(default=None, compare=False, repr=False)

    def read(self) -> SliceContent:
        """Unpack it."""
        values = unpack_varints(self.data)
        runs = _decode_runs(values)
        begin, end = (runs[0].first_time, runs[-1].last_time) if runs else (0, 0)
        messages, nulls, duplicates, out_of_order, _, high, low = values[:_HEADER]
        return SliceContent(messages, nulls, duplicates, out_of_order, signed(begin + low), signed(end + high), runs)

    @property
    def highest_element_time(self) -> int:
        """As :meth:`read` gives it, microseconds."""
        return self.read().highest_element_time if self.latest is None else self.latest


def slice_runs(
    codes: npt.NDArray[np.integer[npt.NBitBase]],
    sequences: Ints,
    event_times: Ints,
    valid: Mask | None = None,
    element_times: Ints | None = None,
    *,
    arrived: bool = True,
) -> list[tuple[int, Slice]]:
    """Slice a batch: for each key code that occurs, its :class:`Slice`.

    The arrays have one entry a row, in order of arrival: small non-negative key codes, sequences (where
    ``valid``; negative ones count as null), event times and, if they differ, element times. Rows that did not arrive
    in the order of the arrays (``arrived`` is off), such as those of stored files, are not out of order either: then
    the slices follow from the set of messages alone.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import slice_runs
        >>> codes, sequences = np.array([0, 1, 0]), np.array([5, 70, 6])
        >>> slices = slice_runs(codes, sequences, event_times=np.array([0, 1, 2]))
        >>> [(code, piece.read().messages) for code, piece in slices]
        [(0, 2), (1, 1)]
    """
    if not len(codes):
        return []
    if element_times is None:
        element_times = event_times
    order: Ints | slice = slice(None)
    if np.any(codes[1:] < codes[:-1]):
        order = np.argsort(codes.astype(np.uint16) if int(codes.max()) < 1 << 16 else codes, kind="stable")
    key, seq, time = codes[order].astype(np.int64), sequences[order], event_times[order]
    keys, begins = _groups(key)
    header = np.zeros((len(keys), _HEADER), dtype=np.int64)
    header[:, 0] = np.diff(np.append(begins, len(key)))
    high, low = (ufunc.reduceat(element_times[order], begins) for ufunc in (np.maximum, np.minimum))

    sequenced = seq >= 0 if valid is None else (seq >= 0) & valid[order]
    if not sequenced.all():
        header[:, 1] = np.add.reduceat((~sequenced).astype(np.int64), begins)
        key, seq, time = key[sequenced], seq[sequenced], time[sequenced]
    position = np.searchsorted(keys, key)
    if arrived:
        header[:, 3] = _out_of_order(position, seq, len(keys))
    position, seq, time, header[:, 2] = _sorted_distinct(position, seq, time, len(keys))
    unit = 1000 if not np.any(time % 1000) else 1
    header[:, 4] = unit == 1000
    starts = np.flatnonzero(_cuts(position, seq, time))
    ends = np.append(starts[1:], len(seq))[: len(starts)] - 1
    _relative_element_times(header, high, low, position, time)
    places = position[starts], seq[starts], seq[ends], time[starts] // unit, time[ends] // unit
    packed = _pack(header, *places)
    return [(code, Slice(*piece)) for code, *piece in zip(keys.tolist(), packed, high.tolist(), strict=True)]


def _groups(key: Ints) -> tuple[Ints, Ints]:
    begins = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    return key[begins], begins


def _out_of_order(position: Ints, seq: Ints, keys: int) -> Ints:
    counts = np.zeros(keys, dtype=np.int64)
    drops = (position[1:] == position[:-1]) & (seq[1:] < seq[:-1])
    for k in np.unique(position[1:][drops]):
        mine = seq[np.searchsorted(position, k) : np.searchsorted(position, k, "right")]
        highest = np.maximum.accumulate(mine)
        counts[k] = np.count_nonzero((mine < highest) & (mine >= half(highest)))
    return counts


def _sorted_distinct(position: Ints, seq: Ints, time: Ints, keys: int) -> tuple[Ints, Ints, Ints, Ints]:
    same_key = position[1:] == position[:-1]
    after = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (seq[1:] > seq[:-1]))
    if np.all(after | ~same_key):
        return position, seq, time, np.zeros(keys, dtype=np.int64)
    order = np.lexsort((seq, time, position))
    position, seq, time = position[order], seq[order], time[order]
    twin = (position[1:] == position[:-1]) & (seq[1:] == seq[:-1]) & (time[1:] == time[:-1])
    keep = np.concatenate(([True], ~twin))
    duplicates = np.bincount(position[~keep], minlength=keys).astype(np.int64)
    return position[keep], seq[keep], time[keep], duplicates


def _cuts(position: Ints, seq: Ints, time: Ints) -> Mask:
    """Where a run begins."""
    if not len(seq):
        return np.zeros(0, dtype=np.bool_)
    new_key = np.concatenate(([True], position[1:] != position[:-1]))
    cuts: Mask = new_key | ((seq & (seq - 1)) == 0)
    cuts[1:] |= seq[1:] != seq[:-1] + 1
    cuts[1:] |= time[1:].view(np.uint64) - time[:-1].view(np.uint64) >= HOUR
    head = new_key.copy()
    head[1:] |= seq[1:] < half(seq[:-1])
    cuts[2:] |= head[:-2]
    cuts[3:] |= head[:-3]
    return cuts


def _relative_element_times(header: Ints, high: Ints, low: Ints, position: Ints, time: Ints) -> None:
    header[:, 5], header[:, 6] = high, low
    if len(position):
        present, begins = _groups(position)
        header[present, 5] -= time[np.append(begins[1:], len(time)) - 1]
        header[present, 6] -= time[begins]


def _pack(header: Ints, owner: Ints, first: Ints, last: Ints, begin: Ints, end: Ints) -> list[bytes]:
    same = np.concatenate(([False], owner[1:] == owner[:-1]))[: len(owner)]
    fields = np.empty((len(owner), 4), dtype=np.int64)
    fields[:, 0] = first - np.where(same, np.roll(last, 1) + 1, 0)
    fields[:, 1] = last - first
    fields[:, 2] = begin - np.where(same, np.roll(end, 1), 0)
    fields[:, 3] = end - begin
    row_count = np.bincount(owner, minlength=len(header))
    sizes = _HEADER + 4 * row_count
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    flat = np.empty(int(offsets[-1]), dtype=np.int64)
    flat[offsets[:-1, None] + np.arange(_HEADER)] = header
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(row_count) - row_count, row_count)
    flat[(offsets[owner] + _HEADER + 4 * rank)[:, None] + np.arange(4)] = fields
    data, ends = pack_array(flat)
    bounds = np.concatenate(([0], ends))[offsets]
    return [data[a:b] for a, b in pairwise(bounds.tolist())]


def _decode_runs(values: list[int]) -> list[Run]:
    unit = 1000 if values[4] else 1
    if len(values) <= _FEW:
        return _decode_few(values, unit)
    fields = np.array(values[_HEADER:], dtype=np.int64).reshape(-1, 4)
    step, length, wait, duration = fields.T
    # Sums wrap round as the differences did, so hostile times can't overflow.
    last = np.cumsum(step + length + 1) - 1
    end = np.cumsum(wait + duration)
    columns = (last - length, last, (end - duration) * unit, end * unit)
    return list(map(Run._make, zip(*(column.tolist() for column in columns), strict=True)))


def _decode_few(values: list[int], unit: int) -> list[Run]:
    """The same of so few that columns would cost more."""
    runs, last, end = [], -1, 0
    numbers = iter(values[_HEADER:])
    for step, length, wait, duration in zip(numbers, numbers, numbers, numbers, strict=True):
        last, end = signed(last + step + length + 1), signed(end + wait + duration)
        begin = signed(signed(end - duration) * unit)
        runs.append(Run(signed(last - length), last, begin, signed(end * unit)))
    return runs


class RunColumns(NamedTuple):
    """What some slices say together: messages, those of them without a number, and the runs.

    ``runs`` has a row for each field of :class:`Run` and a column for each run, slice after slice.
    """

    messages: int
    nulls: int
    runs: Ints


def unpack_slices(pieces: Sequence[Slice]) -> RunColumns:
    """The content of slices as columns: many small ones are unpacked as quickly as a large one.

    Examples:
        >>> import numpy as np
        >>> from k2beam.sequence import slice_runs, unpack_slices
        >>> codes, sequences = np.array([0, 1, 0]), np.array([5, 70, 6])
        >>> slices = slice_runs(codes, sequences, event_times=np.array([0, 1, 2]))
        >>> messages, nulls, runs = unpack_slices([piece for _, piece in slices])
        >>> messages, nulls, runs[0].tolist(), runs[1].tolist()
        (3, 0, [5, 70], [6, 70])
    """
    if not pieces:
        return RunColumns(0, 0, np.zeros((4, 0), dtype=np.int64))
    octets = np.frombuffer(b"".join(piece.data for piece in pieces), dtype=np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    values = _unpack_array(octets, ends)
    bounds = np.searchsorted(ends, np.cumsum([len(piece.data) for piece in pieces]))
    begins = np.concatenate(([0], bounds[:-1]))
    runs = (bounds - begins - _HEADER) // 4
    body = np.ones(len(values), dtype=np.bool_)
    body[begins[:, None] + np.arange(_HEADER)] = False
    step, length, wait, duration = values[body].reshape(-1, 4).T
    last = _sums_by_slice(step + length + 1, runs) - 1
    end = _sums_by_slice(wait + duration, runs)
    unit = np.repeat(np.where(values[begins + 4] != 0, 1000, 1), runs)
    columns = np.stack((last - length, last, (end - duration) * unit, end * unit))
    return RunColumns(int(values[begins].sum()), int(values[begins + 1].sum()), columns)


def _sums_by_slice(values: Ints, runs: Ints) -> Ints:
    """Running sums that begin anew with each slice; they wrap round as the differences did."""
    sums = np.cumsum(values)
    before = np.concatenate(([0], sums))[np.cumsum(runs) - runs]
    result: Ints = sums - np.repeat(before, runs)
    return result


def half(highest: Ints) -> Ints:
    """What a sequence must reach not to be a fall of more than half: ceil(highest / 2), without overflow."""
    return (highest >> 1) + (highest & 1)


def signed(value: int) -> int:
    """Steps are taken modulo 2**64, so that hostile times can't overflow."""
    return (value + (_WORD >> 1)) % _WORD - (_WORD >> 1)


def pack_array(values: Ints) -> tuple[bytes, Ints]:
    """Zigzag varints (as Avro's ``long``, Avro 1.11 "Binary Encoding"), and where each one ends."""
    zigzag = ((values << 1) ^ (values >> 63)).view(np.uint64)
    width = np.ones(len(values), dtype=np.int64)
    for k in range(1, 10):
        width += zigzag >= np.uint64(1 << (7 * k))
    ends = np.cumsum(width)
    out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for k in range(int(width.max(initial=0))):
        longer = np.flatnonzero(width > k)
        septet = (zigzag[longer] >> np.uint64(7 * k)) & np.uint64(0x7F)
        more = (width[longer] > k + 1).astype(np.uint64) << np.uint64(7)
        out[ends[longer] - width[longer] + k] = septet | more
    return out.tobytes(), ends


def pack_varints(values: Sequence[int]) -> bytes:
    """Integers as zigzag varints; they are taken modulo 2**64."""
    return pack_array(np.array([signed(value) for value in values], dtype=np.int64))[0]


def unpack_varints(data: bytes) -> list[int]:
    """The integers that :func:`pack_varints` packed; a cut-off last one is left out."""
    return _unpack_short(data) if len(data) <= _SMALL else _unpack_long(data)


def _unpack_short(data: bytes) -> list[int]:
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            values.append((value >> 1) ^ -(value & 1))
            value = shift = 0
    return values


def _unpack_long(data: bytes) -> list[int]:
    octets = np.frombuffer(data, dtype=np.uint8)
    values: list[int] = _unpack_array(octets, np.flatnonzero(octets < 0x80)).tolist()
    return values


def _unpack_array(octets: Bytes, ends: Ints) -> Ints:
    """The integers of packed bytes, of which each ends at one of ``ends``."""
    begins = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    width = ends - begins + 1
    zigzag = np.zeros(len(ends), dtype=np.uint64)
    for k in range(int(width.max(initial=0))):
        longer = np.flatnonzero(width > k)
        septet = (octets[begins[longer] + k] & 0x7F).astype(np.uint64)
        zigzag[longer] |= septet << np.uint64(7 * k)
    return (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
