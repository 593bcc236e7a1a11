"""Moved to :mod:`k2beam.produce.delivery`; this name works for one more version."""

from typing import TYPE_CHECKING

from k2beam.moved import moved

if TYPE_CHECKING:
    from k2beam.produce.delivery import resend

__all__ = ["resend"]
__getattr__ = moved("k2beam.ingest.delivery", "k2beam.produce.delivery", {"Message": "OutgoingMessage"})
