"""The exporter without a broker: its gauges, what a failing reading does to them, and the command."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from k2beam.cli.main import app, main
from k2beam.config import NAMESPACE
from k2beam.errors import K2BeamError, MetricError
from k2beam.exporter import service
from k2beam.exporter.readings import lake_readings
from k2beam.exporter.rounds import Rounds, run_until
from k2beam.exporter.service import ExporterConfig, snapshot
from k2beam.kafka.config import KafkaConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, open_table
from tests.exporter_helpers import Shown, add_trades, gauges, lake
from tests.lake_helpers import START, lake_config
from tests.query_fixtures import append_dead_letters, append_gap_rows, dead_letter, gap, make_catalog


def take(readings: Sequence[Any]) -> None:
    for reading in readings:
        assert list(reading.read()) == []


def test_the_gauges_of_the_tables(tmp_path: Path) -> None:
    add_trades(tmp_path, range(10))
    catalog = make_catalog(tmp_path)
    append_gap_rows(catalog, [gap("a", 1, 2), gap("b", 4, 30)])
    append_dead_letters(catalog, [dead_letter(1), dead_letter(2)])
    shown = Shown()
    take(lake_readings(lake(tmp_path), shown.metrics))
    found = shown.now()
    table = open_table(catalog, NAMESPACE, "trades_v2")
    snapshot_now = table.current_snapshot()
    assert snapshot_now is not None
    assert {name: value for name, value in found.items() if "table=trades_v2" in name} == {
        "k2_table_last_commit_timestamp_seconds{table=trades_v2}": snapshot_now.timestamp_ms / 1e3,
        "k2_table_newest_event_timestamp_seconds{table=trades_v2}": (START + 9_000) / 1e6,
        "k2_table_rows{table=trades_v2}": 10,
        "k2_table_data_files{table=trades_v2}": 1,
        "k2_table_data_bytes{table=trades_v2}": sum(task.file.file_size_in_bytes for task in table.scan().plan_files()),
        "k2_table_small_files{table=trades_v2}": 1,
        "k2_table_snapshots{table=trades_v2}": 1,
    }
    assert found["k2_open_gaps{kind=trades,severity=SMALL}"] == 1
    assert found["k2_open_gaps{kind=trades,severity=LARGE}"] == 1
    assert found["k2_open_gaps{kind=quotes,severity=LARGE}"] == 0
    assert found["k2_missing_messages{kind=trades}"] == 29
    assert found["k2_stored_dead_letters{error_class=Truncated,stage=decode}"] == 2
    assert not [name for name in found if "quotes_v2" in name]


def test_a_forgotten_reading_shows_nothing(tmp_path: Path) -> None:
    add_trades(tmp_path, range(10))
    catalog = make_catalog(tmp_path)
    append_gap_rows(catalog, [gap("a", 1, 2)])
    append_dead_letters(catalog, [dead_letter(1)])
    shown = Shown()
    readings = lake_readings(lake(tmp_path), shown.metrics)
    take(readings)
    before = shown.now()
    for reading in readings:
        reading.forget()
    assert shown.now() == {}
    take(readings)
    assert shown.now() == before


def test_gauges_of_what_vanished_are_removed(tmp_path: Path) -> None:
    add_trades(tmp_path, range(10))
    catalog = make_catalog(tmp_path)
    dead_letters = append_dead_letters(
        catalog, [dead_letter(1), dead_letter(2, stage="frame", error_class="bad_magic")]
    )
    shown = Shown()
    readings = lake_readings(lake(tmp_path), shown.metrics)
    take(readings)
    dead_letters.delete("stage = 'frame'")
    catalog.drop_table((NAMESPACE, "trades_v2"))
    take(readings)
    assert shown.now("k2_stored") == {"k2_stored_dead_letters{error_class=Truncated,stage=decode}": 1}
    assert not [name for name in shown.now() if "trades_v2" in name]
    assert shown.now()["k2_table_rows{table=dead_letters}"] == 1


def test_an_empty_table_has_no_times(tmp_path: Path) -> None:
    add_trades(tmp_path, range(10))
    shown = Shown()
    readings = lake_readings(lake(tmp_path), shown.metrics)
    take(readings)
    catalog = open_catalog(lake_config(tmp_path))
    catalog.drop_table((NAMESPACE, "trades_v2"))
    open_table(catalog, NAMESPACE, "trades_v2")
    take(readings)
    assert shown.now("k2_table") == {
        f"k2_table_{name}{{table=trades_v2}}": 0
        for name in ("rows", "data_files", "data_bytes", "small_files", "snapshots")
    }


def test_a_gauge_that_was_removed_can_be_set_again_whatever_the_order_of_its_labels() -> None:
    shown = Shown()
    shown.metrics.gauge("k2_source_lag_messages", 1, topic="a", partition="0")
    shown.metrics.gauge("k2_source_lag_messages", 2, partition="0", topic="b")
    shown.metrics.gauge("k2_source_lag_messages", 3, topic="b", partition="0")
    shown.metrics.remove_gauge("k2_source_lag_messages", topic="b", partition="0")
    shown.metrics.remove_gauge("k2_source_lag_messages", topic="c", partition="0")
    assert shown.now() == {"k2_source_lag_messages{partition=0,topic=a}": 1}
    shown.metrics.gauge("k2_source_lag_messages", 4, partition="0", topic="b")
    assert shown.now()["k2_source_lag_messages{partition=0,topic=b}"] == 4


@pytest.mark.parametrize("labels", [{"topic": "a"}, {"topic": "a", "partition": "0", "service": "x"}])
def test_removing_a_gauge_by_wrong_labels_is_an_error(labels: dict[str, str]) -> None:
    with pytest.raises(MetricError):
        Shown().metrics.remove_gauge("k2_source_lag_messages", **labels)


class FakeReading:
    """Does what it's told."""

    def __init__(self, name: str, *answers: Any) -> None:
        self.name = name
        self._answers = list(answers)
        self.forgotten = 0
        self.on_read: Callable[[], object] = lambda: None

    def read(self) -> Sequence[str]:
        self.on_read()
        answer = self._answers.pop(0) if self._answers else ()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def forget(self) -> None:
        self.forgotten += 1


