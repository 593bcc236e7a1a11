"""Lines to v2 events under a mapping, many at once. Pure: the same lines give the same events.

A field that the mapping does not name has a default where the schema asks for a value: ``ingestion_timestamp`` is the
event's time (files do not say when a tick was received; for reference data it is the time of the load),
``trade_conditions`` is empty, and an instrument is active unless it was delisted by the time of the load. Any other is
null: a line's number is no sequence number of an exchange. A column that the mapping does not name is kept in
``vendor_data``, as are the digits that were cut off times. ``message_id`` is always a UUIDv5 (RFC 9562) of the source's
identity and the line's number.

The error classes of stage ``decode``: ``missing_value``, ``bad_number``, ``decimal_overflow``, ``bad_time``,
``ambiguous_time``, ``nonexistent_time``, ``bad_value``.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask, mask_of, text_bytes
from k2beam.codec.uuids import uuid_texts
from k2beam.csv.lines import LineColumns, LineFault, read_columns
from k2beam.csv.mapping import BUILT_IN_NAMES, GENERATED, CsvMapping, FieldRule, Template, event_time
from k2beam.csv.numbers import read_decimals, read_integers
from k2beam.csv.times import time_array
from k2beam.errors import UsageError
from k2beam.model import DECIMAL
from k2beam.schemas import payload_arrow_schema, v2_name

FINER = "_finer"
"""With it after the name of a time, the key of vendor_data that has the digits after its microseconds."""

_TOO_LONG = f"has more than {DECIMAL.precision - DECIMAL.scale} digits before the point or {DECIMAL.scale} behind"
_FINER_REFUSED = (
    'is finer than a microsecond; finer_than_microsecond = "cut" in the mapping takes it, and keeps its last digits in '
    "vendor_data"
)
_NAMESPACE = uuid.UUID("6a3d1f0e-5c0b-5d8e-9b1e-2f6f3a9d7c41")


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a file beside its lines.

    ``columns`` are the names of its columns, ``variables`` its variables, ``file`` its name without folders. With a
    line's number, ``identity`` makes the message id: it has to be another for every other file. ``loaded_at`` is the
    time of the load, microseconds UTC.
    """

    columns: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    file: str
    identity: str
    loaded_at: int


class Converted(NamedTuple):
    """The events as v2 columns, the place of each among the lines, and the faults of other lines, in order.

    ``left_out`` are the places of lines that the mapping does not take.
    """

    events: pa.RecordBatch
    rows: Ints
    faults: tuple[LineFault, ...]
    left_out: Ints


