"""Recorded events handed over: in order, with their spacing, and from where a replay stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from k2beam.cli import replay as command
from k2beam.errors import UsageError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.lake.catalog import open_catalog
from k2beam.produce.pace import Pacer
from k2beam.produce.recorded import Recorded, RecordedArchive, RecordedTables
from k2beam.produce.replay import KafkaEvents, KafkaMessages, replay, replay_to_archive
from k2beam.produce.spool import OutgoingMessage
from k2beam.query.selections import EventSelection
from k2beam.schemas import payload_arrow_schema
from tests.lake_helpers import lake_config
from tests.replay_helpers import contents, ingest, simulated
from transforms.read_archive import ReadArchive

NAMESPACE = "market_data"


class Kept:
    """A destination that remembers; it stops taking after ``most`` events."""

    def __init__(self, most: int = 10**9) -> None:
        self.events: list[Recorded] = []
        self.flushed: list[int] = []
        self.most = most

    def put(self, event: Recorded) -> None:
        self.events.append(event)

    def flush(self) -> None:
        self.flushed.append(len(self.events))

    def full(self) -> bool:
        return len(self.events) >= self.most


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    simulated(tmp_path / "in", 400, "gaps=4,late=3,out-of-order=3")
    ingest([tmp_path / "in"], tmp_path / "wh")
    return tmp_path / "wh"


def recording(lake: Path, **selection: Any) -> RecordedTables:
    catalog = open_catalog(lake_config(lake))
    return RecordedTables(catalog, NAMESPACE, ("trades", "quotes"), EventSelection(**selection))


def test_all_events_are_handed_over_in_their_order(lake: Path) -> None:
    kept = Kept()
    stats = replay(recording(lake), kept)
    assert (stats.events, stats.stopped, stats.late_ms) == (400, False, {})
    assert kept.events == list(recording(lake).read())
    assert kept.flushed == [400]


def test_a_replay_that_was_stopped_goes_on_where_it_was(lake: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "position"
    found: list[Recorded] = []
    for most in (1, 150, 10**9):
        kept = Kept(most)
        stats = replay(recording(lake), kept, checkpoint=checkpoint, stopped=kept.full)
        assert checkpoint.exists() == stats.stopped == (most < 10**9)
        found += kept.events
    assert found == list(recording(lake).read())


def test_the_position_is_written_only_after_what_is_before_it_was_kept(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any moment, a replay repeats what it handed over since, and leaves nothing out."""
    monkeypatch.setattr("k2beam.produce.replay.KEPT_EVERY_S", 0.0)
    checkpoint = tmp_path / "position"

    class Killed(Kept):
        def put(self, event: Recorded) -> None:
            if self.full():
                raise KeyboardInterrupt
            super().put(event)

    killed = Killed(77)
    with pytest.raises(KeyboardInterrupt):
        replay(recording(lake), killed, checkpoint=checkpoint)
    rest = Kept()
    replay(recording(lake), rest, checkpoint=checkpoint)
    kept = killed.events[: killed.flushed[-1]]
    assert [*kept, *rest.events] == list(recording(lake).read())


