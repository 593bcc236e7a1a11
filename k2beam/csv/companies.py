"""Symbols by company id, from a CSV file with a header line that names ``company_id`` and ``symbol``."""

from __future__ import annotations

import csv

from k2beam.errors import UsageError

_NEEDED = {"company_id", "symbol"}


def read_companies(path: str) -> dict[str, str]:
    """The symbol of each company. Raises UsageError, naming file and line, where one is missing or there are two."""
    symbols: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True, skipinitialspace=True)
            if _NEEDED.difference(rows.fieldnames or ()):
                raise UsageError(f"{path}: the first line must name the columns company_id and symbol, among others")
            for row in rows:
                company, symbol = (str(row[name] or "").strip() for name in ("company_id", "symbol"))
                if not company or not symbol or symbols.setdefault(company, symbol) != symbol:
                    raise UsageError(
                        f"{path}, line {rows.line_num}: company {company!r} must have one symbol, not {symbol!r}"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"--companies {path}: can't be read: {error}") from error
    return symbols
