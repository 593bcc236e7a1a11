"""The rules, alerts and example configuration of ``ops/prometheus`` by promtool, and a Prometheus that scrapes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from k2beam.errors import PlatformError
from k2beam.metrics.handle import Metrics
from k2beam.stack.prometheus import Program, ensure_prometheus
from k2beam.stack.stack import LocalStack
from tests.integration.prometheus_helpers import query, wait_for, write_target

pytestmark = pytest.mark.integration

OPS = Path(__file__).resolve().parents[2] / "ops" / "prometheus"
TESTS = sorted(path.name for path in (OPS / "tests").glob("*.yml"))


def program(name: Program) -> Path:
    try:
        return ensure_prometheus(name)
    except PlatformError as error:
        pytest.skip(f"no {name}: {error}")


def promtool(*arguments: str, folder: Path = OPS) -> subprocess.CompletedProcess[str]:
    command = [str(program("promtool")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The folder ``ops/prometheus``, to be spoilt."""
    return Path(shutil.copytree(OPS, tmp_path / "prometheus"))


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_rules_and_configuration_are_valid() -> None:
    rules = promtool("check", "rules", "rules.yml", "alerts.yml")
    assert rules.returncode == 0, rules.stdout + rules.stderr
    config = promtool("check", "config", "prometheus.yml")
    assert config.returncode == 0, config.stdout + config.stderr


@pytest.mark.parametrize("name", TESTS)
def test_alerts_fire_when_they_should_and_not_just_below(name: str) -> None:
    done = promtool("test", "rules", f"tests/{name}")
    assert done.returncode == 0, done.stdout + done.stderr


YOUNG = "(k2_metric_errors_total unless present_over_time(k2_metric_errors_total[1h] offset 10m))"
"""The first event of a counter, which increase() does not see."""


@pytest.mark.parametrize(
    ("old", "new", "tests"),
    [
        ("topic:k2_source_lag_messages:sum > 1e6", "topic:k2_source_lag_messages:sum >= 1e6", "sources.yml"),
        ("topic:k2_source_lag_messages:sum > 1e6", "topic:k2_source_lag_messages:sum > 1e6 + 1", "sources.yml"),
        ("kind:k2_sequence_gaps:rate5m > 10", "kind:k2_sequence_gaps:rate5m >= 10", "sequences.yml"),
        (YOUNG, "increase(k2_metric_errors_total[10m])", "monitoring.yml"),
        ('{classification!~"unsequenced|late_fill"}', '{classification!="unsequenced"}', "sequences.yml"),
        ('{classification!~"unsequenced|late_fill"}', '{classification!="late_fill"}', "sequences.yml"),
        ("table:k2_write_failures:increase10m) > 0", "table:k2_write_failures:increase10m) > 1", "commits.yml"),
        ('{reason!="planned"}[10m]', "[10m]", "feeds.yml"),
        ('{reason!="planned"} unless', " unless", "feeds.yml"),
    ],
)
def test_another_limit_is_noticed(copied: Path, old: str, new: str, tests: str) -> None:
    spoil(copied / "alerts.yml", old, new)
    done = promtool("test", "rules", f"tests/{tests}", folder=copied)
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[LocalStack]:
    program("prometheus")
    with LocalStack(tmp_path / "stack", services=("prometheus",)) as local:
        yield local


def test_the_local_prometheus_scrapes_what_target_files_name(prometheus: LocalStack) -> None:
    registry = CollectorRegistry()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        Metrics("commit", environment="test", registry=registry).increment("k2_rows_written_total", 200_000, table="t")
        address = f"127.0.0.1:{server.server_port}"
        target = write_target(prometheus.prometheus_targets(), "worker", address, job="mine", host="here")

        rows = 'k2_rows_written_total{component="commit", table="t", host="here", job="k2beam-workers"}'
        assert wait_for(prometheus.prometheus_url, f"sum({rows})", 200_000) == 200_000
        assert query(prometheus.prometheus_url, 'sum(up{job="k2beam-workers"})') == 1
        assert query(prometheus.prometheus_url, "sum(k2_rows_written_total{table='other'})") is None

        target.unlink()
        assert wait_for(prometheus.prometheus_url, "count(up)", None) is None
    finally:
        server.shutdown()
        thread.join()


def test_a_stopped_prometheus_comes_back_with_its_data(prometheus: LocalStack) -> None:
    address = prometheus.prometheus_url.removeprefix("http://")
    write_target(prometheus.prometheus_targets("k2beam-exporter"), "itself", address)
    asked = 'count_over_time(up{job="k2beam-exporter"}[1h]) > bool 0'
    assert wait_for(prometheus.prometheus_url, asked, 1) == 1
    prometheus.prometheus_targets("k2beam-exporter").joinpath("itself.json").unlink()
    prometheus.stop("prometheus")
    prometheus.start("prometheus")
    assert wait_for(prometheus.prometheus_url, asked, 1) == 1
