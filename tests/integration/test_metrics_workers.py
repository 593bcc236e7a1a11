"""Metrics of whole runs on each local runner, scraped over HTTP: they say what the tables hold."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from k2beam.config import NAMESPACE
from k2beam.job.bounded import quoted_executable, run_ingest
from k2beam.job.config import IngestConfig
from k2beam.job.options import beam_options
from k2beam.job.pipeline import build
from k2beam.job.stats import IngestStats
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, SEQUENCE_GAPS, find_table
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.worker import close_endpoint, endpoint_address
from k2beam.simulate.truth import Truth
from tests.lake_helpers import lake_config, write_config
from tests.replay_helpers import assert_truth, dead_letter_classes, simulated
from transforms.read_archive import ReadArchive

pytestmark = pytest.mark.integration

COMMITTED, SCRAPED = "committed", "scraped"
LONG_S = 120.0

Totals = Counter[tuple[str, ...]]
"""Name of a counter and its labels but the standard ones, in the order of their names -> its sum over the targets."""


@pytest.fixture(autouse=True)
def endpoint_closed() -> Iterator[None]:
    close_endpoint()
    yield
    close_endpoint()


def scrape(address: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def totals(texts: Sequence[str], environment: str) -> Totals:
    """The counters of one environment (each run has its own), summed."""
    found: Totals = Counter()
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.endswith("_total") and sample.labels.get("environment") == environment:
                    own = sorted(set(sample.labels) - {"service", "environment", "component"})
                    found[(sample.name, *(sample.labels[name] for name in own))] += int(sample.value)
    return found


def config_of(tmp_path: Path, environment: str) -> IngestConfig:
    metrics = MetricsConfig(
        environment=environment, endpoint=True, ports=(19_400, 19_499), targets=str(tmp_path / "targets")
    )
    return IngestConfig(lake_config(tmp_path / "wh"), write_config(run_id=uuid.uuid4().hex), metrics=metrics)


def rows_of(warehouse: Path, name: str) -> int:
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, name)
    return table.scan().count() if table else 0


def assert_equal_to_the_tables(found: Totals, warehouse: Path, truth: Truth) -> None:
    """Every counter of the pipeline is what the tables and the maker of the data say."""
    for name in (*EVENT_TABLES.values(), DEAD_LETTERS, SEQUENCE_GAPS):
        assert found["k2_rows_written_total", name] == rows_of(warehouse, name), name
        assert found["k2_iceberg_transactions_total", name] == (1 if rows_of(warehouse, name) else 0), name
    assert found["k2_messages_consumed_total", "kafka"] == truth.offsets
    assert found["k2_already_covered_total", "kafka"] == 0
    dead_letters = {key[1:]: count for key, count in found.items() if key[0] == "k2_dead_letters_total"}
    assert {error_class: count for (error_class, _), count in dead_letters.items()} == dict(
        dead_letter_classes(warehouse)
    )
    errors = {key[1]: count for key, count in found.items() if key[0] == "k2_decode_errors_total"}
    assert errors == {name: count for (name, stage), count in dead_letters.items() if stage != "validate"}
    invalid = sum(count for (_, stage), count in dead_letters.items() if stage == "validate")
    assert invalid > 0
    decoded = sum(found["k2_events_decoded_total", kind] for kind in truth.rows)
    assert decoded == sum(truth.rows.values()) + invalid == truth.offsets - sum(errors.values())
    assert sum(count for key, count in found.items() if key[0] == "k2_sequence_gaps_total") == len(truth.gaps)
    assert _messages(found, "duplicate") == truth.duplicates
    assert _messages(found, "reset") == truth.resets
    assert not [key for key in found if key[0] in ("k2_metric_errors_total", "k2_metrics_endpoint_failures_total")]


def _messages(found: Totals, classification: str) -> int:
    return sum(
        count for key, count in found.items() if key[:2] == ("k2_sequence_messages_total", classification) and count
    )


def run_here(tmp_path: Path, environment: str, *options: str) -> IngestStats:
    return run_ingest(ReadArchive([str(tmp_path / "in")]), config_of(tmp_path, environment), options)


def scrape_here() -> str:
    address = endpoint_address()
    assert address is not None
    return scrape(f"{address[0]}:{address[1]}")


def test_the_in_process_runner(tmp_path: Path) -> None:
    truth = simulated(tmp_path / "in")
    stats = run_here(tmp_path, "fn-api")
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")
    found = totals([scrape_here()], "fn-api")
    assert_equal_to_the_tables(found, tmp_path / "wh", truth)
    assert {name.lower(): _messages(found, name.lower()) for name in stats.gaps} == {
        name.lower(): count for name, count in stats.gaps.items()
    }
    # A second run takes nothing, and says so.
    again = run_here(tmp_path, "fn-api again")
    found = totals([scrape_here()], "fn-api again")
    assert found["k2_already_covered_total", "kafka"] == again.already_covered == truth.offsets
    assert found["k2_rows_written_total", "trades_v2"] == 0


def test_switched_off_no_transform_counts(tmp_path: Path) -> None:
    truth = simulated(tmp_path / "in")
    write = write_config(run_id=uuid.uuid4().hex)
    config = IngestConfig(lake_config(tmp_path / "wh"), write, metrics=MetricsConfig(enabled=False))
    before = counted()
    stats = run_ingest(ReadArchive([str(tmp_path / "in")]), config)
    assert stats.consumed == truth.offsets
    assert counted() == before


def counted() -> dict[tuple[str, ...], float]:
    """Every sample of ours in this process."""
    samples = [sample for family in REGISTRY.collect() for sample in family.samples if sample.name.startswith("k2_")]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_prism(tmp_path: Path, prism: Path) -> None:
    truth = simulated(tmp_path / "in")
    run_here(tmp_path, "prism", "--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK")
    assert len(list((tmp_path / "targets").iterdir())) == 1
    assert_equal_to_the_tables(totals([scrape_here()], "prism"), tmp_path / "wh", truth)


def hold(_: object, folder: str) -> None:
    """In a worker, when all is committed: wait until the test has scraped."""
    (Path(folder) / COMMITTED).touch()
    wait_for(Path(folder) / SCRAPED)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LONG_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(str(path))
        time.sleep(0.05)


def test_two_worker_processes_are_two_targets(tmp_path: Path) -> None:
    truth = simulated(tmp_path / "in", files=4)
    options = beam_options(["--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"])
    pipeline = beam.Pipeline(options=options)
    receipts = build(pipeline, ReadArchive([str(tmp_path / "in")]), config_of(tmp_path, "two"))
    _ = (
        receipts
        | beam.Map(lambda receipt: (None, receipt.table))
        | beam.GroupByKey()
        | beam.Map(hold, folder=str(tmp_path))
    )
    scraped: dict[str, str] = {}

    def scrape_targets() -> None:
        try:
            wait_for(tmp_path / COMMITTED)
            for file in (tmp_path / "targets").glob("*.json"):
                [entry] = json.loads(file.read_text())
                [address] = entry["targets"]
                scraped[address] = scrape(address)
        finally:
            (tmp_path / SCRAPED).touch()

    scraper = threading.Thread(target=scrape_targets)
    scraper.start()
    with quoted_executable():
        result = pipeline.run()
    result.wait_until_finish()
    scraper.join()

    assert len(scraped) == 2
    assert all(totals([text], "two") for text in scraped.values())
    assert_equal_to_the_tables(totals(list(scraped.values()), "two"), tmp_path / "wh", truth)
    assert endpoint_address() is None
    assert list((tmp_path / "targets").iterdir()) == []
