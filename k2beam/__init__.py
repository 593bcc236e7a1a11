"""k2beam: market data from Kafka or archives through Apache Beam into Apache Iceberg, exactly once.

What is meant to be used from Python is here, and is loaded when it is first asked for: ``import k2beam`` alone
imports neither Beam nor Iceberg.

    >>> from k2beam import SequenceTracker
    >>> SequenceTracker().check_sequence("BINANCE", "BTCUSDT", 1, 0).classification.name
    'OK'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from k2beam.version import RELEASE

if TYPE_CHECKING:
    from k2beam.config import LakeConfig, Retention, RetryPolicy, WriteConfig
    from k2beam.errors import K2BeamError
    from k2beam.job.bounded import run_ingest
    from k2beam.job.config import IngestConfig, LiveConfig
    from k2beam.job.dead_letters import preview_dead_letters, replay_dead_letters
    from k2beam.job.live import run_live
    from k2beam.kafka.config import KafkaConfig
    from k2beam.metrics.config import MetricsConfig
    from k2beam.produce.producer import MarketDataProducer
    from k2beam.query.lake import Lake
    from k2beam.query.selections import DeadLetterSelection, EventSelection
    from k2beam.registry.config import RegistryConfig
    from k2beam.registry.resolver import RegistryResolver
    from k2beam.sequence.tracker import SequenceTracker

__version__ = RELEASE

__all__ = [
    "DeadLetterSelection",
    "EventSelection",
    "IngestConfig",
    "K2BeamError",
    "KafkaConfig",
    "Lake",
    "LakeConfig",
    "LiveConfig",
    "MarketDataProducer",
    "MetricsConfig",
    "RegistryConfig",
    "RegistryResolver",
    "Retention",
    "RetryPolicy",
    "SequenceTracker",
    "WriteConfig",
    "__version__",
    "preview_dead_letters",
    "replay_dead_letters",
    "run_ingest",
    "run_live",
]

_HOMES = {
    "DeadLetterSelection": "k2beam.query.selections",
    "EventSelection": "k2beam.query.selections",
    "IngestConfig": "k2beam.job.config",
    "K2BeamError": "k2beam.errors",
    "KafkaConfig": "k2beam.kafka.config",
    "Lake": "k2beam.query.lake",
    "LakeConfig": "k2beam.config",
    "LiveConfig": "k2beam.job.config",
    "MarketDataProducer": "k2beam.produce.producer",
    "MetricsConfig": "k2beam.metrics.config",
    "RegistryConfig": "k2beam.registry.config",
    "RegistryResolver": "k2beam.registry.resolver",
    "Retention": "k2beam.config",
    "RetryPolicy": "k2beam.config",
    "SequenceTracker": "k2beam.sequence.tracker",
    "WriteConfig": "k2beam.config",
    "preview_dead_letters": "k2beam.job.dead_letters",
    "replay_dead_letters": "k2beam.job.dead_letters",
    "run_ingest": "k2beam.job.bounded",
    "run_live": "k2beam.job.live",
}


def __getattr__(name: str) -> object:
    """Load a public name. Raises AttributeError for one that there is not."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'k2beam' has no attribute {name!r}")
    found: object = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
