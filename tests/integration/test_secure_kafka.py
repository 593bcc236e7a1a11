"""Everything that talks to Kafka or a registry, over TLS, with logins by reference; and where secrets are not."""

from __future__ import annotations

import json
import pickle
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import apache_beam as beam
import pytest

from k2beam.errors import KafkaFailed, NotDelivered, PlatformError
from k2beam.job.config import IngestConfig, Reader
from k2beam.job.options import beam_options
from k2beam.job.pipeline import build
from k2beam.kafka.cluster import Cluster
from k2beam.kafka.config import KafkaConfig
from k2beam.lake.catalog import open_catalog
from k2beam.produce.producer import MarketDataProducer
from k2beam.registry.config import RegistryConfig
from k2beam.registry.resolver import RegistryResolver
from k2beam.stack.expansion import Expansion
from k2beam.stack.stack import LocalStack
from tests.codec_samples import trade
from tests.integration.secure_kafka import (
    Authority,
    Done,
    add_scram_user,
    basic_auth,
    files_with,
    k2beam,
    secure_kafka,
    started,
)
from tests.lake_helpers import lake_config, write_config
from tests.replay_helpers import contents
from transforms.beam_reader import BeamReader
from transforms.librdkafka_reader import LibrdkafkaReader
from transforms.read_kafka import ReadKafka

pytestmark = pytest.mark.integration

ROWS = 400
TOPIC = "market.equities.trades."
USER = "K2_TEST_USER"
PASSWORD = "K2_TEST_PASSWORD"
REGISTRY_PASSWORD = "K2_TEST_REGISTRY_PASSWORD"
REFUSED = "rejected this client"


@dataclass(frozen=True)
class Secured:
    """The servers, the credentials that they want, and the environment that has them."""

    folder: Path
    addresses: dict[str, str]
    registry_url: str
    expansion: str
    authority: Authority
    environment: dict[str, str]
    canaries: tuple[str, ...]

    def access(self, way: str) -> KafkaConfig:
        """A client that logs in by SCRAM with variables, by PLAIN with a file, or by its certificate."""
        if way == "certificate":
            certificate, key = self.authority.folder / "client.pem", self.authority.folder / "client.key"
            return KafkaConfig(
                self.addresses["mutual"],
                "SSL",
                ca_file=str(self.authority.ca),
                certificate_file=str(certificate),
                key_file=str(key),
            )
        mechanism, password = {
            "scram": ("SCRAM-SHA-512", f"${{env:{PASSWORD}}}"),
            "plain": ("PLAIN", f"${{file:{self.folder}/secrets/plain}}"),
        }[way]
        ca = str(self.authority.ca)
        return KafkaConfig(
            self.addresses["login"], "SASL_SSL", mechanism, f"${{env:{USER}}}", password, ca, properties=()
        )

    def registry(self) -> RegistryConfig:
        return RegistryConfig(self.registry_url, f"${{env:{USER}}}", f"${{env:{REGISTRY_PASSWORD}}}")

    def run(self, *arguments: str, **environment: str) -> Done:
        return k2beam(arguments, self.environment | environment, self.folder / "commands.log")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, stack: LocalStack) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    scram, plain, registry = (f"canary-{secrets.token_hex(12)}" for _ in range(3))
    authority = Authority(folder / "secrets" / "keys")
    authority.issue("client")
    (folder / "secrets" / "plain").write_text(plain)
    environment = {USER: "amelia", PASSWORD: scram, REGISTRY_PASSWORD: registry}
    kafka = secure_kafka(authority, "amelia", plain)
    try:
        with (
            started(kafka, folder / "kafka") as addresses,
            # The Java worker resolves Kafka's references itself, so its process needs the variables and files too.
            started(Expansion(), folder / "expansion", {USER: "amelia", PASSWORD: scram}) as java,
            basic_auth(stack.registry_url, "amelia", registry) as url,
        ):
            add_scram_user(addresses["bootstrap"], "amelia", scram)
            canaries = (scram, plain, registry)
            found = Secured(folder, addresses, url, java["expansion_address"], authority, environment, canaries)
            succeeded(found.run("schemas", "register", "trade_v2", *registry_options(found.registry())))
            yield found
    except PlatformError as error:
        pytest.skip(f"no local servers (kafka, expansion): {error}")


