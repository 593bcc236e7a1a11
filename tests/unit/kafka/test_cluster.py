"""The start and the goal of a job, without a broker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from k2beam.cli.main import main
from k2beam.coverage import Coverage
from k2beam.errors import KafkaUnreachable
from k2beam.job.live import Goal
from k2beam.kafka import cluster
from k2beam.kafka.cluster import Bounds, Cluster, Topic, start_offsets
from k2beam.kafka.config import KafkaConfig

KEY, OTHER = ("kafka:c/t/1", 0), ("kafka:c/t/1", 1)


@given(st.sets(st.integers(0, 60)), st.integers(0, 30), st.integers(0, 40))
def test_the_start_is_the_first_offset_that_is_not_covered(covered: set[int], low: int, length: int) -> None:
    coverage = Coverage()
    coverage.add_many(*KEY, sorted(covered))
    found = start_offsets({KEY: Bounds(low, low + length)}, coverage)[KEY]
    assert found == next((offset for offset in range(low, low + length) if offset not in covered), low + length)


def test_holes_before_the_first_message_that_is_missing_are_left_out() -> None:
    coverage = Coverage()
    coverage.add_many(*KEY, [0, 1, 3, 4])
    asked: list[BitMap64] = []

    def first_given(source: str, partition: int, missing: BitMap64) -> int | None:
        assert (source, partition) == KEY
        asked.append(missing)
        return 6 if 6 in missing else None

    assert start_offsets({KEY: Bounds(0, 9)}, coverage, first_given) == {KEY: 6}
    assert start_offsets({KEY: Bounds(0, 6)}, coverage, first_given) == {KEY: 6}, "nothing but holes: at the end"
    assert asked == [BitMap64([2, 5, 6, 7, 8]), BitMap64([2, 5])]
    assert start_offsets({OTHER: Bounds(2, 9), KEY: Bounds(3, 5)}, coverage, first_given) == {OTHER: 2, KEY: 5}
    assert len(asked) == 2, "nobody is asked where nothing was taken, or nothing is missing"


def test_a_long_run_is_found_quickly() -> None:
    coverage = Coverage()
    coverage.add_range(*KEY, 0, 10**9)
    assert start_offsets({KEY: Bounds(5, 10**10)}, coverage)[KEY] == 10**9 + 1


def test_the_goal_is_what_was_there_at_the_start() -> None:
    goal = Goal({KEY: 2, OTHER: 0}, {KEY: Bounds(0, 6), OTHER: Bounds(0, 0)})
    coverage = Coverage()
    coverage.add_many(*KEY, [3, 9])
    assert goal.missing(coverage) == {KEY: BitMap64([2, 4, 5])}
    coverage.add_range(*KEY, 0, 5)
    assert goal.missing(coverage) == {}


def test_what_is_missing_behind_what_is_covered_is_not_looked_for() -> None:
    goal = Goal({KEY: 2, OTHER: 0}, {KEY: Bounds(0, 20), OTHER: Bounds(0, 5)})
    coverage = Coverage()
    coverage.add_many(*KEY, [0, 3, 4, 7, 8])
    assert goal.missing_within(coverage) == {KEY: BitMap64([2, 5, 6])}
    coverage.add_many(*OTHER, [0])
    assert goal.missing_within(coverage) == {KEY: BitMap64([2, 5, 6])}


def test_holes_that_are_covered_are_not_counted_as_taken() -> None:
    goal, coverage, holes = Goal({KEY: 0}, {KEY: Bounds(0, 20)}), Coverage(), Coverage()
    coverage.add_range(*KEY, 0, 9)
    holes.add_many(*KEY, [3, 4, 15])
    assert goal.taken(coverage, Coverage()) == 10
    assert goal.taken(coverage, holes) == 8


class Settings:
    """What a cluster says of the settings of topics: a policy, or why it says nothing."""

    def __init__(self, answers: Mapping[str, str | Exception | None]) -> None:
        self._answers = answers

    def describe_configs(self, resources: Sequence[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        del request_timeout
        futures: dict[Any, Future[Any]] = {}
        for resource in resources:
            future = futures[resource] = Future()
            answer = self._answers[resource.name]
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result({} if answer is None else {"cleanup.policy": SimpleNamespace(value=answer)})
        return futures


def test_only_a_log_that_is_said_to_be_deleted_from_keeps_every_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    answers = {"a": "delete", "b": "compact", "c": "compact,delete", "d": refused, "e": None}
    monkeypatch.setattr(cluster, "AdminClient", lambda *_, **__: Settings(answers))
    topics = [Topic(name, f"kafka:c/{name}/1", (0,)) for name in answers]
    assert Cluster(KafkaConfig("broker:9092")).keep_every_message(topics) == {"kafka:c/a/1"}
    assert [record.args[0] for record in caplog.records if record.args] == ["d", "e"]


@pytest.mark.parametrize("error", [TimeoutError(), KafkaException(KafkaError(KafkaError._TRANSPORT))])
def test_a_broker_that_is_away_says_nothing_of_a_log(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(cluster, "AdminClient", lambda *_, **__: Settings({"a": error}))
    with pytest.raises(KafkaUnreachable, match="broker:9092"):
        Cluster(KafkaConfig("broker:9092")).keep_every_message([Topic("a", "kafka:c/a/1", (0,))])


def test_a_live_job_without_a_registry_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ingest", "kafka", "--topic", "t", "--warehouse", "w"])
    assert ended.value.code == 2
    assert "--registry URL is needed" in capsys.readouterr().err


def test_a_line_of_the_client_is_shown_once_a_minute_whatever_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, repeats = [0.0], cluster._Repeats()
    monkeypatch.setattr(cluster.time, "monotonic", lambda: clock[0])

    def shown(line: str) -> bool:
        return repeats.filter(logging.LogRecord("k2beam", logging.ERROR, "", 0, line, None, None))

    lines = ["broker 1 is away (after 3ms)", "broker 2 is away", "broker 1 is away (after 90ms)", "broker 2 is away"]
    assert [shown(line) for line in lines] == [True, True, False, False]
    clock[0] = 61.0
    assert [shown(line) for line in lines] == [True, True, False, False]
