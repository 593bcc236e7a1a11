"""The lint of metrics: on snippets that are right and wrong, on its own edits, and on the code."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from k2beam.errors import MetricError
from k2beam.metrics.handle import Metrics
from scripts.metrics_lint.calls import METHODS, CallSite, call_sites, python_files
from scripts.metrics_lint.check import Checker, has_test
from scripts.metrics_lint.source import Project
from scripts.validate_metrics_labels import ROOT, lint, main
from tests.metrics_snippets.bad import tracker

SNIPPETS = Path(__file__).resolve().parent.parent / "metrics_snippets"
EXPECT = "# expect: "
CALL = "metrics.increment('k2_rows_written_total'"
HEAD = "from k2beam.metrics.handle import Metrics\nmetrics = Metrics('c')\n"


def expected(path: Path) -> list[tuple[int, str]]:
    """What the comments of a snippet say of the line that follows them."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [(number + 2, line.strip().removeprefix(EXPECT)) for number, line in enumerate(lines) if EXPECT in line]


def findings(path: Path, root: Path = ROOT) -> list[tuple[int, str]]:
    report, _ = lint([path], root)
    return [(finding.line, f"{finding.metric}: {finding.message}") for finding in report.findings]


def said_of(tmp_path: Path, source: str) -> list[str]:
    """The findings in a file with a handle named ``metrics`` and some lines."""
    path = tmp_path / "snippet.py"
    path.write_text(HEAD + source, encoding="utf-8")
    return [text for _, text in findings(path, tmp_path)]


def fixed(tmp_path: Path, source: str) -> str:
    """The lines after they were mended."""
    path = tmp_path / "snippet.py"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(HEAD + source)
    lint([path], tmp_path, fix=True)
    with path.open(encoding="utf-8", newline="") as file:
        return file.read().removeprefix(HEAD)


def test_the_code_is_clean() -> None:
    assert main([]) == 0


def test_names_and_labels_are_written_at_each_call_of_the_code() -> None:
    """No call of the source is known only through constants, helpers or mappings, or is in doubt."""
    sites = call_sites(Project(ROOT), python_files([ROOT / "k2beam", ROOT / "transforms"]))
    assert len(sites) >= 50
    assert [str(site) for site in sites if not is_literal(site)] == []


def is_literal(site: CallSite) -> bool:
    """Whether a call gives its metric as a text and each label by a keyword."""
    if site.doubt or site.call is None:
        return False
    name, *_ = site.call.args
    is_text = isinstance(name, ast.Constant) and isinstance(name.value, str)
    return is_text and all(keyword.arg is not None for keyword in site.call.keywords)


@pytest.mark.parametrize(
    "source",
    [
        f"{CALL}, **LABELS)",
        "metrics.increment(NAME, table='t')",
        "metrics.increment(f'k2_{NAME}', table='t')",
        "count = metrics.increment",
        "Metrics.increment(metrics, 'k2_rows_written_total', table='t')",
    ],
)
def test_what_is_not_written_at_the_call_is_told_apart(tmp_path: Path, source: str) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(f"{HEAD}{CALL}, 3, table='t')\n{source}\n", encoding="utf-8")
    assert [is_literal(site) for site in call_sites(Project(tmp_path), [path])] == [True, False]


