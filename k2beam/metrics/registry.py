"""Every metric that k2beam exports, once, as data.

Names and units follow the Prometheus naming conventions: counters end in ``_total``, times are in
seconds, sizes in bytes. :data:`STANDARD_LABELS` come before the labels of each metric; the
component's handle adds them, nobody passes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MetricType = Literal["counter", "gauge", "histogram"]
PARTITION: tuple[str, ...] = ("topic", "partition")

STANDARD_LABELS: tuple[str, ...] = ("service", "environment", "component")

SECONDS: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, math.inf)
LATENCY: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, math.inf)
ROWS: tuple[float, ...] = (1, 10, 100, 1_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000, math.inf)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: ``labels`` without the standard ones; ``buckets`` (upper bounds) of a histogram."""

    name: str
    type: MetricType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "k2_kafka_messages_produced_total",
        "counter",
        "Messages that the broker acknowledged.",
        ("exchange", "asset_class", "topic"),
    ),
    MetricSpec(
        "k2_kafka_produce_errors_total",
        "counter",
        "Messages that could not be delivered to the broker.",
        ("exchange", "asset_class", "topic", "error_type"),
    ),
    MetricSpec("k2_feed_messages_total", "counter", "Messages that an exchange's feed gave.", ("exchange", "kind")),
    MetricSpec("k2_feed_duplicates_total", "counter", "Messages of a feed left out as repeats.", ("exchange", "kind")),
    MetricSpec("k2_feed_bad_frames_total", "counter", "Frames of a feed without a message.", ("exchange", "reason")),
    MetricSpec("k2_feed_reconnects_total", "counter", "Times a feed was connected anew.", ("exchange", "reason")),
    MetricSpec("k2_messages_consumed_total", "counter", "Messages read from a source.", ("source_kind",)),
    MetricSpec(
        "k2_already_covered_total",
        "counter",
        "Messages left out because the tables hold them already.",
        ("source_kind",),
    ),
    MetricSpec("k2_decode_errors_total", "counter", "Payloads that did not decode.", ("error_class",)),
    MetricSpec(
        "k2_dead_letters_total",
        "counter",
        "Offsets that became dead letters; a broken block counts with all of its records.",
        ("stage", "error_class"),
    ),
    MetricSpec("k2_unknown_field_values_total", "counter", "Values of fields that no column has.", ("kind",)),
    MetricSpec("k2_events_decoded_total", "counter", "Events decoded.", ("kind",)),
    MetricSpec(
        "k2_sequence_messages_total",
        "counter",
        "Messages by what the sequence check made of them.",
        ("kind", "classification"),
    ),
    MetricSpec("k2_sequence_gaps_total", "counter", "Gaps declared in exchange sequences.", ("kind", "severity")),
    MetricSpec("k2_rows_written_total", "counter", "Rows committed to a table.", ("table",)),
    MetricSpec("k2_data_files_written_total", "counter", "Data files committed to a table.", ("table",)),
    MetricSpec("k2_data_bytes_written_total", "counter", "Bytes of the data files committed to a table.", ("table",)),
    MetricSpec(
        "k2_write_duration_seconds", "histogram", "Time taken to write one data file.", ("table",), buckets=SECONDS
    ),
    MetricSpec(
        "k2_commit_duration_seconds",
        "histogram",
        "Time taken by one commit, its retries included.",
        ("table",),
        buckets=SECONDS,
    ),
    MetricSpec("k2_commit_retries_total", "counter", "Commits tried again.", ("table", "reason")),
    MetricSpec(
        "k2_write_failures_total",
        "counter",
        "Data files that could not be written (stage write), and commits that were given up (stage commit).",
        ("table", "stage"),
    ),
    MetricSpec("k2_iceberg_transactions_total", "counter", "Transactions that made a snapshot.", ("table",)),
    MetricSpec("k2_iceberg_transaction_rows", "histogram", "Rows in one transaction.", ("table",), buckets=ROWS),
    MetricSpec(
        "k2_end_to_end_latency_seconds",
        "histogram",
        "From the log's time of the oldest message of a data file to the commit of the file.",
        ("table",),
        buckets=LATENCY,
    ),
    MetricSpec(
        "k2_freshness_seconds",
        "gauge",
        "Age of the newest message of the last commit when the commit landed.",
        ("table",),
    ),
    # What follows is read from the tables and the broker by `k2beam exporter`.
    MetricSpec("k2_source_lag_messages", "gauge", "Messages of a partition that no table has.", PARTITION),
    MetricSpec(
        "k2_source_behind_seconds",
        "gauge",
        "Age of the oldest message of a partition that no table has; 0 where there is none.",
        PARTITION,
    ),
    MetricSpec("k2_source_covered_offsets", "gauge", "Offsets of a partition that the tables account for.", PARTITION),
    MetricSpec("k2_source_lost_offsets", "gauge", "Offsets that retention took away before they were read.", PARTITION),
    MetricSpec("k2_table_last_commit_timestamp_seconds", "gauge", "When rows were last committed.", ("table",)),
    MetricSpec("k2_table_newest_event_timestamp_seconds", "gauge", "Time of the newest event of a table.", ("table",)),
    MetricSpec("k2_table_rows", "gauge", "Rows of a table.", ("table",)),
    MetricSpec("k2_table_data_files", "gauge", "Data files of a table.", ("table",)),
    MetricSpec("k2_table_data_bytes", "gauge", "Bytes of the data files of a table.", ("table",)),
    MetricSpec("k2_table_small_files", "gauge", "Data files of a table smaller than 1 MiB.", ("table",)),
    MetricSpec("k2_table_snapshots", "gauge", "Snapshots that a table keeps.", ("table",)),
    MetricSpec("k2_open_gaps", "gauge", "Gaps in exchange sequences that are open.", ("kind", "severity")),
    MetricSpec("k2_missing_messages", "gauge", "Messages missing in the gaps that are open.", ("kind",)),
    MetricSpec("k2_stored_dead_letters", "gauge", "Rows in the table of dead letters.", ("stage", "error_class")),
    MetricSpec("k2_exporter_failures_total", "counter", "Readings that failed.", ("reading",)),
    MetricSpec("k2_exporter_last_success_timestamp_seconds", "gauge", "When a reading last succeeded.", ("reading",)),
    MetricSpec(
        "k2_metrics_endpoint_failures_total",
        "counter",
        "Times that a process could not offer its metrics, or not make its address known.",
        ("reason",),
    ),
    MetricSpec(
        "k2_metric_errors_total",
        "counter",
        "Calls of a metric with a wrong name, type, label or value; they were not recorded.",
        ("metric", "problem"),
    ),
)

BY_NAME: dict[str, MetricSpec] = {spec.name: spec for spec in METRICS}
METRIC_ERRORS = "k2_metric_errors_total"
