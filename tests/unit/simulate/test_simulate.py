from __future__ import annotations

import io
import json
import tracemalloc
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.archive import cells
from k2beam.archive.varint import write_long
from k2beam.errors import UsageError
from k2beam.simulate.faults import MALFORMED, Faults, parse_faults
from k2beam.simulate.simulate import Simulation, simulate
from k2beam.simulate.truth import TrueGap, Truth, read_truth

SOON = datetime(2027, 1, 1, tzinfo=UTC)
BASE = Simulation(
    rows=4_000,
    symbols=4,
    seed=7,
    kinds=("trades", "quotes"),
    faults=parse_faults("gaps=20,duplicates=30,resets=3,late=10,out-of-order=12,malformed=19"),
    rate=50.0,
    files=2,
    partitions=3,
)


@dataclass
class Arrival:
    """One message as an independent reader of the file sees it; ``error`` instead of a record."""

    kind: str
    file: str
    raw: dict[str, Any] | None
    record: dict[str, Any] | None
    error: str | None


def semantic_error(record: dict[str, Any]) -> str | None:
    price = record.get("price", record.get("bid_price"))
    if abs(price) >= Decimal(10) ** 10:
        return "decimal_overflow"
    if price < 0:
        return "negative_price"
    if not record["symbol"]:
        return "empty_symbol"
    return "timestamp_in_future" if record["timestamp"] > SOON else None


def payload_error(value: bytes | None, ids: dict[str, Any]) -> str | None:
    if value is None:
        return "tombstone"
    if value[0] != 0:
        return "bad_magic"
    return None if str(int.from_bytes(value[1:5], "big")) in ids else "unknown_schema_id"


def decode(value: bytes, schema: Any) -> tuple[dict[str, Any] | None, str | None]:
    body = io.BytesIO(value[5:])
    try:
        record = fastavro.schemaless_reader(body, schema, schema)
    except (EOFError, IndexError):
        return None, "truncated"
    if body.read():
        return None, "trailing_bytes"
    return record, semantic_error(record)


def records(reader: Any, path: Path) -> Iterator[dict[str, Any]]:
    """The records of a container; fastavro needs one more package for zstandard, so that is read here."""
    if reader.codec != "zstandard":
        yield from reader
        return
    data = path.read_bytes()
    sync = data[-16:]
    file = io.BytesIO(data)
    file.seek(data.index(sync) + 16)
    while file.tell() < len(data):
        count, size = (fastavro.schemaless_reader(file, "long", "long") for _ in range(2))
        block = io.BytesIO(zstandard.ZstdDecompressor().decompress(file.read(size)))
        yield from (fastavro.schemaless_reader(block, reader.writer_schema, None) for _ in range(count))
        assert not block.read()
        assert file.read(16) == sync


def arrivals(folder: Path) -> Iterator[Arrival]:
    for path in sorted(folder.glob("*.avro")):
        kind = path.name.split("-")[0]
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            parsed = {
                number: fastavro.parse_schema(schema)
                for number, schema in json.loads(reader.metadata.get("k2.schemas", "{}")).items()
            }
            for raw in records(reader, path):
                if "k2.schemas" not in reader.metadata:
                    yield Arrival(kind, path.name, None, raw, semantic_error(raw))
                    continue
                error, record = payload_error(raw["value"], parsed), None
                if error is None:
                    record, error = decode(raw["value"], parsed[str(int.from_bytes(raw["value"][1:5], "big"))])
                yield Arrival(kind, path.name, raw, record, error)


Key = tuple[str, str, str]


def by_key(found: list[Arrival]) -> dict[Key, list[tuple[datetime, int]]]:
    """Event times and sequences of the good messages of each key, in order of arrival."""
    keys: dict[Key, list[tuple[datetime, int]]] = defaultdict(list)
    for one in found:
        if one.error is None and one.record is not None:
            record = one.record
            keys[record["exchange"], record["symbol"], one.kind].append(
                (record["timestamp"], record["source_sequence"])
            )
    return keys


