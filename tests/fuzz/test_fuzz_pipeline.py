"""Messages with values at every edge through the whole job: each one is an event or a dead letter, once."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from k2beam.archive.write import write_raw_archive
from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import COVERED_TABLES, find_table
from k2beam.model import KINDS
from k2beam.query.dead_letters import list_dead_letters
from k2beam.query.events import select_events
from k2beam.query.gaps import list_gaps
from k2beam.query.overview import list_stats, list_symbols
from k2beam.query.selections import DeadLetterSelection, EventSelection, GapSelection
from k2beam.schemas import avro_schema
from tests.fuzz.hostile_messages import IDS, messages, plain_container
from tests.lake_helpers import lake_config
from tests.replay_helpers import assert_audit, run_archive

pytestmark = pytest.mark.integration

SEEDS = [pytest.param(seed, marks=() if seed < 2 else pytest.mark.full) for seed in range(40)]


def taken(warehouse: Path) -> Counter[tuple[str, int, int]]:
    """How often each offset is in the tables."""
    found: Counter[tuple[str, int, int]] = Counter()
    for name in COVERED_TABLES:
        table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, name)
        for row in table.scan().to_arrow().to_pylist() if table else ():
            last = row.get("_offset_last", row["_offset"])
            found.update((row["_source"], row["_partition"], offset) for offset in range(row["_offset"], last + 1))
    return found


def read_everything(warehouse: Path) -> None:
    """Each query answers, whatever is in the tables."""
    catalog = open_catalog(lake_config(warehouse))
    for kind in KINDS:
        schema, batches = select_events(catalog, NAMESPACE, kind, EventSelection())
        assert all(batch.schema == schema for batch in batches)
    assert list_stats(catalog, NAMESPACE)
    list_symbols(catalog, NAMESPACE, EventSelection())
    list_dead_letters(catalog, NAMESPACE, DeadLetterSelection())
    list(list_gaps(catalog, NAMESPACE, GapSelection()))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_message_of_a_log_is_an_event_or_a_dead_letter(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    records = messages(120, rng)
    archive, warehouse = tmp_path / "a.avro", tmp_path / "wh"
    schemas = {number: avro_schema(name) for number, name in IDS.items()}
    write_raw_archive(str(archive), records, schemas, block_records=rng.choice([7, 50, 10_000]))
    run_archive([archive], warehouse, max_dead_share=1.0)
    assert taken(warehouse) == Counter({(record.source, record.partition, record.offset) for record in records})
    assert_audit(warehouse, archive)
    read_everything(warehouse)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_record_of_a_plain_container_is_an_event_or_a_dead_letter(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    archive, warehouse = tmp_path / "a.avro", tmp_path / "wh"
    data, count = plain_container(rng, 120)
    archive.write_bytes(data)
    run_archive([archive], warehouse, max_dead_share=1.0)
    found = taken(warehouse)
    assert set(found.values()) == {1}
    assert sorted(offset for _, _, offset in found) == list(range(count))
    assert_audit(warehouse, archive)
    read_everything(warehouse)
