"""What each job begins with: its tables, opened and looked at, and its configuration as all its processes have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from k2beam.job.config import IngestConfig
from k2beam.lake.adopt import check_tables
from k2beam.lake.catalog import Catalog, open_catalog
from k2beam.lake.identity import settled
from k2beam.lake.kept_schemas import keep_schemas
from k2beam.lake.patience import patient
from k2beam.lake.rules import keep_rules
from k2beam.lake.tables import COVERED_TABLES, EVENT_TABLES


def opened(config: IngestConfig, resolver: Any) -> tuple[IngestConfig, Catalog, Any]:
    """The configuration of one run, its catalog, which is waited for from now on, and the resolver that keeps schemas.

    Rules of sequences are kept with the tables. Raises as :func:`k2beam.lake.adopt.check_tables` and
    :func:`k2beam.lake.catalog.open_catalog`.
    """
    catalog, namespace = open_catalog(config.lake), config.lake.namespace
    check_tables(catalog, namespace, adopt=config.adopt)
    config = replace(config.for_one_run(), lake=settled(config.lake, catalog))
    catalog = patient(catalog)
    resolver = keep_schemas(resolver, config.lake)
    if config.sequences is not None:
        keep_rules(catalog, namespace, config.sequences)
    return config, catalog, resolver


def covering_tables(config: IngestConfig) -> Sequence[str]:
    """The tables whose offsets are not taken once more: all that have any, or those of events alone."""
    return tuple(EVENT_TABLES.values()) if config.replay_dead_letters else COVERED_TABLES
