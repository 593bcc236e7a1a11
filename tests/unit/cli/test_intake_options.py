"""The options of ``k2beam ingest`` that say what a run may take."""

from pathlib import Path

import pytest

from k2beam.cli.intake_options import KNOWN, intake_options
from k2beam.clock import MICROS_PER_DAY
from k2beam.errors import UsageError
from k2beam.sequence import SequenceRules, SequenceTracker


def rules_of(given: str) -> SequenceRules:
    rules = intake_options(sequences=given).sequences
    assert rules is not None
    return rules


def test_the_rules_that_come_along_let_no_number_of_a_known_exchange_begin_anew() -> None:
    def answer_to_a_low_number_of_the_next_day(tracker: SequenceTracker) -> str:
        tracker.check_sequence("BINANCE", "BTCUSDT", 1000, 0)
        return tracker.check_sequence("BINANCE", "BTCUSDT", 100, MICROS_PER_DAY).classification.name

    assert answer_to_a_low_number_of_the_next_day(SequenceTracker()) == "RESET"
    assert answer_to_a_low_number_of_the_next_day(SequenceTracker(rules_of(KNOWN))) == "OUT_OF_ORDER"


def test_a_file_of_rules_is_taken_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nexchange = "OTC"\nunsequenced = true\n', encoding="utf-8")
    assert rules_of(str(path)).rules[0].unsequenced


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"--sequences rules/otc.toml: can't be read: .*No such file"):
        intake_options(sequences="rules/otc.toml")
