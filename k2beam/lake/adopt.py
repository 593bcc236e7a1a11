"""Looks at the tables before a job reads anything, and takes over those that another program has made."""

from __future__ import annotations

import contextlib

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from k2beam.config import LakeConfig
from k2beam.coverage import Coverage
from k2beam.errors import LakeError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.offsets import count_offsets
from k2beam.lake.scan import find_readable, partition_value, plan_files, stop_at_unreadable, table_name
from k2beam.lake.tables import (
    COVERED_TABLES,
    EVENT_TABLES,
    PROPERTIES,
    RETRIES,
    SPECS,
    open_table,
    own_types,
    stored_schema,
    verified,
)
from k2beam.model import Kind

_UNPLACED = "_source is null or _partition is null or _offset is null"


def check_tables(catalog: Catalog, namespace: str, *, adopt: bool = False) -> None:
    """See that each table of a namespace that is there can be written to, by its columns, partitioning and properties.

    With ``adopt`` a table without k2beam's properties is given them in one commit. So are columns that may be null and
    that it lacks, and the coverage of rows that it has. Its own partition spec, order and other columns stay.
    Raises LakeError for a table that can't be written to, with what to do, and for rows that don't tell their offset.
    """
    for name in SPECS:
        if adopt:
            with contextlib.suppress(NoSuchTableError):
                _adopt(catalog.load_table((namespace, name)))
        table = find_readable(catalog, namespace, name)
        if table is not None:
            verified(table)


def event_columns(lake: LakeConfig) -> dict[Kind, pa.Schema]:
    """The columns of the event tables that there are. Raises as opening them does."""
    catalog, namespace = open_catalog(lake), lake.namespace
    made = {kind: name for kind, name in EVENT_TABLES.items() if find_readable(catalog, namespace, name) is not None}
    return {kind: stored_schema(open_table(catalog, namespace, name)) for kind, name in made.items()}


def exchanges_of(lake: LakeConfig, kind: Kind) -> set[str]:
    """The exchanges that a table of events has folders for. Raises as opening it does."""
    table = find_readable(open_catalog(lake), lake.namespace, EVENT_TABLES[kind])
    if table is None:
        return set()
    return {partition_value(table, task, "exchange") for task in plan_files(table)} - {None}


def _adopt(table: Table) -> None:
    if table.properties.get(RETRIES) == "0":
        return
    spec = SPECS[table.name()[-1]].schema
    lacking = [field.name for field in spec if field.name not in table.schema().column_names]
    if needed := [name for name in lacking if not spec.field(name).nullable]:
        raise LakeError(
            f"table {table_name(table)} can't be taken over: it has no {', '.join(needed)}, which no row is without"
        )
    with table.transaction() as transaction:
        if table.format_version < 2:
            transaction.upgrade_table_version(2)
        with transaction.update_schema() as update:
            for name in lacking:
                update.add_column(name, own_types(table.name()[-1])[name])
        wanted = {key: value for key, value in PROPERTIES.items() if key not in table.properties}
        transaction.set_properties({**wanted, RETRIES: "0", **_coverage(table)})


def _coverage(table: Table) -> dict[str, str]:
    """The coverage of the rows that a table has already."""
    name = table.name()[-1]
    if name not in COVERED_TABLES or table.current_snapshot() is None:
        return {}
    without = table.scan(_UNPLACED, selected_fields=("_offset",), limit=1).to_arrow()
    if without.num_rows:
        raise LakeError(
            f"table {table_name(table)} can't be taken over: it has rows without _source, _partition and _offset, by "
            "which messages are told apart. Move them to another table first"
        )
    return Coverage(count_offsets(table, name, stop_at_unreadable).offsets).to_properties()
