"""The lint of metrics: on the code, on calls that are right and wrong, and on its own edits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from k2beam.errors import MetricError
from k2beam.metrics.handle import Metrics
from scripts import validate_metrics_labels as script
from tests.metrics_snippets.bad import tracker

Capsys = pytest.CaptureFixture[str]
TRACKER = "tests/metrics_snippets/bad/tracker.py"
ROWS = "metrics.increment('k2_rows_written_total'"
RETRIES = "metrics.increment('k2_commit_retries_total'"

MISTAKES = """\
k2_rows_writen_total: is not in k2beam.metrics.registry; add it there, did you mean k2_rows_written_total?
anything.increment('k2_rows_writen_total', stage='s')
k2_commit_retries_total: missing label(s) table, reason, unknown label(s) a, tabel, did you mean table?
metrics.increment('k2_commit_retries_total', a='b', tabel='t')
k2_freshness_seconds: standard label(s) service, component, which the handle adds
metrics.gauge('k2_freshness_seconds', 1, service='s', component='c', table='t')
k2_rows_written_total: is a counter, not a gauge; call increment
metrics.remove_gauge('k2_rows_written_total', table='t')
k2_freshness_seconds: no value is given; gauge needs one
metrics.gauge('k2_freshness_seconds', table='t')
k2_rows_written_total: the value is given twice
metrics.increment('k2_rows_written_total', 1, value=2, table='t')
k2_rows_written_total: 3 positional arguments; increment takes name and value only
metrics.increment('k2_rows_written_total', 1, 't', table='t')
increment: no metric is given; write its name as the first argument
metrics.increment(name='k2_rows_written_total', table='t')
""".splitlines()
NOT_WRITTEN = [
    "metrics.increment('k2_rows_written_total', tabel='t', **labels)",
    "metrics.increment('k2_rows_written_total', *both, table='t')",
    "self.writer_metrics().increment(NAME, table='t')",
    "(metrics or self._metrics).increment(f'k2_{name}_total', table='t')",
    "Metrics.increment(handle, 'k2_rows_written_total', table='t')",
    "count = self._metrics.increment",
]
RIGHT = [
    "metrics.increment('k2_rows_written_total', 1, table=table())",
    "self._metrics.gauge('k2_freshness_seconds', value=1, table='t')",
    "self.writer_metrics().remove_gauge(\n    'k2_freshness_seconds',\n    table='t',\n)",
    "Metrics('c').histogram('k2_write_duration_seconds', 1, table='t')",
]
OTHERS = ["a.increment(name)", "a.gauge('k3', x='y')", "beam.metrics.Metrics.gauge('k2', 'x')", "metrics.x('k2_')"]
MENDED = {
    "metrics.increment('k2_rows_writen_total', 3, table='t')": f"{ROWS}, 3, table='t')",
    f"{ROWS}, täble = f())": f"{ROWS}, table = f())",
    f"{ROWS}, symbol='s', table='t')": f"{ROWS}, table='t')",
    "metrics.remove_gauge('k2_table_rows', value=1, table=t)": "metrics.remove_gauge('k2_table_rows', table=t)",
    f"{ROWS}, table='Zürich €', symbol='s', component='c',)": f"{ROWS}, table='Zürich €',)",
    f"{RETRIES}, tabel='t', a='s', component='c')": f"{RETRIES}, table='t', a='s')",
    f"{RETRIES}, tabel='t', a='s', reasn='r')": f"{RETRIES}, table='t', reason='r')",
    f"{ROWS},\r\n    a=(\r\n        's'\r\n    ),\r\n    table='t',\r\n)\r\n": f"{ROWS},\r\n    table='t',\r\n)\r\n",
    f"{ROWS},\n    table='t',\n    symbol='s'\n)": f"{ROWS},\n    table='t'\n)",
}
LEFT = [
    f"{ROWS}, symbol='s')",
    f"{RETRIES}, table='t', reasn='r', resson='r')",
    "metrics.increment('k2_iceberg_transaction_total', table='t')",
    "metrics.increment('k2_freshness_second', table='t')",
    "metrics.increment('k2_rows_writen_total', stage='s')",
    "metrics.increment('k2_rows_' 'writen_total', table='t')",
    "metrics.gauge('k2_rows_written_total', 1, table='t', symbol='s')",
    f"{ROWS}, table='t', symbol=input())",
    f"{ROWS},\n    table='t',\n    symbol='s',  # why\n)",
    f"{ROWS},\n    table='t',\n    symbol=(  # why\n        's'\n    ),\n)",
    f"{ROWS},\n    # why\n    symbol='s',\n    table='t',\n)",
]


def lint(tmp_path: Path, capsys: Capsys, source: str, *options: str) -> tuple[list[str], str]:
    """What is said of a file, without its name, and its text thereafter."""
    (path := tmp_path / "x.py").write_bytes(source.encode())
    code = script.main([*options, "--root", str(tmp_path), str(path)])
    said = [line.removeprefix("x.py:") for line in capsys.readouterr().out.splitlines()]
    assert code == (1 if said else 0)
    return said, path.read_bytes().decode()


def test_the_code_is_clean_and_its_calls_are_seen() -> None:
    assert script.main([]) == 0
    assert len([*script.call_sites([script.ROOT / "k2beam", script.ROOT / "transforms"])]) >= 50


@pytest.mark.parametrize("call", [tracker.produce_error_with_a_data_type, tracker.transaction_with_extra_labels])
def test_what_the_lint_says_of_known_mistakes_the_handle_says_too(call: Callable[[Metrics], None]) -> None:
    with pytest.raises(MetricError, match="unknown labels: "):
        call(Metrics("producer", registry=CollectorRegistry(), strict=True))


def test_the_command_in_another_folder_names_file_line_and_metric_and_exits_with_1() -> None:
    command = [sys.executable, script.__file__, "--check", tracker.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stderr) == (1, "2 finding(s)\n")
    assert done.stdout.splitlines() == [
        f"{TRACKER}:9: k2_kafka_produce_errors_total: unknown label(s) data_type",
        f"{TRACKER}:20: k2_iceberg_transactions_total: unknown label(s) exchange, asset_class",
    ]


@pytest.mark.parametrize(("said", "source"), [*zip(MISTAKES[::2], MISTAKES[1::2], strict=True)])
def test_each_mistake_is_named_in_its_line(tmp_path: Path, capsys: Capsys, said: str, source: str) -> None:
    assert lint(tmp_path, capsys, f"\n{source}") == ([f"2: {said}"], f"\n{source}")


@pytest.mark.parametrize("source", [*RIGHT, *OTHERS])
def test_right_calls_are_silent_and_seen(tmp_path: Path, capsys: Capsys, source: str) -> None:
    assert lint(tmp_path, capsys, source)[0] == []
    assert len([*script.call_sites([tmp_path])]) == (source in RIGHT)


@pytest.mark.parametrize(("before", "after"), [*MENDED.items()])
def test_what_has_one_remedy_is_mended_once(tmp_path: Path, capsys: Capsys, before: str, after: str) -> None:
    assert lint(tmp_path, capsys, before, "--fix")[1] == after
    assert lint(tmp_path, capsys, after, "--fix")[1] == after


@pytest.mark.parametrize("source", [*LEFT, *NOT_WRITTEN])
def test_what_may_be_meant_otherwise_is_reported_and_left(tmp_path: Path, capsys: Capsys, source: str) -> None:
    said, text = lint(tmp_path, capsys, source, "--fix")
    assert (len(said), text) == (1, source)
    assert ("write name and labels at the call" in said[0]) == (source in NOT_WRITTEN)


@pytest.mark.parametrize("arguments", [["nowhere.py"], ["setup.cfg"], ["--fix", "--check"], ["BROKEN"]])
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    (broken := tmp_path / "broken.py").write_text("def (:\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        script.main([str(broken) if argument == "BROKEN" else argument for argument in arguments])
    assert stopped.value.code == 2
