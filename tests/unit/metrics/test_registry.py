"""The metric registry, and the handle that holds callers to it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from k2beam.errors import MetricError
from k2beam.metrics.handle import Metrics, forget_counts
from k2beam.metrics.registry import BY_NAME, METRICS, STANDARD_LABELS, MetricSpec

UNBOUNDED = {
    *("symbol", "offset", "path", "file", "position", "source", "key", "message", "message_id", "trade_id"),
    *("sequence", "gap_id", "schema_id", "run_id", "snapshot", "timestamp", "user", "url", "host", "pid"),
}
STANDARD = {"service": "k2beam", "environment": "test", "component": "writer"}


def handle(strict: bool = True) -> tuple[Metrics, CollectorRegistry]:
    registry = CollectorRegistry()
    return Metrics("writer", "test", registry=registry, strict=strict), registry


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(METRICS)


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_a_metric_follows_the_conventions(spec: MetricSpec) -> None:
    assert re.fullmatch("k2_[a-z0-9_]+", spec.name)
    assert spec.name.endswith("_total") == (spec.type == "counter")
    assert spec.help.endswith(".")
    assert not {*STANDARD_LABELS, "name", "value", "le"} & set(spec.labels)
    assert not UNBOUNDED & set(spec.labels), "a label whose values are without number makes as many series"
    assert bool(spec.buckets) == (spec.type == "histogram")
    assert list(spec.buckets) == sorted(set(spec.buckets))


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_every_metric_can_be_recorded(spec: MetricSpec) -> None:
    metrics, registry = handle()
    labels = dict.fromkeys(spec.labels, "x")
    {"counter": metrics.increment, "gauge": metrics.gauge, "histogram": metrics.histogram}[spec.type](
        spec.name, 3, **labels
    )
    sample = f"{spec.name}_sum" if spec.type == "histogram" else spec.name
    assert registry.get_sample_value(sample, {**STANDARD, **labels}) == 3


def test_repeated_calls_add_up_whatever_the_order_of_the_labels() -> None:
    metrics, registry = handle()
    metrics.increment("k2_dead_letters_total", stage="decode", error_class="Truncated")
    metrics.increment("k2_dead_letters_total", 4, error_class="Truncated", stage="decode")
    metrics.increment("k2_dead_letters_total", stage="Truncated", error_class="decode")
    labels = {**STANDARD, "stage": "decode", "error_class": "Truncated"}
    assert registry.get_sample_value("k2_dead_letters_total", labels) == 5


WRONG: dict[str, tuple[Callable[[Metrics], None], str]] = {
    "unknown name": (lambda m: m.increment("k2_nothing_total"), "name"),
    "counter as a gauge": (lambda m: m.gauge("k2_rows_written_total", 1, table="t"), "type"),
    "gauge as a counter": (lambda m: m.increment("k2_freshness_seconds", 1, table="t"), "type"),
    "gauge as a histogram": (lambda m: m.histogram("k2_freshness_seconds", 1, table="t"), "type"),
    "missing label": (lambda m: m.increment("k2_rows_written_total"), "labels"),
    "extra label": (lambda m: m.increment("k2_rows_written_total", table="t", symbol="s"), "labels"),
    "standard label": (lambda m: m.increment("k2_rows_written_total", table="t", component="c"), "standard_label"),
    "label that is a number": (
        lambda m: m.increment("k2_rows_written_total", table=7),  # type: ignore[arg-type]
        "label_value",
    ),
    "label that can't be hashed": (
        lambda m: m.increment("k2_rows_written_total", table=[]),  # type: ignore[arg-type]
        "label_value",
    ),
    "negative value": (lambda m: m.increment("k2_rows_written_total", -1, table="t"), "value"),
    "infinite value": (lambda m: m.increment("k2_rows_written_total", float("inf"), table="t"), "value"),
    "not a number": (lambda m: m.histogram("k2_write_duration_seconds", float("nan"), table="t"), "value"),
    "value that is a text": (
        lambda m: m.gauge("k2_freshness_seconds", "new", table="t"),  # type: ignore[arg-type]
        "value",
    ),
    "count that is a text": (
        lambda m: m.increment("k2_rows_written_total", "ten", table="t"),  # type: ignore[arg-type]
        "value",
    ),
}


@pytest.mark.parametrize(("call", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_raises_when_strict(call: Callable[[Metrics], None], problem: str) -> None:
    metrics, _ = handle(strict=True)
    with pytest.raises(MetricError, match="metric k2_"):
        call(metrics)


@pytest.mark.parametrize(("call", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_counted_when_not_strict(call: Callable[[Metrics], None], problem: str) -> None:
    metrics, registry = handle(strict=False)
    call(metrics)
    call(metrics)
    counted = [
        (sample.labels["problem"], sample.value)
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "k2_metric_errors_total"
    ]
    assert counted == [(problem, 2)]
    assert registry.get_sample_value("k2_rows_written_total", {**STANDARD, "table": "t"}) in (None, 0)


def test_numbers_of_numpy_are_numbers() -> None:
    metrics, registry = handle()
    for _ in range(2):
        metrics.increment("k2_rows_written_total", np.int64(3), table="t")
    assert registry.get_sample_value("k2_rows_written_total", {**STANDARD, "table": "t"}) == 6


class Slow(str):
    """A label's value: comparing it, where a test says so, lets another thread set a gauge meanwhile."""

    __slots__ = ()
    meanwhile: ClassVar[list[Thread]] = []

    def __hash__(self) -> int:
        while self.meanwhile:
            thread = self.meanwhile.pop()
            thread.start()
            thread.join(0.2)
        return super().__hash__()


