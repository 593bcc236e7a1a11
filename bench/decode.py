"""Decoding framed messages: the decoders beside fastavro alone, one message at a time into dicts.

fastavro alone neither checks nor makes columns; the reference decoder does both over fastavro; the columnar decoder
is the one that runs. The batch path is framing, decoding and provenance, as the transform calls it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.codec.batches import BatchDecoder
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.codec.frame import HEADER_BYTES
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import Decoder, WriterSchema
from k2beam.model import RawBatch
from k2beam.simulate.simulate import Simulation, simulate

ROWS = 50_000
ROUNDS = 5


def decode(scratch: Path) -> list[dict[str, Any]]:
    """Rows a second of 50,000 trades (the best of five rounds, taken in turn), and their ratios to fastavro alone."""
    batch = _messages(scratch / "decode")
    payloads = batch.data.column("value")
    text = dict(batch.schemas)[1]
    schema, parsed = WriterSchema.parse(text), fastavro.parse_schema(json.loads(text))
    values = payloads.to_pylist()
    runs = {
        "decode: fastavro alone": lambda: _fastavro(values, parsed),
        "decode: reference": _decoding(ReferenceDecoder(), payloads, schema),
        "decode: columnar": _decoding(ColumnarDecoder(), payloads, schema),
        "batch path: reference": _batches(ReferenceDecoder(), batch),
        "batch path: columnar": _batches(ColumnarDecoder(), batch),
    }
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for what, run in runs.items():
            best[what] = min(best[what], _seconds(run))
    floor = best["decode: fastavro alone"]
    return [
        {
            "what": what,
            "rows": len(payloads),
            "value": round(len(payloads) / seconds),
            "unit": "rows/s",
            "ratio": round(floor / seconds, 2),
            "beside": "fastavro alone",
        }
        for what, seconds in best.items()
    ]


def _messages(folder: Path) -> RawBatch:
    simulate(folder, Simulation(rows=ROWS, symbols=50, seed=1, envelope="raw"))
    reader = ArchiveReader(rows_per_batch=ROWS, bytes_per_batch=1 << 30)
    plan = plan_archive(str(next(folder.glob("*.avro"))))
    batches = [batch for chunk in plan.chunks for batch in reader.read(chunk) if isinstance(batch, RawBatch)]
    return max(batches, key=lambda batch: batch.num_rows)


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _fastavro(values: list[bytes], schema: Any) -> list[Any]:
    return [fastavro.schemaless_reader(io.BytesIO(value[HEADER_BYTES:]), schema, None) for value in values]


def _decoding(decoder: Decoder, payloads: pa.BinaryArray, schema: WriterSchema) -> Callable[[], Any]:
    return lambda: decoder.decode(payloads, HEADER_BYTES, schema)


def _batches(decoder: Decoder, batch: RawBatch) -> Callable[[], Any]:
    decoding = BatchDecoder(decoder, lambda: 0)
    return lambda: decoding.decode(batch)
