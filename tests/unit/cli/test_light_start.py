"""Help, and what is refused for its options or paths, must not wait for libraries that take seconds to load."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("pyiceberg", "duckdb", "apache_beam", "confluent_kafka", "pandas", "pyarrow", "numpy", "prometheus_client")
COLUMNS = ("pyarrow", "numpy", "pandas")
"""What CSV files are read with: a mapping can't be checked without."""


@pytest.mark.parametrize(
    ("arguments", "said", "without"),
    [
        (["--help"], "exactly once", HEAVY),
        (["query", "trades", "--help"], "Trades in order", HEAVY),
        (["query", "trades", "--warehouse", "/nowhere"], "no warehouse at /nowhere", HEAVY),
        (["audit", "--warehouse", "/nowhere"], "no warehouse at /nowhere", HEAVY),
        (["maintain", "compact", "--warehouse", "/nowhere"], "no warehouse at /nowhere", HEAVY),
        (["ingest", "archive", "/nowhere.avro", "--warehouse", "/nowhere"], "no such file or folder", HEAVY),
        (
            ["ingest", "csv", "/nowhere.csv", "--mapping", "asx-trades", "--warehouse", "/nowhere"],
            "/nowhere.csv: can't be opened",
            tuple(name for name in HEAVY if name not in COLUMNS),
        ),
        (["ingest", "kafka", "--topic", "t", "--warehouse", "/nowhere"], "--registry URL is needed", HEAVY),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_loaded(arguments: list[str], said: str, without: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from k2beam.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {without!r} if name in sys.modules])\n"
    )
    bare = {name: text for name, text in os.environ.items() if not name.startswith("K2BEAM_")}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=bare)
    assert said in ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
