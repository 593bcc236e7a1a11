"""Row filters as pyiceberg expressions; values are compared as they are, never parsed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import reduce
from typing import Any

from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, In


def term(predicate: Any, column: str, value: object) -> BooleanExpression:
    """One comparison, such as ``term(LessThan, "timestamp", text)``."""
    # pyiceberg's predicates are pydantic models whose positional form type checkers don't see.
    expression: BooleanExpression = predicate(column, value)
    return expression


def all_of(terms: list[BooleanExpression]) -> BooleanExpression:
    """All of the terms; everything where there is none."""
    everything: BooleanExpression = AlwaysTrue()
    return reduce(And, terms, everything)


def equal(values: Mapping[str, object | None]) -> list[BooleanExpression]:
    """A term for each column that has a value."""
    return [term(EqualTo, column, value) for column, value in values.items() if value is not None]


def any_of(values: Mapping[str, Collection[str]]) -> list[BooleanExpression]:
    """A term for each column of which there are values: it has one of them."""
    return [term(In, column, set(found)) for column, found in values.items() if found]
