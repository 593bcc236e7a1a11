"""Durations as options: their units, and what is refused by the name of the option."""

from __future__ import annotations

import pytest

from k2beam.cli.durations import positive_seconds, seconds, whole_seconds
from k2beam.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("60s", 60), ("15m", 900), ("1.5h", 5400), ("1d", 86_400), (" 7 ", 7)]
)
def test_a_duration_has_a_unit_or_is_seconds(text: str, expected: float) -> None:
    assert seconds(text, "--x") == expected


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1 s", "1e3"])
def test_what_is_no_duration_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(UsageError, match="--commit-age takes a duration such as 500ms, 60s, 15m or 1d, not"):
        seconds(text, "--commit-age")


def test_none_at_all_is_refused_where_it_must_last() -> None:
    with pytest.raises(UsageError, match="--interval must be above 0, not 0s"):
        positive_seconds("0s", "--interval")


@pytest.mark.parametrize("text", ["1500ms", "0.5", "0.0001d"])
def test_a_window_is_never_cut_to_whole_seconds(text: str) -> None:
    with pytest.raises(UsageError, match=f"--window takes whole seconds, not {text}"):
        whole_seconds(text, "--window")
    assert whole_seconds("2000ms", "--window") == 2
