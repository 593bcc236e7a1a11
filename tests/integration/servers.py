"""Servers of the local stack for as long as a fixture lasts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from k2beam.errors import PlatformError
from k2beam.stack.stack import LocalStack


@contextmanager
def servers_up(stack: LocalStack, what: str, ended: Sequence[str] = ()) -> Iterator[LocalStack]:
    """The stack, started; at the end those that are named end, or else all. Skips where ``what`` can't be had."""
    try:
        stack.up()
    except PlatformError as error:
        pytest.skip(f"no {what}: {error}")
    try:
        yield stack
    finally:
        stack.down(ended)
