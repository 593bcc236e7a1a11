"""Pushing the metrics of a job that ends, and the options of metrics."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from k2beam.cli.main import main
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.errors import MetricsPushFailed, UsageError
from k2beam.job.stats import IngestStats
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.push import counted_here, push_metrics
from k2beam.simulate.simulate import Simulation, simulate
from tests.http_servers import closed_port, gateway


def test_what_this_process_counted_replaces_what_the_gateway_had() -> None:
    MetricsConfig().open("pusher").increment("k2_rows_written_total", 4, table="t")
    with gateway() as (url, pushed):
        push_metrics(url)
    [(method, path, body)] = pushed
    assert (method, path) == ("PUT", f"/metrics/job/k2beam/instance/{socket.gethostname()}")
    assert 'k2_rows_written_total{component="pusher",environment="",service="k2beam",table="t"} 4.0' in body


def test_a_gateway_that_refuses_or_is_not_there_is_an_error() -> None:
    with gateway(500) as (url, _), pytest.raises(MetricsPushFailed, match=f"{url}: HTTP Error 500"):
        push_metrics(url)
    with pytest.raises(MetricsPushFailed, match=r"not pushed to .*refused"):
        push_metrics(f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(MetricsPushFailed) as failed:
        push_metrics(f"http://user:canary@127.0.0.1:{closed_port()}")
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({}, MetricsConfig()),
        ({"metrics": False}, MetricsConfig(enabled=False)),
        ({"environment": "prod"}, MetricsConfig(environment="prod")),
        (
            {"metrics_endpoint": "0.0.0.0:9500-9510", "metrics_targets": "t"},
            MetricsConfig(endpoint=True, host="0.0.0.0", ports=(9500, 9510), targets="t"),
        ),
        ({"metrics_endpoint": "[::1]:9500"}, MetricsConfig(endpoint=True, host="::1", ports=(9500, 9500))),
        ({"metrics_endpoint": "node-1:1-2"}, MetricsConfig(endpoint=True, host="node-1", ports=(1, 2))),
    ],
)
def test_what_the_options_mean(options: dict[str, object], config: MetricsConfig) -> None:
    assert metrics_options(**options) == MetricsOptions(config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics_endpoint": "9400-9499"}, "HOST:PORT-PORT"),
        ({"metrics_endpoint": "::1:9400"}, "HOST:PORT-PORT"),
        ({"metrics_endpoint": "a:9400-9399"}, "from 1 to 65535"),
        ({"metrics_targets": "t"}, "--metrics-endpoint"),
        ({"metrics": False, "metrics_endpoint": "a:1"}, "--metrics-endpoint: no effect with --no-metrics"),
        ({"metrics": False, "push_gateway": "u"}, "--push-gateway: no effect"),
        ({"push_gateway": "http://user:canary@gateway"}, "no name or password in its URL"),
        ({"push_gateway": "user:canary@gateway:9091"}, "no name or password in its URL"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        metrics_options(**options)  # type: ignore[arg-type]


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


Ingest = Callable[..., int]


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    simulate(tmp_path / "in", Simulation(rows=50, symbols=2, seed=1, kinds=("trades",)))
    paths = [str(tmp_path / "in"), "--warehouse", str(tmp_path / "wh"), "-o", "json"]
    return lambda *arguments: command("ingest", "archive", *paths, *arguments)


def test_a_bounded_job_pushes_at_its_end(ingest: Ingest) -> None:
    with gateway() as (url, pushed):
        assert ingest("--push-gateway", url, "--environment", "pushing") == 0
    [(_, _, body)] = pushed
    samples = 'k2_rows_written_total{component="commit",environment="pushing",service="k2beam",table="trades_v2"} 50.0'
    assert samples in body.splitlines()


def test_a_push_that_fails_is_told_and_the_ingest_is_good(ingest: Ingest, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    assert ingest("--push-gateway", url) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["written"]["trades_v2"] == 50
    assert "not pushed to" in captured.err
    assert "the ingest itself is complete" in captured.err


def test_messages_counted_elsewhere_are_told(
    ingest: Ingest, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    here = round(counted_here("k2_messages_consumed_total"))
    stats = IngestStats(here + 10, {}, 0, 0, 0, {}, 1.0, 1.0)
    with gateway() as (url, pushed):
        with caplog.at_level("INFO", logger="k2beam"):
            MetricsOptions(push_gateway=url).push(stats)
        assert f"10 of {here + 10} messages were counted by workers in processes of their own" in caplog.text
        capsys.readouterr()
        assert ingest("--push-gateway", url) == 0
        assert len(pushed) == 2
    assert "processes of their own" not in capsys.readouterr().err


def test_an_unbounded_job_and_one_without_tables_refuse_to_push(capsys: pytest.CaptureFixture[str]) -> None:
    kafka = ("ingest", "kafka", "--topic", "t", "--registry", "http://localhost:1", "--push-gateway", "http://g")
    assert command(*kafka) == 2
    assert "--push-gateway is for jobs that end" in capsys.readouterr().err
    csv = ("ingest", "csv", "f.csv", "--mapping", "asx-trades", "--to", "archive:f.avro", "--no-metrics")
    assert command(*csv) == 2
    assert "--to archive:f.avro counts nothing" in " ".join(capsys.readouterr().err.split())
