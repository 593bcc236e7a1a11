"""The command ``k2beam simulate``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from k2beam.errors import UsageError

if TYPE_CHECKING:
    from k2beam.archive.cells import Codec
    from k2beam.model import Kind
    from k2beam.simulate import simulate as simulator
    from k2beam.simulate.truth import Truth


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("simulate")(simulate)


def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the containers and truth.json.")],
    rows: Annotated[int, typer.Option(help="Messages in all, over both kinds, faulty ones included.")],
    symbols: Annotated[int, typer.Option(help="Number of symbols.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed and options give the same bytes.")] = 0,
    kinds: Annotated[str, typer.Option(help="trades, quotes or both, with a comma.")] = "trades",
    faults: Annotated[
        str,
        typer.Option(
            help="NAME=COUNT with commas: gaps, duplicates, resets, late, out-of-order, malformed (all classes in"
            " turn), or one class such as negative_price."
        ),
    ] = "",
    envelope: Annotated[str, typer.Option(help="raw: log messages with offsets and payloads; plain: records.")] = "raw",
    files: Annotated[int, typer.Option(help="Containers for each kind.")] = 1,
    codec: Annotated[str, typer.Option(help="null, deflate, snappy or zstandard.")] = "deflate",
    start: Annotated[str, typer.Option(help="Time of the first event, ISO 8601; without an offset it is UTC.")] = (
        "2026-01-05T00:00:00Z"
    ),
    rate: Annotated[float, typer.Option(help="Messages a second of event time, for each kind.")] = 500.0,
    exchange: Annotated[str, typer.Option(help="Name of the exchange.")] = "BINANCE",
    partitions: Annotated[int, typer.Option(help="Partitions of each topic (envelope raw).")] = 4,
    output: Annotated[str, typer.Option(help="table or json (the truth).")] = "table",
    force: Annotated[bool, typer.Option("--force", help="Write although OUT is not empty.")] = False,
) -> None:
    """Make crypto trades and quotes with known faults, and the true answer beside them."""
    from k2beam.simulate import simulate as simulator
    from k2beam.simulate.faults import parse_faults

    if output not in ("table", "json"):
        raise UsageError(f"--output takes table or json, not {output!r}")
    simulation = simulator.Simulation(
        rows=rows,
        symbols=symbols,
        seed=seed,
        kinds=cast("tuple[Kind, ...]", tuple(kind.strip() for kind in kinds.split(",") if kind.strip())),
        faults=parse_faults(faults),
        envelope=cast("simulator.Envelope", envelope),
        files=files,
        codec=cast("Codec", codec),
        start=_microseconds(start),
        rate=rate,
        exchange=exchange,
        partitions=partitions,
    )
    _check_not_in_future(simulation)
    _check_folder(out, force)
    with _progress(rows) as advance:
        truth = simulator.simulate(out, simulation, advance)
    typer.echo(truth.to_json() if output == "json" else _summary(truth, out), nl=output != "json")


def _microseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--start {text!r} is not a time: write it as 2026-01-05T00:00:00Z") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _check_not_in_future(simulation: simulator.Simulation) -> None:
    # Events ahead of the clock are dead letters to the pipeline, which the truth could not know.
    if simulation.end > time.time() * 1_000_000:
        raise UsageError(
            "the last events would be in the future, where validation refuses them: choose an earlier --start"
            " or a higher --rate"
        )


def _check_folder(out: Path, force: bool) -> None:
    from k2beam.simulate.truth import TRUTH_FILE

    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: name a folder")
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"{out} is not empty: name a new folder, or use --force (it replaces trades-*.avro, quotes-*.avro and"
            f" {TRUTH_FILE}, and leaves other files alone)"
        )


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("simulating", total=rows)
        yield lambda number: progress.advance(task, number)


def _summary(truth: Truth, out: Path) -> str:
    lines = [f"{number} rows of {kind}" for kind, number in truth.rows.items()]
    lines += [f"{number} dead letters of class {name}" for name, number in truth.dead_letters.items()]
    lines += [f"{truth.duplicates} duplicates", f"{truth.resets} resets", f"{len(truth.gaps)} gaps"]
    return "\n".join([f"{truth.offsets} messages in {out}", *(f"  {line}" for line in lines)])
