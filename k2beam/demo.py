"""The whole live path once, on this machine: servers up, messages in, tables out, everything checked, servers down."""

from __future__ import annotations

import signal
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from k2beam.audit.audit import audit
from k2beam.audit.report import AuditReport
from k2beam.config import LakeConfig, WriteConfig
from k2beam.errors import RegistryError, UsageError
from k2beam.job.config import IngestConfig, LiveConfig, Reader
from k2beam.job.live import run_live
from k2beam.job.stats import IngestStats
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.count import topics_as_source
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES
from k2beam.model import KINDS, Gap
from k2beam.produce.republish import (
    ArchivedMessage,
    archived_messages,
    archived_schemas,
    register_schemas,
    republish,
)
from k2beam.query.dead_letters import list_dead_letters
from k2beam.query.lake import Lake
from k2beam.query.overview import list_snapshots
from k2beam.query.selections import DEAD_LETTER_COLUMNS, DeadLetterSelection, EventSelection
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.resolver import RegistryResolver
from k2beam.registry.subjects import candidates, register
from k2beam.simulate.faults import Faults
from k2beam.simulate.simulate import Simulation, simulate
from k2beam.simulate.truth import TRUTH_FILE, Truth, read_truth
from k2beam.stack.prism import ensure_prism
from k2beam.stack.stack import LocalStack

_SERVICES: Final = {
    Reader.BEAM: ("kafka", "registry", "expansion"),
    Reader.LIBRDKAFKA: ("kafka", "registry"),
}

