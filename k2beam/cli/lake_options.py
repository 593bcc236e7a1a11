"""The options that say which tables, shared by the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2beam.cli.output import CatalogOption, WarehouseOption, lake_config

if TYPE_CHECKING:
    from k2beam.lake.catalog import LakeConfig
    from k2beam.query.engine import Lake


@dataclass(frozen=True, slots=True)
class LakeOptions:
    """Where the tables are, as the options say; nothing is opened and pyiceberg not imported before it is asked for."""

    warehouse: str | None = None
    catalog: str | None = None

    def config(self) -> LakeConfig:
        """The configuration. Raises UsageError when both options are given."""
        return lake_config(self.warehouse, self.catalog)

    def open(self) -> Lake:
        """The lake, for reading. Raises UsageError where there is none."""
        # pyiceberg takes most of a second to import; --help must not wait for it.
        from k2beam.query.engine import Lake

        return Lake.of(self.config())


def lake_options(warehouse: WarehouseOption = None, catalog: CatalogOption = None) -> LakeOptions:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return LakeOptions(warehouse, catalog)
