"""Make the sample data in samples/ again: ``python scripts/make_samples.py [FOLDER]``.

The result is the same to the byte each time. The ASX archives are converted from the CSV files in
samples/asx/csv; the crypto feed is simulated.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro

from k2beam import schemas
from k2beam.ingest import asx
from k2beam.ingest.faults import parse_faults
from k2beam.ingest.simulate import Simulation, simulate
from k2beam.ingest.truth import TrueKey, TrueSource, Truth
from k2beam.model import Kind

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


def _lines(name: str, company_id: str) -> list[asx.Line]:
    file = f"asx_{name}_{company_id}.csv"
    texts = (SAMPLES / "asx" / "csv" / file).read_text("utf-8").splitlines()
    return [asx.Line(file, number, COMPANIES[company_id], company_id, text) for number, text in enumerate(texts, 1)]


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
    names = COMPANIES.items()
    lines: dict[Kind, list[asx.Line]] = {
        "trades": [line for company_id in COMPANIES for line in _lines("trades", company_id)],
        "quotes": [line for company_id in COMPANIES for line in _lines("quotes", company_id)],
    }
    company_file = SAMPLES / "asx" / "csv" / "asx_company_info.csv"
    company_lines = company_file.read_text("utf-8").splitlines()
    _write(out, "trades", map(asx.trade, lines["trades"]))
    _write(out, "quotes", map(asx.quote, lines["quotes"]))
    _write(out, "reference_data", asx.companies(company_file.name, company_lines, LOADED_AT))
    rows: dict[Kind, int] = {kind: len(found) for kind, found in lines.items()}
    rows["reference_data"] = len(company_lines) - 1
    keys = [
        TrueKey("ASX", symbol, kind, sum(line.company_id == company_id for line in found), 0, 0)
        for kind, found in lines.items()
        for company_id, symbol in names
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