def test_a_gauge_may_be_removed_while_another_thread_sets_one() -> None:
    metrics, registry = handle()
    metrics.gauge("k2_table_rows", 1, table=Slow("a"))
    other = Thread(target=metrics.gauge, args=("k2_table_rows", 2), kwargs={"table": "b"})
    Slow.meanwhile.append(other)
    metrics.remove_gauge("k2_table_rows", table="a")
    other.join()
    assert not Slow.meanwhile
    assert registry.get_sample_value("k2_table_rows", {**STANDARD, "table": "a"}) is None
    assert registry.get_sample_value("k2_table_rows", {**STANDARD, "table": "b"}) == 2


def test_a_gauge_that_is_set_and_removed_by_two_threads_is_never_lost() -> None:
    """What is set after the last removal is shown: no recorder of a removed sample is kept."""
    metrics, registry = handle()

    def change() -> None:
        for number in range(2_000):
            metrics.gauge("k2_table_rows", number, table="a")
            metrics.remove_gauge("k2_table_rows", table="a")

    threads = [Thread(target=change) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics.gauge("k2_table_rows", 7, table="a")
    assert registry.get_sample_value("k2_table_rows", {**STANDARD, "table": "a"}) == 7


def test_a_handle_counts_on_in_a_process_that_was_forked_while_a_thread_held_it() -> None:
    metrics, registry = handle()
    with metrics._changing:
        forget_counts()
        counting = Thread(target=metrics.gauge, args=("k2_table_rows", 1), kwargs={"table": "a"}, daemon=True)
        counting.start()
        counting.join(10)
    assert registry.get_sample_value("k2_table_rows", {**STANDARD, "table": "a"}) == 1


@pytest.mark.parametrize("strict", [True, False])
def test_only_what_python_refuses_is_a_type_error(strict: bool) -> None:
    metrics, _ = handle(strict)
    calls: list[Callable[[], object]] = [
        lambda: metrics.gauge("k2_freshness_seconds", table="t"),  # type: ignore[call-arg]
        lambda: metrics.histogram("k2_write_duration_seconds", table="t"),  # type: ignore[call-arg]
        lambda: metrics.increment(table="t"),  # type: ignore[call-arg]
        lambda: metrics.increment("k2_rows_written_total", 1, 2, table="t"),  # type: ignore[call-arg]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()


def test_the_environment_variable_decides_where_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("K2BEAM_STRICT_METRICS", raising=False)
    Metrics("writer", registry=CollectorRegistry()).increment("k2_nothing_total")
    monkeypatch.setenv("K2BEAM_STRICT_METRICS", "1")
    with pytest.raises(MetricError):
        Metrics("writer", registry=CollectorRegistry()).increment("k2_nothing_total")


def test_handles_of_one_registry_share_the_collectors() -> None:
    registry = CollectorRegistry()
    for component in ("reader", "writer", "writer"):
        Metrics(component, registry=registry).increment("k2_events_decoded_total", kind="trades")
    text = generate_latest(registry).decode()
    assert 'component="writer",environment="",kind="trades",service="k2beam"} 2.0' in text
    assert 'component="reader",environment="",kind="trades",service="k2beam"} 1.0' in text


def test_a_handle_pickles_as_its_configuration() -> None:
    first = Metrics("pickled", "env", strict=True)
    first.increment("k2_events_decoded_total", kind="trades")
    second = pickle.loads(pickle.dumps(first))
    second.increment("k2_events_decoded_total", kind="trades")
    labels = {"service": "k2beam", "environment": "env", "component": "pickled", "kind": "trades"}
    assert REGISTRY.get_sample_value("k2_events_decoded_total", labels) == 2
    with pytest.raises(MetricError):
        second.increment("k2_nothing_total")


def test_a_handle_with_its_own_registry_refuses_to_be_pickled() -> None:
    metrics, _ = handle()
    with pytest.raises(pickle.PicklingError, match="setup"):
        pickle.dumps(metrics)
