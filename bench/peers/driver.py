"""Runs the contestants over one topic in turns, and tells them beside librdkafka alone.

Rates are from the moment when a reader is about to fetch to the last commit of rows, so that the start of a JVM, of
Beam or of Python's imports counts for nobody; processor time is that of all processes of a contestant from start to
end, and the broker's and the registry's for nobody. The content of each table is compared with k2beam's, which is
audited against the broker.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.compaction import result_line
from bench.live import FLOOR, SCHEMA_ID, SERVERS, SET, SETTINGS, Live, backlog, rate_of, register, run, trades
from bench.peers.contestants import Connect, FlinkSql, K2beam, PlainLoop, Quix
from bench.peers.floor import Floor, floor
from bench.peers.peer import Failed, Outcome, Peer, Topic, Unavailable
from bench.peers.table import Content, content, peer_content
from k2beam.job.config import Reader
from k2beam.stack.stack import LocalStack

_FLOORS: Mapping[str, Mapping[str, Any]] = {FLOOR: MappingProxyType({}), SET: SETTINGS}
_PEERS: Sequence[Peer] = (PlainLoop(checked=False), PlainLoop(checked=True), Connect(), Quix(), FlinkSql())


def peers(scratch: Path, rows: int, runs: int) -> Iterator[dict[str, Any]]:
    """Medians of ``runs`` runs over ``rows`` messages; a line for each peer that could not be had.

    Raises SystemExit in the end where a peer could be had, but did not do its work.
    """
    had, missing = prepared(_PEERS)
    with LocalStack(scratch / "stack", services=SERVERS) as stack:
        ids = {SCHEMA_ID: register(stack)}
        warm_up = backlog(stack, scratch, ids, "warm-up", max(rows // 10, 1))
        for reader in Reader:
            run(Live(stack, reader), scratch / f"wh-warm-up-{reader}", warm_up)
        topic = Topic(stack, backlog(stack, scratch, ids, "backlog", rows), rows, ids[SCHEMA_ID])
        floors: dict[str, list[Floor]] = {name: [] for name in _FLOORS}
        found: dict[str, list[Outcome]] = {}
        failed: dict[str, str] = {}
        for number in range(runs):
            for name, settings in _FLOORS.items():
                floors[name].append(floor(stack.bootstrap, topic.name, rows, settings))
            reference = _k2beam(topic, scratch, number, found)
            for peer in (peer for peer in had if peer.name not in failed):
                warehouse = scratch / f"wh-{type(peer).__name__.lower()}-{had.index(peer)}-{number}"
                try:
                    outcome = _checked(peer, topic, warehouse, reference)
                except Failed as error:
                    failed[peer.name] = str(error)
                else:
                    found.setdefault(peer.name, []).append(outcome)
    yield from _lines(rows, floors, found)
    for name, reason in missing.items():
        yield result_line(f"not measured: {name}: {reason}", rows, None, "")
    for name, reason in failed.items():
        yield result_line(f"failed: {name}", rows, None, "")
        print(f"{name}: {reason}", file=sys.stderr)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def prepared(wanted: Sequence[Peer]) -> tuple[Sequence[Peer], Mapping[str, str]]:
    """The peers that can be had, and why others can't."""
    had: list[Peer] = []
    missing: dict[str, str] = {}
    for peer in wanted:
        try:
            peer.prepare()
        except Unavailable as error:
            missing[peer.name] = " ".join(str(error).split())  # of one line
        else:
            had.append(peer)
    return had, missing


def _k2beam(topic: Topic, scratch: Path, number: int, found: dict[str, list[Outcome]]) -> Content:
    """Both readers, whose tables must be alike; what is in them."""
    contents = []
    for reader in Reader:
        contestant, warehouse = K2beam(reader), scratch / f"wh-{reader}-{number}"
        found.setdefault(contestant.name, []).append(contestant.run(topic, warehouse))
        contents.append(content(trades(warehouse)))
    if len(set(contents)) != 1 or contents[0].rows != topic.rows:
        raise SystemExit(f"k2beam's readers disagree: {contents}")
    return contents[0]


def _checked(peer: Peer, topic: Topic, warehouse: Path, reference: Content) -> Outcome:
    outcome = peer.run(topic, warehouse)
    if (written := peer_content(warehouse)) != reference:
        raise Failed(f"its table has {written}, k2beam's has {reference}")
    return outcome


def _lines(
    rows: int, floors: Mapping[str, Sequence[Floor]], found: Mapping[str, Sequence[Outcome]]
) -> Iterator[dict[str, Any]]:
    beside = statistics.median(one.rate for one in floors[FLOOR])
    for name, measured in floors.items():
        yield rate_of(name, rows, statistics.median(one.rate for one in measured), beside)
        yield _cpu(name, rows, [one.cpu_s for one in measured])
        yield result_line(f"{name}: memory, most", rows, max(one.peak_mib for one in measured), "MiB")
    for name, outcomes in found.items():
        rates = [rows / (one.committed - one.began) for one in outcomes]
        yield rate_of(f"{name}, median of {len(rates)}", rows, statistics.median(rates), beside)
        yield rate_of(f"{name}, least of {len(rates)}", rows, min(rates), beside)
        yield _cpu(name, rows, [one.cpu_s for one in outcomes])
        yield result_line(f"{name}: memory, most", rows, max(one.peak_mib for one in outcomes), "MiB")


def _cpu(name: str, rows: int, seconds: Sequence[float]) -> dict[str, Any]:
    value = round(statistics.median(seconds) / rows * 1_000_000, 2)
    return result_line(f"{name}: processor time, median", rows, value, "CPU s/million")