def naive_epochs(pairs: list[tuple[datetime, int]]) -> list[list[int]]:
    """The written rule, message by message: sort, and cut where the numbering falls and goes on."""
    ordered = sorted(set(pairs))
    epochs: list[list[int]] = [[]]
    for index, (time, sequence) in enumerate(ordered):
        highest = max(epochs[-1], default=0)
        following = [number for _, number in ordered[index : index + 3]]
        goes_on = len(following) == 3 and following == sorted(set(following)) and 2 * following[-1] < highest
        hour_later = index > 0 and time - ordered[index - 1][0] >= timedelta(hours=1)
        if 2 * sequence < highest and (goes_on or hour_later):
            epochs.append([])
        epochs[-1].append(sequence)
    return epochs


def naive_gaps(key: Key, pairs: list[tuple[datetime, int]]) -> Iterator[TrueGap]:
    exchange, symbol, kind = key
    for number, sequences in enumerate(naive_epochs(pairs)):
        seen = sorted(set(sequences))
        for low, high in pairwise(seen):
            if high > low + 1:
                yield TrueGap(exchange, symbol, kind, number, low + 1, high - 1)  # type: ignore[arg-type]


def overtaken(pairs: list[tuple[datetime, int]]) -> int:
    """How many messages (the copies of duplicates left out) arrive after one with a later event time."""
    first_seen = list(dict.fromkeys(pairs))
    return sum(
        any(other[0] > pair[0] for other in first_seen[max(0, index - 2_000) : index])
        for index, pair in enumerate(first_seen)
    )


def check_truth(folder: Path, truth: Truth) -> list[Arrival]:
    found = list(arrivals(folder))
    keys = by_key(found)
    assert truth.offsets == len(found)
    assert truth.rows == Counter(one.kind for one in found if one.error is None)
    assert truth.dead_letters == Counter(one.error for one in found if one.error is not None)
    assert set(truth.gaps) == {gap for key, pairs in keys.items() for gap in naive_gaps(key, pairs)}
    assert len(set(truth.gaps)) == len(truth.gaps)
    assert {(k.exchange, k.symbol, k.kind): (k.rows, k.duplicates, k.resets) for k in truth.keys} == {
        key: (len(pairs), len(pairs) - len(set(pairs)), len(naive_epochs(pairs)) - 1) for key, pairs in keys.items()
    }
    assert truth.duplicates == sum(key.duplicates for key in truth.keys)
    assert truth.resets == sum(key.resets for key in truth.keys)
    return found


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth, list[Arrival]]:
    folder = tmp_path_factory.mktemp("raw")
    truth = simulate(folder, BASE)
    return folder, truth, check_truth(folder, truth)


def test_every_fault_is_there_as_often_as_asked(raw: tuple[Path, Truth, list[Arrival]]) -> None:
    _, truth, found = raw
    faults = BASE.faults

    assert truth.offsets == BASE.rows
    assert len(truth.gaps) == faults.gaps == 20
    assert {gap.last_missing - gap.first_missing < 10 for gap in truth.gaps} == {True, False}
    assert (truth.duplicates, truth.resets) == (30, 3)
    assert sum(truth.dead_letters.values()) == 19
    assert set(truth.dead_letters) == set(MALFORMED)
    assert sum(map(overtaken, by_key(found).values())) == faults.late + faults.out_of_order == 22


@pytest.mark.parametrize(("fault", "least_seconds", "most_seconds"), [("late", 4, 60), ("out-of-order", 0, 2)])
def test_late_is_long_after_and_out_of_order_is_close(
    tmp_path: Path, fault: str, least_seconds: int, most_seconds: int
) -> None:
    simulate(tmp_path, replace(BASE, faults=parse_faults(f"{fault}=10"), files=1))
    behind = []
    for pairs in by_key(list(arrivals(tmp_path))).values():
        latest = datetime.min.replace(tzinfo=UTC)
        for time, _ in pairs:
            if time < latest:
                behind.append((latest - time).total_seconds())
            latest = max(latest, time)

    assert len(behind) == 10
    assert least_seconds < min(behind) <= max(behind) < most_seconds


def test_a_duplicate_is_the_same_message_with_an_offset_of_its_own(raw: tuple[Path, Truth, list[Arrival]]) -> None:
    records = defaultdict(list)
    for one in raw[2]:
        if one.error is None and one.record is not None:
            records[one.kind, one.record["message_id"]].append(one)
    copies = [group for group in records.values() if len(group) > 1]

    assert len(copies) == 30
    for group in copies:
        assert [one.record for one in group] == [group[0].record] * 2
        assert len({(one.raw["source"], one.raw["partition"], one.raw["offset"]) for one in group if one.raw}) == 2


