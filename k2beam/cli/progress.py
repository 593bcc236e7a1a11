"""Progress on standard error, silent where that is no terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from k2beam.cli.output import printable

_EVERY_SECONDS = 0.2


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """A progress line on standard error, gone at the end; silent when that is no terminal.

    Gives a function that advances it: ``with progress("replay", 1000) as advance: advance(10)``.
    """
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda step: bar.advance(task, step)


@contextmanager
def step_progress(description: str) -> Iterator[Callable[[str], None]]:
    """The same for work of which only the steps are known; gives a function that is told the step that begins."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(description), total=None)
        yield lambda step: bar.update(task, description=escape(printable(f"{description}: {step}")))


@contextmanager
def consumed_progress(description: str, total: int) -> Iterator[None]:
    """A bar of the messages consumed, gone at the end; silent when standard error is no terminal.

    Counts by the metric of this process: with workers of their own the bar only shows the time.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        start, stop = _consumed(), threading.Event()

        def follow() -> None:
            while not stop.wait(_EVERY_SECONDS):
                bar.update(task, completed=_consumed() - start)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _consumed() -> float:
    from prometheus_client import REGISTRY

    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "k2_messages_consumed_total"
    )
