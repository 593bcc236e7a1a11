"""The served page: what it reads again and when, what it says when it can't, and who gets it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k2beam.errors import KafkaUnreachable, UsageError
from k2beam.exporter.lag import TopicLag
from k2beam.query.lake import Lake
from k2beam.report import LivePage, PageServer, ReportSelection, server, topic_lag_rows
from tests.exporter_helpers import add_trades
from tests.exporter_helpers import lake as tables_of
from tests.query_fixtures import append_events, make_catalog, trade
from tests.report_helpers import make_lake
from tests.unit.exporter.test_lag import FakeCluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_lake(tmp_path)


@pytest.fixture
def page(folder: Path) -> LivePage:
    made = LivePage(Lake(str(folder)), ReportSelection(), title="a lake")
    made.refresh()
    return made


@pytest.fixture
def served(page: LivePage) -> Iterator[PageServer]:
    with PageServer(page, "127.0.0.1", 0, 0.5) as found:
        yield found


def ask(served: PageServer, path: str, host: str | None = None) -> tuple[http.client.HTTPResponse, str]:
    address = served.address.removeprefix("http://").removesuffix("/")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", path, headers={"Host": host or address})
    answer = connection.getresponse()
    return answer, answer.read().decode()


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """The calls of one of the functions by which the page reads."""
    calls: list[Any] = []
    real = getattr(server, name)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(server, name, call)
    return calls


def test_the_tables_are_read_again_when_they_have_a_new_snapshot(
    page: LivePage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, audits = counted(monkeypatch, "gather_contents"), counted(monkeypatch, "audit_verdict")
    before = page.contents
    page.refresh()
    assert (len(reads), len(audits)) == (0, 0)
    assert page.contents["made_at"] >= before["made_at"]
    append_events(make_catalog(folder), "trades", [trade(900, 500, symbol="NEW")])
    page.refresh()
    assert (len(reads), len(audits)) == (1, 0)
    assert page.contents["symbols"] == before["symbols"] + 1
    assert page.contents["verdict"] == before["verdict"]


def test_what_is_new_is_audited_when_it_is_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audits = counted(monkeypatch, "audit_verdict")
    page = LivePage(Lake(str(folder)), ReportSelection(), title="x", audit_every=0.001)
    for _ in range(2):
        page.refresh()
        time.sleep(0.01)
    assert len(audits) == 1, "of the same tables the verdict is the same"

    def expected() -> int:
        found: int = page.contents["verdict"]["offsets"]["expected"]
        return found

    before = expected()
    append_events(make_catalog(folder), "trades", [trade(900, 500)])
    page.refresh()
    assert len(audits) == 2
    assert expected() > before
    unaudited = LivePage(Lake(str(folder)), ReportSelection(), title="x", audit_every=None)
    unaudited.refresh()
    assert unaudited.contents["verdict"] is None
    assert len(audits) == 2


@pytest.mark.parametrize("error", [KafkaUnreachable("no broker answers"), RuntimeError("no broker answers")])
def test_what_fails_is_said_beside_what_was_read(folder: Path, error: Exception) -> None:
    broken = False

    def lag() -> Any:
        if broken:
            raise error
        return {"partitions": [], "problems": []}

    page = LivePage(Lake(str(folder)), ReportSelection(), title="x", lag=lag)
    page.refresh()
    assert page.contents["lag"] == {"partitions": [], "problems": []}
    read, broken = page.contents, True
    page.try_refresh()
    assert "no broker answers" in page.contents["problem"]
    assert page.contents["made_at"] == read["made_at"]
    assert page.contents["tables"] == read["tables"]
    broken = False
    page.try_refresh()
    assert page.contents["problem"] is None


def test_the_first_reading_raises(folder: Path) -> None:
    with pytest.raises(UsageError, match="--every '7m'"):
        LivePage(Lake(str(folder)), ReportSelection(every="7m"), title="x").refresh()


def test_lag_is_that_of_the_exporter(tmp_path: Path) -> None:
    cluster = FakeCluster(a=50, b=3)
    add_trades(tmp_path, range(40), cluster.source("a"))
    lag = TopicLag(tables_of(tmp_path), lambda: cluster, cluster.peek, ["b", "a", "gone"])
    rows = topic_lag_rows(lag)
    found = [(row["topic"], row["partition"], row["lag"], row["covered"], row["lost"]) for row in rows["partitions"]]
    assert found == [("a", 0, 10, 40, 0), ("b", 0, 3, 0, 0)]
    assert all(row["behind"] > 0 for row in rows["partitions"])
    assert len(rows["problems"]) == 1
    json.dumps(rows)


def test_the_page_and_its_contents_are_served(page: LivePage, served: PageServer) -> None:
    answer, text = ask(served, "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'data-every="500"' in text
    answer, text = ask(served, "/contents.json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert json.loads(text) == json.loads(json.dumps(page.contents))
    assert ask(served, "/other")[0].status == 404
    assert ask(served, "/../setup.py")[0].status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:80", 200),
        ("localhost", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:9309", 200),
        ("[::1]:9309", 200),
        ("evil.example:9309", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
        ("[::1", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_a_name_that_was_pointed_here_gets_nothing(served: PageServer, host: str, status: int) -> None:
    answer, text = ask(served, "/contents.json", host or " ")
    assert answer.status == status
    assert ("BTCUSDT" in text) == (status == 200)


def test_it_ends_with_a_signal_and_reads_meanwhile(page: LivePage, folder: Path) -> None:
    found = PageServer(page, "127.0.0.1", 0, 0.05)
    append_events(make_catalog(folder), "trades", [trade(900, 500, symbol="NEW")])

    def end() -> None:
        limit = time.monotonic() + 20
        while page.contents["symbols"] != 4 and time.monotonic() < limit:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    found.run()
    ending.join()
    assert page.contents["symbols"] == 4


def test_an_address_that_is_taken_is_said(page: LivePage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--listen 127.0.0.1:{port}: .*choose another address"):
            PageServer(page, "127.0.0.1", port, 1)
