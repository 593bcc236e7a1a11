"""Make the sample data in samples/ again: ``python scripts/make_samples.py [FOLDER]``.

The result is the same to the byte each time. The ASX archives are converted from the CSV files in
samples/asx/csv; the crypto feed is simulated.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro

from k2beam import schemas
from k2beam.csv.convert import Context, Converter
from k2beam.csv.lines import header_columns, split_lines
from k2beam.csv.mapping import load_mapping
from k2beam.errors import DecodeError
from k2beam.model import Kind
from k2beam.simulate.faults import parse_faults
from k2beam.simulate.simulate import Simulation, simulate
from k2beam.simulate.truth import TrueKey, TrueSource, Truth

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
COMPANIES = {"3153": "MWR", "7181": "DVN"}
LOADED_AT = datetime(2014, 3, 9, 13, tzinfo=UTC)
"""Midnight in Sydney before the first day of ticks."""

CRYPTO = Simulation(
    rows=6_000,
    symbols=5,
    seed=20_260_105,
    kinds=("trades", "quotes"),
    faults=parse_faults("gaps=20,duplicates=30,resets=1,late=10,out-of-order=10,malformed=18"),
    envelope="raw",
    codec="deflate",
    rate=2.0,
    partitions=3,
)


def _records(name: str, company_id: str | None = None) -> list[dict[str, Any]]:
    """The v2 records of one CSV file. Message ids rest on its name, as they have from the first samples on."""
    mapping = load_mapping(f"asx-{name}")
    file = "asx_company_info.csv" if company_id is None else f"asx_{name}_{company_id}.csv"
    lines = split_lines((SAMPLES / "asx" / "csv" / file).read_bytes())
    columns = mapping.columns or tuple(header_columns(lines.pop(0), ",", "utf-8") or ())
    variables = () if company_id is None else (("company_id", company_id), ("symbol", COMPANIES[company_id]))
    loaded_at = int(LOADED_AT.timestamp()) * 1_000_000
    converter = Converter(mapping, Context(columns, variables, file, f"ASX/{file}", loaded_at))
    converted = converter.convert(lines, 1 + mapping.header_lines)
    if converted.faults:
        raise DecodeError(f"{file}: {converted.faults[0].message}")
    records: list[dict[str, Any]] = converted.events.to_pylist(maps_as_pydicts="strict")
    return [{name: _short(value) for name, value in record.items()} for record in records]


def _short(value: Any) -> Any:
    """A decimal without the zeros that the columns have at its end, and v2 has no room for."""
    return value.normalize() if isinstance(value, Decimal) else value


def _write(folder: Path, kind: Kind, records: Iterable[dict[str, Any]]) -> None:
    path = folder / f"{kind}.avro"
    with path.open("wb") as out:
        fastavro.writer(
            out,
            schemas.avro_schema(schemas.v2_name(kind)),
            records,
            codec="deflate",
            sync_marker=hashlib.sha256(f"asx {kind}".encode()).digest()[:16],
            strict=True,
        )


def make_asx(out: Path) -> Truth:
    """Convert the CSV files; the folder ``out`` gets one container a kind and the truth."""
    out.mkdir(parents=True, exist_ok=True)
    records: dict[Kind, list[dict[str, Any]]] = {
        "trades": [record for company_id in COMPANIES for record in _records("trades", company_id)],
        "quotes": [record for company_id in COMPANIES for record in _records("quotes", company_id)],
        "reference_data": _records("reference"),
    }
    for kind, found in records.items():
        _write(out, kind, found)
    rows: dict[Kind, int] = {kind: len(found) for kind, found in records.items()}
    sequenced: tuple[Kind, ...] = ("trades", "quotes")
    keys = [
        TrueKey("ASX", symbol, kind, sum(record["symbol"] == symbol for record in records[kind]), 0, 0)
        for kind in sequenced
        for symbol in COMPANIES.values()
    ]
    truth = Truth(
        made_by={"command": "scripts/make_samples.py"},
        offsets=sum(rows.values()),
        rows={str(kind): number for kind, number in rows.items()},
        dead_letters={},
        duplicates=0,
        resets=0,
        keys=tuple(keys),
        sources=tuple(TrueSource(None, f"{kind}.avro", kind, 0, 0, number - 1) for kind, number in rows.items()),
    )
    truth.write(out)
    return truth


def main(folder: Path = SAMPLES) -> None:
    """Make both samples below ``folder``."""
    make_asx(folder / "asx")
    simulate(folder / "crypto", CRYPTO)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
