"""Looks at what jobs need, on this machine and at their servers: what there is, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from k2beam.cache import cache_dir
from k2beam.config import LakeConfig
from k2beam.errors import K2BeamError, UsageError
from k2beam.flink import FlinkJobs, opener_of
from k2beam.kafka.config import KafkaConfig
from k2beam.lake.place import CATALOG_FILE, warehouse_folder
from k2beam.registry.config import RegistryConfig
from k2beam.stack.java import find_java, java_version
from k2beam.stack.prism import find_prism, prism_version

PACKAGES = ("k2beam", "apache-beam", "pyiceberg", "pyarrow", "fastavro", "confluent-kafka")
JAVA = (11, 21)
"""The versions that one of the Java servers runs on: Kafka 17 and 21, Flink and Beam's expansion 11 and 17."""
LITTLE_SPACE = 5 << 30
NO_SPACE = 200 << 20
CLOCK_OFF_SECONDS = 2.0
"""More is told: an event whose time is ahead of the clock of the machine that decodes it is a dead letter."""
LONGEST_ANSWER_SECONDS = 5.0


class Health(StrEnum):
    """How a thing is: as it should be, worth a look, of no use, or not asked for."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was looked at, how it is, what was found, and what mends it (empty where nothing is to be mended)."""

    check: str
    status: Health
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is to be looked at beside this machine; None is left out. Addresses are ``host:port``, but for URLs."""

    lake: LakeConfig
    kafka: KafkaConfig | None = None
    registry: RegistryConfig | None = None
    flink_master: str | None = None
    job_endpoint: str | None = None
    expansion: str | None = None
    worker_health: str | None = None


def examine(patient: Patient) -> Iterator[Diagnosis]:
    """Look at one thing after the other; what is away or refuses is told, and never raised.

    Writes and deletes an empty file in the folders of the cache, of temporary files and of the warehouse, and an object
    beside the tables; leaves nothing behind.

    Examples:
        >>> from k2beam import LakeConfig
        >>> from k2beam.doctor import Patient, examine
        >>> first = next(iter(examine(Patient(LakeConfig("warehouse")))))
        >>> first.check, first.status.value
        ('python', 'ok')
    """
    yield _looked("python", _python, "make an environment with Python 3.11: ./run_local.sh setup")
    yield _looked("packages", _packages, "pip install k2beam, or ./run_local.sh setup")
    yield _looked("java", _java, "k2beam stack up fetches one; or set JAVA_HOME")
    yield _looked("prism", _prism, "python -m k2beam.stack.prism")
    yield _looked("jars", _jars, "k2beam stack up fetches what it needs")
    for check, folder in _folders(patient.lake):
        yield _looked(check, partial(_folder, folder), f"make {folder} a folder that you may write to")
    yield from _servers(patient)


def _servers(patient: Patient) -> Iterator[Diagnosis]:
    yield _looked("catalog", lambda: _catalog(patient.lake), "see docs/operate/catalogs.md")
    yield _looked("store", lambda: _store(patient.lake), "give its login read, write and delete rights to the tables")
    asked: tuple[tuple[str, Any, Callable[[Any], _Told], str, str], ...] = (
        ("kafka", patient.kafka, _kafka, "--bootstrap HOSTS", "k2beam stack up kafka, or name the right addresses"),
        ("registry", patient.registry, _registry, "--registry URL", "k2beam stack up registry, or name the right URL"),
        ("flink", patient.flink_master, _flink, "--flink-master HOST:PORT", "k2beam stack up flink-taskmanager-2"),
        ("job server", patient.job_endpoint, _port, "--job-endpoint HOST:PORT", "k2beam stack up flink-job-server"),
        ("expansion", patient.expansion, _port, "--expansion HOST:PORT", "k2beam stack up flink-expansion"),
        ("workers", patient.worker_health, _pool, "--worker-health HOST:PORT", "k2beam worker pool --health HOST:PORT"),
    )
    for check, given, look, option, mend in asked:
        if given is None:
            yield Diagnosis(check, Health.SKIPPED, f"not asked for: {option}")
        else:
            yield _looked(check, partial(look, given), mend)
    urls = [url for url in (patient.registry and patient.registry.url, _rest_url(patient.flink_master)) if url]
    if urls:
        yield _looked("clock", lambda: _clock(urls), "let this machine follow a time server, such as by chrony")
    else:
        yield Diagnosis("clock", Health.SKIPPED, "no server to compare it with: --registry URL or --flink-master")


_Told = tuple[Health, str]


def _looked(check: str, look: Callable[[], _Told], mend: str) -> Diagnosis:
    """What ``look`` found, or why it could not: errors of the system, of servers and of their clients."""
    try:
        status, found = look()
    except Exception as error:
        own = _own_error(error)
        if own is None:
            raise
        status, found = Health.FAILED, own
    return Diagnosis(check, status, found, "" if status in (Health.OK, Health.SKIPPED) else mend)


def _own_error(error: Exception) -> str | None:
    """An error of a server, of its client or of the system in a sentence; None for a defect."""
    if isinstance(error, K2BeamError):
        return str(error)
    if not (isinstance(error, OSError) and error.errno is not None):  # then it's of this machine
        from k2beam.lake.patience import own_error

        if (own := own_error(error)) is not None:
            return str(own)
    known = isinstance(error, (OSError, ValueError, importlib.metadata.PackageNotFoundError))
    return f"{type(error).__name__}: {error}" if known else None


def _python() -> _Told:
    found = f"{platform.python_version()} in {sys.prefix}"
    return (Health.OK if sys.version_info[:2] == (3, 11) else Health.FAILED), found


def _packages() -> _Told:
    return Health.OK, ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def _java() -> _Told:
    program = find_java(*JAVA)
    if program is None:
        return Health.WARNING, "none is at hand, which Beam's reader of Kafka and the local servers need"
    return Health.OK, f"{java_version(program)} at {program}"


def _prism() -> _Told:
    program = find_prism()
    if program is None:
        return Health.WARNING, f"not built yet ({prism_version()}); live jobs without Flink need it"
    return Health.OK, str(program)


def _jars() -> _Told:
    from k2beam.stack.jars import groups_at_hand

    there, missing = groups_at_hand()
    lacking = f"; not fetched yet: {', '.join(missing)}" if missing else ""
    return (Health.WARNING if missing else Health.OK), f"{', '.join(there) or 'none'}{lacking}"


def _folders(lake: LakeConfig) -> Iterator[tuple[str, Path]]:
    yield "cache folder", cache_dir()
    yield "temporary files", Path(tempfile.gettempdir())
    if lake.warehouse is not None:
        yield "warehouse folder", warehouse_folder(lake.warehouse)


def _folder(folder: Path) -> _Told:
    """Whether files can be made there, or where it would be made, and how much space there is."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    with tempfile.NamedTemporaryFile(dir=there, prefix=".k2beam-doctor-"):
        free = shutil.disk_usage(there).free
    status = Health.FAILED if free < NO_SPACE else Health.WARNING if free < LITTLE_SPACE else Health.OK
    made = "" if there == folder else ", which is not there yet"
    return status, f"{folder}{made}: {free / (1 << 30):.1f} GiB free"


