"""Rules, alerts and dashboard of ``ops/`` against the registry of metrics, the runbook and each other.

Queries are parsed, and the labels of what each part gives are worked out, so that a query which could never have a
result is found: an unknown metric or label, a ``by`` or ``on`` that names what is not there, sides that never match.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import promql_parser as promql
import pytest
import yaml
from confluent_kafka import KafkaError

from k2beam.exporter.lag import LagReading
from k2beam.exporter.readings import DeadLetterReading, GapReading
from k2beam.feeds.feed import REASONS
from k2beam.lake.tables import SPECS
from k2beam.metrics.registry import METRICS, STANDARD_LABELS
from k2beam.model import KINDS, Severity, Stage
from k2beam.sequence import SequenceClass
from k2beam.stack.prometheus import JOBS

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "ops" / "prometheus"
RUNBOOK = "docs/operate/runbook.md"

SCRAPED = frozenset({"job", "instance"})
RANGE = re.compile(r"\$__(rate_interval|interval|range)\b")
TEMPLATE = re.compile(r"\$labels\.(\w+)")
LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
VARIABLE = re.compile(r"\$\{?([a-z]\w*)")
LABEL_VALUES = re.compile(r"label_values\((?P<query>.+),\s*(?P<label>\w+)\)$")
SET_OPERATORS = {"and", "or", "unless"}

Labels = frozenset[str]


def words(*places: str) -> set[str]:
    """The names in quotes in modules and the modules of packages, by their paths."""
    paths = (ROOT / place for place in places)
    files = (file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    found = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {word for word in found if re.fullmatch(r"[a-z][a-z0-9_]*", word)}


VALUES: dict[str, set[str]] = {
    "classification": set(SequenceClass),
    "job": set(JOBS),
    "kind": set(KINDS),
    "severity": set(get_args(Severity)),
    "table": set(SPECS),
    "reading": {LagReading.name, GapReading.name, DeadLetterReading.name, *(f"table:{name}" for name in SPECS)},
    "error_class": words(*(f"k2beam/{place}" for place in ("codec", "archive", "csv", "errors.py", "validation.py"))),
    "error_type": {name for name in dir(KafkaError) if name.isupper()},
    "k2_dead_letters stage": set(get_args(Stage)),
    "k2_stored_dead_letters stage": set(get_args(Stage)),
    "k2_write_failures stage": {"write", "commit"},
    "k2_commit_retries reason": {"conflict", "unknown", "unreachable"},
    "k2_feed_bad_frames reason": set(REASONS),
    "k2_feed_reconnects reason": {"unreachable", "refused", "reply", "silence", "closed", "planned"},
    "k2_metrics_endpoint_failures reason": {"address", "ports_taken", "targets"},
    "k2_metric_errors problem": {"name", "type", "labels", "standard_label", "label_value", "value"},
}
"""Labels whose values are known, so that a misspelt one is found; with a metric where another means something else."""

WRITTEN = {
    "k2_write_failures stage": ("k2beam/lake/observe.py", "transforms/write_iceberg.py"),
    "k2_commit_retries reason": ("k2beam/lake/transaction.py",),
    "k2_feed_reconnects reason": ("k2beam/feeds/client.py",),
    "k2_metrics_endpoint_failures reason": ("k2beam/metrics/worker.py",),
    "k2_metric_errors problem": ("k2beam/metrics/handle.py",),
}
"""Where the values are given that have no type of their own."""


def known_values(series: str, label: str) -> set[str] | None:
    """What a label of a metric, or of a series that is recorded of one, may be; None where it may be anything."""
    metric = series.split(":")[1] if ":" in series else series
    return VALUES.get(f"{metric.removesuffix('_total')} {label}", VALUES.get(label))


class BadQuery(Exception):
    """A query that can't have the result it asks for; the message says which part."""


def exported() -> dict[str, Labels]:
    """Every series that is scraped, with its labels; histograms by their three parts."""
    found: dict[str, Labels] = {"up": SCRAPED}
    for spec in METRICS:
        labels = SCRAPED | set(STANDARD_LABELS) | set(spec.labels)
        if spec.type != "histogram":
            found[spec.name] = labels
            continue
        found |= {f"{spec.name}_sum": labels, f"{spec.name}_count": labels, f"{spec.name}_bucket": labels | {"le"}}
    return found


def result_labels(query: str, series: dict[str, Labels]) -> Labels:
    """The labels that the result of a query may have. Raises BadQuery."""
    try:
        parsed = promql.parse(RANGE.sub("5m", query))
    except ValueError as error:
        raise BadQuery(f"is no PromQL: {error}") from error
    return _labels(parsed, series) or frozenset()