class Converter:
    """Converts lines of one file; ``added`` are columns of it that the events get besides their own, as text.

    Raises UsageError where the mapping needs a name that the file does not have.
    """

    def __init__(self, mapping: CsvMapping, context: Context, added: Sequence[str] = ()) -> None:
        self._added = tuple(added)
        self._mapping = mapping
        self._context = context
        self._schema = payload_arrow_schema(v2_name(mapping.kind))
        missing = sorted(mapping.names - {*context.columns, *dict(context.variables), *BUILT_IN_NAMES})
        if missing:
            raise UsageError(_missing(mapping, context, missing))

    def convert(self, lines: Sequence[bytes], first_line: int) -> Converted:
        """The events of ``lines`` (without line feeds), of which the first has the number ``first_line``, from 1."""
        context = self._context
        found, left_out = self._taken(lines)
        work = _Work(
            dict(zip(context.columns, found.texts, strict=True)), dict(context.variables), context, len(found.rows)
        )
        work.numbers = found.rows + first_line
        columns = [self._column(work, one) for one in self._schema]
        columns += [_or_null(work.columns[name]) for name in self._added]
        schema = pa.schema([*self._schema, *(pa.field(name, pa.string()) for name in self._added)])
        good = ~work.bad
        faults = [*found.faults, *(fault._replace(row=int(found.rows[fault.row])) for fault in work.faults)]
        events = pa.RecordBatch.from_arrays(columns, schema=schema)
        if work.faults:
            events = events.filter(pa.array(good))
        return Converted(events, found.rows[good], tuple(sorted(faults)), left_out)

    def left_out(self, lines: Sequence[bytes]) -> Ints:
        """The places of the lines that the mapping does not take, as :meth:`convert` finds them."""
        return self._taken(lines)[1]

    def _taken(self, lines: Sequence[bytes]) -> tuple[LineColumns, Ints]:
        """The columns of the lines that are taken, and the places of those that are not."""
        context, mapping = self._context, self._mapping
        found = read_columns(lines, len(context.columns), mapping.delimiter, mapping.encoding)
        if not (mapping.only or mapping.without):
            return found, np.zeros(0, dtype=np.int64)
        columns = dict(zip(context.columns, found.texts, strict=True))
        taken = np.ones(len(found.rows), np.bool_)
        for column, values in mapping.only:
            taken &= mask_of(pc.is_in(columns[column], pa.array(values, pa.string())))
        for column, values in mapping.without:
            taken &= ~mask_of(pc.is_in(columns[column], pa.array(values, pa.string())))
        kept = tuple(text.filter(pa.array(taken)) for text in found.texts)
        return found._replace(texts=kept, rows=found.rows[taken]), found.rows[~taken]

    def _column(self, work: _Work, one: pa.Field) -> pa.Array:
        if one.name == GENERATED:
            return line_message_ids(self._context.identity, work.numbers)
        if one.name == "vendor_data":
            return self._vendor_data(work, one.type)
        if one.name not in work.made:
            rule = self._mapping.rule(one.name)
            work.made[one.name] = self._default(work, one) if rule is None else _build(work, self._mapping, rule, one)
        return work.made[one.name]

    def _default(self, work: _Work, one: pa.Field) -> pa.Array:
        if one.name == "ingestion_timestamp":
            column = event_time(self._mapping.kind)
            if column != one.name:
                return self._column(work, self._schema.field(column))
            return time_array(np.full(work.count, self._context.loaded_at, np.int64))
        if one.name == "is_active":
            delisted = self._column(work, self._schema.field("delisting_date")).cast(pa.int64())
            return pc.fill_null(pc.greater(delisted, self._context.loaded_at), True)
        if one.name == "trade_conditions":
            return _list_array(pa.array([], pa.string()), np.zeros(work.count, np.int64), one.type)
        return pa.nulls(work.count, one.type)

    def _vendor_data(self, work: _Work, data_type: pa.MapType) -> pa.Array:
        """A map of what has a text; null where nothing is to be kept at all."""
        cut = [rule.name for rule in self._mapping.fields if rule.time is not None and rule.time.cut]
        for name in cut:
            self._column(work, self._schema.field(name))
        entries = [(key, work.text(template)) for key, template in self._mapping.vendor_data]
        unnamed = self._mapping.unnamed(self._context.columns)
        entries += [(name, work.columns[name]) for name in unnamed if name not in self._added]
        entries += [(f"{name}{FINER}", work.finer[name]) for name in cut if name in work.finer]
        if not entries or not work.count:
            return pa.nulls(work.count, data_type)
        texts = [text for _, text in entries]
        there = np.stack([text_bytes(text) > 0 for text in texts], axis=1)
        places = np.arange(len(entries) * work.count).reshape(len(entries), work.count).T[there]
        keys = pa.array([key for key, _ in entries]).take(
            pa.array(np.broadcast_to(np.arange(len(entries)), there.shape)[there])
        )
        values = pa.concat_arrays(texts).take(pa.array(places))
        return pa.MapArray.from_arrays(_offsets(there.sum(axis=1)), keys, values).cast(data_type)


def _or_null(texts: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pa.array(text_bytes(texts) > 0), texts, pa.scalar(None, pa.string()))