_COMMIT_AGE_S: Final = 1.0
_SCRAPE_S: Final = 10.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What goes through: the raw_record containers of ``source``, or a feed of ``rows`` messages made with ``faults``.

    ``keep`` is a new or empty folder in which the feed, the tables and the servers' logs stay; without it they go away.
    ``reader`` is what reads the topics.
    """

    rows: int = 6000
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    source: Path | None = None
    keep: Path | None = None
    reader: Reader = Reader.LIBRDKAFKA

    def __post_init__(self) -> None:
        if self.source is not None and not self.source.is_dir():
            raise UsageError(f"--source {self.source} is not a folder of raw_record containers")
        if self.keep is not None and self.keep.exists() and (not self.keep.is_dir() or any(self.keep.iterdir())):
            raise UsageError(f"--keep {self.keep} is not an empty folder: name a new one")


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the run did, and whether all of it is right; ``problems`` is empty exactly when ``ok``.

    ``produced`` and ``consumed`` are messages; ``written`` (by table), ``dead_letters``, ``queried`` (by kind) and
    ``metrics`` (by table, as scraped) are rows; ``gaps`` are open gaps, ``sequence`` messages by class. ``duration_s``
    and ``throughput_per_s`` are of the ingest alone, the job's start included. ``commits`` has the number of snapshots,
    when the first and the last were committed (ISO 8601), and the shortest, longest and mean time that a commit took
    (milliseconds). ``truth`` says whether there was a true answer to compare with.
    """

    ok: bool
    problems: tuple[str, ...]
    truth: bool
    produced: int
    consumed: int
    written: dict[str, int]
    errors: int
    dead_letters: int
    gaps: int
    sequence: dict[str, int]
    duration_s: float
    throughput_per_s: float
    commits: dict[str, Any]
    snapshots: dict[str, list[int]]
    queried: dict[str, int]
    metrics: dict[str, int]
    metrics_ok: bool
    audit_ok: bool


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the metrics say: rows written by table."""

    rows: Counter[str]

    @classmethod
    def parse(cls, exposition: str) -> Scrape:
        """Read a text of Prometheus' exposition format, summed over all labels but the table."""
        rows: Counter[str] = Counter()
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                if sample.name == "k2_rows_written_total":
                    rows[sample.labels["table"]] += int(sample.value)
        return cls(rows)

    def since(self, before: Scrape) -> Scrape:
        """What was added since an earlier scrape of the same process."""
        return Scrape(self.rows - before.rows)


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the tables by a query, and what else there is to judge a run by."""

    stats: IngestStats
    rows: Mapping[str, int]
    dead_letters: Mapping[str, int]
    gaps: tuple[Gap, ...]
    metrics: Scrape
    audit_report: AuditReport


def run_demo(config: DemoConfig, tell: Tell = lambda step: None) -> DemoReport:
    """Run everything; ``tell`` gets a line for each step. The servers end whatever happens, SIGTERM included.

    Exactly once, as :func:`k2beam.job.live.run_live`. Raises K2BeamError (PlatformError, KafkaFailed, …) for what
    can't be done; what was done and is wrong is in the report. Only for the main thread, since it handles signals.
    """
    with ExitStack() as cleanup:
        cleanup.enter_context(_terminable())
        folder = config.keep or Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="k2beam-demo-")))
        source, truth = _feed(config, folder, tell)
        schemas, messages = archived_schemas(source), archived_messages(source)
        tell("Looking for Prism (the first time it is built: about two minutes)")
        prism = ensure_prism()
        services = _SERVICES[config.reader]
        tell(f"Starting {', '.join(services)}")
        cleanup.callback(tell, "Servers ended")
        stack = cleanup.enter_context(LocalStack(folder / "stack", services))
        report = _through(config.reader, stack, schemas, messages, truth, folder / "warehouse", prism, tell)
        tell("Ending the servers")
    return report


def audit_topics(lake: LakeConfig, bootstrap: str, topics: list[str]) -> AuditReport:
    """The audit of a lake, its sources counted at the broker; nothing is mended."""
    catalog = open_catalog(lake, create=False)
    counted = topics_as_source(catalog, lake.namespace, KafkaConfig(bootstrap), topics)
    return audit(catalog, lake.namespace, counted=(counted,), mend=False)


def judge(found: Found, produced: int, truth: Truth | None) -> tuple[str, ...]:
    """What is wrong with a run, each as a sentence; nothing where all is right."""
    return (*_inconsistencies(found, produced), *(() if truth is None else _untruths(found, truth)))


def _feed(config: DemoConfig, folder: Path, tell: Tell) -> tuple[Path, Truth | None]:
    """The folder of the containers, and their true answer where it is known."""
    if config.source is not None:
        return config.source, read_truth(config.source) if (config.source / TRUTH_FILE).exists() else None
    tell(f"Making a feed of {config.rows:,} trades and quotes")
    simulation = Simulation(rows=config.rows, seed=config.seed, kinds=("trades", "quotes"), faults=config.faults)
    return folder / "feed", simulate(folder / "feed", simulation)


def _through(
    reader: Reader,
    stack: LocalStack,
    schemas: Mapping[int, str],
    messages: list[ArchivedMessage],
    truth: Truth | None,
    warehouse: Path,
    prism: Path,
    tell: Tell,
) -> DemoReport:
    tell("Registering the schemas")
    ids = _registered(stack.registry_url, schemas)
    tell(f"Producing {len(messages):,} messages")
    topics = republish(stack.bootstrap, messages, ids)
    lake = LakeConfig(warehouse=str(warehouse))
    with _scraped() as scrape:
        before = Scrape.parse(scrape())
        tell(f"Ingesting {', '.join(topics)} on Prism until caught up")
        stats = _ingest(reader, stack, topics, lake, prism)
        tell("Querying the tables and auditing them against Kafka")
        audit_report = audit_topics(lake, stack.bootstrap, topics)
        metrics = Scrape.parse(scrape()).since(before)
    found = _found(lake, stats, metrics, audit_report)
    return _report(found, lake, len(messages), truth)


def _registered(url: str, schemas: Mapping[int, str]) -> dict[int, int]:
    """All of the project's schemas, and those of the messages; the registry's id for each id of the messages."""
    registry = Registry(RegistryConfig(url))
    try:
        for finding in register(registry, candidates()):
            if finding.state != "registered":
                raise RegistryError(f"schema {finding.schema} was not registered: {finding.state} {finding.reason}")
        return register_schemas(registry, schemas)
    finally:
        registry.close()


def _ingest(reader: Reader, stack: LocalStack, topics: list[str], lake: LakeConfig, prism: Path) -> IngestStats:
    write = WriteConfig(window_seconds=60, commit_age_seconds=_COMMIT_AGE_S)
    expansion = stack.expansion_address if reader is Reader.BEAM else None
    live = LiveConfig(KafkaConfig(stack.bootstrap), expansion, tuple(topics), until_caught_up=True, reader=reader)
    runner = ("--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK")
    return run_live(live, IngestConfig(lake, write), runner, resolver=RegistryResolver(stack.registry_url))


def _found(lake: LakeConfig, stats: IngestStats, metrics: Scrape, audit_report: AuditReport) -> Found:
    opened = Lake.of(lake)
    rows: dict[str, int] = {}
    for kind in KINDS:
        _, batches = opened.events(kind, EventSelection(), columns=("symbol",), with_duplicates=True)
        rows[kind] = sum(batch.num_rows for batch in batches)
    dead_letters = list_dead_letters(opened.catalog, lake.namespace, DeadLetterSelection())
    classes = Counter(str(dead_letter[DEAD_LETTER_COLUMNS.index("error_class")]) for dead_letter in dead_letters)
    return Found(stats, rows, classes, tuple(opened.gaps()), metrics, audit_report)


def _inconsistencies(found: Found, produced: int) -> Iterator[str]:
    stats = found.stats
    taken = sum(stats.written.values()) + stats.dead_letters
    if taken != produced:
        yield f"{produced:,} messages were produced, and {taken:,} are rows or dead letters"
    if stats.errors:
        yield f"{stats.errors:,} inputs could not be read"
    for kind in KINDS:
        written = stats.written[EVENT_TABLES[kind]]
        if found.rows[kind] != written:
            yield f"{written:,} {kind} were written, and a query finds {found.rows[kind]:,}"
    for table, rows in _counted_rows(stats).items():
        if found.metrics.rows[table] != rows:
            yield f"{rows:,} rows of {table} were written, and the metrics say {found.metrics.rows[table]:,}"
    yield from (f"audit: {problem}" for problem in found.audit_report.problems)


def _untruths(found: Found, truth: Truth) -> Iterator[str]:
    rows = {kind: number for kind, number in found.rows.items() if number}
    if rows != {kind: number for kind, number in truth.rows.items() if number}:
        yield f"the rows are {rows}, and in truth {truth.rows}"
    if dict(found.dead_letters) != truth.dead_letters:
        yield f"the dead letters are {dict(found.dead_letters)}, and in truth {truth.dead_letters}"
    duplicates = sum(symbol.duplicate for symbol in found.audit_report.symbols)
    if duplicates != truth.duplicates:
        yield f"there are {duplicates:,} duplicates, and in truth {truth.duplicates:,}"
    there = {_interval(gap) for gap in found.gaps}
    true = {_interval(gap) for gap in truth.gaps}
    if there != true:
        yield f"{len(true - there):,} true gaps are not in the ledger, and {len(there - true):,} in it are none"


def _interval(gap: Any) -> tuple[str, str, str, int, int, int]:
    return (gap.exchange, gap.symbol, gap.kind, gap.epoch, gap.first_missing, gap.last_missing)


def _counted_rows(stats: IngestStats) -> dict[str, int]:
    return {**stats.written, DEAD_LETTERS: stats.dead_letters}


def _report(found: Found, lake: LakeConfig, produced: int, truth: Truth | None) -> DemoReport:
    problems = judge(found, produced, truth)
    stats = found.stats
    counted = _counted_rows(stats)
    return DemoReport(
        ok=not problems,
        problems=problems,
        truth=truth is not None,
        produced=produced,
        consumed=stats.consumed,
        written=stats.written,
        errors=stats.errors,
        dead_letters=stats.dead_letters,
        gaps=len(found.gaps),
        sequence=stats.gaps,
        duration_s=stats.duration_s,
        throughput_per_s=stats.throughput_per_s,
        commits=_commits(lake, stats),
        snapshots=stats.snapshots,
        queried=dict(found.rows),
        metrics={table: found.metrics.rows[table] for table in counted},
        metrics_ok=all(found.metrics.rows[table] == rows for table, rows in counted.items()),
        audit_ok=found.audit_report.ok,
    )


def _commits(lake: LakeConfig, stats: IngestStats) -> dict[str, Any]:
    """How many snapshots the run made, when the first and the last were committed, and how long they took."""
    mine = {snapshot for ids in stats.snapshots.values() for snapshot in ids}
    found = list_snapshots(open_catalog(lake, create=False), lake.namespace)
    times = sorted(each.committed_at for each in found if each.snapshot_id in mine)
    ends = (times[0], times[-1]) if times else (None, None)
    return {
        "count": len(times),
        "first_at": ends[0],
        "last_at": ends[1],
        "min_ms": stats.commit_ms.get("min"),
        "max_ms": stats.commit_ms.get("max"),
        "mean_ms": stats.commit_ms.get("mean"),
    }


@contextmanager
def _scraped() -> Iterator[Callable[[], str]]:
    """This process's metrics at a free port; gives a function that reads them over HTTP."""
    server, thread = start_http_server(0, "127.0.0.1", REGISTRY)
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    # A proxy of the environment has no business between two ends of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def scrape() -> str:
        with opener.open(url, timeout=_SCRAPE_S) as answer:
            return str(answer.read(), "utf-8")

    try:
        yield scrape
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program through its clean-up, as SIGINT does, and not at once."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
