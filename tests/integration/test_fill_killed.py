"""A fill from the exchange, killed at its commits and in between: all gaps are closed, and nothing is doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.binance_history import history_server
from tests.fill_helpers import history_of, stored_trades, true_volume
from tests.integration.killing import kill_often, started
from tests.replay_helpers import assert_audit, ingest, open_gaps, simulated

pytestmark = pytest.mark.integration


def test_killed_and_run_again_it_is_what_it_would_have_been(tmp_path: Path, repository: Path) -> None:
    simulated(tmp_path / "in", 40_000, "gaps=150,duplicates=40,late=20,out-of-order=20,malformed=18", kinds=("trades",))
    warehouse = tmp_path / "wh"
    ingest([tmp_path / "in"], warehouse)
    history = history_of(warehouse)
    before, truth = stored_trades(warehouse), true_volume(warehouse, history)
    missing = sum(last - first + 1 for *_, first, last in open_gaps(warehouse))
    assert missing > 1_000
    history.troubles = [429, 500, 0]
    with history_server(history) as url:
        words = ["gaps", "fill", "--from", "binance", "--url", url, "--warehouse", str(warehouse)]
        kill_often(repository, *words, times=2, looked_at=lambda: assert_audit(warehouse, mend=True))
        last = started(repository, *words)
        _, told = last.communicate(timeout=300)
    assert last.returncode == 0, told
    after = stored_trades(warehouse)
    assert open_gaps(warehouse) == set()
    assert len(after) == len(before) + missing
    assert sum(row["quantity"] for row in after) == truth
    assert_audit(warehouse)
