"""The public things of the packages, and the examples in their docstrings."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam

import k2beam
import k2beam.sequence
import transforms

WITH_METHODS = ("Lake", "MarketDataProducer", "SequenceTracker")
"""The names of k2beam whose public methods have examples of their own."""

FURTHER = (
    "k2beam.archive.count.ArchiveCount",
    "k2beam.archive.count.count_archive",
    "k2beam.archive.files.expand_paths",
    "k2beam.archive.files.open_archive",
    "k2beam.archive.header.ArchiveHeader",
    "k2beam.archive.header.ArchiveLimits",
    "k2beam.archive.header.check_archives",
    "k2beam.archive.plan.ArchiveChunk",
    "k2beam.archive.plan.ArchivePlan",
    "k2beam.archive.plan.plan_archive",
    "k2beam.archive.reading.ArchiveReader",
    "k2beam.archive.scan.Frame",
    "k2beam.archive.scan.ReadProblem",
    "k2beam.archive.write.write_raw_archive",
    "k2beam.audit.audit.audit",
    "k2beam.audit.compare.compare",
    "k2beam.doctor.examine",
    "k2beam.flink.job_key",
    "k2beam.flink.root_cause",
    "k2beam.jsonable.jsonable",
    "k2beam.kafka.batch.raw_batch",
    "k2beam.lake.stores.CatalogStores",
    "k2beam.topics.topic_of_source",
    "k2beam.kafka.discovery.Discovery",
    "k2beam.kafka.reader.TopicReader",
    "k2beam.produce.delivery.resend",
    "k2beam.report.contents.ReportSelection",
    "k2beam.report.contents.audit_verdict",
    "k2beam.report.contents.gather_contents",
    "k2beam.report.page.render",
    "k2beam.report.server.LivePage",
    "k2beam.report.server.PageServer",
    "k2beam.sequence.tracker.SequenceResult",
    "k2beam.sequence.tracker.TrackerStats",
    "k2beam.simulate.simulate.Simulation",
    "k2beam.simulate.simulate.simulate",
    "k2beam.stack.stack.LocalStack",
)
"""Public things that no package exports."""

_ON_SERVERS = (
    "k2beam.job.live.run_live",
    "k2beam.kafka.discovery.Discovery",
    "k2beam.kafka.reader.TopicReader",
    "k2beam.produce.delivery.resend",
    "k2beam.produce.producer.MarketDataProducer",
    "k2beam.registry.resolver.RegistryResolver",
    "k2beam.stack.stack.LocalStack",
    "transforms.beam_reader.BeamReader",
    "transforms.librdkafka_reader.LibrdkafkaReader",
    "transforms.read_kafka.ReadKafka",
    "transforms.ticked_reader.TickedReader",
)
"""What can only be shown on servers, with its methods."""


def needs_servers(name: str) -> bool:
    """Whether an example belongs to the integration tests."""
    return any(name == one or name.startswith(f"{one}.") for one in _ON_SERVERS)


def public_things() -> dict[str, Any]:
    """The package k2beam, and all public classes, functions and methods, by dotted name and sorted."""
    found = {name_of(thing): thing for thing in _things()}
    return {"k2beam": k2beam} | dict(sorted(found.items()))


def name_of(thing: Any) -> str:
    """Where a thing is defined: what two packages export is one thing."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _things() -> Iterator[Any]:
    for package in (k2beam, k2beam.sequence):
        yield from _classes_and_functions(getattr(package, name) for name in package.__all__)
    for name in WITH_METHODS:
        methods = inspect.getmembers(getattr(k2beam, name), inspect.isroutine)
        yield from (method for label, method in methods if not label.startswith("_"))
    for module in pkgutil.iter_modules(transforms.__path__, "transforms."):
        yield from _transforms(importlib.import_module(module.name))
    for name in FURTHER:
        home, _, own = name.rpartition(".")
        yield getattr(importlib.import_module(home), own)


def _classes_and_functions(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if inspect.isclass(value) or inspect.isfunction(value))


def _transforms(module: Any) -> Iterator[Any]:
    """The public transforms that a module defines."""
    for name, value in vars(module).items():
        mine = inspect.isclass(value) and value.__module__ == module.__name__
        if mine and issubclass(value, beam.PTransform) and not name.startswith("_"):
            yield value


def run_example(name: str, thing: Any, names: Mapping[str, Any]) -> None:
    """Run the example in the docstring of a thing, with ``names`` beside the built-in ones. Fails as doctest tells."""
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=False)
    [example] = finder.find(thing, name, globs=dict(names))
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not said, "".join(said)
