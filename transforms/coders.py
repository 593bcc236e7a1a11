"""Coders of the batches, registered on import.

Beam estimates the size of elements even on fused edges, and does so by pickling a sample of them
where a type has no coder of its own. These know their size without looking at the content.
"""

from __future__ import annotations

import pickle
from typing import Any

from apache_beam import coders
from apache_beam.coders import typecoders

from k2beam.lake.rows import RowBatch
from k2beam.model import BlockBatch, DeadLetterBatch, EventBatch, RawBatch


class BatchCoder(coders.Coder):  # type: ignore[misc]
    """Pickles a batch (Arrow data goes out of it as buffers) and knows its size from ``nbytes``."""

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, protocol=5)

    def decode(self, encoded: bytes) -> Any:
        return pickle.loads(encoded)  # noqa: S301 - written by encode, between our own workers

    def estimate_size(self, value: Any) -> int:
        return int(value.nbytes)

    def is_deterministic(self) -> bool:
        return False


def register_batch_coders() -> None:
    """Register :class:`BatchCoder` for every batch type; harmless when repeated."""
    for batch_type in (RawBatch, BlockBatch, EventBatch, DeadLetterBatch, RowBatch):
        typecoders.registry.register_coder(batch_type, BatchCoder)


register_batch_coders()