def test_offsets_are_contiguous_and_a_key_stays_in_its_partition(raw: tuple[Path, Truth, list[Arrival]]) -> None:
    _, truth, found = raw
    offsets, partitions = defaultdict(list), defaultdict(set)
    for one in found:
        assert one.raw is not None
        offsets[one.raw["source"], one.raw["partition"]].append(one.raw["offset"])
        partitions[one.kind, one.raw["key"]].add(one.raw["partition"])
        if one.record is not None and one.record["symbol"]:
            assert one.raw["key"] == f"{one.record['exchange']}|{one.record['symbol']}".encode()

    assert all(numbers == list(range(len(numbers))) for numbers in offsets.values())
    assert {(s.source, s.partition): (s.first, s.last) for s in truth.sources} == {
        key: (0, len(numbers) - 1) for key, numbers in offsets.items()
    }
    assert all(len(found) == 1 for found in partitions.values())
    assert {source.split("/")[:2] == ["kafka:simulated", "market.crypto.trades.binance"] for source, _ in offsets} == {
        True,
        False,
    }


def test_a_reset_restarts_at_a_low_number(raw: tuple[Path, Truth, list[Arrival]]) -> None:
    epochs = [naive_epochs(pairs) for pairs in by_key(raw[2]).values()]
    falls = [(max(before), min(after)) for many in epochs for before, after in pairwise(many)]

    assert len(falls) == 3
    assert all(after < before / 2 for before, after in falls)
    assert all(min(many[0]) > 1_000_000 for many in epochs)


def test_times_grow_and_the_log_never_runs_back(raw: tuple[Path, Truth, list[Arrival]]) -> None:
    for pairs in by_key(raw[2]).values():
        times = sorted({time for time, _ in pairs})
        sequences = dict(pairs)
        assert len(times) == len({(time, number) for time, number in pairs})
        assert [sequences[time] for time in times] == [number for _, number in sorted(set(pairs))]
    for kind in ("trades", "quotes"):
        log = [one.raw["timestamp"] for one in raw[2] if one.kind == kind and one.raw]
        assert log == sorted(log)
    for one in raw[2]:
        if one.error is None and one.record is not None:
            assert timedelta(0) < one.record["ingestion_timestamp"] - one.record["timestamp"] < timedelta(seconds=1)


@pytest.mark.parametrize("codec", cells.CONTAINER_CODECS)
def test_plain_containers_hold_v2_records_in_every_codec(tmp_path: Path, codec: cells.Codec) -> None:
    faults = parse_faults("gaps=5,duplicates=5,resets=1,late=2,negative_price=2,decimal-overflow=1,empty_symbol=1")
    truth = simulate(tmp_path, replace(BASE, rows=1_501, files=3, envelope="plain", codec=codec, faults=faults))

    found = check_truth(tmp_path, truth)
    assert truth.dead_letters == {"decimal_overflow": 1, "empty_symbol": 1, "negative_price": 2}
    assert Counter(one.file for one in found) == {s.file: s.last + 1 for s in truth.sources}
    assert len(truth.sources) == 6
    for path in tmp_path.glob("*.avro"):
        with path.open("rb") as file:
            blocks = fastavro.block_reader(file)
            assert blocks.codec == codec
            if codec == "snappy":
                block = next(blocks).bytes_.getvalue()
                assert zlib.crc32(block).to_bytes(4, "big") + path.read_bytes()[-16:] in path.read_bytes()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        simulate(tmp_path / name, replace(BASE, seed=seed))
    contents = {
        name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b", "c")
    }

    assert len(contents["a"]) == 5
    assert contents["a"] == contents["b"]
    assert all(contents["a"][name] != contents["c"][name] for name in contents["a"])


def test_several_chunks_go_on_where_the_last_one_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2beam.simulate.market._CHUNK_MESSAGES", 100)
    found = check_truth(tmp_path, simulate(tmp_path, BASE))
    prices = {
        one.record["timestamp"]: one.record["price"]
        for one in found
        if one.error is None and one.record and one.kind == "trades" and one.record["symbol"] == "XRPUSDT"
    }
    walk = [price for _, price in sorted(prices.items())]
    assert max(abs(after - before) for before, after in pairwise(walk)) == Decimal("0.0003")
    assert min(walk) > 0


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        tracemalloc.start()
        simulate(tmp_path, Simulation(rows=rows, codec="snappy"))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(240_000) < 1.2 * peak(80_000)