def security_options(config: KafkaConfig) -> list[str]:
    given = {
        "--bootstrap": config.bootstrap,
        "--security-protocol": config.security_protocol,
        "--sasl-mechanism": config.sasl_mechanism,
        "--sasl-username": config.sasl_username,
        "--sasl-password": config.sasl_password,
        "--ca-file": config.ca_file,
        "--certificate-file": config.certificate_file,
        "--key-file": config.key_file,
    }
    return [word for name, value in given.items() if value is not None for word in (name, value)]


def registry_options(config: RegistryConfig) -> list[str]:
    credentials = ["--registry-username", config.user, "--registry-password", config.password]
    return ["--registry", config.url, *credentials]


def succeeded(done: Done) -> str:
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize("way", ["scram", "plain", "certificate"])
def test_a_topic_is_made_filled_ingested_and_audited(
    way: str,
    secured: Secured,
    prism: Path,
    reader: Reader,
    tmp_path: Path,
    unique: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in secured.environment.items():
        monkeypatch.setenv(name, value)
    kafka, registry, exchange = secured.access(way), secured.registry(), unique("asx")
    topic, warehouse = TOPIC + exchange, str(tmp_path / "wh")
    security, login = security_options(kafka), registry_options(registry)

    succeeded(secured.run("topics", "create", topic, "--partitions", "2", *security))
    with MarketDataProducer(
        kafka.bootstrap, registry, config=kafka.client_options(), spool=tmp_path / "spool"
    ) as producer:
        for number in range(ROWS):
            producer.produce_trade(trade(number, exchange=exchange, symbol=f"S{number % 7}"))
    assert producer.stats().delivered == ROWS

    job = ["ingest", "kafka", "--topic", topic, "--until-caught-up", "--commit-age", "500ms", "--warehouse", warehouse]
    beam = ["--", f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    job += ["--reader", reader]
    if reader is Reader.BEAM:
        job += ["--expansion", secured.expansion]
    succeeded(secured.run(*job, *security, *login, *beam))
    assert len(contents(tmp_path / "wh")["trades_v2"]) == ROWS
    report = succeeded(secured.run("audit", "--topic", topic, "--warehouse", warehouse, "-o", "json", *security))
    assert json.loads(report)["ok"] is True
    assert sum(source["expected"] for source in json.loads(report)["sources"]) == ROWS

    said = (secured.folder / "commands.log").read_text()
    assert "prism" in said.lower()
    if reader is Reader.BEAM:
        assert "ConsumerConfig values" in (secured.folder / "expansion" / "server.log").read_text()
    assert_no_canary(secured, tmp_path)


def assert_no_canary(secured: Secured, *folders: Path) -> None:
    """No secret is in any file but those that hold it by right; and the search would find one."""
    for canary in secured.canaries:
        allowed = {"secrets/plain", "kafka/server.properties"} if canary == secured.canaries[1] else set()
        found = files_with(canary, secured.folder, *folders)
        assert set(found) == allowed


def test_what_a_runner_gets_has_references_only(
    secured: Secured, reader: Reader, tmp_path: Path, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secured.environment.items():
        monkeypatch.setenv(name, value)
    topic = TOPIC + unique("asx")
    config = IngestConfig(lake_config(tmp_path / "wh"), write_config(bounded=False))
    file = "secrets:plain}" if reader is Reader.BEAM else "secrets/plain}"
    for way, shown in (("scram", f"${{env:{PASSWORD}}}"), ("plain", file)):
        kafka = secured.access(way)
        succeeded(secured.run("topics", "create", topic, *security_options(kafka)))
        pipeline = beam.Pipeline(options=beam_options((), streaming=True, default_runner="FnApiRunner"))
        topics = Cluster(kafka).topics([topic])
        reading: BeamReader | LibrdkafkaReader = LibrdkafkaReader(topics, kafka, {(topics[0].source, 0): 0})
        if reader is Reader.BEAM:
            reading = BeamReader(topics, kafka, "group", secured.expansion)
        build(pipeline, ReadKafka(reading), config, resolver=RegistryResolver(secured.registry()))
        sent = pipeline.to_runner_api().SerializeToString()
        if reader is Reader.LIBRDKAFKA:
            sent += pickle.dumps(reading)  # as a worker in Python gets it, without the encoding around it
        assert shown.encode() in sent
        assert [canary for canary in secured.canaries if canary.encode() in sent] == []


def test_a_wrong_password_is_told_by_every_command(
    secured: Secured, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    kafka, registry = secured.access("scram"), secured.registry()
    topic, security, login = TOPIC + unique("asx"), security_options(kafka), registry_options(registry)
    (tmp_path / "spool.jsonl").write_text("")
    open_catalog(lake_config(tmp_path / "there"))
    commands = [
        ["topics", "create", topic, *security],
        ["ingest", "kafka", "--topic", topic, "--warehouse", str(tmp_path / "wh"), *security, *login],
        ["archive", "kafka", str(tmp_path / "out"), "--topic", topic, *security, *login],
        ["produce", "binance", "--symbols", "btcusdt", *security, *login],
        ["produce", "resend", str(tmp_path / "spool.jsonl"), *security],
        ["audit", "--topic", topic, "--warehouse", str(tmp_path / "there"), *security],
    ]
    for command in commands:
        done = secured.run(*command, **{PASSWORD: "canary-wrong"})
        assert done.code == 1, done.err
        last = done.err.splitlines()[-1]
        assert last.startswith("Error: ")
        assert REFUSED in last, last
        assert "--sasl-password" in last
        assert "canary-wrong" not in done.out + done.err
    assert (tmp_path / "spool.jsonl").exists()


def test_a_java_worker_without_the_secret_ends_the_job(
    secured: Secured, prism: Path, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    kafka = replace(secured.access("scram"), sasl_password="${env:K2_TEST_ONLY_HERE}")
    topic, security = TOPIC + unique("asx"), security_options(kafka)
    here = {"K2_TEST_ONLY_HERE": secured.environment[PASSWORD]}
    succeeded(secured.run("topics", "create", topic, *security, **here))
    job = ["ingest", "kafka", "--topic", topic, "--warehouse", str(tmp_path / "wh"), "--expansion", secured.expansion]
    beam = ["--", f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    done = secured.run(*job, *security, *registry_options(secured.registry()), *beam, **here)
    assert done.code == 1
    assert "SaslAuthenticationException" in done.err
    assert done.err.splitlines()[-1].startswith("Error: the job ended as FAILED")
    assert_no_canary(secured, tmp_path)


def test_a_certificate_of_an_unknown_authority_is_told(
    secured: Secured, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    other = Authority(tmp_path / "other")
    ours = security_options(secured.access("plain"))
    theirs = [str(other.ca) if word == str(secured.authority.ca) else word for word in ours]
    done = secured.run("topics", "create", TOPIC + unique("asx"), *theirs)
    assert done.code == 1
    assert REFUSED in done.err
    assert "--ca-file" in done.err


def test_a_wrong_password_of_the_registry_is_told(secured: Secured) -> None:
    done = secured.run("schemas", "list", *registry_options(secured.registry()), **{REGISTRY_PASSWORD: "canary-wrong"})
    assert done.code == 1
    assert "HTTP 401; check the user and password references" in done.err
    assert "canary-wrong" not in done.err


def test_a_producer_that_is_not_let_in_keeps_its_messages_and_they_are_sent_later(
    secured: Secured, tmp_path: Path, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (secured.environment | {PASSWORD: "canary-wrong"}).items():
        monkeypatch.setenv(name, value)
    kafka, exchange = secured.access("scram"), unique("asx")
    security = security_options(kafka)
    succeeded(secured.run("topics", "create", TOPIC + exchange, *security))
    producer = MarketDataProducer(
        kafka.bootstrap, secured.registry(), config=kafka.client_options(), spool=tmp_path / "spool"
    )
    for number in range(10):
        producer.produce_trade(trade(number, exchange=exchange))
    with pytest.raises(NotDelivered, match=r"10 messages were not delivered.*rejected this producer") as raised:
        producer.flush()
    with pytest.raises(KafkaFailed, match="rejected this producer"):
        producer.produce_trade(trade(10, exchange=exchange))
    producer.close()
    assert "canary-wrong" not in str(raised.value)

    spool = str(raised.value.spool)
    assert json.loads(succeeded(secured.run("produce", "resend", spool, "-o", "json", *security)))["delivered"] == 10
    assert not Path(spool).exists()
    copy = ["archive", "kafka", str(tmp_path / "out"), "--topic", TOPIC + exchange, "-o", "json"]
    archived = secured.run(*copy, *security, *registry_options(secured.registry()))
    assert json.loads(succeeded(archived))["messages"] == 10
    assert_no_canary(secured, tmp_path)
