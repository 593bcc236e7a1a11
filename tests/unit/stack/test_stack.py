"""The stack's bookkeeping, with small Python servers in the place of the real ones, and its commands."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from k2beam.cli.stack import register
from k2beam.errors import PlatformError, UsageError
from k2beam.stack import server, stack
from k2beam.stack.kafka import Kafka, properties
from k2beam.stack.kafka import Listener as KafkaListener
from k2beam.stack.server import HOST, Launch
from k2beam.stack.stack import LocalStack

LISTEN = """import socket, sys, pathlib
opened = socket.socket(); opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
opened.bind(('127.0.0.1', int(sys.argv[1]))); opened.listen()
data = pathlib.Path('data'); data.write_text(data.read_text() + 'x' if data.exists() else 'x')
while True: opened.accept()[0].close()
"""


@dataclass(frozen=True)
class Listener:
    """A server that accepts connections; ``program`` makes it another one."""

    name: str
    port: int
    program: str = LISTEN
    patience_s: float = 30.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"main": self.port}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        return Launch((sys.executable, "-c", self.program, str(ports["main"])), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        server.connect(ports["main"])

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        key = {"kafka": "bootstrap", "registry": "registry_url"}.get(self.name, "address")
        return {key: f"{HOST}:{ports['main']}"}


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Kafka and registry as small servers, and one that does not start."""
    ports = server.free_ports(("kafka", "registry", "broken"))
    made: dict[str, object] = {
        "kafka": Listener("kafka", ports["kafka"]),
        "registry": Listener("registry", ports["registry"]),
        "broken": Listener("broken", ports["broken"], "import sys; sys.exit('not today')"),
    }
    monkeypatch.setattr(stack, "SERVICES", made)
    monkeypatch.setattr("k2beam.cli.stack.SERVICES", made)
    return made


def pids(local: LocalStack) -> dict[str, int | None]:
    return {each.name: each.pid for each in local.status()}


@pytest.mark.usefixtures("services")
def test_it_starts_on_entry_and_nothing_is_left_on_exit(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "s") as local:
        assert [(each.name, each.state) for each in local.status()] == [("kafka", "ready"), ("registry", "ready")]
        assert local.bootstrap.startswith("127.0.0.1:")
        assert local.registry_url != local.bootstrap
        first = pids(local)
    assert [each.state for each in local.status()] == ["stopped", "stopped"]
    assert set(first.values()).isdisjoint({None})
    assert local.down() == []


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_one_that_ended_comes_back_on_its_port_with_its_data(tmp_path: Path, end: str) -> None:
    with LocalStack(tmp_path / "s") as local:
        before, address = pids(local), local.bootstrap
        getattr(local, end)("kafka")
        assert {each.name: each.state for each in local.status()} == {"kafka": "stopped", "registry": "ready"}
        assert local.bootstrap == address, "a stopped server keeps its address"
        local.start("kafka")
        assert local.bootstrap == address
        after = pids(local)
        assert after["kafka"] not in {None, before["kafka"]}
        assert after["registry"] == before["registry"]
        local.start("kafka")
        assert pids(local) == after, "one that runs is not started again"
    assert (tmp_path / "s" / "kafka" / "data").read_text(encoding="utf-8") == "xx"


@pytest.mark.usefixtures("services")
def test_a_second_up_starts_only_what_does_not_run(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "s", ("kafka",)) as local:
        before = pids(local)["kafka"]
        both = LocalStack(tmp_path / "s", ("kafka", "registry"))
        both.up()
        assert pids(both)["kafka"] == before
        assert both.down(("registry",)) == ["registry"]
        assert pids(local)["kafka"] == before


@pytest.mark.usefixtures("services")
def test_a_failure_ends_what_this_call_started_and_no_more(tmp_path: Path) -> None:
    with LocalStack(tmp_path / "s", ("registry",)) as local:
        with pytest.raises(PlatformError, match=r"broken ended while it started(.|\n)*not today"):
            LocalStack(tmp_path / "s", ("kafka", "registry", "broken")).up()
        assert {each.name: each.state for each in local.status()} == {
            "kafka": "stopped",
            "registry": "ready",
            "broken": "stopped",
        }


@pytest.mark.parametrize("free_ports", [False, True])
def test_well_known_ports_are_taken_unless_free_ones_are_asked_for(
    tmp_path: Path, services: dict[str, Listener], free_ports: bool
) -> None:
    with LocalStack(tmp_path / "s", ("kafka",), free_ports=free_ports) as local:
        assert (local.status()[0].ports == {"main": services["kafka"].port}) is not free_ports


@pytest.mark.usefixtures("services")
def test_no_two_servers_are_given_one_port_though_the_first_does_not_listen_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = list(server.free_ports(("one", "another")).values())
    monkeypatch.setattr(server.random, "sample", lambda *_: free)
    monkeypatch.setattr(server, "is_free", lambda _port: True)
    with LocalStack(tmp_path / "s", ("kafka", "registry")) as local:
        assert [each.ports for each in local.status()] == [{"main": free[0]}, {"main": free[1]}]


