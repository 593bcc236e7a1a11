"""Options that name several things: given more than once, or as a list with commas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from k2beam.errors import UsageError

SymbolOption = Annotated[
    list[str] | None,
    typer.Option(
        "--symbol",
        metavar="A,B,…",
        help="Only these symbols, exactly as they are stored; may be repeated. A comma in a name is written \\,",
    ),
]
ExchangeOption = Annotated[
    list[str] | None,
    typer.Option("--exchange", metavar="A,B,…", help="Only these exchanges; may be repeated."),
]

_BETWEEN = re.compile(r"(?<!\\),")


def split_names(given: Iterable[str] | None, option: str) -> tuple[str, ...] | None:
    """All names of an option, each once, in the order given; None where it was not given.

    Raises UsageError for an empty name: a shell's empty variable must not mean everything.
    """
    if given is None:
        return None
    parts = [part.strip() for text in given for part in _BETWEEN.split(text)]
    if not all(parts):
        raise UsageError(f"{option} has an empty name in it; write {option} A,B or {option} A {option} B")
    return tuple(dict.fromkeys(part.replace("\\,", ",") for part in parts)) or None
