"""What a live job does before it is built: what an earlier job left undone in the ledger is made good."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from k2beam.coverage import Coverage
from k2beam.job import live
from k2beam.job.config import IngestConfig, LiveConfig
from k2beam.job.goal import Start
from k2beam.job.options import beam_options
from k2beam.kafka.config import KafkaConfig
from k2beam.lake.ledger import read_ledger
from k2beam.lake.seed import LedgerSeed
from k2beam.lake.tables import SEQUENCE_GAPS
from tests.audit_helpers import Row, SmallLake
from tests.lake_helpers import write_config


class Built(Exception):
    """The job would run now."""


def test_gaps_of_rows_without_their_ledger_are_there_before_the_seed_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job before died between the commit of the rows and that of the ledger."""
    lake = SmallLake(tmp_path)
    lake.add([Row(0, 10), Row(1, 14)])
    found: list[tuple[int, int]] = []

    def build(*_: Any, **__: Any) -> None:
        found.extend((gap.first_missing, gap.last_missing) for gap in read_ledger(lake.table(SEQUENCE_GAPS)))
        state = LedgerSeed.of_now(lake.config).load("BINANCE", "BTC", "trades")
        assert state is not None
        assert state.fold(None, 0).changes == [], "the seed takes the gap for declared, so nobody would declare it"
        raise Built

    monkeypatch.setattr(live, "build", build)
    config = IngestConfig(lake=lake.config, write=write_config(bounded=False))
    nothing: Any = SimpleNamespace(
        seed_group=lambda *_: None, starts={}, bounds={}, missing=lambda _: {}, known=lambda _: {}
    )
    with pytest.raises(Built):
        live._Job(
            live=LiveConfig(KafkaConfig("broker:9092"), "localhost:1"),
            config=config,
            options=beam_options(["--runner=FnApiRunner"], streaming=True),
            resolver=None,
            start=Start(nothing, (), nothing, lake.catalog, Coverage(), nothing, nothing),
            stop=threading.Event(),
            on_flink=None,
            attached=False,
        ).run()
    assert found == [(11, 13)]
