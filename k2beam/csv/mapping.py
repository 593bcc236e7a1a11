"""Mappings: which v2 field comes from what of a CSV line, as TOML.

A template is text with names in braces: columns of the file, variables of the file (what the pattern
``file`` captures of its name, and ``symbol`` and ``company_id`` as given), and ``line`` and ``file``, the line's number
and the file's name. A column hides a variable of the same name. ``docs/ingest/csv.md`` lists all keys.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa

from k2beam.csv.times import TimeRule
from k2beam.errors import UsageError
from k2beam.model import KINDS, Kind
from k2beam.schemas import EVENT_TIME_COLUMN, avro_schema, payload_arrow_schema, v2_name

Encoding = Literal["utf-8", "iso-8859-1", "windows-1252"]
ENCODINGS: tuple[Encoding, ...] = ("utf-8", "iso-8859-1", "windows-1252")
"""Those in which a line feed, a comma and a quote are the bytes that they are in ASCII."""

BUILT_IN_NAMES = frozenset({"line", "file"})
GENERATED = "message_id"

_FOLDER = Path(__file__).parent / "mappings"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_BRACES = re.compile(r"\{([^{}]*)\}")
_TOP_KEYS = {
    "name", "kind", "file", "skip_lines", "columns", "delimiter", "encoding", "decimal", "thousands", "zone", "formats",
    "ambiguous", "finer_than_microsecond", "fields", "vendor_data", "leave_out", "rows",
}  # fmt: skip
_FOR_ALL = {"from", "empty", "values", "otherwise"}
_FOR_TIMES = {"formats", "zone", "ambiguous", "finer_than_microsecond"}
_FOR_DECIMALS = {"scale"}
_MAX_SCALE = 18
_FOR_LISTS = {"split", "drop"}


@dataclass(frozen=True, slots=True)
class Template:
    """Text with names: ``parts`` are literals and names in turn, a literal first and last."""

    parts: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Template:
        return Template(tuple(_BRACES.split(text)))

    @property
    def names(self) -> tuple[str, ...]:
        return self.parts[1::2]

    @property
    def constant(self) -> str | None:
        """The text, where no name is in it."""
        return self.parts[0] if len(self.parts) == 1 else None


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How one v2 field is made: the template's text, then ``empty``, then ``values``, then its type.

    ``values`` translates whole texts; any other is ``otherwise``, or refused where that is None. ``time`` is there for
    times, ``split`` and ``drop`` for lists, ``scale`` for decimals: the last digits of the text that are a fraction.
    """

    name: str
    template: Template
    empty: str | None = None
    values: tuple[tuple[str, str], ...] | None = None
    otherwise: str | None = None
    time: TimeRule | None = None
    split: str | None = None
    drop: tuple[str, ...] = ()
    scale: int = 0
    symbols: tuple[str, ...] = ()
    """Those of the enum, where the field is one."""


