"""The options that say which tables, shared by the commands that read or write them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from k2beam.archive.files import is_uri
from k2beam.cli.durations import positive_seconds
from k2beam.config import LakeConfig, Retention
from k2beam.lake.place import check_there, warehouse_folder

if TYPE_CHECKING:
    from k2beam.archive.stores import Stores

WAREHOUSE_VARIABLE = "K2BEAM_WAREHOUSE"
DEFAULT_WAREHOUSE = "warehouse"

WarehouseOption = Annotated[
    str | None,
    typer.Option(
        "--warehouse",
        metavar="DIR",
        help=f"Folder of the tables (default: ${WAREHOUSE_VARIABLE} or ./{DEFAULT_WAREHOUSE}).",
    ),
]
CatalogOption = Annotated[
    str | None,
    typer.Option("--catalog", metavar="NAME", help="A catalog configured in pyiceberg, instead of a folder."),
]


def lake_config(warehouse: WarehouseOption = None, catalog: CatalogOption = None) -> LakeConfig:
    """Where the tables are: the options, else K2BEAM_WAREHOUSE, else ``./warehouse``.

    A group of options, for :func:`k2beam.cli.option_groups.with_options`. Raises UsageError when both are given.
    """
    if warehouse is None and catalog is None:
        warehouse = os.environ.get(WAREHOUSE_VARIABLE) or DEFAULT_WAREHOUSE
    return LakeConfig(warehouse=warehouse, catalog=catalog)


def existing_lake(warehouse: WarehouseOption = None, catalog: CatalogOption = None) -> LakeConfig:
    """The same for a command that only reads: a folder that is no warehouse is refused before anything is loaded."""
    lake = lake_config(warehouse, catalog)
    check_exists(lake)
    return lake


def archive_stores(paths: Iterable[str], catalog: str | None) -> Stores | None:
    """What opens archives that are named by a URI, with the settings of a catalog; None where there are none.

    Loaded only then: it takes a second.
    """
    if not any(map(is_uri, paths)):
        return None
    from k2beam.lake.stores import CatalogStores

    return CatalogStores(catalog)


def check_exists(lake: LakeConfig) -> None:
    """Raise UsageError for a folder that is no warehouse."""
    if lake.warehouse is not None:
        check_there(warehouse_folder(lake.warehouse))


_DEFAULT = Retention()
_KeepSnapshots = Annotated[
    int,
    typer.Option("--keep-snapshots", min=0, help="So many snapshots of each table are kept; 0 keeps all, of any age."),
]
_KeepAge = Annotated[str, typer.Option("--keep-age", help="None that is older is kept, but the current one.")]


def snapshot_retention(
    keep_snapshots: _KeepSnapshots = _DEFAULT.snapshots, keep_age: _KeepAge = "7d"
) -> Retention | None:
    """Which snapshots stay in a table; None for all. Tags and branches always do.

    A group of options, for :func:`k2beam.cli.option_groups.with_options`. Raises UsageError for what is no duration.
    """
    age = positive_seconds(keep_age, "--keep-age")
    return Retention(keep_snapshots, age) if keep_snapshots else None