@dataclass
class _Work:
    """One call of :meth:`Converter.convert` on its way: the columns that there are, and what was found wrong."""

    columns: Mapping[str, pa.StringArray]
    variables: Mapping[str, str]
    context: Context
    count: int
    numbers: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    made: dict[str, pa.Array] = field(default_factory=dict)
    faults: list[LineFault] = field(default_factory=list)
    finer: dict[str, pa.StringArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bad = np.zeros(self.count, np.bool_)

    def text(self, template: Template) -> pa.StringArray:
        """The template's text for each line."""
        if template.constant is not None:
            return self._repeat(template.constant)
        pieces = [self._named(part) if place % 2 else part for place, part in enumerate(template.parts)]
        arrays = [piece for piece in pieces if not isinstance(piece, str)]
        if len(arrays) == 1 and not any(template.parts[::2]):
            return arrays[0]
        wanted = [pa.scalar(piece) if isinstance(piece, str) else piece for piece in pieces]
        return pc.binary_join_element_wise(*wanted, "")

    def refuse(self, mask: Mask, error_class: str, name: str, problem: str, texts: pa.StringArray) -> None:
        """Note the rows of ``mask`` that nothing was wrong with so far."""
        if not mask.any():
            return
        rows = np.flatnonzero(mask & ~self.bad)
        for row, text in zip(rows.tolist(), texts.take(pa.array(rows)).to_pylist(), strict=True):
            self.faults.append(LineFault(row, "decode", error_class, f"{name} {text!r:.200} {problem}"))
        self.bad |= mask

    def _named(self, name: str) -> pa.StringArray:
        if name in self.columns:
            return self.columns[name]
        if name == "line":
            return pa.array(self.numbers).cast(pa.string())
        return self._repeat(self.context.file if name == "file" else self.variables[name])

    def _repeat(self, text: str) -> pa.StringArray:
        return pa.repeat(pa.scalar(text), self.count)


def line_message_ids(identity: str, numbers: Ints) -> pa.StringArray:
    """UUIDv5 of ``identity/number`` for each line number."""
    base = hashlib.sha1(_NAMESPACE.bytes + identity.encode() + b"/", usedforsecurity=False)
    digests = bytearray()
    for number in numbers.tolist():
        one = base.copy()
        one.update(b"%d" % number)
        digests += one.digest()[:16]
    return uuid_texts(np.frombuffer(digests, np.uint8).reshape(-1, 16), version=5)


def _build(work: _Work, mapping: CsvMapping, rule: FieldRule, one: pa.Field) -> pa.Array:
    texts = work.text(rule.template)
    if rule.empty is not None:
        texts = pc.if_else(pc.equal(pc.binary_length(texts), 0), rule.empty, texts)
    empty = text_bytes(texts) == 0
    if rule.values is not None:
        texts = _translated(work, rule, texts, empty & one.nullable)
        empty = text_bytes(texts) == 0
    if pa.types.is_list(one.type):
        return _items(rule, texts, one.type)
    if rule.symbols:
        wrong = ~mask_of(pc.is_in(texts, pa.array(rule.symbols)))
        work.refuse(wrong, "bad_value", rule.name, f"is none of {', '.join(rule.symbols)}", texts)
    if pa.types.is_string(one.type):
        return pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), texts) if one.nullable else texts
    if not one.nullable:
        work.refuse(empty, "missing_value", rule.name, "must not be empty", texts)
    values = _typed(work, mapping, rule, texts, one.type, ~empty)
    return pc.if_else(pa.array(empty), pa.scalar(None, one.type), values) if one.nullable and empty.any() else values