@pytest.mark.parametrize("path", sorted((SNIPPETS / "good").glob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_said_of_what_is_right(path: Path) -> None:
    assert findings(path) == []


@pytest.mark.parametrize("name", ["constants", "mappings", "helpers", "handles", "covered"])
def test_the_calls_of_the_good_snippets_are_seen(name: str) -> None:
    """With an empty registry, each of them is wrong, so none is clean for not having been found."""
    project = Project(ROOT)
    sites = call_sites(project, [SNIPPETS / "good" / f"{name}.py"])
    source = (SNIPPETS / "good" / f"{name}.py").read_text(encoding="utf-8")
    assert len(sites) == len(re.findall(rf"(?:\.|, \")(?:{'|'.join(METHODS)})(?:\(|\"\)\()", source)) > 0
    assert name == "covered" or len(Checker(project, {}).check(sites).findings) >= len(sites)


@pytest.mark.parametrize("path", sorted((SNIPPETS / "bad").glob("*.py")), ids=lambda path: path.stem)
def test_each_mistake_is_reported_in_its_line(path: Path) -> None:
    found, wanted = findings(path), expected(path)
    assert [line for line, _ in found] == [line for line, _ in wanted]
    for (_, said), (_, text) in zip(found, wanted, strict=True):
        assert said.startswith(text.removesuffix("...")) if text.endswith("...") else said == text


@pytest.mark.parametrize(
    "call",
    [tracker.produce_error_with_a_data_type, tracker.transaction_with_extra_labels],
    ids=lambda call: call.__name__,
)
def test_what_the_lint_says_of_known_mistakes_the_handle_says_too(call: Callable[[Metrics], None]) -> None:
    with pytest.raises(MetricError, match="unknown labels: "):
        call(Metrics("producer", registry=CollectorRegistry(), strict=True))


@pytest.mark.parametrize("name", ["labels", "names"])
def test_what_has_one_remedy_is_mended_and_nothing_else_changes(tmp_path: Path, name: str) -> None:
    path = Path(shutil.copy(SNIPPETS / "fixable" / f"{name}_before.py", tmp_path))
    report, changed = lint([path], tmp_path, fix=True)
    assert (report.findings, changed) == ([], 1)
    assert path.read_bytes() == (SNIPPETS / "fixable" / f"{name}_after.py").read_bytes()
    assert lint([path], tmp_path, fix=True)[1] == 0


FORMATS = {
    "last of a line": (", table='t', symbol='s')", ", table='t')"),
    "before another": (", symbol='s', table='t')", ", table='t')"),
    "last, without a comma": (",\n    table='t',\n    symbol='s'\n)", ",\n    table='t'\n)"),
    "a value over lines": (",\n    symbol=(\n        's'\n    ),\n    table='t',\n)", ",\n    table='t',\n)"),
    "ends a line of two": (",\n    table='t', symbol='s',\n  )", ",\n    table='t',\n  )"),
    "begins a line of two": (",\n    symbol='s', table='t',\n)", ",\n    table='t',\n)"),
    "odd spaces": (" ,table = 't' ,  symbol = 's' , )", " ,table = 't' , )"),
    "wide letters before it": (", table='Zürich €', symbol='s', component='c')", ", table='Zürich €')"),
    "line ends of Windows": (",\r\n    symbol='s',\r\n    table='t',\r\n)\r\n", ",\r\n    table='t',\r\n)\r\n"),
    "the only item of a dict": (", **{'symbol': 's'}, table='t')", ", **{}, table='t')"),
    "an item with brackets": (", **{'symbol': ('s'), 'table': ('t')})", ", **{'table': ('t')})"),
    "before a bracket at the end of the file": (
        ",\n    table='t',\n    symbol='s', )",
        ",\n    table='t',\n    )",
    ),
    "before a bracket in its line": (", table='t', symbol='s',)", ", table='t',)"),
    "merged by dict": (", **dict({'symbol': 's', 'table': 't'}))", ", **dict({'table': 't'}))"),
    "a key": (", **{'tabel': 't'})", ", **{'table': 't'})"),
    "a keyword with spaces": (", tabel = 't')", ", table = 't')"),
}


@pytest.mark.parametrize(("before", "after"), FORMATS.values(), ids=FORMATS)
def test_the_format_is_kept(tmp_path: Path, before: str, after: str) -> None:
    assert fixed(tmp_path, CALL + before) == CALL + after


WRONG = "'k2_rows_writen_total'"
LEFT = {
    "a label is missing": f"{CALL}, symbol='s')",
    "two would be the same label": "metrics.increment('k2_commit_retries_total', reasn='r', resson='r', table='t')",
    "the metric may be one of two": "metrics.increment('k2_iceberg_transaction_total', table='t')",
    "the metric is like none": "metrics.increment('k2_sent_total', table='t')",
    "the metric meant has another type": "metrics.increment('k2_freshness_second', table='t')",
    "the metric meant has other labels": "metrics.increment('k2_rows_writen_total', stage='s')",
    "the type is wrong": "metrics.gauge('k2_rows_written_total', 1, table='t', symbol='s')",
    "a value does something": f"{CALL}, table='t', symbol=input())",
    "a comment belongs to it": f"{CALL},\n    table='t',\n    symbol='s',  # why\n)",
    "a comment comes before the comma": f"{CALL}, table='t', symbol='s'  # why\n    , )",
    "the name is written in parts": "metrics.increment('k2_rows_' 'writen_total', table='t')",
    "the mapping is used elsewhere": f"_own = {{'table': 't', 'symbol': 's'}}\nprint(_own['symbol'])\n{CALL}, **_own)",
    "others may use the mapping": f"LABELS = {{'table': 't', 'symbol': 's'}}\n{CALL}, **LABELS)",
    "calls want different things of the mapping": (
        f"_both = {{'table': 't', 'reason': 's'}}\n{CALL}, **_both)\n"
        "metrics.increment('k2_commit_retries_total', **_both)"
    ),
    "a call of another type uses the mapping": (
        f"_both = {{'table': 't', 'symbol': 's'}}\n{CALL}, **_both)\nmetrics.gauge('k2_rows_written_total', 1, **_both)"
    ),
    "others may use the name": f"ROWS = {WRONG}\nmetrics.increment(ROWS, table='t')",
    "the name is a key elsewhere": f"_ROWS = {WRONG}\n_seen = {{_ROWS: 1}}\nmetrics.increment(_ROWS, table='t')",
    "the name is a key in the call": f"_ROWS = {WRONG}\nmetrics.increment(_ROWS, {{'a': 1}}.get(_ROWS, 1), table='t')",
    "the name decides": f"_ROWS = {WRONG}\nmetrics.increment(_ROWS, table='t') if _ROWS else print()",
    "the name is a class's": f"class A:\n    ROWS = {WRONG}\n    def f(self): metrics.increment(self.ROWS, table='t')",
    "the name is used after the loop": (
        f"for _each in ({WRONG}, 'k2_rows_written_total'):\n    metrics.increment(_each, table='t')\nprint(_each)"
    ),
    "the default is used otherwise": (
        f"def _f(name={WRONG}):\n    print(name)\n    metrics.increment(name, table='t')\n_f()"
    ),
    "the mapping is read in the call": (
        f"_own = {{'table': 't', 'symbol': 's'}}\n{CALL}, len(_own['symbol']), **_own)"
    ),
    "only one of two ways is wrong": (
        "metrics.increment('k2_rows_written_total' if 1 else 'k2_commit_retries_total', table='t', reason='r')"
    ),
    "the key is a constant": f"KEY = 'tabel'\n{CALL}, **{{KEY: 't'}})",
}


@pytest.mark.parametrize("source", LEFT.values(), ids=LEFT)
def test_what_may_be_meant_otherwise_is_reported_and_left(tmp_path: Path, source: str) -> None:
    assert said_of(tmp_path, source) != []
    assert fixed(tmp_path, source) == source


NAMES = {
    "at the call": "metrics.increment({}, table='t')",
    "its own": "_ROWS = {}\nmetrics.increment(_ROWS, table='t')",
    "annotated": "_ROWS: str = {}\nmetrics.increment(_ROWS, table='t')",
    "of a function": "def f(late):\n    name = {} if late else {}\n    metrics.increment(name, table='t')",
    "one of a loop": "for _each in ({}, 'k2_rows_written_total'):\n    metrics.increment(_each, table='t')",
    "a default": "def _f(*, name={}):\n    metrics.increment(name, table='t')\n_f()",
    "given to a helper": "def _f(name):\n    metrics.increment(name, table='t')\n_f({})\n_f(name={})",
}


@pytest.mark.parametrize("source", NAMES.values(), ids=NAMES)
def test_a_name_that_only_calls_use_is_mended(tmp_path: Path, source: str) -> None:
    assert fixed(tmp_path, source.replace("{}", WRONG)) == source.replace("{}", "'k2_rows_written_total'")


def test_constants_of_other_files_are_left(tmp_path: Path) -> None:
    names = tmp_path / "names.py"
    names.write_text("ROWS = 'k2_rows_writen_total'\n", encoding="utf-8")
    source = "from names import ROWS\nmetrics.increment(ROWS, table='t')\n"
    assert fixed(tmp_path, source) == source
    assert names.read_text(encoding="utf-8") == "ROWS = 'k2_rows_writen_total'\n"


RECEIVERS = {
    "self._metrics.increment('k2_x')": 1,
    "Metrics('c').increment('k2_x')": 1,
    "(self._metrics or Metrics('c')).increment('k2_x')": 1,
    "self.writer_metrics().increment('k2_x')": 1,
    "counts = Metrics('c')\ncounts.increment('k2_x')": 1,
    "def f(counts: Metrics | None): counts.increment('k2_x')": 1,
    "def f(counts: 'Metrics'): counts.increment('k2_x')": 1,
    "class A:\n    counts: Metrics\n    def f(self): self.counts.increment('k2_x')": 1,
    "import k2beam.metrics.handle as h\nc = h.Metrics('c')\nc.increment('k2_x')": 1,
    "if (found := Metrics('c')): found.increment('k2_x')": 1,
    "counts = Metrics\ncounts.increment('k2_x')": 1,
    "class A(Metrics): pass\ncounts = A('c')\ncounts.increment('k2_x')": 1,
    "class A(Metrics):\n    def f(self): self.increment('k2_x')": 1,
    "def f(*counts: Metrics):\n    for one in counts: one.increment('k2_x')": 1,
    "make = lambda: Metrics('c')\nmake().increment('k2_x')": 1,
    "def make():\n    yield Metrics('c')\nfor one in make(): one.increment('k2_x')": 1,
    "from typing import Optional\nMaybe = Optional[Metrics]\ndef f(c: Maybe): c.increment('k2_x')": 1,
    "def f(counts): counts.increment('k2_x')": 1,
    "def f(counts: object): counts.increment('k2_x')": 1,
    "def f(counts, name): counts.increment(name)": 1,
    "def f(counts, number): counts.increment(number + 1)": 0,
    "def f(counts): counts.increment('rows')": 0,
    "def f(counts): counts.increment": 0,
    "found = None\n" + "found = found.next or found.other\n" * 16 + "found.increment('k2_x')": 1,
    "class A:\n    def f(self):\n        self.a = self.a or self.a.b\n        self.a.increment('k2_x')": 1,
    "def make(x):\n" + "    if x: return make(1) or make(2)\n" * 16 + "make(1).increment('k2_x')": 1,
    "from typing import Literal\ndef f(counts: Literal['two words']): counts.increment('k2_x')": 1,
    "import re\nre.compile('x').gauge('k2_x')": 1,
    "def f(counts: int): counts.increment('k2_x')": 0,
    "from prometheus_client import metrics as metrics\nmetrics.gauge('k2_x')": 0,
    "import threading\nthreading.Event().set()": 0,
    "metrics.unknown('k2_x')": 0,
}


@pytest.mark.parametrize(("source", "count"), RECEIVERS.items(), ids=RECEIVERS)
def test_only_calls_of_handles_count(tmp_path: Path, source: str, count: int) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(f"from k2beam.metrics.handle import Metrics\n{source}\n", encoding="utf-8")
    assert len(call_sites(Project(ROOT), [path])) == count


UNTOLD = {
    "global": "NAME = 'k2_rows_written_total'\ndef f():\n    global NAME\n    NAME = input()\n"
    "metrics.increment(NAME, table='t')",
    "augmented": "NAME = 'k2_rows'\nNAME += '_written_total'\nmetrics.increment(NAME, table='t')",
    "unpacked": "NAME, *rest = input()\nmetrics.increment(NAME, table='t')",
    "undefined": "metrics.increment(NAME, table='t')",
    "refers to itself": "A = B\nB = A\nmetrics.increment(A, table='t')",
    "changed through an alias": "a = {'table': 't'}\nb = a\nb.update(x='y')\n" + CALL + ", **a)",
    "changed by del": "a = {'table': 't'}\ndel a['table']\n" + CALL + ", **a)",
    "kept by an object": "a = {'table': 't'}\nb.labels = a\n" + CALL + ", **a)",
    "an instance's attribute": "class A:\n    NAME = 'k2_rows_written_total'\n    def f(self, name):\n"
    "        self.NAME = name\n        metrics.increment(self.NAME, table='t')",
    "decorated helper": "@print\ndef _f(name):\n    metrics.increment(name, table='t')\n_f('k2_rows_written_total')",
    "helper handed on": "def _f(name):\n    metrics.increment(name, table='t')\n_g = print(_f)",
}


@pytest.mark.parametrize("source", UNTOLD.values(), ids=UNTOLD)
def test_it_says_that_it_can_not_tell(tmp_path: Path, source: str) -> None:
    said = said_of(tmp_path, source)
    assert len(said) == 1
    assert "cannot tell: " in said[0]
    assert "# metrics: covered by PATH::TEST" in said[0]


def test_what_a_derived_class_says_counts_too(tmp_path: Path) -> None:
    source = (
        "class A:\n    NAME = 'k2_rows_written_total'\n    def f(self): metrics.increment(self.NAME, table='t')\n"
        "class B(A):\n    NAME = 'k2_sent_total'\n"
    )
    assert said_of(tmp_path, source) == ["k2_sent_total: is not in k2beam.metrics.registry; add it there"]


HELPERS = {
    "imported": (
        "def _f(name): metrics.increment(name, table='t')\n_f('k2_rows_written_total')",
        "from snippet import _f",
    ),
    "derived": (
        "class A:\n    def f(self): self._f('k2_rows_written_total')\n"
        "    def _f(self, name): metrics.increment(name, table='t')",
        "from snippet import A\nclass B(A):\n    def g(self): self._f('k2_sent_total')",
    ),
}


@pytest.mark.parametrize(("source", "other"), HELPERS.values(), ids=HELPERS)
def test_a_helper_that_another_file_uses_is_not_followed(tmp_path: Path, source: str, other: str) -> None:
    assert said_of(tmp_path, source) == []
    (tmp_path / "user.py").write_text(other, encoding="utf-8")
    report, _ = lint([tmp_path], tmp_path)
    assert [finding.message.partition(";")[0] for finding in report.findings] == [
        "cannot tell: _f is also used in user.py"
    ]


def test_a_named_test_must_exist(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "def test_a(): ...\nclass TestB:\n    def test_c(self): ...\n", encoding="utf-8"
    )
    assert has_test(tmp_path, "test_x.py::test_a")
    assert has_test(tmp_path, "test_x.py::TestB::test_c")
    for wrong in ("test_x.py", "test_x.py::test_c", "test_x.py::TestB", "test_y.py::test_a", "test_x.py::helper"):
        assert not has_test(tmp_path, wrong)
    source = "def f(name):\n    metrics.increment(name)  # metrics: covered by {}\n"
    assert said_of(tmp_path, source.format("test_x.py::test_a")) == []
    assert "there is no test test_x.py::test_z" in said_of(tmp_path, source.format("test_x.py::test_z"))[0]


def test_a_named_test_excuses_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_a(): ...\n", encoding="utf-8")
    assert said_of(tmp_path, f"{CALL})  # metrics: covered by test_x.py::test_a") == [
        "k2_rows_written_total: missing label(s) table"
    ]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """The script as a user starts it, from another folder."""
    command = [sys.executable, str(ROOT / "scripts" / "validate_metrics_labels.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    return done.returncode, done.stdout, done.stderr


def test_the_command_names_file_line_and_metric_and_exits_with_1() -> None:
    code, out, said = run("--check", SNIPPETS / "bad" / "tracker.py", SNIPPETS / "good")
    file = "tests/metrics_snippets/bad/tracker.py"
    assert code == 1
    assert out.splitlines() == [
        f"{file}:10: k2_kafka_produce_errors_total: unknown label(s) data_type",
        f"{file}:23: k2_iceberg_transactions_total: unknown label(s) exchange, asset_class",
    ]
    assert said == "2 finding(s)\n"


def test_mending_everything_is_a_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copy(SNIPPETS / "fixable" / "names_before.py", tmp_path)
    assert main([str(path)]) == 1
    assert main(["--fix", str(path)]) == 0
    assert main([str(path)]) == 0
    assert "1 file(s) mended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.py"], "there is no nowhere.py"),
        (["setup.cfg"], "neither a folder nor a Python file"),
        (["--fix", "--check"], "not allowed with"),
        (["BROKEN"], "broken.py:1: this is not Python"),
    ],
)
def test_wrong_usage_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def (:\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main([str(broken) if argument == "BROKEN" else argument for argument in arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
