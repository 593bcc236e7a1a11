"""Moved to :mod:`k2beam.produce.producer`; this name works for one more version."""

from typing import TYPE_CHECKING

from k2beam.moved import moved

if TYPE_CHECKING:
    from k2beam.produce.producer import MarketDataProducer

__all__ = ["MarketDataProducer"]
__getattr__ = moved("k2beam.ingest.producer", "k2beam.produce.producer", {"Message": "OutgoingMessage"})
