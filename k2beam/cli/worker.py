"""The commands ``k2beam worker …``: Python workers of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from k2beam.cli.addresses import host_and_port
from k2beam.cli.guard import guarded

worker_app = typer.Typer(help="Python workers of a cluster.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(worker_app, name="worker")


@worker_app.command("pool")
@guarded
def pool(
    *,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where runners ask for workers; nothing protects it.")
    ] = "127.0.0.1:50000",
    health: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where /health answers with the number of workers."),
    ] = None,
) -> None:
    """Start a worker for each that a runner asks for, until SIGINT or SIGTERM: for --environment_type=EXTERNAL."""
    from k2beam.job.pool import serve_pool

    serve_pool(*host_and_port(listen, "--listen"), None if health is None else host_and_port(health, "--health"))


@worker_app.command("boot", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@guarded
def boot(context: typer.Context) -> None:
    """Be one worker, as a runner's --id and --provision_endpoint say: k2beam-boot does it for PROCESS."""
    from k2beam.job.boot import boot_main

    boot_main(context.args)
