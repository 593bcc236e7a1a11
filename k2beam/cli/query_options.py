"""The options that the commands ``k2beam query …`` share, and how they give lists of objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2beam.cli.names import ExchangeOption, SymbolOption, split_names
from k2beam.cli.output import OutputFormat, emit_rows
from k2beam.query.selections import AsOf, EventSelection

if TYPE_CHECKING:
    from k2beam.query.lake import Lake

_FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="First event time (ISO 8601; UTC unless it has an offset).")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Event time before which the rows end.")]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME|TAG|ID", help="The tables as they were: a time, a tag or a snapshot id."),
]
MomentOption = Annotated[str | None, typer.Option("--as-of", metavar="TIME|TAG", help="The tables as they were then.")]
DuplicatesOption = Annotated[
    bool, typer.Option("--with-duplicates", help="Keep every copy of a message, not only the first.")
]
_ShowOption = Annotated[
    bool, typer.Option("--show-snapshot", help="Say on standard error which snapshot of each table is read.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=0, help="At most so many rows.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", metavar="A,B,…", help="Only these columns, in this order.")
]


@dataclasses.dataclass(frozen=True, slots=True)
class EventOptions:
    """How many of the rows and what of them, as the options say."""

    limit: int | None
    with_duplicates: bool
    columns: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """As of when the tables are read, and whether to say which snapshots these are."""

    as_of: str | None
    show: bool

    def select(self, selection: EventSelection, lake: Lake, *tables: str) -> EventSelection:
        """The selection as of the moment, for queries of ``tables``."""
        return dataclasses.replace(selection, as_of=self.of(lake, *tables))

    def of(self, lake: Lake, *tables: str) -> AsOf | None:
        """The moment for queries of ``tables``; said on standard error, it is the snapshots that were said."""
        if not self.show:
            return self.as_of
        found = lake.snapshots(self.as_of, tables)
        for name in tables:
            number = found.ids.get(name)
            typer.echo(f"{name}: " + ("nothing written yet" if number is None else f"snapshot {number}"), err=True)
        return found


def moment_options(as_of: AsOfOption = None, show_snapshot: _ShowOption = False) -> Moment:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return Moment(as_of, show_snapshot)


def selection_options(
    symbol: SymbolOption = None, exchange: ExchangeOption = None, start: _FromOption = None, end: ToOption = None
) -> EventSelection:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return EventSelection(split_names(symbol, "--symbol"), split_names(exchange, "--exchange"), start, end)


def event_options(
    limit: LimitOption = None,
    with_duplicates: DuplicatesOption = False,
    columns: ColumnsOption = None,
) -> EventOptions:
    """The same."""
    named = columns.split(",") if columns else ()
    return EventOptions(limit, with_duplicates, tuple(name.strip() for name in named if name.strip()))


@dataclasses.dataclass(frozen=True, slots=True)
class Completeness:
    """Whether rows say if they are complete, and whether only complete ones are given."""

    told: bool
    strict: bool

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that are read to tell."""
        from k2beam.lake.tables import SEQUENCE_GAPS

        return (SEQUENCE_GAPS,) if self.told or self.strict else ()


def completeness_options(
    completeness: Annotated[
        bool, typer.Option("--completeness", help="Say of each row whether open gaps may be in its time.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Give no answer, and end with 1, where a gap may be in it.")
    ] = False,
) -> Completeness:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return Completeness(completeness, strict)


def emit_all(row_type: type[Any], rows: Iterable[Any], output: OutputFormat) -> None:
    """Rows of a dataclass; its fields are the columns, so that an empty result has them too."""
    columns = [field.name for field in dataclasses.fields(row_type)]
    emit_rows(columns, ([getattr(row, column) for column in columns] for row in rows), output)
