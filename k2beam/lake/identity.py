"""Whether a worker has opened the warehouse that its job was started with.

A worker of a cluster runs on another machine, or in another folder: the same path may lead it into a warehouse of its
own, and the same name of a catalog to another server. Rows would be written there, and nobody would miss them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace

from pyiceberg.catalog import Catalog

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.lake.place import warehouse_folder
from k2beam.lake.tables import DEAD_LETTERS, find_table, open_table


def settled(config: LakeConfig, catalog: Catalog) -> LakeConfig:
    """The same place for every process of a job: an absolute path, and the identity of what ``catalog`` opened.

    That is the UUID (Iceberg table spec, ``table-uuid``) of its dead letters, which are made where they are not there.
    """
    folder = None if config.warehouse is None else str(warehouse_folder(config.warehouse))
    table = open_table(catalog, config.namespace, DEAD_LETTERS)
    return replace(config, warehouse=folder, identity=str(table.metadata.table_uuid))


def same_catalog(config: LakeConfig, opened: Callable[[], Catalog]) -> Catalog:
    """What ``opened`` gives. Raises UsageError, naming this machine and folder, where it is another warehouse."""
    try:
        catalog = opened()
    except UsageError as error:
        raise UsageError(f"{_here()} can't open what its job writes to: {error}") from error
    table = find_table(catalog, config.namespace, DEAD_LETTERS)
    if table is None or str(table.metadata.table_uuid) != config.identity:
        raise UsageError(
            f"{_here()} has another {config.describe()} than the job was started with; nothing was written there. "
            "Give the workers the same storage at the same path, or the same configuration of the catalog"
        )
    return catalog


def _here() -> str:
    return f"a worker on {socket.gethostname()}, in {os.getcwd()},"