def test_a_reading_that_fails_is_counted_and_forgotten_and_the_others_go_on() -> None:
    shown = Shown()
    bad = FakeReading("bad", K2BeamError("x"), RuntimeError("y"), ["a part"], ())
    good = FakeReading("good")
    times = iter(range(100, 200))
    rounds = Rounds([bad, good], shown.metrics, now=lambda: next(times))
    last = "k2_exporter_last_success_timestamp_seconds"
    assert shown.now() == {
        "k2_exporter_failures_total{reading=bad}": 0,
        "k2_exporter_failures_total{reading=good}": 0,
        f"{last}{{reading=bad}}": 0,
        f"{last}{{reading=good}}": 0,
    }
    assert [rounds.once() for _ in range(4)] == [False, False, False, True]
    assert bad.forgotten == 2
    assert shown.now() == {
        "k2_exporter_failures_total{reading=bad}": 3,
        "k2_exporter_failures_total{reading=good}": 0,
        f"{last}{{reading=bad}}": 103,
        f"{last}{{reading=good}}": 104,
    }


def test_a_reading_whose_gauges_can_not_be_taken_away_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(FakeReading):
        def forget(self) -> None:
            raise RuntimeError("dictionary changed")

    shown = Shown()
    bad, good = Stubborn("bad", K2BeamError("x"), ValueError("y"), ()), FakeReading("good")
    rounds = Rounds([bad, good], shown.metrics, now=lambda: 7.0)
    with caplog.at_level("ERROR", logger="k2beam.exporter"):
        assert [rounds.once() for _ in range(3)] == [False, False, True]
    assert shown.now("k2_exporter_failures_total") == {
        "k2_exporter_failures_total{reading=bad}": 2,
        "k2_exporter_failures_total{reading=good}": 0,
    }
    said = [record.getMessage() for record in caplog.records if "stay" in record.getMessage()]
    assert len(said) == 2
    assert all("RuntimeError: dictionary changed" in line for line in said)


def test_a_failure_is_logged_once_for_as_long_as_it_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    error = K2BeamError("no broker")
    first = FakeReading("first", error, error, (), error)
    second = FakeReading("second", error, RuntimeError("odd"))
    rounds = Rounds([first, second], Shown().metrics)
    said = []
    with caplog.at_level("INFO", logger="k2beam.exporter"):
        for _ in range(4):
            rounds.once()
            said.append([record.getMessage() for record in caplog.records])
            caplog.clear()
    assert [len(lines) for lines in said] == [1, 1, 2, 1]
    assert "no broker" in said[0][0]
    assert "RuntimeError: odd" in said[1][0]
    assert "Traceback" in said[1][0]
    assert ["works again" in line for line in said[2]] == [True, True]


def test_groups_do_not_wait_for_each_other() -> None:
    stop, released = threading.Event(), threading.Event()
    stuck, free = FakeReading("stuck"), FakeReading("free")
    stuck.on_read = lambda: released.wait(30)
    reads = []

    def count() -> None:
        reads.append(1)
        if len(reads) == 3:
            released.set()
            stop.set()

    free.on_read = count
    metrics = Shown().metrics
    run_until(stop, [Rounds([stuck], metrics), Rounds([free], metrics)], 0.001)
    assert len(reads) == 3


