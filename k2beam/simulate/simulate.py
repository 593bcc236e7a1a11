"""Makes a feed of crypto trades and quotes as Avro archives, with known faults and the true answer.

The same settings give the same bytes, on any machine with the same compressor versions.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from k2beam import schemas
from k2beam.archive import cells
from k2beam.errors import UsageError
from k2beam.model import Kind
from k2beam.simulate import market
from k2beam.simulate.faults import DUPLICATE, FIRST_MALFORMED, MALFORMED_RECORDS, FaultPlan, Faults, plan_faults
from k2beam.simulate.records import EnvelopeEncoder, RecordEncoder
from k2beam.simulate.truth import TRUTH_FILE, TrueGap, TrueKey, TrueSource, Truth

Envelope = Literal["plain", "raw"]

_SCHEMA_IDS: dict[Kind, int] = {"trades": 1, "quotes": 2}
_ENCODE_MESSAGES = 8_192


@dataclass(frozen=True, slots=True)
class Simulation:
    """What to make.

    ``rows`` is the number of messages (offsets) in all, over both kinds, duplicates and malformed
    ones included. ``files`` is containers a kind. ``start`` is in microseconds UTC, ``rate`` in messages a
    second of event time and kind. Raises UsageError for settings that can't be met.

    Examples:
        >>> from k2beam.simulate.faults import Faults
        >>> from k2beam.simulate.simulate import Simulation
        >>> feed = Simulation(rows=1000, kinds=("trades", "quotes"), faults=Faults(gaps=4, duplicates=3))
        >>> rows, faults = feed.share("trades")
        >>> rows, faults.gaps, faults.duplicates
        (500, 2, 2)
    """

    rows: int
    symbols: int = 5
    seed: int = 0
    kinds: tuple[Kind, ...] = ("trades",)
    faults: Faults = field(default_factory=Faults)
    envelope: Envelope = "raw"
    files: int = 1
    codec: cells.Codec = "deflate"
    start: int = 1_767_571_200_000_000
    rate: float = 500.0
    exchange: str = "BINANCE"
    partitions: int = 4

    def __post_init__(self) -> None:
        for name in ("rows", "symbols", "files", "partitions", "rate"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name} must be above 0, not {getattr(self, name)}")
        if self.start < 0 or self.seed < 0:
            raise UsageError("--start must not be before 1970 and --seed not below 0")
        self._check_choices()
        if self.rows < self.files * len(self.kinds):
            raise UsageError(f"--rows {self.rows} is fewer than the containers asked for: lower --files {self.files}")
        bad = sorted(set(self.faults.malformed) - set(MALFORMED_RECORDS))
        if self.envelope == "plain" and bad:
            raise UsageError(
                f"a plain container can't hold payloads that are {', '.join(bad)}: use --envelope raw, or name the"
                f" classes that are in the values, such as {MALFORMED_RECORDS[0]}=3 ({', '.join(MALFORMED_RECORDS)})"
            )

    def _check_choices(self) -> None:
        if not self.kinds or len(set(self.kinds)) < len(self.kinds) or not set(self.kinds) <= set(_SCHEMA_IDS):
            raise UsageError(f"--kinds takes trades, quotes or both, each once, not {','.join(self.kinds)!r}")
        if self.codec not in cells.CONTAINER_CODECS:
            raise UsageError(f"--codec takes {', '.join(cells.CONTAINER_CODECS)}, not {self.codec!r}")
        if self.envelope not in ("plain", "raw"):
            raise UsageError(f"--envelope takes plain or raw, not {self.envelope!r}")

    def share(self, kind: Kind) -> tuple[int, Faults]:
        """Messages and faults of one kind: even shares, the first kind gets what does not divide."""
        part, parts = self.kinds.index(kind), len(self.kinds)
        rows = self.rows // parts + (part < self.rows % parts)
        return rows, self.faults.share(part, parts)

    @property
    def end(self) -> int:
        """No event is later than this (microseconds UTC), malformed ones left out."""
        return self.start + int(self.rows * max(2.0, 2_000_000 / self.rate))


def simulate(out: Path, simulation: Simulation, progress: Callable[[int], None] = lambda rows: None) -> Truth:
    """Write ``{kind}-{number}.avro`` and then ``truth.json`` into the folder ``out``; returns the truth.

    ``progress`` is called with numbers of messages written. Memory does not depend on ``rows``.
    Containers of an earlier simulation in ``out`` are removed; nothing else is touched.

    Examples:
        >>> from pathlib import Path
        >>> from k2beam.simulate.faults import Faults
        >>> from k2beam.simulate.simulate import Simulation, simulate
        >>> faults = Faults(gaps=2, duplicates=3, malformed=("bad_magic",))
        >>> truth = simulate(Path("feed"), Simulation(rows=500, faults=faults))
        >>> truth.rows, truth.duplicates, len(truth.gaps), truth.dead_letters
        ({'trades': 499}, 3, 2, {'bad_magic': 1})
        >>> sorted(path.name for path in Path("feed").iterdir())
        ['trades-00001.avro', 'truth.json']
    """
    feeds = [_Feed(simulation, kind) for kind in simulation.kinds]
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("trades-*.avro"), *out.glob("quotes-*.avro"), out / TRUTH_FILE]:
        old.unlink(missing_ok=True)
    for one in feeds:
        one.write(out, progress)
    truth = _truth(simulation, feeds)
    truth.write(out)
    return truth


class _Feed:
    """One kind's feed: its plan, its writing and its share of the truth."""

    def __init__(self, simulation: Simulation, kind: Kind) -> None:
        self.simulation, self.kind = simulation, kind
        self.rows, self.faults = simulation.share(kind)
        self.symbols = tuple(market.symbol_names(simulation.symbols))
        self.events = self.rows - self.faults.extra_messages
        plan_seed, self._feed_seed = np.random.SeedSequence([simulation.seed, _SCHEMA_IDS[kind]]).spawn(2)
        rng = np.random.Generator(np.random.PCG64(plan_seed))
        self.plan: FaultPlan = plan_faults(self.faults, self.events, simulation.symbols, rng)
        self.good = np.zeros(simulation.symbols, np.int64)
        self.again = np.zeros(simulation.symbols, np.int64)
        self.next_offsets = np.zeros(simulation.partitions, np.int64)
        keys = [f"{simulation.exchange}|{symbol}".encode() for symbol in self.symbols]
        # librdkafka's "consistent" partitioner.
        self._partition_of = np.array([zlib.crc32(key) % simulation.partitions for key in keys])
        topic_id = base64.urlsafe_b64encode(self._digest("topic")).decode().rstrip("=")
        topic = f"market.crypto.{kind}.{simulation.exchange.lower()}"
        self.source = f"kafka:simulated/{topic}/{topic_id}"
        self._encoder = RecordEncoder(kind, simulation.exchange, self.symbols)
        self._log_time = 0

    @property
    def files(self) -> list[tuple[str, int]]:
        """Names of the containers and how many messages each holds."""
        number = self.simulation.files
        names = [f"{self.kind}-{index + 1:05d}.avro" for index in range(number)]
        return [(name, self.rows // number + (i < self.rows % number)) for i, name in enumerate(names)]

    def write(self, out: Path, progress: Callable[[int], None]) -> None:
        """Write the containers into ``out``."""
        pieces = self._pieces()
        rest = np.empty(0, market.MESSAGE)
        for name, number in self.files:
            with self._open(out / name) as container:
                left = number
                while left:
                    rest = rest if len(rest) else next(pieces)
                    batch, rest = rest[:left], rest[left:]
                    container.write(self._encode(batch))
                    left -= len(batch)
                    progress(len(batch))

    def _pieces(self) -> Iterator[market.Messages]:
        simulation = self.simulation
        config = market.FeedConfig(self.events, simulation.symbols, simulation.start, simulation.rate)
        rng = np.random.Generator(np.random.PCG64(self._feed_seed))
        for chunk in market.messages(config, self.plan, rng):
            fault = chunk["fault"]
            self.good += np.bincount(chunk["key"][fault < FIRST_MALFORMED], minlength=simulation.symbols)
            self.again += np.bincount(chunk["key"][fault == DUPLICATE], minlength=simulation.symbols)
            for start in range(0, len(chunk), _ENCODE_MESSAGES):
                yield chunk[start : start + _ENCODE_MESSAGES]

    def _open(self, path: Path) -> contextlib.AbstractContextManager[cells.ContainerWriter]:
        schema = schemas.avro_schema(schemas.v2_name(self.kind))
        metadata: dict[str, Any] = {}
        if self.simulation.envelope == "raw":
            metadata["k2.schemas"] = {str(_SCHEMA_IDS[self.kind]): schema}
            schema = schemas.avro_schema("raw_record")
        return cells.ContainerWriter(path, schema, self.simulation.codec, self._digest(path.name), metadata)

    def _encode(self, batch: market.Messages) -> cells.Cells:
        if self.simulation.envelope == "plain":
            return self._encoder.encode(batch)
        partitions = self._partition_of[batch["key"]]
        offsets = np.empty(len(batch), np.int64)
        for partition in range(self.simulation.partitions):
            mine = partitions == partition
            taken = int(np.count_nonzero(mine))
            offsets[mine] = self.next_offsets[partition] + np.arange(taken)
            self.next_offsets[partition] += taken
        log_times = np.maximum(np.maximum.accumulate(batch["ingestion"]), self._log_time)
        self._log_time = int(log_times[-1])
        encoder = EnvelopeEncoder(self._encoder, self.source, _SCHEMA_IDS[self.kind])
        return encoder.encode(batch, partitions, offsets, log_times)

    def _digest(self, what: str) -> bytes:
        settings = f"{self.simulation!r} {self.kind} {what}"
        return hashlib.sha256(settings.encode()).digest()[:16]

    def true_gaps(self) -> Iterator[TrueGap]:
        exchange = self.simulation.exchange
        for gap in self.plan.gaps:
            yield TrueGap(exchange, self.symbols[gap.key], self.kind, gap.epoch, gap.first_missing, gap.last_missing)

    def true_keys(self) -> Iterator[TrueKey]:
        resets = Counter(self.plan.resets)
        for key, symbol in enumerate(self.symbols):
            if self.good[key]:
                rows, again = int(self.good[key]), int(self.again[key])
                yield TrueKey(self.simulation.exchange, symbol, self.kind, rows, again, resets[key])

    def true_sources(self) -> Iterator[TrueSource]:
        if self.simulation.envelope == "plain":
            for name, number in self.files:
                yield TrueSource(None, name, self.kind, 0, 0, number - 1)
            return
        for partition, end in enumerate(self.next_offsets.tolist()):
            if end:
                yield TrueSource(self.source, None, self.kind, partition, 0, end - 1)


def _truth(simulation: Simulation, feeds: list[_Feed]) -> Truth:
    made_by = {"command": "simulate", **asdict(simulation), "faults": asdict(simulation.faults)}
    made_by["faults"]["malformed"] = len(simulation.faults.malformed)
    return Truth(
        made_by=made_by,
        offsets=sum(one.rows for one in feeds),
        rows={one.kind: one.rows - len(one.faults.malformed) for one in feeds},
        dead_letters=dict(sorted(Counter(simulation.faults.malformed).items())),
        duplicates=simulation.faults.duplicates,
        resets=simulation.faults.resets,
        gaps=tuple(gap for one in feeds for gap in one.true_gaps()),
        keys=tuple(key for one in feeds for key in one.true_keys()),
        sources=tuple(source for one in feeds for source in one.true_sources()),
    )
