"""Dead letters decoded again: what is good now becomes events once, and what is not keeps its history."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import transforms.validate_events
from k2beam.cli import dlq
from k2beam.config import NAMESPACE
from k2beam.errors import SchemaError, UsageError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.job.dead_letters import EVENT, OF_FILE, preview_dead_letters, replay_dead_letters
from k2beam.lake.catalog import open_catalog
from k2beam.lake.ledger import read_ledger
from k2beam.lake.tables import SEQUENCE_GAPS, find_table
from k2beam.model import SchemaRef
from k2beam.query.selections import DeadLetterSelection
from k2beam.validation import Violation
from tests.lake_helpers import lake_config
from tests.replay_helpers import (
    assert_audit,
    contents,
    dead_letter_classes,
    ingest,
    open_gaps,
    resolved_by,
    simulated,
    true_gaps,
    unresolved_letters,
    without_schemas,
)
from transforms.read_archive import ReadArchive

ROWS = 600
FAULTS = "gaps=4,malformed=18,late=3"


class Schemas:
    """A resolver that knows what it was given."""

    def __init__(self, known: dict[int, str]) -> None:
        self.known = known

    def open(self) -> None: ...

    def close(self) -> None: ...

    def resolve(self, ref: SchemaRef) -> str:
        if not isinstance(ref, int) or ref not in self.known:
            raise SchemaError(f"schema {ref} does not exist")
        return self.known[ref]


@pytest.fixture
def schemas(tmp_path: Path) -> Schemas:
    """The schemas of a feed in ``in``, all messages of which are dead letters for want of them."""
    simulated(tmp_path / "in", ROWS, FAULTS)
    bare = without_schemas(tmp_path / "in", tmp_path / "bare")
    assert ingest([bare], tmp_path / "wh", max_dead_share=1).dead_letters == ROWS
    return Schemas({ref: text for one in (tmp_path / "in").glob("*.avro") for ref, text in resolved_by(one).items()})


def outcomes(folder: Path, selection: DeadLetterSelection | None = None, resolver: Any = None) -> Counter[str]:
    found = Counter[str]()
    chosen = DeadLetterSelection() if selection is None else selection
    for one in preview_dead_letters(lake_config(folder), chosen, resolver=resolver):
        found[one.outcome] += one.letters
    return found


def test_what_is_good_now_becomes_events_and_the_rest_stays(tmp_path: Path, schemas: Schemas) -> None:
    warehouse = tmp_path / "wh"
    before = dead_letter_classes(warehouse)
    told = outcomes(warehouse, resolver=schemas)
    assert told[EVENT] == ROWS - 18
    assert contents(warehouse)["trades_v2"] == [], "to look is not to take"

    stats = replay_dead_letters(lake_config(warehouse), resolver=schemas)
    assert (stats.consumed, sum(stats.written.values()), stats.dead_letters) == (ROWS, ROWS - 18, 0)
    assert (stats.already_covered, stats.pending) == (18, 0)
    ingest([tmp_path / "in"], tmp_path / "straight")
    found, wanted = contents(warehouse), contents(tmp_path / "straight")
    assert {**found, "dead_letters": []} == {**wanted, "dead_letters": []}
    assert open_gaps(warehouse) == open_gaps(tmp_path / "straight") != set()
    assert dead_letter_classes(warehouse) == before, "their history stays"
    assert unresolved_letters(warehouse) == 18
    assert_audit(warehouse, tmp_path / "bare")


def test_another_replay_does_nothing(tmp_path: Path, schemas: Schemas) -> None:
    replay_dead_letters(lake_config(tmp_path / "wh"), resolver=schemas)
    once = contents(tmp_path / "wh")
    again = replay_dead_letters(lake_config(tmp_path / "wh"), resolver=schemas)
    assert (again.consumed, sum(again.written.values()), again.already_covered) == (18, 0, 18)
    assert contents(tmp_path / "wh") == once
    assert outcomes(tmp_path / "wh", resolver=schemas)[EVENT] == 0


def test_only_what_is_selected_is_taken(tmp_path: Path, schemas: Schemas) -> None:
    source = next(one.source for one in preview_dead_letters(lake_config(tmp_path / "wh")))
    selection = DeadLetterSelection(source=[source], error_class="unknown_schema_id")
    expected = outcomes(tmp_path / "wh", selection, schemas)[EVENT]
    stats = replay_dead_letters(lake_config(tmp_path / "wh"), selection, resolver=schemas)
    assert 0 < sum(stats.written.values()) == expected < ROWS - 18
    assert_audit(tmp_path / "wh")


def test_an_archive_that_has_the_schemas_makes_them_good_too(tmp_path: Path, schemas: Schemas) -> None:
    plain = run_ingest(ReadArchive([str(tmp_path / "in")]), IngestConfig(lake_config(tmp_path / "wh")))
    assert (sum(plain.written.values()), plain.already_covered) == (0, ROWS), "an offset is taken once"
    config = IngestConfig(lake_config(tmp_path / "wh"), replay_dead_letters=True)
    stats = run_ingest(ReadArchive([str(tmp_path / "in")]), config)
    assert (sum(stats.written.values()), stats.already_covered) == (ROWS - 18, 18)
    assert_audit(tmp_path / "wh", tmp_path / "in")


def test_records_of_a_file_are_taken_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = simulated(tmp_path / "in", ROWS, "gaps=4", envelope="plain")
    warehouse = tmp_path / "wh"

    def refuse(_kind: object, data: Any, *_: object) -> tuple[Violation, ...]:
        return tuple(Violation(row, "too_strict", "a rule that was wrong") for row in range(0, data.num_rows, 2))

    with monkeypatch.context() as patch:
        patch.setattr(transforms.validate_events, "violations", refuse)
        lost = ingest([tmp_path / "in"], warehouse, max_dead_share=1).dead_letters
    assert lost > ROWS / 3
    assert outcomes(warehouse) == {OF_FILE: lost}
    assert replay_dead_letters(lake_config(warehouse)).consumed == 0
    config = IngestConfig(lake_config(warehouse), replay_dead_letters=True)
    stats = run_ingest(ReadArchive([str(tmp_path / "in")]), config)
    assert (sum(stats.written.values()), unresolved_letters(warehouse)) == (lost, 0)
    assert open_gaps(warehouse) == true_gaps(truth)
    assert_audit(warehouse, tmp_path / "in")


def test_a_gap_that_letters_made_is_filled_by_their_replay(tmp_path: Path, schemas: Schemas) -> None:
    warehouse = tmp_path / "wh"
    run_ingest(ReadArchive([str(tmp_path / "in")]), IngestConfig(lake_config(tmp_path / "straight")))
    half = DeadLetterSelection(source=[one.source for one in preview_dead_letters(lake_config(warehouse))][:1])
    replay_dead_letters(lake_config(warehouse), half, resolver=schemas)
    replay_dead_letters(lake_config(warehouse), resolver=schemas)
    assert open_gaps(warehouse) == open_gaps(tmp_path / "straight")
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, SEQUENCE_GAPS)
    assert table is not None
    assert len(list(read_ledger(table))) >= len(open_gaps(warehouse))


def test_a_limit_is_refused(tmp_path: Path) -> None:
    selection = DeadLetterSelection(limit=1)
    for call in (preview_dead_letters, replay_dead_letters):
        with pytest.raises(UsageError, match="a limit has no meaning"):
            call(lake_config(tmp_path), selection)


def test_the_command_says_what_would_be_done_and_does_it(tmp_path: Path, schemas: Schemas) -> None:
    app = typer.Typer()
    dlq.register(app)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["dlq", "replay", *arguments, "--warehouse", str(tmp_path / "wh")])

    looked = run()
    assert looked.exit_code == 0
    assert "Nothing was changed. With --apply: 0 become rows. Of " in looked.stderr
    assert "give --registry URL, or read their archive again" in looked.stderr
    done = run("--apply", "--output", "json")
    assert done.exit_code == 0
    assert f"0 became rows; {ROWS} fail again and stay." in done.stderr
    assert contents(tmp_path / "wh")["trades_v2"] == []
    assert schemas.known, "which the command was not given"