def test_once_prints_only_what_has_a_value(tmp_path: Path) -> None:
    add_trades(tmp_path, range(10))
    done = CliRunner().invoke(app, ["exporter", "--once", "--warehouse", str(tmp_path), "--environment", "lab"])
    assert done.exit_code == 0, done.output
    families = list(text_string_to_metric_families(done.stdout))
    assert all(family.samples for family in families)
    assert {sample.labels["environment"] for family in families for sample in family.samples} == {"lab"}
    assert {sample.labels["component"] for family in families for sample in family.samples} == {"exporter"}
    found = gauges(done.stdout)
    assert found["k2_table_rows{table=trades_v2}"] == 10
    assert found["k2_missing_messages{kind=trades}"] == 0


def test_once_exits_with_1_where_there_is_no_warehouse(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["exporter", "--once", "--warehouse", str(tmp_path / "none")])
    assert done.exit_code == 1
    found = gauges(done.stdout)
    assert {value for name, value in found.items() if name.startswith("k2_exporter_failures_total")} == {1}
    assert not [name for name in found if not name.startswith("k2_exporter")]
    assert not (tmp_path / "none").exists()


def test_a_damaged_table_does_not_hide_the_others(tmp_path: Path) -> None:
    add_trades(tmp_path, range(10))
    dead_letters = append_dead_letters(make_catalog(tmp_path), [dead_letter(1)])
    now = dead_letters.current_snapshot()
    assert now is not None
    Path(now.manifest_list.removeprefix("file://")).unlink()
    text, good = snapshot(ExporterConfig(lake_config(tmp_path)))
    found = gauges(text)
    assert not good
    assert found["k2_table_rows{table=trades_v2}"] == 10
    assert f"k2_table_rows{{table={DEAD_LETTERS}}}" not in found
    failed = {name for name, value in found.items() if name.startswith("k2_exporter_failures_total") and value}
    assert failed == {
        "k2_exporter_failures_total{reading=table:dead_letters}",
        "k2_exporter_failures_total{reading=dead_letters}",
    }


def test_a_cluster_that_is_away_does_not_hide_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2beam.kafka.cluster.ASK_SECONDS", 0.2)
    add_trades(tmp_path, range(10))
    text, good = snapshot(ExporterConfig(lake_config(tmp_path), KafkaConfig("127.0.0.1:1"), ("t",)))
    found = gauges(text)
    assert not good
    assert found["k2_table_rows{table=trades_v2}"] == 10
    assert found["k2_exporter_failures_total{reading=kafka}"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    add_trades(tmp_path, range(10))
    # The registry is the process's, and may hold what another exporter has shown.
    environment = f"serving-{number.name}"
    served: dict[str, float] = {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    real = prometheus_client.start_http_server

    def started(*arguments: Any) -> Any:
        server, thread = real(*arguments)
        assert server.server_address[0] == "127.0.0.1"
        threading.Thread(target=scrape, args=(server.server_port,)).start()
        return server, thread

    def scrape(port: int) -> None:
        try:
            deadline = time.monotonic() + 60
            while "trades_v2" not in served and time.monotonic() < deadline:
                time.sleep(0.02)
                with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    families = list(text_string_to_metric_families(answer.read().decode()))
                rows = (one for family in families if family.name == "k2_table_rows" for one in family.samples)
                served.update(
                    {one.labels["table"]: one.value for one in rows if one.labels["environment"] == environment}
                )
        finally:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(service, "start_http_server", started)
    before = signal.getsignal(number)
    main_exit = CliRunner().invoke(
        app,
        [
            *("exporter", "--warehouse", str(tmp_path), "--environment", environment),
            *("--listen", "127.0.0.1:0", "--interval", "50ms"),
        ],
    )
    assert main_exit.exit_code == 0, main_exit.output
    assert signal.getsignal(number) == before
    assert served == {"trades_v2": 10}


def test_an_address_in_use_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_trades(tmp_path, range(1))
    server, _ = prometheus_client.start_http_server(0, "127.0.0.1", CollectorRegistry())
    try:
        with pytest.raises(SystemExit) as ended:
            main(["exporter", "--warehouse", str(tmp_path), "--listen", f"127.0.0.1:{server.server_port}"])
    finally:
        server.shutdown()
        server.server_close()
    assert ended.value.code == 2
    assert "choose another address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--topic", "t"], "give --bootstrap HOSTS"),
        (["--topic-pattern", "t"], "give --bootstrap HOSTS"),
        (["--bootstrap", "x:1"], "give --topic NAME"),
        (["--security-protocol", "SSL", "--ca-file", "x"], "no effect without --bootstrap"),
        (["--listen", "9308"], "--listen takes HOST:PORT"),
        (["--listen", "h:99999"], "--listen takes HOST:PORT"),
        (["--interval", "0s"], "--interval must be above 0"),
        (["--interval", "soon"], "--interval takes"),
        (["--bootstrap", "x:1", "--topic", "t", "--sasl-password", "secret"], "takes a reference"),
    ],
)
def test_wrong_options_are_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["exporter", "--once", *options])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
