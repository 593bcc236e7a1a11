"""A replay of dead letters, killed at its commits and in between: what is good becomes events, each once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.killing import kill_often, started
from tests.registry_server import NO_SCHEMA, Answer, registry_server
from tests.replay_helpers import (
    assert_audit,
    contents,
    ingest,
    open_gaps,
    resolved_by,
    simulated,
    true_gaps,
    unresolved_letters,
    without_schemas,
)

pytestmark = pytest.mark.integration

ROWS = 100_000
MALFORMED = 18


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The URL of a registry that knows the schemas of the containers in ``in``."""

    def reply(_method: str, path: str, _body: object) -> Answer:
        known = {ref: text for one in (tmp_path / "in").glob("*.avro") for ref, text in resolved_by(one).items()}
        number = int(path.removeprefix("/schemas/ids/").partition("?")[0])
        return (200, {"schema": known[number]}) if number in known else NO_SCHEMA

    with registry_server(reply) as (url, _):
        yield url


def test_a_hundred_thousand_letters_are_replayed_each_once(tmp_path: Path, repository: Path, registry: str) -> None:
    truth = simulated(tmp_path / "in", ROWS)
    warehouse = tmp_path / "wh"
    lost = ingest([without_schemas(tmp_path / "in", tmp_path / "bare")], warehouse, max_dead_share=1)
    assert (lost.dead_letters, sum(lost.written.values())) == (ROWS, 0)

    words = ["dlq", "replay", "--apply", "--output", "json", "--registry", registry, "--warehouse", str(warehouse)]
    kill_often(repository, *words, times=4, looked_at=lambda: assert_audit(warehouse, mend=True))
    both = [started(repository, *words) for _ in range(2)]
    for process in both:
        said, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
        assert json.loads(said)["dead_letters"] == 0

    ingest([tmp_path / "in"], tmp_path / "straight")
    found, wanted = contents(warehouse), contents(tmp_path / "straight")
    assert [len(rows) for rows in found.values()] == [truth.rows["trades"], truth.rows["quotes"], 0, ROWS]
    assert {**found, "dead_letters": []} == {**wanted, "dead_letters": []}
    assert unresolved_letters(warehouse) == MALFORMED
    assert open_gaps(warehouse) == true_gaps(truth)
    assert_audit(warehouse, tmp_path / "bare")