def test_blocks_are_of_the_promised_size(tmp_path: Path) -> None:
    simulate(tmp_path, Simulation(rows=20_000, codec="null"))
    with (tmp_path / "trades-00001.avro").open("rb") as file:
        sizes = [len(block.bytes_.getvalue()) for block in fastavro.block_reader(file)]

    assert max(sizes) <= cells._BLOCK_BYTES
    assert np.mean(sizes) > cells._BLOCK_BYTES / 2


def shortest(number: int) -> bytes:
    """Two's complement in the fewest bytes, tried one length after the other."""
    for length in range(1, 9):
        if -(256**length) // 2 <= number < 256**length // 2:
            return number.to_bytes(length, "big", signed=True)
    raise AssertionError(number)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**18 - 1)), min_size=1, max_size=8))
def test_numbers_are_encoded_as_fastavro_does(rows: list[tuple[int, int]]) -> None:
    signed, positive = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    stacked = cells.stack([cells.long(signed), cells.decimal(signed), cells.digits(positive)], len(rows))

    expected = io.BytesIO()
    for number, digits in rows:
        fastavro.schemaless_writer(expected, {"type": "long"}, number)
        fastavro.schemaless_writer(expected, {"type": "bytes"}, shortest(number))
        fastavro.schemaless_writer(expected, {"type": "string"}, str(digits))
    assert stacked.flat().tobytes() == expected.getvalue()
    assert write_long(rows[0][0]) == cells.long(signed[:1]).flat().tobytes()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    symbols=st.integers(1, 6),
    counts=st.tuples(*[st.integers(0, 4)] * 6),
    envelope=st.sampled_from(["plain", "raw"]),
)
def test_the_truth_is_what_a_recount_finds(
    tmp_path_factory: pytest.TempPathFactory, seed: int, symbols: int, counts: tuple[int, ...], envelope: Any
) -> None:
    names = ("gaps", "duplicates", "resets", "late", "out_of_order", "timestamp_in_future")
    faults = parse_faults(",".join(f"{name}={count}" for name, count in zip(names, counts, strict=True)))
    folder = tmp_path_factory.mktemp("any")
    simulation = Simulation(rows=500, symbols=symbols, seed=seed, faults=faults, envelope=envelope, codec="null")
    check_truth(folder, simulate(folder, simulation))


def test_truth_is_read_back(raw: tuple[Path, Truth, list[Arrival]]) -> None:
    folder, truth, _ = raw
    found = read_truth(folder)

    assert replace(found, made_by={}) == replace(truth, made_by={})
    with pytest.raises(UsageError, match="does not exist"):
        read_truth(folder / "nothing.json")
    (folder / "broken.json").write_text("{}")
    with pytest.raises(UsageError, match=r"broken\.json is not a truth file"):
        read_truth(folder / "broken.json")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gaps=many", "whole number"),
        ("gaps", "whole number"),
        ("gaps=-1", "whole number"),
        ("storms=3", "there is no fault 'storms'"),
    ],
)
def test_bad_faults_are_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_faults(text)


def test_malformed_takes_the_classes_in_turn() -> None:
    faults = parse_faults(" gaps=1, malformed=10, empty-symbol=2 ,")

    assert faults.gaps == 1
    assert Counter(faults.malformed) == {**dict.fromkeys(MALFORMED, 1), "bad_magic": 2, "empty_symbol": 3}
    assert parse_faults("") == Faults()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rows": 0}, "--rows must be above 0"),
        ({"symbols": -1}, "--symbols must be above 0"),
        ({"seed": -1}, "--seed not below 0"),
        ({"kinds": ("trades", "trades")}, "--kinds takes"),
        ({"kinds": ("reference_data",)}, "--kinds takes"),
        ({"kinds": ()}, "--kinds takes"),
        ({"codec": "lzma"}, "--codec takes"),
        ({"envelope": "paper"}, "--envelope takes"),
        ({"rows": 3}, "lower --files"),
        ({"envelope": "plain"}, "can't hold payloads that are .*tombstone"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        replace(BASE, **change)


def test_too_many_faults_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more rows or for fewer faults"):
        simulate(tmp_path / "out", replace(BASE, rows=300))
    assert not (tmp_path / "out").exists()