def test_a_checkpoint_of_another_replay_is_refused(lake: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "position"
    kept = Kept(5)
    replay(recording(lake), kept, checkpoint=checkpoint, stopped=kept.full)
    with pytest.raises(UsageError, match="is of another replay"):
        replay(recording(lake, symbol="BTCUSDT"), Kept(), checkpoint=checkpoint)
    checkpoint.write_text("{")
    with pytest.raises(UsageError, match=r"can't be read: .*; remove it to begin anew"):
        replay(recording(lake), Kept(), checkpoint=checkpoint)


def test_events_come_with_the_spacing_that_they_had(lake: Path) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    clock = Clock()
    at: list[float] = []

    class Timed(Kept):
        def put(self, event: Recorded) -> None:
            at.append(clock.now)
            super().put(event)

    kept = Timed()
    replay(recording(lake), kept, pacer=Pacer(2.0, clock, clock.sleep))
    first = kept.events[0].position.time
    assert at == pytest.approx([(one.position.time - first) / 2e6 for one in kept.events], abs=1e-6)


def test_an_archive_of_the_tables_holds_the_same_rows_in_the_same_places(lake: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "out.avro")
    assert replay_to_archive(recording(lake), path) == 400
    run_ingest(ReadArchive([path]), IngestConfig(lake_config(tmp_path / "other")))
    assert contents(tmp_path / "other") == contents(lake)
    again = run_ingest(ReadArchive([path]), IngestConfig(lake_config(lake)))
    assert (sum(again.written.values()), again.already_covered) == (0, 400)


def test_an_archive_of_an_archive_holds_the_same_messages(tmp_path: Path) -> None:
    simulated(tmp_path / "in", 400, "malformed=18,late=5")
    path = str(tmp_path / "out.avro")
    source = RecordedArchive([str(one) for one in sorted((tmp_path / "in").glob("*.avro"))])
    assert replay_to_archive(source, path) == 400
    found, wanted = (
        sorted((one.message for one in given.read()), key=repr) for given in (RecordedArchive([path]), source)
    )
    assert found == wanted


class Client:
    """Takes the place of a producer and of a delivery."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def produce_trade(self, record: dict[str, Any]) -> None:
        self.sent.append(("trades", record))

    def produce_quote(self, record: dict[str, Any]) -> None:
        self.sent.append(("quotes", record))

    def send(self, message: OutgoingMessage) -> None:
        self.sent.append(message)

    def flush(self) -> None:
        self.sent.append("flushed")


def test_events_of_tables_are_produced_without_what_the_tables_add(lake: Path) -> None:
    client = Client()
    replay(recording(lake), KafkaEvents(client))
    assert client.sent.pop() == "flushed"
    names = {kind: set(payload_arrow_schema(f"{kind[:-1]}_v2").names) for kind in ("trades", "quotes")}
    assert all(set(record) == names[kind] for kind, record in client.sent)
    assert [kind for kind, _ in client.sent] == [one.position.kind for one in recording(lake).read()]


def test_messages_go_to_their_topics_or_to_one(tmp_path: Path) -> None:
    simulated(tmp_path / "in", 200, "malformed=6", kinds=("trades",), files=1)
    source = RecordedArchive([str(next((tmp_path / "in").glob("*.avro")))])
    for topic in (None, "mine"):
        client = Client()
        replay(source, KafkaMessages(client, topic))  # type: ignore[arg-type]
        assert client.sent.pop() == "flushed"
        assert {message.topic for message in client.sent} == {topic or "market.crypto.trades.binance"}
        messages = [one.message for one in source.read() if one.message is not None]
        assert [(one.key, one.value, one.headers) for one in client.sent] == [
            (one.key, one.value, one.headers) for one in messages
        ]


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    app = typer.Typer()
    command.register(app)
    app.command("other")(lambda: None)
    return app


def run(app: typer.Typer, *words: str) -> Any:
    return CliRunner().invoke(app, ["replay", *words])


def test_the_command_prints_lines_of_json(app: typer.Typer, lake: Path) -> None:
    done = run(app, "--warehouse", str(lake), "--kind", "trades")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.exit_code, {line["kind"] for line in lines}) == (0, {"trades"})
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    assert f"Replayed {len(lines)} events in " in done.stderr


def test_the_command_writes_an_archive_once(app: typer.Typer, lake: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.avro"
    done = run(app, "--warehouse", str(lake), "--to", f"archive:{path}", "--output", "json")
    assert json.loads(done.stdout) == {"events": 400, "archive": str(path)}
    again = run(app, "--warehouse", str(lake), "--to", f"archive:{path}")
    assert (again.exit_code, "already exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "file"], "--to takes stdout, kafka or archive:OUT.avro"),
        (["--to", "archive:"], "--to takes stdout, kafka or archive:OUT.avro"),
        (["--to", "archive:x.avro", "--speed", "1x"], "have no meaning for an archive"),
        (["--to", "archive:x.avro", "--checkpoint", "x"], "have no meaning for an archive"),
        (["--speed", "fast"], "--speed is max, 1x"),
        (["--kind", "books"], "--kind takes trades, quotes or both"),
        (["--topic", "x"], "--topic is for messages of an archive"),
        (["--until", "yesterday"], "--until"),
        (["--to", "kafka", "--bootstrap", "127.0.0.1:1"], "--registry URL is needed"),
        (["samples/asx/trades.avro"], "holds records, not messages"),
        (["--warehouse", "/nowhere"], "no warehouse at"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_t_be_is_refused(app: typer.Typer, lake: Path, words: list[str], told: str) -> None:
    where = [] if "--warehouse" in words else ["--warehouse", str(lake)]
    done = run(app, *words, *where)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert told in done.stderr