def _is_new(lake: LakeConfig) -> bool:
    """Whether it is a folder in which no job has made tables yet."""
    return lake.warehouse is not None and not (warehouse_folder(lake.warehouse) / CATALOG_FILE).exists()


def _catalog(lake: LakeConfig) -> _Told:
    if _is_new(lake):
        return Health.SKIPPED, f"{lake.describe()}: no tables yet, the first job makes them"
    from k2beam.lake.catalog import open_catalog

    started = time.monotonic()
    catalog = open_catalog(lake, create=False)
    tables = len(catalog.list_tables(lake.namespace)) if catalog.namespace_exists(lake.namespace) else 0
    took = time.monotonic() - started
    return Health.OK, f"{lake.describe()}, namespace {lake.namespace}: {tables} tables, {took * 1000:.0f} ms"


def _store(lake: LakeConfig) -> _Told:
    """Write, read and delete an object where the dead letters lie, as a job does."""
    if _is_new(lake):
        return Health.SKIPPED, "no tables yet"
    from k2beam.lake.catalog import open_catalog
    from k2beam.lake.storage import try_store
    from k2beam.lake.tables import DEAD_LETTERS, find_table

    table = find_table(open_catalog(lake, create=False), lake.namespace, DEAD_LETTERS)
    if table is None:
        return Health.SKIPPED, "no tables yet"
    started = time.monotonic()
    try_store(table, f"k2beam-doctor-{uuid.uuid4().hex}")
    return Health.OK, f"{table.location()}: written, read and deleted in {(time.monotonic() - started) * 1000:.0f} ms"


def _kafka(kafka: KafkaConfig) -> _Told:
    from k2beam.kafka.cluster import Cluster
    from k2beam.kafka.login import check_login

    check_login(kafka)
    return Health.OK, f"{kafka.bootstrap}: {len(Cluster(kafka, LONGEST_ANSWER_SECONDS).names('.*'))} topics"


def _registry(registry: RegistryConfig) -> _Told:
    from k2beam.registry.client import Registry

    client = Registry(registry.at(registry.url, wait_s=LONGEST_ANSWER_SECONDS))
    try:
        return Health.OK, f"{registry.url}: {len(client.subjects())} subjects"
    finally:
        client.close()


def _flink(master: str) -> _Told:
    said = FlinkJobs(master).overview()
    free, slots = said["slots-available"], said["slots-total"]
    found = (
        f"Flink {said['flink-version']}: {said['taskmanagers']} TaskManagers, {free} of {slots} slots free, "
        f"{said['jobs-running']} jobs run"
    )
    return (Health.OK if free else Health.WARNING), found


def _port(address: str) -> _Told:
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise UsageError(f"{address} is no HOST:PORT")
    with socket.create_connection((host, int(port)), LONGEST_ANSWER_SECONDS):
        return Health.OK, f"{address} takes connections"


def _pool(address: str) -> _Told:
    with _asked(f"http://{address}/health") as answer:
        return Health.OK, f"{address}: {json.loads(answer.read())['workers']} workers"


def _clock(urls: list[str]) -> _Told:
    off = {}
    for url in urls:
        with _asked(url) as answer:
            if date := answer.headers.get("Date"):
                off[url] = time.time() - parsedate_to_datetime(date).timestamp()
    if not off:
        return Health.SKIPPED, "the servers do not tell their time"
    url, most = max(off.items(), key=lambda one: abs(one[1]))
    # The header has whole seconds, and is as old as the answer.
    return (Health.OK if abs(most) < CLOCK_OFF_SECONDS else Health.WARNING), f"{most:+.0f} s from that of {url}"


def _asked(url: str) -> Any:
    """The answer, also one that refuses: it has a date."""
    try:
        return opener_of(url).open(url, timeout=LONGEST_ANSWER_SECONDS)
    except urllib.error.HTTPError as error:
        return error


def _rest_url(master: str | None) -> str | None:
    return None if master is None else f"{FlinkJobs(master).url}/overview"
