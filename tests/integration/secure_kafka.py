"""A Kafka that wants TLS and a login, and a registry behind basic authentication, with keys and passwords of a test."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in its __all__
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k2beam.stack import server
from k2beam.stack.kafka import Kafka, Listener
from k2beam.stack.server import Service
from tests.http_servers import QuietHandler, serving

_DAY = datetime.timedelta(days=1)
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"
COMMAND_S = 240
"""How long a command may take before it counts as hanging, seconds."""


class Authority:
    """Signs certificates for this machine; everything is PEM in ``folder``, with ``ca.pem`` to be trusted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k2beam test authority")])
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(_pem(self._sign(self._name, self._key, authority=True)))

    def issue(self, name: str) -> tuple[Path, Path]:
        """The certificate and the key (PKCS #8) of ``name``, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(_pem(self._sign(subject, key, authority=False)))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(server.HOST))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def secure_kafka(authority: Authority, plain_user: str, plain_password: str) -> Kafka:
    """A Kafka with a listener ``login`` (SASL_SSL: PLAIN, SCRAM) and one ``mutual`` (TLS, the client too)."""
    certificate, key = authority.issue("broker")
    store = authority.folder / "broker-store.pem"
    store.write_bytes(key.read_bytes() + certificate.read_bytes())
    own = (("ssl.keystore.type", "PEM"), ("ssl.keystore.location", str(store)))
    trusted = (("ssl.truststore.type", "PEM"), ("ssl.truststore.location", str(authority.ca)))
    login = (
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512"),
        ("plain.sasl.jaas.config", f'{_PLAIN} required user_{plain_user}="{plain_password}";'),
        ("scram-sha-512.sasl.jaas.config", f"{_SCRAM} required;"),
    )
    listeners = (
        Listener("login", "SASL_SSL", own + login),
        Listener("mutual", "SSL", (*own, *trusted, ("ssl.client.auth", "required"))),
    )
    return Kafka(listeners=listeners)


def add_scram_user(bootstrap: str, user: str, password: str) -> None:
    """Let ``user`` in by SCRAM-SHA-512; the broker keeps a salted hash."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(user, info, password.encode())]
    ).values():
        done.result(30)


@contextmanager
def started(service: Service, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """The addresses of a server of the local stack while it runs, with more in its environment."""
    folder.mkdir(parents=True)
    ports = server.free_ports(tuple(service.default_ports))
    launch = service.launch(folder, ports)
    running = server.start(folder, replace(launch, environment={**launch.environment, **(environment or {})}), ports)
    try:
        server.wait_ready(service, folder, running)
        yield service.addresses(ports)
    finally:
        server.stop(running, 20)


@contextmanager
def basic_auth(url: str, user: str, password: str) -> Iterator[str]:
    """A reverse proxy before ``url`` (``http://host:port/path``) that answers 401 without these credentials."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    base, _, path = url.partition("/apis")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.received()
            if self.headers.get("Authorization") != wanted:
                return self._send(401, b'{"error_code": 401, "message": "Unauthorized"}')
            kept = {name: text for name in ("Content-Type", "Accept") if (text := self.headers.get(name))}
            request = urllib.request.Request(base + self.path, body or None, kept, method=self.command)
            try:
                with opener.open(request, timeout=30) as answer:
                    self._send(answer.status, answer.read())
            except urllib.error.HTTPError as error:
                self._send(error.code, error.read())
            return None

        def _send(self, status: int, content: bytes) -> None:
            self.answer(status, content, "application/json")

        do_GET = do_POST = do_PUT = _answer  # noqa: N815 - the names that http.server calls

    with serving(Handler) as proxy:
        yield f"{proxy}/apis{path}"


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def k2beam(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Done:
    """Run the command line as a process that logs all it can; what it says is appended to ``log`` too."""
    done = subprocess.run(
        [sys.executable, "-m", "k2beam.cli.main", "--log-level", "DEBUG", *arguments],
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )
    with log.open("a", encoding="utf-8") as file:
        file.write(f"== {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return Done(done.returncode, done.stdout, done.stderr)


def files_with(needle: str, *folders: Path) -> list[str]:
    """The files below the folders whose bytes have ``needle``, plain or in base64."""
    found = []
    encoded = base64.b64encode(needle.encode()).rstrip(b"=")[:-1]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and any(form in path.read_bytes() for form in (needle.encode(), encoded)):
                found.append(str(path.relative_to(folder)))
    return found
