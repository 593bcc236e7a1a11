"""Which reader a live job takes, by its runner and by what it was told."""

from __future__ import annotations

from typing import Any

import pytest

from k2beam.errors import UsageError
from k2beam.job.config import LiveConfig, Reader
from k2beam.job.options import beam_options, is_prism
from k2beam.kafka.config import KafkaConfig

KAFKA = KafkaConfig("broker:9092")
JAVA = KafkaConfig("broker:9092", properties=(("max.poll.records", "100"),))


@pytest.mark.parametrize(
    ("runner", "prism"), [("PrismRunner", True), ("DirectRunner", True), ("FlinkRunner", False), ("FnApiRunner", False)]
)
def test_prism_is_what_is_or_may_choose_it(runner: str, prism: bool) -> None:
    assert is_prism(beam_options([f"--runner={runner}"], streaming=True)) == prism


@pytest.mark.parametrize(
    ("kafka", "told", "prism", "expected"),
    [
        (KAFKA, {}, True, Reader.LIBRDKAFKA),
        (KAFKA, {}, False, Reader.BEAM),
        (KAFKA, {"expansion": "localhost:8097"}, True, Reader.BEAM),
        (JAVA, {}, True, Reader.BEAM),
        (KAFKA, {"reader": Reader.BEAM}, True, Reader.BEAM),
        (JAVA, {"reader": Reader.BEAM, "expansion": "localhost:8097"}, False, Reader.BEAM),
        (KAFKA, {"reader": Reader.LIBRDKAFKA}, True, Reader.LIBRDKAFKA),
    ],
)
def test_librdkafka_reads_on_prism_unless_something_of_java_is_asked_for(
    kafka: KafkaConfig, told: dict[str, Any], prism: bool, expected: Reader
) -> None:
    assert LiveConfig(kafka, topics=("ticks",), **told).reader_on(prism=prism) is expected


@pytest.mark.parametrize(
    ("kafka", "told", "prism", "said"),
    [
        (KAFKA, {}, False, "is for Prism and for Flink clusters"),
        (KAFKA, {"expansion": "localhost:8097"}, True, "--expansion is for --reader beam"),
        (JAVA, {}, True, "--kafka-property is of the Java consumer"),
    ],
)
def test_librdkafka_with_what_it_can_not_do_is_refused(
    kafka: KafkaConfig, told: dict[str, Any], prism: bool, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        LiveConfig(kafka, reader=Reader.LIBRDKAFKA, **told).reader_on(prism=prism)


@pytest.mark.parametrize("told", [{}, {"expansion": "localhost:8096"}])
def test_on_a_flink_cluster_librdkafka_reads_when_it_is_asked_for(told: dict[str, Any]) -> None:
    live = LiveConfig(KAFKA, topics=("ticks",), **told)
    assert live.reader_on(prism=False, flink=True) is Reader.BEAM
    asked = LiveConfig(KAFKA, topics=("ticks",), reader=Reader.LIBRDKAFKA, **told)
    assert asked.reader_on(prism=False, flink=True) is Reader.LIBRDKAFKA


def test_properties_of_java_are_refused_for_librdkafka_on_flink_too() -> None:
    with pytest.raises(UsageError, match="--kafka-property is of the Java consumer"):
        LiveConfig(JAVA, reader=Reader.LIBRDKAFKA).reader_on(prism=False, flink=True)