@dataclass(frozen=True, slots=True)
class CsvMapping:
    """A checked mapping; ``columns`` is None where a line of the file names them, the first after ``skip_lines``.

    ``leave_out`` are the columns that go nowhere: any other that no field names goes to ``vendor_data`` as it is.
    ``only`` and ``without`` are the values of columns by which lines are taken, or left out.
    ``decimal`` is the sign before a number's fraction, ``thousands`` the one between its digits, if any. ``fields`` has
    the rules of the fields that the mapping names; the others have the defaults that
    :mod:`k2beam.csv.convert` tells.
    """

    name: str
    kind: Kind
    fields: tuple[FieldRule, ...]
    vendor_data: tuple[tuple[str, Template], ...] = ()
    columns: tuple[str, ...] | None = None
    file: str | None = None
    delimiter: str = ","
    encoding: Encoding = "utf-8"
    decimal: str = "."
    thousands: str = ""
    skip_lines: int = 0
    leave_out: tuple[str, ...] = ()
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    without: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def header_lines(self) -> int:
        """The lines before the first that has an offset."""
        return self.skip_lines + (1 if self.columns is None else 0)

    @property
    def names(self) -> frozenset[str]:
        """The names that its templates use, and the columns that say which lines are taken."""
        templates = [rule.template for rule in self.fields] + [template for _, template in self.vendor_data]
        judging = {column for column, _ in (*self.only, *self.without)}
        return frozenset({*judging, *(name for template in templates for name in template.names)})

    def unnamed(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Those of a file's columns that are kept in ``vendor_data`` under their own names."""
        known = {*self.names, *self.leave_out, *(key for key, _ in self.vendor_data), ""}
        return tuple(column for column in columns if column not in known)

    def rule(self, name: str) -> FieldRule | None:
        return next((rule for rule in self.fields if rule.name == name), None)


def known_mappings() -> list[str]:
    """The names of the mappings that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_mapping(name: str) -> CsvMapping:
    """A mapping of the package by its name, or that of a file ``*.toml``. Raises UsageError naming what is wrong."""
    path = Path(name) if name.endswith(".toml") else _FOLDER / f"{name}.toml"
    if path.parent == _FOLDER and name not in known_mappings():
        raise UsageError(f"--mapping {name!r} is not known; take {', '.join(known_mappings())}, or a FILE.toml")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"mapping {path}: can't be read: {error}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, where: str) -> CsvMapping:
    """The mapping in TOML ``text``, checked against the v2 schema of its kind. Raises UsageError, naming ``where``."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"mapping {where}: not TOML: {error}") from error
    return _Parser(where, data).mapping()


@dataclass
class _Parser:
    where: str
    data: dict[str, Any]
    used: set[str] = field(default_factory=set)

    def mapping(self) -> CsvMapping:
        self._known(self.data, _TOP_KEYS, "the mapping")
        kind = cast("Kind", self._one_of("kind", KINDS))
        name = self._text(self.data, "name")
        if not _NAME.fullmatch(name):
            raise self._error(f"name {name!r} must be lower-case letters, digits, dots, hyphens and underscores")
        mapping = CsvMapping(
            name=name,
            kind=kind,
            fields=self._fields(kind),
            vendor_data=tuple((key, self._template(key, text)) for key, text in self._table("vendor_data").items()),
            columns=self._columns(),
            file=self._pattern(),
            delimiter=self._delimiter(),
            encoding=cast("Encoding", self._one_of("encoding", ENCODINGS, "utf-8")),
            decimal=self._one_of("decimal", (".", ","), "."),
            thousands=self._one_of("thousands", ("", ",", ".", "'", " "), ""),
            skip_lines=self._number(self.data, "skip_lines", 1000),
            leave_out=tuple(self._texts(self.data, "leave_out") or ()),
            only=self._row_values("only"),
            without=self._row_values("without"),
        )
        if mapping.decimal == mapping.thousands:
            raise self._error(f"decimal and thousands are both {mapping.decimal!r}")
        self._check_names(mapping)
        return mapping

    def _fields(self, kind: Kind) -> tuple[FieldRule, ...]:
        schema = payload_arrow_schema(v2_name(kind))
        given = self._table("fields")
        self._known(given, set(schema.names) - {GENERATED, "vendor_data"}, "[fields]")
        optional = {GENERATED, "trade_conditions", "is_active", "ingestion_timestamp"}
        missing = [one.name for one in schema if not one.nullable and one.name not in {*optional, *given}]
        if missing:
            raise self._error(f"[fields] must say where {', '.join(missing)} of a {v2_name(kind)} come from")
        enums = {one["name"]: tuple(one["type"].get("symbols", ())) for one in _complex_fields(kind)}
        rules = [self._rule(name, value, schema.field(name).type) for name, value in given.items()]
        return tuple(self._with_symbols(rule, enums.get(rule.name, ())) for rule in rules)

    def _rule(self, name: str, value: Any, data_type: pa.DataType) -> FieldRule:
        options: dict[str, Any] = {"from": value} if isinstance(value, str) else value
        if not isinstance(options, dict):
            raise self._error(f"field {name} must be a text or a table with `from`, not {value!r}")
        is_time, is_list = pa.types.is_timestamp(data_type), pa.types.is_list(data_type)
        known = _FOR_ALL | (_FOR_TIMES if is_time else set()) | (_FOR_LISTS if is_list else set())
        known |= _FOR_DECIMALS if pa.types.is_decimal(data_type) else set()
        self._known(options, known, f"field {name}")
        values = options.get("values")
        if values is not None and not _is_text_table(values):
            raise self._error(f"field {name}: `values` must be a table of texts")
        return FieldRule(
            name=name,
            template=self._template(name, options.get("from")),
            empty=self._text(options, "empty", None),
            values=None if values is None else tuple(values.items()),
            otherwise=self._text(options, "otherwise", None),
            time=self._time(name, options) if is_time else None,
            split=self._text(options, "split", None),
            drop=tuple(self._texts(options, "drop") or ()),
            scale=self._number(options, "scale", _MAX_SCALE),
        )

    def _with_symbols(self, rule: FieldRule, symbols: tuple[str, ...]) -> FieldRule:
        constant = rule.template.constant
        outcomes = [text for _, text in rule.values or ()] + ([] if rule.otherwise is None else [rule.otherwise])
        if constant is not None and rule.values is None:
            outcomes.append(constant)
        wrong = [text for text in outcomes if symbols and text not in symbols]
        if wrong:
            raise self._error(f"field {rule.name} can't be {wrong[0]!r}; it is one of {', '.join(symbols)}")
        return FieldRule(**{**{name: getattr(rule, name) for name in rule.__slots__}, "symbols": symbols})

    def _time(self, name: str, options: dict[str, Any]) -> TimeRule:
        own = {**{key: self.data[key] for key in _FOR_TIMES if key in self.data}, **options}
        formats = self._texts(own, "formats")
        if not formats:
            raise self._error(f"field {name} is a time: give `formats`, for it or for the whole mapping")
        try:
            zone, ambiguous = self._text(own, "zone", None), self._text(own, "ambiguous", "refuse")
            return TimeRule.parse(formats, zone, ambiguous, self._text(own, "finer_than_microsecond", "refuse"))
        except UsageError as error:
            raise self._error(f"field {name}: {error}") from error

    def _check_names(self, mapping: CsvMapping) -> None:
        if mapping.columns is None:
            return
        captured = set(re.compile(mapping.file or "").groupindex)
        known = {*mapping.columns, *captured, *BUILT_IN_NAMES, "symbol", "company_id"}
        unknown = sorted(mapping.names - known)
        if unknown:
            raise self._error(
                f"{{{unknown[0]}}} is neither a column nor a variable; known are {', '.join(sorted(known))}"
            )

    def _columns(self) -> tuple[str, ...] | None:
        columns = self._texts(self.data, "columns")
        if columns is None:
            return None
        check_columns(columns, f"mapping {self.where}")
        return tuple(columns)

    def _pattern(self) -> str | None:
        pattern: str | None = self._text(self.data, "file", None)
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise self._error(f"file {pattern!r} is not a regular expression: {error}") from error
        return pattern

    def _delimiter(self) -> str:
        delimiter = self._text(self.data, "delimiter", ",") or ""
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
            raise self._error(f"delimiter {delimiter!r} must be one ASCII character, and no quote or line end")
        return delimiter

    def _template(self, name: str, text: Any) -> Template:
        if not isinstance(text, str):
            raise self._error(f"field {name} needs a text that says what it comes from, not {text!r}")
        template = Template.parse(text)
        if any("{" in part or "}" in part for part in template.parts):
            raise self._error(f"field {name}: the braces in {text!r} do not match")
        return template

    def _table(self, key: str) -> dict[str, Any]:
        table = self.data.get(key, {})
        if not isinstance(table, dict):
            raise self._error(f"{key} must be a table: [{key}]")
        return table

    def _one_of(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.data.get(key, default)
        if value not in allowed:
            raise self._error(f"{key} must be one of {', '.join(allowed)}, not {value!r}")
        return str(value)

    def _text(self, table: Mapping[str, Any], key: str, *default: str | None) -> Any:
        value = table.get(key, *default)
        if not isinstance(value, str) and not (default and key not in table):
            raise self._error(f"{key} must be a text, not {value!r}")
        return value

    def _row_values(self, key: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
        rows = self._table("rows")
        self._known(rows, {"only", "without"}, "[rows]")
        values = rows.get(key, {})
        if not isinstance(values, dict):
            raise self._error(f"[rows] {key} must be a table of columns, each with a list of texts")
        return tuple((column, tuple(self._texts(values, column) or ())) for column in values)

    def _number(self, table: Mapping[str, Any], key: str, most: int) -> int:
        value = table.get(key, 0)
        if type(value) is not int or not 0 <= value <= most:
            raise self._error(f"{key} must be a number from 0 to {most}, not {value!r}")
        return value

    def _texts(self, table: Mapping[str, Any], key: str) -> list[str] | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, list) or not all(isinstance(one, str) for one in value)):
            raise self._error(f"{key} must be a list of texts, not {value!r}")
        return cast("list[str] | None", value)

    def _known(self, table: Mapping[str, Any], known: set[str], what: str) -> None:
        unknown = sorted(set(table) - known)
        if unknown:
            raise self._error(f"{what} has no {unknown[0]!r}; known are {', '.join(sorted(known))}")

    def _error(self, problem: str) -> UsageError:
        return UsageError(f"mapping {self.where}: {problem}")


def check_columns(columns: Iterable[str], where: str) -> None:
    """Raise UsageError, naming ``where``, for two columns of one name."""
    names = [name for name in columns if name]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{where}: the column {twice[0]!r} is there twice; names must differ")


def event_time(kind: Kind) -> str:
    """The field that is a kind's event time."""
    return EVENT_TIME_COLUMN[kind]


def _complex_fields(kind: Kind) -> list[dict[str, Any]]:
    return [one for one in avro_schema(v2_name(kind))["fields"] if isinstance(one["type"], dict)]


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
