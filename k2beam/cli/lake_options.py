"""The options that say which tables, shared by the commands that read or write them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from k2beam.config import LakeConfig

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