def _labels(part: Any, series: dict[str, Labels]) -> Labels | None:
    """The labels of a part; None for a number, which has no series."""
    match part:
        case promql.NumberLiteral() | promql.StringLiteral():
            return None
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            return _labels(part.expr, series)
        case promql.MatrixSelector():
            return _selected(part.vector_selector, series)
        case promql.VectorSelector():
            return _selected(part, series)
        case promql.Call():
            return _called(part, series)
        case promql.AggregateExpr():
            return _aggregated(part, series)
        case promql.BinaryExpr():
            return _combined(part, series)
    raise BadQuery(f"{part} is not understood by this test")


def _selected(part: promql.VectorSelector, series: dict[str, Labels]) -> Labels:
    by_name = [matcher.value.split("|") for matcher in part.matchers.matchers if matcher.name == "__name__"]
    names = [part.name] if part.name else [name for found in by_name for name in found]
    if not names or (unknown := [name for name in names if name not in series]):
        raise BadQuery(f"there is no metric {', '.join(unknown) if names else part}")
    labels = frozenset.intersection(*(series[name] for name in names))
    for matcher in part.matchers.matchers:
        if matcher.name == "__name__":
            continue
        if matcher.name not in labels:
            raise BadQuery(f"{', '.join(names)} has no label {matcher.name}")
        for name in names:
            _check_value(matcher, known_values(name, matcher.name))
    return labels


def _check_value(matcher: promql.Matcher, known: set[str] | None) -> None:
    """Each alternative of a pattern must be a value, or match one."""
    if known is None or "$" in matcher.value:
        return
    is_pattern = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
    for value in matcher.value.split("|") if is_pattern else [matcher.value]:
        if not any(re.fullmatch(value, each) if is_pattern else value == each for each in known):
            raise BadQuery(f"{matcher.name} is never {value!r}, but one of {sorted(known)}")


def _called(part: promql.Call, series: dict[str, Labels]) -> Labels | None:
    found = [labels for argument in part.args if (labels := _labels(argument, series)) is not None]
    match part.func.name:
        case "time":
            return None
        case "absent" | "absent_over_time":  # has the labels that are equal to something in the selector
            return found[0]
        case "histogram_quantile":
            if "le" not in found[0]:
                raise BadQuery("histogram_quantile needs the label le")
            return found[0] - {"le"}
        case _ if len(found) == 1:
            return found[0]
    raise BadQuery(f"{part.func.name} is not understood by this test")


def _aggregated(part: promql.AggregateExpr, series: dict[str, Labels]) -> Labels:
    inner = _labels(part.expr, series) or frozenset()
    if part.modifier is None:
        return frozenset()
    named = frozenset(part.modifier.labels)
    if unknown := named - inner:
        raise BadQuery(f"{part.modifier}: there is no label {', '.join(sorted(unknown))} in {part.expr}")
    return named if part.modifier.type == promql.AggModifierType.By else inner - named


def _combined(part: promql.BinaryExpr, series: dict[str, Labels]) -> Labels | None:
    left, right = _labels(part.lhs, series), _labels(part.rhs, series)
    if left is None or right is None:
        return left if right is None else right
    operator, matching = str(part.op), part.modifier and part.modifier.matching
    if matching is None:
        if operator != "or" and left != right:
            raise BadQuery(f"the sides of {operator} never match: {sorted(left)} and {sorted(right)}")
        return left | right
    named = frozenset(matching.labels)
    if unknown := named - (left & right):
        raise BadQuery(f"{operator} {matching}: there is no label {', '.join(sorted(unknown))} on both sides")
    if operator in SET_OPERATORS or part.modifier.card != promql.VectorMatchCardinality.OneToOne:
        return left
    return named if matching.type == promql.LabelModifierType.Include else left - named


def rules(name: str) -> list[dict[str, Any]]:
    content = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def known_series() -> dict[str, Labels]:
    """What is scraped and what is recorded."""
    series = exported()
    for rule in rules("rules.yml"):
        try:
            series[rule["record"]] = result_labels(rule["expr"], series)
        except BadQuery as error:
            raise BadQuery(f"rules.yml, {rule['record']}: {error}") from error
    return series


