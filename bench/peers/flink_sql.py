"""Flink SQL in one process: the tables and the statement that it runs, and its command.

``RunSql.java`` runs them in a cluster within its own process, with the topic's ends at its start as the end of the
job: the distribution on PyPI lacks a part of Flink's SQL client. Flink's format for Confluent's framing asks a
registry, and is left out: the frame's five bytes are read as five numbers of the Avro record, as each is one as long
as no byte of the schema's id is above 127. Enums are read as numbers and become texts in the statement; times, whose
microseconds the format does not know, stay bigint.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.peer import Failed
from bench.peers.table import CATALOG, NAME, NAMESPACE, warehouse_uri
from k2beam.cache import cache_dir, place
from k2beam.registry.subjects import schema_text
from k2beam.stack.beam_jars import java_flags
from k2beam.stack.flink_dist import download
from k2beam.stack.jars import ensure_jars
from k2beam.stack.java import ensure_java
from k2beam.stack.versions import FLINK

LOCK = Path(__file__).with_name("peers.lock")
SLOTS = 2
CHECKPOINT_SECONDS = 5
"""Each commits."""

_PROGRAM = Path(__file__).with_name("RunSql.java")
_SETTINGS = (
    ("execution.checkpointing.interval", f"{CHECKPOINT_SECONDS}s"),
    ("parallelism.default", SLOTS),
)
_LIBRARIES = "/deps/lib/"
_FRAME = tuple(f"frame_{number}" for number in range(5))
_HEAP = ("-Xms256m", "-Xmx2g")
_LOG = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %-5p %-40c{1} %x - %m%n
"""


def fetch() -> tuple[Path, str]:
    """Java, and the class path. Raises PlatformError and CalledProcessError where they can't be had."""
    java = ensure_java(17, 17)
    jars = [*sorted(_distribution().rglob("*.jar")), *ensure_jars("flink", LOCK)]
    path = ":".join(str(jar) for jar in jars)
    return java, f"{_compiled(java, path)}:{path}"


def command(bootstrap: str, topic: str, schema_id: int, warehouse: Path) -> list[str]:
    """The program with its script; its files are in the folder of the warehouse."""
    if max(schema_id.to_bytes(4, "big")) > 127:
        raise Failed(f"it can't read the frame of schema {schema_id}")
    java, path = fetch()
    folder = configuration(warehouse)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in _SETTINGS), encoding="utf-8")
    (folder / "log4j2.properties").write_text(_LOG, encoding="utf-8")
    (folder / "job.sql").write_text("\n\n".join(statements(bootstrap, topic, warehouse)), encoding="utf-8")
    logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"
    return [str(java), *_HEAP, *java_flags(), logging, "-cp", path, "RunSql", str(folder / "job.sql")]


def configuration(warehouse: Path) -> Path:
    """Flink's ``FLINK_CONF_DIR``."""
    return warehouse / "flink"


def _compiled(java: Path, path: str) -> Path:
    """The folder with the compiled program, in the cache."""
    digest = hashlib.sha256(_PROGRAM.read_bytes()).hexdigest()[:12]
    target = cache_dir() / "peers" / f"run-sql-{digest}"
    if not target.is_dir():
        (compiler,) = ensure_jars("ecj", LOCK)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="run-sql-") as scratch:
            made = Path(scratch) / "made"
            options = ("-17", "-nowarn", "-cp", path, "-d", str(made), str(_PROGRAM))
            subprocess.run([str(java), "-jar", str(compiler), *options], check=True)
            place(made, target)
    return target


def _distribution() -> Path:
    """All of Flink's libraries, of which the stack has only what Beam needs."""
    target = cache_dir() / "peers" / f"flink-{FLINK}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="flink-") as scratch:
            with tarfile.open(download(Path(scratch))) as opened:
                wanted = [member for member in opened if _LIBRARIES in member.name]
                opened.extractall(Path(scratch) / "all", members=wanted, filter="data")
            place(Path(scratch) / "all", target)
    return target


def statements(bootstrap: str, topic: str, warehouse: Path) -> Iterator[str]:
    """The table of messages, the catalog, and the statement that copies."""
    fields = json.loads(schema_text("trade_v2"))["fields"]
    source = {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": bootstrap,
        "properties.group.id": f"flink-{warehouse.name}",
        "scan.startup.mode": "earliest-offset",
        "scan.bounded.mode": "latest-offset",
        "format": "avro",
    }
    columns = ", ".join([*(f"`{name}` INT NOT NULL" for name in _FRAME), *map(_column, fields)])
    yield f"CREATE TABLE messages ({columns}) WITH ({_options(source)})"
    lake = {
        "type": "iceberg",
        "catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog",
        "uri": f"jdbc:sqlite:{warehouse / 'catalog.db'}?busy_timeout=60000",
        "warehouse": warehouse_uri(warehouse),
    }
    yield f"CREATE CATALOG {CATALOG} WITH ({_options(lake)})"
    yield f"INSERT INTO {CATALOG}.{NAMESPACE}.{NAME} SELECT {', '.join(map(_value, fields))} FROM messages"


def _options(given: dict[str, str]) -> str:
    return ", ".join(f"'{name}' = '{value}'" for name, value in given.items())


def _column(field: dict[str, Any]) -> str:
    kind = field["type"]
    if isinstance(kind, list):  # null first, as Flink has it too
        return f"`{field['name']}` {_type(kind[1])}"
    return f"`{field['name']}` {_type(kind)} NOT NULL"


def _type(kind: Any) -> str:
    """Flink's name of a type of Avro."""
    if kind == "string":
        return "STRING"
    if kind == "long" or kind.get("logicalType") == "timestamp-micros":
        return "BIGINT"
    if kind.get("logicalType") == "decimal":
        return f"DECIMAL({kind['precision']}, {kind['scale']})"
    if kind["type"] == "enum":
        return "INT"
    if kind["type"] == "array":
        return f"ARRAY<{_type(kind['items'])} NOT NULL>"
    return f"MAP<STRING NOT NULL, {_type(kind['values'])} NOT NULL>"


def _value(field: dict[str, Any]) -> str:
    kind = field["type"]
    if isinstance(kind, dict) and kind["type"] == "enum":
        texts = " ".join(f"WHEN {number} THEN '{symbol}'" for number, symbol in enumerate(kind["symbols"]))
        return f"CASE `{field['name']}` {texts} END"
    return f"`{field['name']}`"
