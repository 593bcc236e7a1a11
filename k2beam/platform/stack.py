"""Moved to :mod:`k2beam.stack.stack`; this name works for one more version."""

from k2beam.moved import moved

__getattr__ = moved("k2beam.platform.stack", "k2beam.stack.stack")
