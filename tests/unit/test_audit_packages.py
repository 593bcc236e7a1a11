"""What the look for known vulnerabilities makes of pip-audit's answers."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from scripts import audit_packages

GOOD = {"name": "a", "version": "1.0", "vulns": []}
BAD = {"name": "b", "version": "2.0", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["2.1", "3.0"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


def test_a_vulnerability_fails_and_names_what_mends_it() -> None:
    lines, code = audit_packages.told({"dependencies": [GOOD, BAD]})
    assert lines == ["b 2.0: PYSEC-2026-1, mended in 2.1, 3.0", "1 known vulnerabilities in 2 packages"]
    assert code == 1


def test_what_could_not_be_looked_up_is_a_note() -> None:
    lines, code = audit_packages.told({"dependencies": [GOOD, UNKNOWN]})
    assert lines == ["Note: 1 of 2 packages could not be looked up", "0 known vulnerabilities in 1 packages"]
    assert code == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (subprocess.TimeoutExpired("pip-audit", 1), "no answer in"),
        (subprocess.CompletedProcess([], 1, "", "ERROR: Could not connect"), "ERROR: Could not connect"),
        (subprocess.CompletedProcess([], 1, "", ""), "no answer"),
    ],
)
def test_without_network_it_is_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any, said: str
) -> None:
    def run(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "run", run)
    assert audit_packages.main() == 0
    assert f"Note: no packages were looked up: {said}" in capsys.readouterr().out
