"""The rows of a table as a pandas DataFrame, the newest first.

usage: python examples/dataframe.py [WAREHOUSE] [TABLE]

WAREHOUSE is the folder that ``k2beam ingest --warehouse`` wrote to (default: ``warehouse``);
TABLE is ``trades_v2`` (default), ``quotes_v2`` or another table of the namespace ``market_data``.
"""

import sys

import pandas as pd
from pyiceberg.expressions import EqualTo

from k2beam.config import LakeConfig
from k2beam.lake.catalog import open_catalog


def dataframe(warehouse: str, table: str = "trades_v2", symbol: str | None = None) -> pd.DataFrame:
    """The rows of a table of market_data, or those of one symbol; prices stay exact (``decimal.Decimal``)."""
    catalog = open_catalog(LakeConfig(warehouse=warehouse), create=False)
    scan = catalog.load_table(f"market_data.{table}").scan()
    if symbol is not None:
        scan = scan.filter(EqualTo("symbol", symbol))  # only the files that may hold the symbol are read
    return scan.to_pandas()


def main(warehouse: str = "warehouse", table: str = "trades_v2") -> None:
    frame = dataframe(warehouse, table)
    if "timestamp" in frame.columns:
        frame = frame.sort_values("timestamp", ascending=False)
    print(frame.head(10).to_string(max_cols=12))
    print(f"{len(frame):,} rows, {len(frame.columns)} columns, {frame.memory_usage(deep=True).sum() / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
