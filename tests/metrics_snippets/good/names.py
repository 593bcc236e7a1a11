"""Constants for the other snippets."""

from __future__ import annotations

DECODED = "k2_events_decoded_total"
PRODUCED_LABELS = {"exchange": "ASX", "asset_class": "equities", "topic": "t"}


class Names:
    ERRORS = "k2_decode_errors_total"
