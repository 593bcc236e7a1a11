"""The commands ``k2beam schemas …``: the event schemas in a Schema Registry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import lake_config
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.registry_options import RegistryOption, registry_login
from k2beam.config import LakeConfig
from k2beam.registry.config import DEFAULT_URL, RegistryConfig

if TYPE_CHECKING:
    from k2beam.registry.client import Registry
    from k2beam.registry.subjects import Candidate, Finding

schemas_app = typer.Typer(help="The schemas of the events in a Schema Registry.", no_args_is_help=True)

_NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Schemas, such as trade_v2 [default: all]")
]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="How long a registry that does not answer is waited for, seconds.")
]
TopicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="TOPIC[=NAME]",
        help="Use the subject TOPIC-value, not the record's name; the schema is that of the topic's kind, or NAME.",
    ),
]
_FromOption = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="Take NAME.avsc of a folder instead of the packaged ones.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(schemas_app, name="schemas")


@schemas_app.command("list")
@guarded
@with_options(login=registry_login)
def list_command(
    registry: RegistryOption = DEFAULT_URL,
    *,
    login: RegistryConfig,
    wait: WaitOption = 10.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Every subject of the registry: its latest version, and which of our schemas it is, if any."""
    from k2beam.registry.subjects import SubjectRow, list_subjects

    with _open(login.at(registry, wait)) as opened:
        rows = map(asdict, list_subjects(opened))
        emit_rows([field.name for field in fields(SubjectRow)], rows, output)


@schemas_app.command("check")
@guarded
@with_options(login=registry_login)
def check_command(
    names: _NamesArgument = None,
    registry: RegistryOption = DEFAULT_URL,
    topic: TopicOption = None,
    folder: _FromOption = None,
    *,
    login: RegistryConfig,
    wait: WaitOption = 10.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Whether the schemas are registered, and if not, whether they could be. Exit code 1 unless all are."""
    from k2beam.registry.subjects import candidates, check

    wanted = candidates(names or (), topic or (), folder)
    with _open(login.at(registry, wait)) as opened:
        _report(opened, wanted, check, output)


@schemas_app.command("register")
@guarded
@with_options(login=registry_login)
def register_command(
    names: _NamesArgument = None,
    registry: RegistryOption = DEFAULT_URL,
    topic: TopicOption = None,
    folder: _FromOption = None,
    *,
    login: RegistryConfig,
    wait: WaitOption = 10.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Register the schemas that are not there, after a check that they read what the earlier versions wrote.

    What can't be registered is named, and the rest goes on; the exit code is 1 then. Again: changes nothing.
    """
    from k2beam.registry.subjects import candidates
    from k2beam.registry.subjects import register as register_all

    wanted = candidates(names or (), topic or (), folder)
    with _open(login.at(registry, wait)) as opened:
        _report(opened, wanted, register_all, output)


@schemas_app.command("forget")
@guarded
@with_options(lake=lake_config)
def forget_command(
    registry: RegistryOption = DEFAULT_URL, *, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Forget what the ids of a registry stood for, so that a job takes messages of one whose ids begin anew.

    A message with an old id that is not in the tables yet would be read by the new schema of that id.
    """
    from k2beam.lake.catalog import open_catalog
    from k2beam.lake.kept_schemas import forget_schemas

    forgotten = forget_schemas(open_catalog(lake), lake.namespace, registry)
    emit_object({"registry": registry, "forgotten": forgotten}, output)


@contextmanager
def _open(config: RegistryConfig) -> Iterator[Registry]:
    from k2beam.registry.client import Registry

    registry = Registry(config)
    try:
        yield registry
    finally:
        registry.close()


def _report(
    registry: Registry,
    wanted: tuple[Candidate, ...],
    work: Callable[[Registry, Iterable[Candidate]], Iterator[Finding]],
    output: OutputFormat,
) -> None:
    from k2beam.registry.subjects import Finding

    states: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, object]]:
        for finding in work(registry, wanted):
            states["registered now" if finding.new else finding.state] += 1
            yield asdict(finding)

    emit_rows([field.name for field in fields(Finding)], rows(), output)
    typer.echo(", ".join(f"{count} {state.replace('_', ' ')}" for state, count in states.items()), err=True)
    if set(states) - {"registered", "registered now"}:
        raise typer.Exit(1)
