"""Moved to :mod:`k2beam.produce.producer`; this name works for one more version."""

from k2beam.moved import moved

__getattr__ = moved("k2beam.ingest.producer", "k2beam.produce.producer")