def _typed(
    work: _Work, mapping: CsvMapping, rule: FieldRule, texts: pa.StringArray, data_type: pa.DataType, there: Mask
) -> pa.Array:
    """The values of ``texts``; where there are none (``there``), anything."""
    if rule.time is not None:
        times = rule.time.read(texts)
        problem = f"is not a time of the years 1 to 9999 written as {', '.join(rule.time.formats)}"
        work.refuse(times.unreadable & there, "bad_time", rule.name, problem, texts)
        if rule.time.cut:
            work.finer[rule.name] = times.finer
        else:
            work.refuse(text_bytes(times.finer) > 0, "bad_time", rule.name, _FINER_REFUSED, texts)
        work.refuse(
            times.ambiguous, "ambiguous_time", rule.name, f"is there twice: {rule.time.zone}'s clocks go back", texts
        )
        work.refuse(times.left_out, "nonexistent_time", rule.name, f"was left out by {rule.time.zone}'s clocks", texts)
        return time_array(times.values)
    if pa.types.is_decimal(data_type):
        numbers = read_decimals(_plain(texts, mapping), rule.scale)
        work.refuse(numbers.unreadable & there, "bad_number", rule.name, "is not a number", texts)
        work.refuse(numbers.overflow & there, "decimal_overflow", rule.name, _TOO_LONG, texts)
        return numbers.values
    if pa.types.is_integer(data_type):
        numbers = read_integers(_plain(texts, mapping))
        work.refuse(numbers.unreadable & there, "bad_number", rule.name, "is not a number", texts)
        work.refuse(numbers.overflow & there, "bad_number", rule.name, "does not fit 64 bits", texts)
        return numbers.values
    truth = mask_of(pc.is_in(texts, pa.array(["true"])))
    work.refuse(
        there & ~truth & ~mask_of(pc.is_in(texts, pa.array(["false"]))),
        "bad_value",
        rule.name,
        "is neither true nor false",
        texts,
    )
    return pa.array(truth)


def _plain(texts: pa.StringArray, mapping: CsvMapping) -> pa.StringArray:
    """Numbers with a point, and with nothing between their digits; what the mapping does not allow is no number."""
    if mapping.thousands:
        between = re.escape(mapping.thousands)
        grouped = rf"^[+-]?\d{{1,3}}(?:{between}\d{{3}})+(?:{re.escape(mapping.decimal)}\d*)?$"
        plain = pc.replace_substring(texts, mapping.thousands, "")
        texts = pc.if_else(pc.match_substring_regex(texts, grouped), plain, texts)
    if mapping.decimal != ".":
        texts = pc.replace_substring(pc.replace_substring(texts, ".", "?"), mapping.decimal, ".")
    return texts


def _translated(work: _Work, rule: FieldRule, texts: pa.StringArray, spared: Mask) -> pa.StringArray:
    """Each text as ``values`` has it; ``spared`` are left as they are."""
    known = dict(rule.values or ())
    coded = texts.dictionary_encode()
    outcomes = pa.array([known.get(text, rule.otherwise) for text in coded.dictionary.to_pylist()], pa.string())
    found = outcomes.take(coded.indices)
    work.refuse(mask_of(found.is_null()) & ~spared, "bad_value", rule.name, f"is none of {', '.join(known)}", texts)
    return pc.fill_null(pc.if_else(pa.array(spared), "", found), "")


def _items(rule: FieldRule, texts: pa.StringArray, data_type: pa.ListType) -> pa.Array:
    """Lists of the texts between ``split`` (of the whole text without), but for empty ones and those to ``drop``."""
    if rule.split:
        parts = pc.split_pattern(texts, rule.split)
        items, parents = pc.utf8_trim_whitespace(parts.flatten()), pc.list_parent_indices(parts).to_numpy()
    else:
        items, parents = texts, np.arange(len(texts))
    kept = ~mask_of(pc.is_in(items, pa.array(["", *rule.drop])))
    return _list_array(items.filter(pa.array(kept)), np.bincount(parents[kept], minlength=len(texts)), data_type)


def _list_array(items: pa.StringArray, lengths: Ints, data_type: pa.ListType) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(lengths), items).cast(data_type)


def _offsets(lengths: Ints) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _missing(mapping: CsvMapping, context: Context, missing: Sequence[str]) -> str:
    text = f"{context.file}: mapping {mapping.name} needs {', '.join(f'{{{name}}}' for name in missing)}"
    have = f"; the file's columns are {', '.join(context.columns)}"
    hints = {
        "company_id": f"give --company, or a file name that {mapping.file!r} finds it in",
        "symbol": "give --symbol, or --companies FILE for the symbol of the company id",
    }
    told = "; ".join(hints[name] for name in missing if name in hints)
    return f"{text}: {told}" if told and set(missing) <= set(hints) else f"{text}{have}" + (f"; {told}" if told else "")