def test_a_port_that_is_in_use_is_named_with_what_to_do(
    tmp_path: Path, services: dict[str, Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "becomes_free", server.is_free)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, services["kafka"].port))
        other.listen()
        message = rf"port {services['kafka'].port} \(kafka, main\) is in use: .*--free-ports.* address"
        with pytest.raises(PlatformError, match=message):
            LocalStack(tmp_path / "s", ("kafka",), free_ports=False).up()


@pytest.mark.usefixtures("services")
def test_an_address_of_what_was_not_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"kafka was not started under .*: name it in services"):
        _ = LocalStack(tmp_path / "s").bootstrap


@pytest.mark.usefixtures("services")
def test_a_service_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no service 'kafak': choose from kafka, registry, broken"):
        LocalStack(tmp_path / "s", ("kafak",))


@pytest.mark.usefixtures("services")
def test_down_of_what_never_was_makes_nothing(tmp_path: Path) -> None:
    assert LocalStack(tmp_path / "s").down() == []
    assert not (tmp_path / "s").exists()


def program() -> typer.Typer:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    return app


@pytest.mark.usefixtures("services")
def test_the_commands_start_tell_and_end(tmp_path: Path) -> None:
    app = program()
    state = ["--state", str(tmp_path / "s"), "--output", "json"]

    def run(*arguments: str, code: int = 0) -> list[dict[str, object]]:
        done = CliRunner().invoke(app, ["stack", *arguments, *state])
        assert done.exit_code == code, (done.output, done.exception)
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    assert run("status", code=1) == []
    try:
        (up,) = run("up", "kafka", "--free-ports")
        assert list(up) == ["name", "state", "pid", "addresses", "ports", "log"]
        assert (up["name"], up["state"]) == ("kafka", "ready")
        ports = up["ports"]
        assert isinstance(ports, dict)
        assert up["addresses"] == {"bootstrap": f"127.0.0.1:{ports['main']}"}
        assert Path(str(up["log"])) == tmp_path / "s" / "kafka" / "server.log"
        assert run("up", "kafka") == [up], "idempotent, and a running server keeps its ports"
        assert [each["name"] for each in run("up", "--free-ports")] == ["kafka", "registry"]
        assert [each["state"] for each in run("status")] == ["ready", "ready"]
        assert [(each["name"], each["state"]) for each in run("down", "registry")] == [("registry", "stopped")]
        assert [each["state"] for each in run("status", code=1)] == ["ready", "stopped"]
        table = CliRunner().invoke(app, ["stack", "status", *state[:2]]).stdout.splitlines()
        assert table[1].split() == [
            "kafka", "ready", str(up["pid"]), f"127.0.0.1:{ports['main']}", str(ports["main"]), str(up["log"])
        ]  # fmt: skip
    finally:
        ended = run("down")
    assert [each["name"] for each in ended] == ["kafka"]
    assert run("down") == []


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("command", ["up", "down"])
def test_a_wrong_name_on_the_command_line_is_wrong_usage(tmp_path: Path, command: str) -> None:
    app = program()
    done = CliRunner().invoke(app, ["stack", command, "zookeeper", "--state", str(tmp_path)])
    assert isinstance(done.exception, UsageError)
    assert "no service 'zookeeper': choose from kafka, registry" in str(done.exception)


@example("a\\n b")
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_folder_of_any_name_survives_the_properties_file(name: str) -> None:
    text = properties(Path("/") / name, {"client": 1, "controller": 2})
    assert text.isascii()
    (line,) = [line for line in text.splitlines() if line.startswith("log.dirs=")]
    units = line.removeprefix("log.dirs=").encode("ascii").decode("unicode_escape")  # Java's escapes are a part of it
    assert units.encode("utf-16", "surrogatepass").decode("utf-16") == str(Path("/") / name)


def test_no_topic_is_made_by_itself() -> None:
    lines = properties(Path("/data"), {"client": 9092, "controller": 9093}).splitlines()
    assert "auto.create.topics.enable=false" in lines
    assert "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093" in lines
    assert "log.dirs=/data" in lines


def test_a_further_listener_has_a_port_an_address_and_settings_of_its_own() -> None:
    listener = KafkaListener("login", "SASL_SSL", (("sasl.enabled.mechanisms", "PLAIN"), ("x", "a\\b")))
    kafka = Kafka(listeners=(listener,), settings=(("num.network.threads", "2"), ("message.max.bytes", "1")))
    assert kafka.default_ports == {"client": 9092, "controller": 9093, "login": 9094}
    assert kafka.addresses(kafka.default_ports) == {"bootstrap": "127.0.0.1:9092", "login": "127.0.0.1:9094"}
    lines = properties(Path("/data"), kafka.default_ports, kafka.listeners, kafka.settings).splitlines()
    assert "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093,LOGIN://127.0.0.1:9094" in lines
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:9092,LOGIN://127.0.0.1:9094" in lines
    assert "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL" in lines
    assert "listener.name.login.sasl.enabled.mechanisms=PLAIN" in lines
    assert "listener.name.login.x=a\\u005cb" in lines
    assert "num.network.threads=2" in lines
    assert [line for line in lines if line.startswith("message.max.bytes=")] == ["message.max.bytes=1"]