SERIES = known_series()
ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}
DASHBOARD: dict[str, Any] = json.loads((ROOT / "ops" / "grafana" / "k2beam.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
TESTS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (PROMETHEUS / "tests").glob("*.yml")}


def dashboard_queries() -> Iterator[tuple[str, str, str]]:
    """Panel, query and legend."""
    for panel in GRAPHS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_asks_for_what_there_is_and_tells_what_it_knows(name: str) -> None:
    alert = ALERTS[name]
    labels = result_labels(alert["expr"], SERIES) | set(alert["labels"])
    assert set(TEMPLATE.findall(json.dumps(alert["annotations"]))) <= labels
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}#{name.lower()}"


def test_every_panel_asks_for_what_there_is() -> None:
    for title, query, legend in dashboard_queries():
        try:
            labels = result_labels(query, SERIES)
        except BadQuery as error:
            pytest.fail(f"panel {title}: {query}: {error}")
        assert set(LEGEND.findall(legend)) <= labels, f"panel {title}: {legend} has labels that are not there"


def test_the_variables_of_the_dashboard_are_labels_that_there_are() -> None:
    for name, variable in VARIABLES.items():
        if variable["type"] == "datasource":
            continue
        found = LABEL_VALUES.match(variable["definition"])
        assert found is not None, name
        assert variable["query"]["query"] == variable["definition"]
        assert found["label"] in result_labels(found["query"], SERIES)
    used = set(VARIABLE.findall(json.dumps([*GRAPHS, *VARIABLES.values()]).replace("$__", "")))
    assert used == set(VARIABLES)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("rate(k2_rows_total[5m])", "no metric k2_rows_total"),
        ("k2_commit_duration_seconds", "no metric k2_commit_duration_seconds"),
        ("k2_rows_written_total_sum", "no metric"),
        ("topic:k2_nothing:sum", "no metric"),
        ('{__name__=~"k2_table_rows|k2_nothing"}', "no metric k2_nothing"),
        ('{topic="a"}', "no metric"),
        ('k2_rows_written_total{symbol="A"}', "no label symbol"),
        ('table:k2_rows_written:rate5m{component="commit"}', "no label component"),
        ("sum by (topic) (k2_rows_written_total)", "no label topic"),
        ("sum without (topic) (k2_rows_written_total)", "no label topic"),
        ("histogram_quantile(0.9, sum by (table) (rate(k2_write_duration_seconds_bucket[5m])))", "the label le"),
        ("k2_table_rows / k2_source_lag_messages", "never match"),
        ("sum by (table) (k2_table_rows) unless k2_table_rows", "never match"),
        ("k2_table_rows and on (topic) k2_source_lag_messages", "on both sides"),
        ('k2_sequence_messages_total{classification="DUPLICATE"}', "classification is never 'DUPLICATE'"),
        ('k2_sequence_messages_total{classification!~"ok|late_fil"}', "classification is never 'late_fil'"),
        ('k2_sequence_messages_total{classification=~"late_fil."} or k2_sequence_messages_total{kind="trade"}', "kind"),
        ('table:k2_commit_retries:increase10m{reason="conflicts"}', "reason is never 'conflicts'"),
        ('k2_feed_reconnects_total{reason!="plannned"}', "reason is never 'plannned'"),
        ('k2_feed_bad_frames_total{reason="closed"}', "reason is never 'closed'"),
        ('k2_dead_letters_total{stage="write"}', "stage is never 'write'"),
        (
            'stage:k2_dead_letters:increase10m{error_class="TruncatedPayload"}',
            "error_class is never 'TruncatedPayload'",
        ),
        ('table:k2_write_failures:increase10m{stage="decode"}', "stage is never 'decode'"),
        ('k2_open_gaps{severity="HUGE"}', "severity is never 'HUGE'"),
        ('k2_table_rows{table="trades"}', "table is never 'trades'"),
        ('k2_exporter_failures_total{reading="table"}', "reading is never 'table'"),
        ('up{job="k2beam"}', "job is never 'k2beam'"),
        ("sum(rate(k2_table_rows[5m])", "no PromQL"),
    ],
)
def test_a_query_that_can_have_no_result_is_found(query: str, said: str) -> None:
    with pytest.raises(BadQuery, match=re.escape(said)):
        result_labels(query, SERIES)


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        ('sum by (job, table) (rate(k2_rows_written_total{instance="a"}[$__rate_interval])) > 1', {"job", "table"}),
        ("histogram_quantile(0.9, sum by (le) (rate(k2_write_duration_seconds_bucket[5m])))", set()),
        ("time() - max by (table) (k2_table_last_commit_timestamp_seconds)", {"table"}),
        ("sum without (component, job, instance) (k2_open_gaps)", {"service", "environment", "kind", "severity"}),
        ("max(k2_table_rows) + 1", set()),
        ("k2_table_rows and on (environment) k2_source_lag_messages", SERIES["k2_table_rows"]),
        ("k2_table_rows / on (table) k2_table_data_files", {"table"}),
        ("max_over_time(sum by (kind) (k2_open_gaps)[1h:1m])", {"kind"}),
    ],
)
def test_the_labels_of_a_query_are_worked_out(query: str, labels: set[str]) -> None:
    assert result_labels(query, SERIES) == labels


