"""Moved to :mod:`k2beam.query.lake`; this name works for one more version."""

from typing import TYPE_CHECKING

from k2beam.moved import moved

if TYPE_CHECKING:
    from k2beam.query.lake import Lake

__all__ = ["Lake"]
__getattr__ = moved("k2beam.query.engine", "k2beam.query.lake", {"Selection": "EventSelection"})
