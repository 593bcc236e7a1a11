"""Archives in an object store: written there from Kafka, read from there, through outages and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import fs
from pyiceberg.utils.config import Config

from k2beam.archive.files import expand_paths, open_archive
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.stores import RANGE_BYTES
from k2beam.errors import ArchiveError
from k2beam.lake.stores import CatalogStores
from k2beam.stack.s3 import S3, s3_properties
from k2beam.stack.stack import LocalStack
from tests.integration.servers import servers_up
from tests.live_helpers import produce, register
from tests.replay_helpers import ingest, simulated

pytestmark = pytest.mark.integration

AWAY_SECONDS = 6
PAGE = 1_000
"""How many objects S3 lists at once."""


@dataclass(frozen=True)
class Bucket:
    """The local store, and a catalog ``there`` that is configured to reach it."""

    server: LocalStack
    home: Path
    settings: Mapping[str, str]

    def at(self, uri: str) -> tuple[fs.FileSystem, str]:
        """As :class:`k2beam.archive.stores.Stores` does."""
        system = fs.S3FileSystem(
            access_key=self.settings["s3.access-key-id"],
            secret_key=self.settings["s3.secret-access-key"],
            endpoint_override=self.settings["s3.endpoint"],
            region=self.settings["s3.region"],
        )
        return system, uri.removeprefix("s3://")

    def k2beam(self, *words: str, code: int = 0, **env: str) -> tuple[str, str]:
        """What ``k2beam WORDS`` writes to its two streams."""
        done = subprocess.run(
            [sys.executable, "-m", "k2beam.cli.main", *words],
            env=os.environ | {"PYICEBERG_HOME": str(self.home)} | env,
            text=True,
            capture_output=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, done.stderr[-4000:]
        return done.stdout, done.stderr

    def ask(self, *words: str) -> Any:
        return json.loads(self.k2beam(*words, "--output", "json")[0])


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    home = tmp_path_factory.mktemp("home")
    server = LocalStack(tmp_path_factory.mktemp("store"), services=(S3,), free_ports=True)
    with servers_up(server, "object store"):
        settings = s3_properties(server.s3_endpoint)
        catalog = {"type": "sql", "uri": f"sqlite:///{home}/catalog.db", "init_catalog_tables": "true"}
        there = {**catalog, "warehouse": f"file://{home}/lake", **settings}
        (home / ".pyiceberg.yaml").write_text(yaml.safe_dump({"catalog": {"there": there}}), "utf-8")
        yield Bucket(server, home, settings)


def uploaded(bucket: Bucket, folder: Path, prefix: str) -> str:
    """A folder's files below a prefix of the bucket; gives its URI."""
    system, path = bucket.at(f"s3://lake/{prefix}")
    fs.copy_files(str(folder), path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
    return f"s3://lake/{prefix}"


def test_what_kafka_had_is_archived_there_and_read_from_there(
    bucket: Bucket, stack: LocalStack, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=3_000, files=1)
    topics = produce(stack, tmp_path / "in", unique("s3"), register(stack))
    names = [word for topic in topics for word in ("--topic", topic)]
    kafka = [*names, "--bootstrap", stack.bootstrap, "--registry", stack.registry_url, "--rows-per-file", "1000"]
    uri = f"s3://lake/{unique('kafka')}"
    written = bucket.ask("archive", "kafka", uri, "--catalog", "there", *kafka)
    here = bucket.ask("archive", "kafka", str(tmp_path / "here"), *kafka)
    assert written["messages"] == here["messages"] == truth.offsets
    assert written["files"] == here["files"] == len(expand_paths([uri], bucket))
    assert "is not empty" in bucket.k2beam("archive", "kafka", uri, "--catalog", "there", *kafka, code=2)[1]

    lake = ("--catalog", "there")
    first = bucket.ask("ingest", "archive", f"{uri}/", *lake)
    assert first["consumed"] == written["messages"]
    again = bucket.ask("ingest", "archive", f"{uri}/*.avro", *lake)
    assert (again["consumed"], again["already_covered"]) == (written["messages"], written["messages"])
    assert bucket.ask("audit", "--source", uri, *lake)["ok"]
    ingest([tmp_path / "here"], tmp_path / "lake")
    compared = bucket.ask("audit", *lake, "--compare", str(tmp_path / "lake"))["compare"]
    assert all(table["same"] for table in compared["tables"])


def test_an_object_that_was_replaced_is_not_taken_for_the_one_that_was_planned(
    bucket: Bucket, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    """Also where it has the same bytes but for one, and the same size."""
    simulated(tmp_path, rows=300, faults="", kinds=("trades",), files=1)
    uri = uploaded(bucket, tmp_path, unique("replaced"))
    [name] = expand_paths([uri], bucket)
    [chunk] = plan_archive(name, stores=bucket).chunks
    assert sum(batch.num_rows for batch in ArchiveReader(stores=bucket).read(chunk)) == chunk.records
    system, path = bucket.at(name)
    content = bytearray(system.open_input_file(path).read())
    content[-20] ^= 1
    with system.open_output_stream(path) as out:
        out.write(bytes(content))
    with pytest.raises(ArchiveError, match=r"^s3://lake/.* are not what they were"):
        list(ArchiveReader(stores=bucket).read(chunk))


def test_more_objects_than_one_page_of_a_listing_are_found(bucket: Bucket, unique: Callable[[str], str]) -> None:
    system, path = bucket.at(f"s3://lake/{unique('many')}")

    def put(number: int) -> None:
        with system.open_output_stream(f"{path}/{number % 7}/{number:05d}.avro") as out:
            out.write(b"Obj")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(PAGE + 100)))
    assert len(expand_paths([f"s3://{path}"], bucket)) == PAGE + 100
    assert len(expand_paths([f"s3://{path}/*/*1.avro"], bucket)) == (PAGE + 100) / 10


