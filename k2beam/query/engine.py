"""Moved to :mod:`k2beam.query.lake`; this name works for one more version."""

from k2beam.moved import moved

__getattr__ = moved("k2beam.query.engine", "k2beam.query.lake")
