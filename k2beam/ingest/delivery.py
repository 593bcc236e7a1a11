"""Moved to :mod:`k2beam.produce.delivery`; this name works for one more version."""

from k2beam.moved import moved

__getattr__ = moved("k2beam.ingest.delivery", "k2beam.produce.delivery")
