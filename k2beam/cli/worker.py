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
def boot(
    *,
    worker_id: Annotated[str, typer.Option("--id", help="The worker's name.")],
    provision_endpoint: Annotated[
        str, typer.Option("--provision_endpoint", metavar="HOST:PORT", help="Where the runner says what to do.")
    ],
    control_endpoint: Annotated[
        str, typer.Option("--control_endpoint", metavar="HOST:PORT", help="Where its instructions come from.")
    ] = "",
    logging_endpoint: Annotated[
        str, typer.Option("--logging_endpoint", metavar="HOST:PORT", help="Where it takes logs.")
    ] = "",
) -> None:
    """Be one worker. A runner adds these options itself, and more: k2beam-boot is the same as one program."""
    from k2beam.job.boot import Endpoints, boot

    boot(worker_id, Endpoints(provision_endpoint, control_endpoint, logging_endpoint))
