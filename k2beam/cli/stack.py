"""The commands ``k2beam stack …``: Kafka, a registry, Prism, Flink and the expansion service on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from k2beam.cli.output import OutputFormat, OutputOption, emit_rows
from k2beam.cli.progress import progress
from k2beam.errors import UsageError
from k2beam.stack.stack import DEFAULT_SERVICES, SERVICES, LocalStack, ServiceStatus, default_state

stack_app = typer.Typer(help="Servers on this machine: Kafka, Schema Registry, Prism, Flink.", no_args_is_help=True)

StateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Folder of ports, pids, logs and data [default: stack in the cache]"),
]
_NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="[NAMES]...", help=f"Of: {', '.join(SERVICES)}.")]

_COLUMNS = ("name", "state", "pid", "addresses", "ports", "log")


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(stack_app, name="stack")


@stack_app.command("up")
def up(
    names: _NamesArgument = None,
    state: StateOption = None,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Take ports that are free instead of the well-known ones.")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Start servers (without names: kafka and registry), wait until they are ready, and leave them running.

    The first time it fetches what is missing into the cache: about 400 MB, for Flink as much again, and for Prism a
    build of two minutes.
    """
    stack = LocalStack(state or default_state(), _known(names) or DEFAULT_SERVICES, free_ports=free_ports)
    with progress(f"Starting {', '.join(stack.services)}"):
        stack.up()
    _emit((status for status in stack.status() if status.name in stack.services), output)


@stack_app.command("status")
def status(state: StateOption = None, output: OutputOption = OutputFormat.TABLE) -> None:
    """Ask every server of the state folder whether it works. Exit 1 unless there are some and all are ready."""
    found = LocalStack(state or default_state(), ()).status()
    _emit(found, output)
    if not found or any(each.state != "ready" for each in found):
        raise typer.Exit(1)


@stack_app.command("down")
def down(
    names: _NamesArgument = None,
    state: StateOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """End the servers (without names: all of them). What they stored stays in the state folder.

    Each has 20 s to end by itself and is killed then. Where nothing runs, nothing happens.
    """
    stack = LocalStack(state or default_state(), ())
    with progress("Ending the stack"):
        ended = stack.down(_known(names))
    _emit((each for each in stack.status() if each.name in ended), output)


def _known(names: list[str] | None) -> tuple[str, ...]:
    for name in names or ():
        if name not in SERVICES:
            raise UsageError(f"there is no service {name!r}: choose from {', '.join(SERVICES)}")
    return tuple(names or ())


def _emit(found: Iterable[ServiceStatus], output: OutputFormat) -> None:
    emit_rows(_COLUMNS, (_row(each, output) for each in found), output)


def _row(each: ServiceStatus, output: OutputFormat) -> dict[str, Any]:
    """A row; for the eye, addresses and ports are plain words."""
    row = {"name": each.name, "state": each.state, "pid": each.pid, "log": str(each.log)}
    if output is OutputFormat.TABLE:
        ports = " ".join(str(port) for port in each.ports.values())
        return row | {"addresses": " ".join(each.addresses.values()), "ports": ports}
    return row | {"addresses": dict(each.addresses), "ports": dict(each.ports)}
