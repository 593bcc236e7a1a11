"""Write the list of metrics in docs/reference/metrics.md from the registry: ``python scripts/metrics_table.py``."""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a script, its folder is on the path and the checkout is not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from k2beam.metrics.registry import METRICS, STANDARD_LABELS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "reference" / "metrics.md"
BEGIN = "<!-- begin: scripts/metrics_table.py -->"
END = "<!-- end -->"


def table() -> str:
    """Every metric of the registry as a Markdown table, in the registry's order."""
    rows = [
        f"| `{spec.name}` | {spec.type} | {', '.join(f'`{label}`' for label in spec.labels)} | {spec.help} |"
        for spec in METRICS
    ]
    return "\n".join(
        [
            f"Every metric also has the labels {', '.join(f'`{label}`' for label in STANDARD_LABELS)}.",
            "",
            "| metric | type | labels | what it says |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def with_table(text: str) -> str:
    """The document with the table between its marks made anew. Raises ValueError where a mark is missing."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
