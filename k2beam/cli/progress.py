"""The progress of a running pipeline, on standard error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY

_EVERY_SECONDS = 0.2


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
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "k2_messages_consumed_total"
    )
