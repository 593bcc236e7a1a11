"""The true answer about a generated or converted data set, written beside it as ``truth.json``.

Whoever makes the data knows what is in it; the truth is written from that plan, never from
reading the data back or from the gap machine, so that it can judge both.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from k2beam.errors import UsageError
from k2beam.model import Kind

TRUTH_FILE = "truth.json"


@dataclass(frozen=True, slots=True)
class TrueGap:
    """A maximal missing interval, both ends included, of one epoch (counted from 0) of a key."""

    exchange: str
    symbol: str
    kind: Kind
    epoch: int
    first_missing: int
    last_missing: int


@dataclass(frozen=True, slots=True)
class TrueKey:
    """What one key holds: rows in the table, duplicates among them, resets of its numbering."""

    exchange: str
    symbol: str
    kind: Kind
    rows: int
    duplicates: int
    resets: int


@dataclass(frozen=True, slots=True)
class TrueSource:
    """Offsets ``first`` to ``last`` (both included) of a source partition, all of them there.

    ``source`` is None for a plain container: its source is named by a digest of its first bytes,
    its partition is 0 and ``file`` says which file it is.
    """

    source: str | None
    file: str | None
    kind: Kind
    partition: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Truth:
    """The right result of ingesting a data set once.

    ``offsets`` = sum of ``rows`` (by kind) + sum of ``dead_letters`` (by error_class).
    ``duplicates`` are messages sent again (same sequence and event time, offset of their own):
    they are rows too.
    """

    made_by: dict[str, Any]
    offsets: int
    rows: dict[str, int]
    dead_letters: dict[str, int]
    duplicates: int
    resets: int
    gaps: tuple[TrueGap, ...] = ()
    keys: tuple[TrueKey, ...] = ()
    sources: tuple[TrueSource, ...] = field(default=())

    def to_json(self) -> str:
        """JSON text: one line for each gap, key and source, the rest indented."""
        lines = [f" {json.dumps(name)}: {_value(value)}" for name, value in dataclasses.asdict(self).items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def write(self, folder: Path) -> Path:
        """Write :data:`TRUTH_FILE` into ``folder``; the last thing that a maker of data does."""
        path = folder / TRUTH_FILE
        path.write_text(self.to_json(), "utf-8")
        return path


def _value(value: Any) -> str:
    if not isinstance(value, tuple) or not value:
        return json.dumps(value)
    return "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"


def read_truth(path: Path) -> Truth:
    """Read a truth from its file, or from the folder that holds it.

    Raises UsageError when there is none (the data were not finished) or it does not parse.
    """
    path = path / TRUTH_FILE if path.is_dir() else path
    try:
        found = cast("dict[str, Any]", json.loads(path.read_text("utf-8")))
        found["gaps"] = tuple(TrueGap(**item) for item in found["gaps"])
        found["keys"] = tuple(TrueKey(**item) for item in found["keys"])
        found["sources"] = tuple(TrueSource(**item) for item in found["sources"])
        return Truth(**found)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: make the data again, the truth is written at the end") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is not a truth file ({error}); make the data again") from error