@contextmanager
def away(bucket: Bucket) -> Iterator[None]:
    """The store is killed, and comes back after some seconds."""
    bucket.server.kill(S3)
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(lambda: (time.sleep(AWAY_SECONDS), bucket.server.start(S3)))
        try:
            yield
        finally:
            back.result()


def test_a_job_waits_for_a_store_that_is_away(bucket: Bucket, tmp_path: Path, unique: Callable[[str], str]) -> None:
    truth = simulated(tmp_path / "in", rows=5_000, kinds=("trades",), files=2)
    uri = uploaded(bucket, tmp_path / "in", unique("away"))
    with away(bucket):
        assert bucket.ask("ingest", "archive", uri, "--catalog", "there")["consumed"] == truth.offsets


def test_an_object_that_is_being_read_is_waited_for(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, unique: Callable[[str], str]
) -> None:
    """Four ranges, of which the later ones are asked for while nobody answers."""
    monkeypatch.setenv("PYICEBERG_HOME", str(bucket.home))
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
    content = os.urandom(4 * RANGE_BYTES)
    uri = f"s3://lake/{unique('read')}.avro"
    system, path = bucket.at(uri)
    with system.open_output_stream(path) as out:
        out.write(content)
    with open_archive(uri, stores=CatalogStores("there")) as file:
        beginning = file.read(1_000)
        with away(bucket):
            assert beginning + file.read() == content


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({"s3.secret-access-key": "wrong"}, 1, "AWS Error ACCESS_DENIED"),
        ({"s3.access-key-id": "nobody"}, 1, "No user exists"),
    ],
)
def test_a_store_that_refuses_is_told_in_one_sentence(
    bucket: Bucket, tmp_path: Path, settings: Mapping[str, str], code: int, told: str
) -> None:
    there = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "init_catalog_tables": "true", **bucket.settings}
    (tmp_path / ".pyiceberg.yaml").write_text(yaml.safe_dump({"catalog": {"there": there | settings}}), "utf-8")
    _, said = bucket.k2beam(
        "ingest", "archive", "s3://lake/any/", "--catalog", "there", code=code, PYICEBERG_HOME=str(tmp_path)
    )
    assert told in said
    assert len(said.splitlines()) == 1, said


def test_without_a_catalog_the_environment_tells_where_the_store_is(
    bucket: Bucket, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    truth = simulated(tmp_path / "in", rows=500, faults="", kinds=("trades",), files=1)
    uri = uploaded(bucket, tmp_path / "in", unique("environment"))
    out, _ = bucket.k2beam(
        *("ingest", "archive", uri, "--warehouse", str(tmp_path / "lake"), "--output", "json"),
        AWS_ENDPOINT_URL=bucket.settings["s3.endpoint"],
        AWS_ACCESS_KEY_ID=bucket.settings["s3.access-key-id"],
        AWS_SECRET_ACCESS_KEY=bucket.settings["s3.secret-access-key"],
        AWS_REGION=bucket.settings["s3.region"],
    )
    assert json.loads(out)["consumed"] == truth.offsets
