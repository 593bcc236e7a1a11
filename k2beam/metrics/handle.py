"""The handle through which a component counts: it checks each call against the registry.

A wrong call is a defect in the caller. It raises where tests run and is counted in production:
a metric must never be the reason that a message is not ingested. Only what Python itself refuses
is a TypeError in both: a call without its metric's name or (gauge, histogram) its value, or with
more than these by position. No data leads to it, and mypy finds it.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping
from math import inf
from numbers import Real
from threading import Lock
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from k2beam.errors import MetricError
from k2beam.metrics.registry import BY_NAME, METRIC_ERRORS, METRICS, STANDARD_LABELS, MetricSpec, MetricType

STRICT_VARIABLE = "K2BEAM_STRICT_METRICS"

_Record = Callable[[float], Any]

_log = logging.getLogger(__name__)
_lock = Lock()
_collectors: WeakKeyDictionary[CollectorRegistry, dict[str, Counter | Gauge | Histogram]] = WeakKeyDictionary()
_handles: WeakSet[Metrics] = WeakSet()


class Metrics:
    """Counts for one component of one service.

    ``registry`` is Prometheus' default where none is given; handles of one registry share its
    collectors. ``strict`` makes a wrong call raise MetricError; by default the environment
    variable K2BEAM_STRICT_METRICS=1 does. Otherwise a wrong call is counted in
    ``k2_metric_errors_total`` and logged once. May be used by several threads at once. Pickles as
    its configuration, on the default registry only.
    """

    def __init__(
        self,
        component: str,
        environment: str = "",
        service: str = "k2beam",
        registry: CollectorRegistry | None = None,
        strict: bool | None = None,
    ) -> None:
        self._standard = (service, environment, component)
        self._registry = REGISTRY if registry is None else registry
        self._strict = os.environ.get(STRICT_VARIABLE) == "1" if strict is None else strict
        self._collectors = _collectors_of(self._registry)
        self._reported: set[tuple[str, str]] = set()
        # Held where a recorder is made or taken away, not where it is used: that is a look into a dict.
        self._changing = Lock()
        # One cache for each type: a name called with the wrong type is never found in it.
        self._counters: dict[tuple[object, ...], _Record] = {}
        self._gauges: dict[tuple[object, ...], _Record] = {}
        self._histograms: dict[tuple[object, ...], _Record] = {}
        _handles.add(self)

    def __reduce__(self) -> tuple[type[Metrics], tuple[str, str, str, None, bool]]:
        if self._registry is not REGISTRY:
            raise pickle.PicklingError(
                "a Metrics handle with a registry of its own can't be pickled; make it in setup()"
            )
        service, environment, component = self._standard
        return type(self), (component, environment, service, None, self._strict)

    def increment(self, name: str, /, value: float = 1, **labels: str) -> None:
        """Add ``value`` (finite, not negative) to a counter."""
        try:
            record = self._counters[(name, *labels.items())]
            if 0 <= value < inf:
                record(value)
                return
        except (KeyError, TypeError):
            pass
        self._check_and_record("counter", self._counters, name, value, labels)

    def gauge(self, name: str, /, value: float, **labels: str) -> None:
        """Set a gauge to ``value`` (finite)."""
        try:
            record = self._gauges[(name, *labels.items())]
            if -inf < value < inf:
                record(value)
                return
        except (KeyError, TypeError):
            pass
        self._check_and_record("gauge", self._gauges, name, value, labels)

    def histogram(self, name: str, /, value: float, **labels: str) -> None:
        """Record one observation (finite, in the unit that the metric's name gives)."""
        try:
            record = self._histograms[(name, *labels.items())]
            if -inf < value < inf:
                record(value)
                return
        except (KeyError, TypeError):
            pass
        self._check_and_record("histogram", self._histograms, name, value, labels)

    def remove_gauge(self, name: str, /, **labels: str) -> None:
        """Take a gauge with these labels away: a value that is no longer known must not be shown.

        By the handle that set it: another one would go on with what it remembers.
        """
        problem = _problem_of("gauge", name, labels)
        if problem is not None:
            self._problem(name, *problem)
            return
        values = (labels[label] for label in BY_NAME[name].labels)
        with self._changing:
            for key in [key for key in self._gauges if key[0] == name and set(key[1:]) == labels.items()]:
                del self._gauges[key]
            self._collectors[name].remove(*self._standard, *values)

    def _forget(self) -> None:
        """Drop the recorders of samples that were cleared; in a forked process, whose threads are gone."""
        # One of the parent's threads may have held it.
        self._changing = Lock()
        for cache in (self._counters, self._gauges, self._histograms):
            cache.clear()

    def _check_and_record(
        self,
        wanted: MetricType,
        cache: dict[tuple[object, ...], _Record],
        name: str,
        value: float,
        labels: Mapping[str, str],
    ) -> None:
        """The first call for some labels, or a wrong one: check it, remember the recorder, record."""
        problem = _problem_of(wanted, name, labels) or _value_problem(wanted, value)
        if problem is not None:
            self._problem(name, *problem)
            return
        values = (labels[label] for label in BY_NAME[name].labels)
        with self._changing:
            record = _recorder(self._collectors[name].labels(*self._standard, *values))
            cache[(name, *labels.items())] = record
            record(value)

    def _problem(self, name: str, problem: str, message: str) -> None:
        if self._strict:
            _refuse(name, message)
        self._collectors[METRIC_ERRORS].labels(*self._standard, str(name), problem).inc()  # type: ignore[union-attr]
        if (str(name), problem) not in self._reported:
            self._reported.add((str(name), problem))
            _log.warning("metric %s was not recorded: %s; further ones are only counted", name, message)


class NullMetrics(Metrics):
    """A handle that records nothing and checks nothing; pickles as itself."""

    def __init__(self) -> None:
        # Nothing of Metrics is used: not even the collectors are made.
        pass

    def __reduce__(self) -> tuple[type[NullMetrics], tuple[()]]:  # type: ignore[override]
        return type(self), ()

    def increment(self, name: str, /, value: float = 1, **labels: str) -> None:
        """Record nothing."""

    def gauge(self, name: str, /, value: float, **labels: str) -> None:
        """Record nothing."""

    def remove_gauge(self, name: str, /, **labels: str) -> None:
        """Record nothing."""

    def histogram(self, name: str, /, value: float, **labels: str) -> None:
        """Record nothing."""


def forget_counts() -> None:
    """Set all metrics of this process to nothing, for every handle.

    For a process that was forked: what it inherited is counted by its parent already.
    """
    for collectors in list(_collectors.values()):
        for collector in collectors.values():
            collector.clear()
    for handle in list(_handles):
        handle._forget()


def _refuse(name: str, message: str) -> NoReturn:
    raise MetricError(f"metric {name}: {message}")


def _problem_of(wanted: MetricType, name: object, labels: Mapping[str, object]) -> tuple[str, str] | None:
    """The class and the text of what is wrong with a call; None where nothing is."""
    spec = BY_NAME.get(name) if isinstance(name, str) else None
    if spec is None:
        return "name", "is not in k2beam.metrics.registry; add it there"
    if spec.type != wanted:
        return "type", f"is a {spec.type}, not a {wanted}"
    return _label_problem(spec, labels)


def _label_problem(spec: MetricSpec, labels: Mapping[str, object]) -> tuple[str, str] | None:
    given, expected = set(labels), set(spec.labels)
    if standard := given & set(STANDARD_LABELS):
        return "standard_label", f"{_list(standard)} comes from the handle and is not passed"
    if given != expected:
        return "labels", f"missing labels: {_list(expected - given)}; unknown labels: {_list(given - expected)}"
    if other := {name for name, value in labels.items() if not isinstance(value, str)}:
        return "label_value", f"the value of {_list(other)} is not a string"
    return None


def _value_problem(wanted: MetricType, value: object) -> tuple[str, str] | None:
    lowest = 0.0 if wanted == "counter" else -inf
    if isinstance(value, Real) and lowest <= float(value) < inf and float(value) > -inf:
        return None
    return "value", f"{value!r} is not a finite number{' from 0 on' if wanted == 'counter' else ''}"


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _recorder(child: Counter | Gauge | Histogram) -> _Record:
    if isinstance(child, Counter):
        return child.inc
    return child.set if isinstance(child, Gauge) else child.observe


def _collectors_of(registry: CollectorRegistry) -> dict[str, Counter | Gauge | Histogram]:
    """The collectors of a registry, made once: Prometheus refuses a second one of the same name."""
    with _lock:
        found = _collectors.get(registry)
        if found is None:
            found = {spec.name: _collector(spec, registry) for spec in METRICS}
            _collectors[registry] = found
        return found


def _collector(spec: MetricSpec, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = (*STANDARD_LABELS, *spec.labels)
    if spec.type == "counter":
        return Counter(spec.name, spec.help, labels, registry=registry)
    if spec.type == "gauge":
        return Gauge(spec.name, spec.help, labels, registry=registry)
    return Histogram(spec.name, spec.help, labels, registry=registry, buckets=spec.buckets)
