"""The commands ``k2beam report`` and ``k2beam serve``: the page that shows a lake, as a file and live."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

import k2beam
from k2beam.cache import whole
from k2beam.cli.addresses import host_and_port
from k2beam.cli.batches import check_file
from k2beam.cli.durations import positive_seconds
from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import WatchedTopics, kafka_security, optional_kafka, watched_topics
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.option_groups import with_options
from k2beam.cli.progress import step_progress
from k2beam.cli.query_options import selection_options
from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.query.selections import EventSelection

if TYPE_CHECKING:
    from k2beam.report import LagRows, ReportSelection


class PageOptions(NamedTuple):
    """What the page is about, beside the events; the time in seconds."""

    every: str | None
    last: float | None
    audit: bool

    def of(self, events: EventSelection) -> ReportSelection:
        """Raises UsageError for two beginnings of the time."""
        from k2beam.report import ReportSelection

        if self.last is None:
            return ReportSelection(events, self.every)
        if events.start is not None:
            raise UsageError("--last and --from both say when the time of the page begins: give one of them")
        return ReportSelection(events, self.every, timedelta(seconds=self.last))


def page_options(
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="SIZE", help="The size of a bar (default: by the length of the time)."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(
            "--last", metavar="TIME", help="Begin so long before the newest event, or before --to (default: 1d)."
        ),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit/--no-audit", help="With the verdict of an audit, which reads all rows.")
    ] = True,
) -> PageOptions:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return PageOptions(every, None if last is None else positive_seconds(last, "--last"), audit)


_shown = with_options(
    events=selection_options,
    page=page_options,
    lake=existing_lake,
    topics=watched_topics,
    security=kafka_security,
)
"""The options that say what the page shows."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("report")(report)
    app.command("serve")(serve)


@guarded
@_shown
def report(
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The file; it is replaced once all is read.")],
    *,
    events: EventSelection,
    page: PageOptions,
    lake: LakeConfig,
    topics: WatchedTopics,
    security: KafkaConfig,
) -> None:
    """One page of HTML that shows the lake, without network: audit, freshness, gaps, candles. 1 if the audit fails."""
    from k2beam.report import audit_verdict, gather_contents, render

    check_file(out, "OUT.html")
    asked, lag = page.of(events), _lag_of(lake, topics, security)
    with step_progress(f"reading {lake.describe()}") as tell:
        opened = k2beam.Lake.of(lake)
        verdict = audit_verdict(opened, tell) if page.audit else None
        tell("tables")
        contents = gather_contents(opened, asked, verdict, None if lag is None else lag())
        with whole(out.absolute()) as partly:
            partly.write_text(render(contents, _title(lake)), encoding="utf-8")
    typer.echo(f"Wrote {out}: open it in a browser.", err=True)
    if verdict is not None and not verdict["ok"]:
        typer.echo("The audit FAILED: the page says why, and so does `k2beam audit`.", err=True)
        raise typer.Exit(1)


@guarded
@_shown
def serve(
    *,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the page is served; port 0 takes a free one.")
    ] = "127.0.0.1:9309",
    interval: Annotated[str, typer.Option(help="How often new things are looked for, such as 15s.")] = "15s",
    audit_interval: Annotated[str, typer.Option(help="How often what is new is audited.")] = "10m",
    events: EventSelection,
    page: PageOptions,
    lake: LakeConfig,
    topics: WatchedTopics,
    security: KafkaConfig,
) -> None:
    """The same page, live, until SIGINT or SIGTERM. Whoever reaches the address sees it: there is no login."""
    from k2beam.report import LivePage, PageServer

    host, port = host_and_port(listen, "--listen")
    every = positive_seconds(interval, "--interval")
    audit_every = positive_seconds(audit_interval, "--audit-interval")
    asked, lag = page.of(events), _lag_of(lake, topics, security)
    with step_progress(f"reading {lake.describe()}") as tell:
        live = LivePage(
            k2beam.Lake.of(lake),
            asked,
            title=_title(lake),
            lag=lag,
            audit_every=audit_every if page.audit else None,
            on_step=tell,
        )
        live.refresh()
    server = PageServer(live, host, port, every)
    typer.echo(f"Serving {lake.describe()} at {server.address}", err=True)
    server.run()


def _title(lake: LakeConfig) -> str:
    return f"k2beam: {lake.warehouse or lake.catalog}"


def _lag_of(lake: LakeConfig, topics: WatchedTopics, security: KafkaConfig) -> Callable[[], LagRows] | None:
    """What reads the lag; None without Kafka. Raises UsageError for topics without a cluster, or the other way."""
    kafka = optional_kafka(topics.bootstrap, security)
    from k2beam.exporter.service import ExporterConfig, topic_lag
    from k2beam.report import topic_lag_rows

    config = ExporterConfig(lake, kafka, topics.names, topics.pattern)
    if kafka is None:
        return None
    check_login(kafka)
    return partial(topic_lag_rows, topic_lag(config, kafka))
