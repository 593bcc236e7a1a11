"""Runs the pipeline to its end and says what it did."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.runners.runner import PipelineState

from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError, UsageError, mendable
from k2beam.flink import FlinkRun, job_key
from k2beam.job.beam import AGAIN, ENDED_STATES, POLL_SECONDS, cancel, ended_after, state_of, submitted
from k2beam.job.config import IngestConfig
from k2beam.job.first import LocalSource, check_first
from k2beam.job.only_missing import leave_out_twins
from k2beam.job.opening import covering_tables, opened
from k2beam.job.options import beam_options, flink_run
from k2beam.job.pipeline import build
from k2beam.job.progress import Restarts
from k2beam.job.stats import IngestStats, check_sum, ingest_stats
from k2beam.job.taken import TakenFiles
from k2beam.lake.catalog import Catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.evolve import ColumnCheck
from k2beam.lake.reconcile import reconcile
from k2beam.logs import get_logger
from k2beam.signals import stop_signal


def run_ingest(
    source: beam.PTransform, config: IngestConfig, beam_arguments: Sequence[str] = (), *, resolver: Any = None
) -> IngestStats:
    """Run a bounded source into the tables, reconcile the ledger of gaps, and return the stats.

    Raises K2BeamError when the job did not end well; what it had committed by then stays, and
    running it again takes the rest; on a Flink cluster a SIGINT or SIGTERM ends the job there, and raises the same.
    Raises K2BeamError before anything is taken where others have changed a table so
    that it can't be written to, and where too many of the first messages would be dead letters.

    ``source`` gives ``batches`` and ``errs``, as :class:`transforms.read_archive.ReadArchive` does; ``beam_arguments``
    are Beam's own options; ``resolver`` gives writer schemas by id, where the source brings none.

    Exactly once for each (source, partition, offset): a second run leaves out what the tables have.

    Examples:
        >>> from k2beam import IngestConfig, LakeConfig, run_ingest
        >>> from transforms.read_archive import ReadArchive
        >>> config = IngestConfig(LakeConfig("lake"))
        >>> run_ingest(ReadArchive(["samples/asx"]), config).written
        {'trades_v2': 243, 'quotes_v2': 609, 'reference_data_v2': 4}
        >>> again = run_ingest(ReadArchive(["samples/asx"]), config)
        >>> again.written["trades_v2"], again.already_covered
        (0, 856)
    """
    config, catalog, resolver = opened(config, resolver)
    namespace = config.lake.namespace
    files, covered = TakenFiles.of(catalog, namespace, source), read_coverage(catalog, namespace)
    if isinstance(source, LocalSource):
        columns = ColumnCheck(catalog, namespace) if config.evolve else None
        if columns is not None:
            for schema in source.writer_schemas():
                columns.see_writer(schema)
        had = read_coverage(catalog, namespace, covering_tables(config)) if config.replay_dead_letters else covered
        check_first(source.local_batches(), had, resolver, config.max_dead_share, columns=columns)
    files.record(covered)
    if config.only_missing:
        _leave_out_twins(source, catalog, namespace, covered, resolver)
    config = replace(config, write=files.written_with(config.write))
    started = time.monotonic()
    result = _run(source, config, beam_arguments, resolver)
    files.settle(config.write.run_id)
    reconcile(catalog, namespace, run_id=config.write.run_id, metrics=config.metrics)
    duration = time.monotonic() - started
    stats = ingest_stats(catalog, namespace, config.write.run_id, counters(result), duration)
    check_sum(stats, bounded=True)
    return stats


def _leave_out_twins(
    source: beam.PTransform, catalog: Catalog, namespace: str, covered: Coverage, resolver: Any
) -> None:
    if not isinstance(source, LocalSource):
        raise UsageError(f"--only-missing is for files: {type(source).__name__} can't be read twice")
    leave_out_twins(catalog, namespace, source.local_batches(), covered, resolver)


def _run(source: beam.PTransform, config: IngestConfig, beam_arguments: Sequence[str], resolver: Any) -> Any:
    """The result of the job, which has ended well."""
    options = beam_options(beam_arguments)
    run_id = str(config.write.run_id)
    on_flink = flink_run(options, job_key(str(config.lake.identity), run_id), run_id)
    pipeline = beam.Pipeline(options=options)
    build(pipeline, source, config, resolver=resolver)
    try:
        if on_flink is not None:
            result = _followed(pipeline, on_flink)
        else:
            with quoted_executable():
                result = pipeline.run()
        state = result.wait_until_finish()
    except (K2BeamError, OSError, RuntimeError) as error:
        reason = mendable(f"{type(error).__name__}: {error}")
        if reason is None:
            raise
        get_logger("job").debug("the trace of what ended the job", trace=str(error))
        raise K2BeamError(f"the job ended: {reason}; {AGAIN}") from error
    if state not in (PipelineState.DONE, None):
        raise K2BeamError(f"the job ended as {state}; {AGAIN}")
    return result


def _followed(pipeline: beam.Pipeline, run: FlinkRun) -> Any:
    """The result of the job once it has ended. A signal ends it in the cluster too, which would run it to its end."""
    run.cluster.overview()  # refused before anything is submitted: without the API it could not be ended
    with stop_signal() as stop:
        result = submitted(pipeline)
        restarts = Restarts(run)
        with ended_after(lambda: run.end(submitted=cancel(result))):
            while state_of(result) not in ENDED_STATES:
                if stop.wait(POLL_SECONDS):
                    raise K2BeamError("a signal ended it")
                restarts.look()
    return result


@contextmanager
def quoted_executable() -> Iterator[None]:
    """While it lasts, ``sys.executable`` is quoted for a shell.

    Beam starts its worker processes through a shell and does not quote: with a space in the path
    no worker comes up and the job waits for ever.
    """
    plain = sys.executable
    sys.executable = shlex.quote(plain)
    try:
        yield
    finally:
        sys.executable = plain


def counters(result: Any) -> Counter[str]:
    """The project's Beam counters of a run, by name, summed over its steps.

    Of a distribution ``<name>_min``, ``_max``, ``_sum`` and ``_count``.
    """
    totals: Counter[str] = Counter()
    if hasattr(result, "_metrics"):
        result._metrics = None  # Beam keeps the first answer of a job that runs on
    query = beam.metrics.MetricsFilter().with_namespace("k2beam")
    metrics = result.metrics().query(query)
    for found in metrics["counters"]:
        # A runner may report one of the two alone, and a counter that never moved as neither.
        totals[found.key.metric.name] += found.attempted or 0 if found.committed is None else found.committed
    for found in metrics["distributions"]:
        spread = found.attempted if found.committed is None else found.committed
        if spread is not None and spread.count:
            lowest, highest = (f"{found.key.metric.name}_{end}" for end in ("min", "max"))
            totals[lowest] = min(totals.get(lowest, spread.min), spread.min)
            totals[highest] = max(totals[highest], spread.max)
            totals[f"{found.key.metric.name}_sum"] += spread.sum
            totals[f"{found.key.metric.name}_count"] += spread.count
    return totals
