"""CSV into an archive and to a producer."""

from __future__ import annotations

import base64
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from k2beam.csv.deliver import produce, write_archive
from k2beam.csv.files import CsvFile, FileVariables, check_files
from k2beam.csv.mapping import load_mapping
from k2beam.csv.reader import CsvReader
from k2beam.errors import InvalidRecord, UsageError
from k2beam.schemas import avro_schema

READER = CsvReader(load_mapping("asx-quotes"))
LINE = "03/10/2014,05:46:13.604,1.11,0.0,{},0\n"


class Producer:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.flushed = False

    def produce_trade(self, record: dict[str, Any]) -> None:
        raise AssertionError("no trade is in the file")

    produce_reference_data = produce_trade

    def produce_quote(self, record: dict[str, Any]) -> None:
        if record["bid_quantity"] == 2:
            raise InvalidRecord("bid_quantity", "field bid_quantity: 2 is refused")
        self.records.append(record)

    def flush(self) -> None:
        self.flushed = True


@pytest.fixture
def files(tmp_path: Path) -> list[CsvFile]:
    """Two files with 3 good lines, a bad one, and one that is not complete."""
    one, two = tmp_path / "asx_quotes_1.csv", tmp_path / "asx_quotes_2.csv"
    one.write_text(LINE.format(1) + "nonsense\n" + LINE.format(2))
    two.write_text(LINE.format(3) + "03/10")
    symbols = (("1", "A"), ("2", "B"))
    return check_files([str(one), str(two)], READER.mapping, FileVariables(symbols=symbols), 0)


def test_an_archive_has_the_events_and_the_rest_is_beside_it(files: list[CsvFile], tmp_path: Path) -> None:
    out = tmp_path / "quotes.avro"
    counts, warnings = write_archive(files, READER, out)

    with out.open("rb") as file:
        records: list[Any] = list(fastavro.reader(file))
    assert [(one["symbol"], one["bid_quantity"], one["source_sequence"]) for one in records] == [
        ("A", Decimal(1), 1),
        ("A", Decimal(2), 3),
        ("B", Decimal(3), 1),
    ]
    assert (counts.consumed, counts.written, counts.dead_letters, counts.errors) == (4, 3, 1, 1)
    (line,) = (tmp_path / "quotes.avro.dead_letters.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["error_class"] == "column_count"
    assert len(warnings) == 2
    write_archive(files, READER, tmp_path / "again.avro")
    assert (tmp_path / "again.avro").read_bytes() == out.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write_archive(files, READER, out)


def test_a_failed_archive_does_not_appear(files: list[CsvFile], tmp_path: Path) -> None:
    Path(files[1].path).unlink()
    with pytest.raises(UsageError, match="can't be opened"):
        write_archive(files, READER, tmp_path / "quotes.avro")
    assert not (tmp_path / "quotes.avro").exists()


def test_an_archive_never_takes_the_place_of_earlier_dead_letters(files: list[CsvFile], tmp_path: Path) -> None:
    out, kept = tmp_path / "quotes.avro", tmp_path / "quotes.avro.dead_letters.jsonl"
    kept.write_text("earlier")
    Path(files[1].path).unlink()  # it would be missed if anything were read

    with pytest.raises(UsageError, match=r"quotes\.avro\.dead_letters\.jsonl: already exists"):
        write_archive(files, READER, out)
    assert kept.read_text() == "earlier"
    assert not (tmp_path / "quotes.avro.partial").exists()


def test_an_archive_that_failed_can_be_written_again(files: list[CsvFile], tmp_path: Path) -> None:
    out, kept = tmp_path / "quotes.avro", tmp_path / "quotes.avro.dead_letters.jsonl"
    second = Path(files[1].path)
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(UsageError, match="can't be opened"):
        write_archive(files, READER, out)
    assert not kept.exists()

    second.write_bytes(content)
    counts, _ = write_archive(files, READER, out)

    assert (counts.dead_letters, counts.dead_letters_file) == (1, str(kept))
    assert len(kept.read_text("utf-8").splitlines()) == 1
    assert sorted(path.name for path in tmp_path.glob("quotes*")) == [out.name, kept.name]


def test_each_run_to_a_topic_keeps_its_dead_letters(
    files: list[CsvFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for some in (files, files[:1]):
        counts, warnings = produce(some, READER, Producer())
        assert counts.dead_letters_file is not None
        assert f"2 bad lines are in {counts.dead_letters_file}" in warnings
        names.append(counts.dead_letters_file)
    assert len(set(names)) == 2
    assert [len(Path(name).read_text("utf-8").splitlines()) for name in names] == [2, 2]

    counts, _ = produce(files[1:], READER, Producer())
    assert (counts.dead_letters, counts.dead_letters_file) == (0, None)
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == sorted(names)


def test_a_named_file_of_dead_letters_is_never_written_over(files: list[CsvFile], tmp_path: Path) -> None:
    produce(files, READER, Producer(), tmp_path / "csv")
    before = (tmp_path / "csv.dead_letters.jsonl").read_bytes()
    producer = Producer()
    with pytest.raises(UsageError, match=r"csv\.dead_letters\.jsonl: already exists"):
        produce(files, READER, producer, tmp_path / "csv")
    assert (tmp_path / "csv.dead_letters.jsonl").read_bytes() == before
    assert producer.records == []
    with pytest.raises(UsageError, match="its folder does not exist"):
        produce(files, READER, producer, tmp_path / "none" / "csv")


def test_a_name_that_is_not_utf8_is_refused_before_anything_is_written(files: list[CsvFile], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"quotes\\xe9\.avro: the path is not UTF-8"):
        write_archive(files, READER, tmp_path / "quotes\udce9.avro")


def test_a_time_that_python_can_not_tell_is_a_dead_letter(tmp_path: Path) -> None:
    path = tmp_path / "asx_quotes_1.csv"
    path.write_text(LINE.format(1) + "01/01/0001,00:00:00.000,1.11,0.0,1,0\n")  # still the year 0 in UTC
    found = check_files([str(path)], READER.mapping, FileVariables((("symbol", "A"),)), 0)
    producer = Producer()

    counts, _ = produce(found, READER, producer, tmp_path / "csv")

    assert (len(producer.records), counts.dead_letters) == (1, 1)
    (line,) = (tmp_path / "csv.dead_letters.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["error_class"] == "bad_time"


def test_a_producer_gets_the_records_and_is_flushed(files: list[CsvFile], tmp_path: Path) -> None:
    producer = Producer()
    counts, _ = produce(files, READER, producer, tmp_path / "csv")

    assert [one["bid_quantity"] for one in producer.records] == [1, 3]
    assert producer.flushed
    assert (counts.written, counts.dead_letters) == (2, 2)
    lines = [json.loads(line) for line in (tmp_path / "csv.dead_letters.jsonl").read_text("utf-8").splitlines()]
    assert [(line["_offset"], line["error_class"]) for line in lines] == [(1, "column_count"), (2, "invalid_record")]
    assert f"{files[0].path}, line 3: field bid_quantity" in lines[1]["error_message"]
    payload = io.BytesIO(base64.b64decode(lines[1]["payload"]["base64"]))
    event: Any = fastavro.schemaless_reader(payload, fastavro.parse_schema(avro_schema("quote_v3")), None)
    assert event["bid_quantity"] == 2