def test_recorded_series_are_named_by_level_and_used() -> None:
    used = " ".join([*(alert["expr"] for alert in ALERTS.values()), *(query for _, query, _ in dashboard_queries())])
    for rule in rules("rules.yml"):
        level, metric, _ = rule["record"].split(":")
        assert level in SERIES[rule["record"]], rule["record"]
        assert any(name.startswith(metric) for name in exported()), rule["record"]
        assert rule["record"] in used, f"{rule['record']} is recorded for nothing"


def test_every_alert_has_a_runbook_entry_and_every_entry_an_alert() -> None:
    entries = re.split(r"^### ", (ROOT / RUNBOOK).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    titles = [entry.splitlines()[0].strip() for entry in entries]
    assert sorted(titles) == sorted(ALERTS)
    for title, entry in zip(titles, entries, strict=True):
        for part in ("**Means**", "**Look**", "**Do**"):
            assert part in entry, f"{title}: nothing after {part}"


def test_every_alert_is_tested_to_fire_and_not_to() -> None:
    fires, silent = set(), set()
    for test in (test for content in TESTS.values() for test in content["tests"]):
        for asked in test["alert_rule_test"]:
            (fires if asked["exp_alerts"] else silent).add(asked["alertname"])
    assert fires == silent == set(ALERTS)


@pytest.mark.parametrize("name", TESTS)
def test_series_of_the_promtool_tests_are_those_that_are_exported(name: str) -> None:
    scraped = exported()
    for test in TESTS[name]["tests"]:
        for given in test["input_series"]:
            series = promql.parse(given["series"])
            labels = {matcher.name for matcher in series.matchers.matchers}
            assert series.name in scraped, f"{test['name']}: {series.name}"
            assert labels | SCRAPED == scraped[series.name], f"{test['name']}: {given['series']}"
            if series.name != "up":  # Prometheus gives it to every job, also to those that are no business of ours
                result_labels(given["series"], scraped)


@pytest.mark.parametrize("key", WRITTEN)
def test_the_values_that_are_known_here_are_those_that_the_code_gives(key: str) -> None:
    assert VALUES[key] <= words(*WRITTEN[key])


def test_the_groups_are_evaluated_in_the_tests_in_the_order_of_the_files() -> None:
    """An alert sees what was recorded at the same moment, so that times in tests are exact."""
    contents = [yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8")) for name in ("rules.yml", "alerts.yml")]
    order = [group["name"] for content in contents for group in content["groups"]]
    for name, content in TESTS.items():
        assert content["group_eval_order"] == order, name


def test_the_example_scrapes_the_jobs_that_alerts_go_by() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert [job["job_name"] for job in config["scrape_configs"]] == list(JOBS)
    for job in config["scrape_configs"]:
        assert job["relabel_configs"] == [{"target_label": "job", "replacement": job["job_name"]}]
    assert {(PROMETHEUS / name).resolve() for name in config["rule_files"]} == set(PROMETHEUS.glob("[ra]*.yml"))


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert DASHBOARD["schemaVersion"] >= 38  # Grafana 10
    assert VARIABLES["datasource"]["query"] == "prometheus"
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in GRAPHS if panel["type"] == "timeseries"}) > 30
    for panel in GRAPHS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_every_panel_heeds_the_environment() -> None:
    for title, query, _ in dashboard_queries():
        assert "$environment" in query or query.startswith("count by (job) (up{"), title


def overlapping(first: dict[str, int], second: dict[str, int]) -> bool:
    across = first["x"] < second["x"] + second["w"] and second["x"] < first["x"] + first["w"]
    return across and first["y"] < second["y"] + second["h"] and second["y"] < first["y"] + first["h"]


def test_panels_lie_beside_each_other() -> None:
    for panel in PANELS:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
    for first, second in itertools.combinations(PANELS, 2):
        assert not overlapping(first["gridPos"], second["gridPos"]), (first["title"], second["title"])


def test_rows_of_the_dashboard_cover_the_pipeline() -> None:
    rows = [panel["title"] for panel in PANELS if panel["type"] == "row"]
    assert rows == ["Overview", "Ingestion", "Sequences", "Commits", "Tables", "Sources", "Feeds", "Workers"]
