"""Moved to :mod:`k2beam.stack.stack`; this name works for one more version."""

from typing import TYPE_CHECKING

from k2beam.moved import moved

if TYPE_CHECKING:
    from k2beam.stack.stack import LocalStack

__all__ = ["LocalStack"]
__getattr__ = moved("k2beam.platform.stack", "k2beam.stack.stack")
