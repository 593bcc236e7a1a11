"""Fixtures that every test may use, and what the run says of skipped tests."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from k2beam.stack.prism import find_prism
from tests.metrics_recorder import CallSiteRecorder

_FORBID_SKIPS = "K2BEAM_FORBID_SKIPS"

# A wrong label raises where tests run; set here so that worker processes inherit it.
os.environ["K2BEAM_STRICT_METRICS"] = "1"

# Beam says that it stops Prism when the process ends, which would come after pytest's closing line.
logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)

# How long an example takes depends on what else the machine does, and is no property of the code.
settings.register_profile("k2beam", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("k2beam")


def pytest_configure(config: pytest.Config) -> None:
    """A run of all tests fails where a call of a metric was made by none of them."""
    recorder = CallSiteRecorder(Path(__file__).resolve().parent.parent)
    recorder.install()
    config.pluginmanager.register(recorder, "call-sites-of-metrics")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def prism() -> Path:
    """The Prism program; building it takes minutes, so that a test never does."""
    path = find_prism()
    if path is None:
        pytest.skip("no Prism: python -m k2beam.stack.prism builds it")
    return path


@pytest.fixture
def nothing_hidden() -> Iterator[None]:
    """A job that an earlier test cancelled in this process hides what Beam says until another starts."""
    beam = sys.modules.get("k2beam.job.beam")  # where nothing loaded Beam, nothing is hidden
    if beam is not None:
        beam.quiet.end()
    yield
    if beam is not None:
        beam.quiet.end()


def _skipped(reporter: pytest.TerminalReporter) -> list[pytest.TestReport | pytest.CollectReport]:
    return reporter.stats.get("skipped", [])


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With K2BEAM_FORBID_SKIPS=1, a skipped test fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(_FORBID_SKIPS) == "1" and reporter is not None and _skipped(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names every skipped test and why it was skipped."""
    skipped = _skipped(terminalreporter)
    if not skipped:
        return
    terminalreporter.section("skipped tests")
    for report in skipped:
        terminalreporter.line(f"{report.nodeid}: {_reason(report)}")
    if os.environ.get(_FORBID_SKIPS) == "1":
        terminalreporter.line(f"{_FORBID_SKIPS}=1: {len(skipped)} skipped, so this run fails", red=True)
