"""Files: identity, numbering, chunks, and reading them."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from k2beam.archive.reading import MAX_DEAD_LETTER_BYTES
from k2beam.codec.batches import BatchDecoder
from k2beam.codec.reference import ReferenceDecoder
from k2beam.csv.companies import read_companies
from k2beam.csv.files import MAX_FIRST_LINES, CsvFile, FileVariables, check_files, plan_csv
from k2beam.csv.mapping import CsvMapping, load_mapping, parse_mapping
from k2beam.csv.reader import BLOCK_LINES, MAX_LINE_BYTES, CsvReader
from k2beam.errors import CsvError, UsageError
from k2beam.model import BlockBatch, DeadLetter

TRADES = load_mapping("asx-trades")
DVN = FileVariables((("company_id", "7181"), ("symbol", "DVN")))
LINE = b"03/10/2014,10:13:34.553,0.67,784,0,,\n"


def check(path: Path, mapping: CsvMapping = TRADES, variables: FileVariables = DVN, **options: Any) -> CsvFile:
    return check_files([str(path)], mapping, variables, 0, **options)[0]


def written(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def read(
    path: Path,
    mapping: CsvMapping = TRADES,
    chunk_bytes: int = 8 << 20,
    complete: bool = False,
    piece_bytes: int = 1 << 21,
) -> tuple[dict[int, dict[str, Any]], list[DeadLetter], int]:
    """The events by offset (decoded as the pipeline does), the dead letters, and the number of lines."""
    file = check(path, mapping, complete=complete)
    plan = plan_csv(file, chunk_bytes, complete=complete)
    decoder = BatchDecoder(ReferenceDecoder(), lambda: 0)
    events: dict[int, dict[str, Any]] = {}
    dead_letters: list[DeadLetter] = []
    for chunk in plan.chunks:
        for batch in CsvReader(mapping, piece_bytes).read(chunk):
            if not isinstance(batch, BlockBatch):
                dead_letters.extend(batch.dead_letters)
                continue
            decoded = decoder.decode(batch)
            assert not decoded.dead_letters
            assert batch.extent is not None
            assert (batch.extent.source, batch.extent.end) == (file.source, plan.lines)
            for row in decoded.events[0].data.to_pylist(maps_as_pydicts="strict"):
                assert row["_source"] == file.source
                assert row["_offset"] not in events
                events[row["_offset"]] = row
    return events, dead_letters, plan.lines


@pytest.mark.parametrize("chunk_bytes", [1, 100, 8 << 20])
def test_every_line_has_one_offset_however_it_is_split(tmp_path: Path, chunk_bytes: int) -> None:
    lines = [LINE] * 20
    lines[7], lines[13] = b"\xff\xfe\r\n", b"\n"
    path = written(tmp_path / "t.csv", *lines)

    events, dead_letters, total = read(path, chunk_bytes=chunk_bytes)

    assert total == 20
    assert sorted(events) == [offset for offset in range(20) if offset not in (7, 13)]
    assert [events[offset]["trade_id"] for offset in (0, 8, 19)] == ["DVN-1", "DVN-9", "DVN-20"]
    assert [(one.offset, one.stage, one.error_class, one.payload) for one in dead_letters] == [
        (7, "read", "bad_encoding", b"\xff\xfe\r"),
        (13, "read", "blank_line", b""),
    ]
    assert f"{path}, line 8: byte 0 is not utf-8: " in dead_letters[0].error_message
    assert dict(dead_letters[0].headers)["k2.line"] == b"8"
    assert dict(dead_letters[0].headers)["k2.position"] == str(7 * len(LINE)).encode()


def test_a_file_that_is_moved_or_grows_keeps_its_source_and_another_has_another(tmp_path: Path) -> None:
    first = check(written(tmp_path / "t.csv", LINE)).source
    assert first.startswith("csv:")
    assert check(written(tmp_path / "moved.csv", LINE, LINE.replace(b"784", b"1"))).source == first
    assert check(written(tmp_path / "crlf.csv", LINE.replace(b"\n", b"\r\n"))).source == first
    assert check(written(tmp_path / "u.csv", LINE.replace(b"784", b"1"))).source != first
    other = FileVariables((("company_id", "3153"), ("symbol", "MWR")))
    assert check(tmp_path / "t.csv", variables=other).source != first


def test_blocks_are_cut_alike_when_the_file_has_grown(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", LINE * (BLOCK_LINES + 10))
    before = blocks(path)
    path.write_bytes(path.read_bytes() + LINE * BLOCK_LINES)
    after = blocks(path)
    assert before[0] == after[0]
    assert [start for start, _, _ in after] == [0, BLOCK_LINES, 2 * BLOCK_LINES]


def blocks(path: Path) -> list[tuple[int, int, bytes]]:
    chunks = plan_csv(check(path), 8 << 20).chunks
    batches = [batch for chunk in chunks for batch in CsvReader(TRADES).read(chunk)]
    assert all(isinstance(batch, BlockBatch) for batch in batches)
    return [(one.first_offset, one.count, one.payload) for batch in batches for one in batch.blocks]  # type: ignore[union-attr]


def test_a_last_line_without_an_end_waits_until_the_file_is_complete(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", LINE, LINE[:-5])

    plan = plan_csv(check(path), 1)
    assert (plan.lines, [problem.kind for problem in plan.problems]) == (1, ["truncated_tail"])
    assert "--complete" in plan.problems[0].message
    assert len(read(path)[0]) == 1
    events, dead_letters, total = read(path, complete=True)
    assert (len(events), len(dead_letters), total) == (1, 1, 2)
    assert dead_letters[0].payload == LINE[:-5]
    path.write_bytes(LINE + LINE[:-1])
    assert sorted(read(path, complete=True)[0]) == [0, 1]


def test_a_file_without_lines(tmp_path: Path) -> None:
    for content, kind in ((b"", "empty"), (b"03/1", "truncated_tail")):
        file = check(written(tmp_path / "t.csv", content))
        plan = plan_csv(file, 1)
        assert (file.source, plan.chunks, [problem.kind for problem in plan.problems]) == ("", (), [kind])


@pytest.mark.parametrize("complete", [False, True])
def test_a_file_that_gets_its_first_line_while_the_job_starts_is_left(tmp_path: Path, complete: bool) -> None:
    mapping = load_mapping("asx-reference")
    header, line = b"ISIN,symbol,company_id,company_name,end_date,start_date\n", b"AU1,BHP,1,B,,05/07/2008\n"
    path = written(tmp_path / "c.csv", header)
    file = check(path, mapping, complete=complete)
    path.write_bytes(header + line)

    plan = plan_csv(file, 1, complete=complete)

    assert (plan.chunks, plan.lines, [problem.kind for problem in plan.problems]) == ((), 0, ["truncated_tail"])
    assert "no whole line when the job was started" in plan.problems[0].message
    assert sorted(read(path, mapping, complete=complete)[0]) == [0]


@pytest.mark.parametrize("complete", [False, True])
def test_a_first_line_without_text_is_a_line(tmp_path: Path, complete: bool) -> None:
    events, dead_letters, total = read(written(tmp_path / "t.csv", b"\n", LINE), complete=complete)
    assert (sorted(events), [one.error_class for one in dead_letters], total) == ([1], ["blank_line"], 2)


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "t\udce9.csv", LINE)
    with pytest.raises(UsageError, match=r"t\\xe9\.csv: the path is not UTF-8.*rename") as caught:
        check(path)
    str(caught.value).encode()


def peak_of_reading(path: Path, piece_bytes: int) -> int:
    """The most bytes that Python and Arrow held while a file was read as one chunk."""
    (chunk,) = plan_csv(check(path), 1 << 40).chunks
    reader = CsvReader(TRADES, piece_bytes)
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        assert sum(batch.num_rows for batch in reader.read(chunk)) == chunk.lines
        return tracemalloc.get_traced_memory()[1] + int(pool.max_memory())
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(usual)


def test_memory_is_that_of_a_piece_however_long_the_file_is(tmp_path: Path) -> None:
    line = LINE[:-1] + b"x" * 5000 + b"\n"  # wide, so that there are few to convert
    path = written(tmp_path / "t.csv", line * (2 * MAX_FIRST_LINES // len(line)))
    peak_of_reading(path, MAX_LINE_BYTES)  # what is made once and kept
    short = peak_of_reading(path, MAX_LINE_BYTES)
    path.write_bytes(line * (6 * MAX_FIRST_LINES // len(line)))
    assert peak_of_reading(path, MAX_LINE_BYTES) < 1.25 * short
    assert peak_of_reading(path, 4 * MAX_FIRST_LINES) > 2 * short  # and what is measured is what is held


def test_memory_is_bounded_however_long_a_line_is(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", LINE)
    with path.open("ab") as file:
        file.truncate(64 * MAX_DEAD_LETTER_BYTES)  # a hole: one line of zeros
        file.seek(0, 2)
        file.write(b"\n")
    assert peak_of_reading(path, MAX_LINE_BYTES) < 8 * MAX_DEAD_LETTER_BYTES


def test_long_lines_are_dead_letters(tmp_path: Path) -> None:
    long = b"y" * (MAX_LINE_BYTES + 1)
    huge = b"x" * (5 * MAX_DEAD_LETTER_BYTES)
    path = written(tmp_path / "t.csv", LINE, long + b"\n", huge + b"\n", LINE, huge + b"\n", LINE, huge)

    events, dead_letters, total = read(path, piece_bytes=MAX_LINE_BYTES, complete=True)

    assert total == 7
    assert sorted(events) == [0, 3, 5]
    assert [(one.offset, one.error_class, len(one.payload or b"")) for one in dead_letters] == [
        (1, "line_too_long", len(long)),
        (2, "line_too_long", MAX_DEAD_LETTER_BYTES),
        (4, "line_too_long", MAX_DEAD_LETTER_BYTES),
        (6, "line_too_long", MAX_DEAD_LETTER_BYTES),
    ]
    assert f"has {len(huge)} bytes" in dead_letters[1].error_message


def test_a_header_and_a_mark_of_bytes(tmp_path: Path) -> None:
    mapping = load_mapping("asx-reference")
    header = b'\xef\xbb\xbfISIN,symbol,company_id,"company_name",end_date,start_date\r\n'
    path = written(tmp_path / "c.csv", header, b"AU1,BHP,1,B,,05/07/2008\r\n", b",RIO,2,R,\r\n")

    events, dead_letters, total = read(path, mapping)

    assert total == 2
    assert (events[0]["symbol"], events[0]["isin"], events[0]["company_name"]) == ("BHP", "AU1", "B")
    assert [(one.offset, dict(one.headers)["k2.line"]) for one in dead_letters] == [(1, b"3")]
    mark = written(tmp_path / "t.csv", b"\xef\xbb\xbf", LINE)
    assert sorted(read(mark)[0]) == [0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfea\x00", "UTF-16"),
        (b"\x1f\x8b\x08", "can't be unpacked"),
        (b"x" * (2 << 20), "no line ends within"),
    ],
)
def test_what_is_no_csv_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=rf"t\.csv.*{said}"):
        check(written(tmp_path / "t.csv", content))


def test_paths_that_can_not_be_read_are_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.csv", "can't be opened"), (tmp_path, "not a regular file")):
        with pytest.raises(UsageError, match=said):
            check(path)
    with pytest.raises(UsageError, match="at least one"):
        check_files([], TRADES, DVN, 0)
    with pytest.raises(UsageError, match="names none"):
        check(written(tmp_path / "e.csv"), load_mapping("asx-reference"))
    with pytest.raises(UsageError, match=r"h\.csv: the column 'a' is there twice"):
        check(written(tmp_path / "h.csv", b"a,a\n"), load_mapping("asx-reference"))


def test_files_that_would_be_taken_for_one_are_refused_and_links_are_one(tmp_path: Path) -> None:
    one = written(tmp_path / "a.csv", LINE)
    link = tmp_path / "l.csv"
    link.symlink_to(one)
    assert len(check_files([str(one), str(link)], TRADES, DVN, 0)) == 1
    two = written(tmp_path / "b.csv", LINE, LINE)
    with pytest.raises(UsageError, match=r"b\.csv begins with the same line as .*a\.csv"):
        check_files([str(one), str(two)], TRADES, DVN, 0)


def test_a_file_that_changed_after_it_was_planned_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", LINE * 3)
    (chunk,) = plan_csv(check(path), 1 << 20).chunks
    for content in (LINE * 2, LINE.replace(b"784", b"783") * 3, LINE + b"x" * len(LINE) + LINE):
        path.write_bytes(content)
        with pytest.raises(CsvError, match="run again"):
            list(CsvReader(TRADES).read(chunk))
    path.write_bytes(LINE * 9)
    assert sum(batch.num_rows for batch in CsvReader(TRADES).read(chunk)) == 3


def test_variables_come_from_the_name_the_options_and_the_companies(tmp_path: Path) -> None:
    companies = written(tmp_path / "c.csv", b"\xef\xbb\xbfsymbol, company_id\nDVN,7181\nMWR,3153\n")
    symbols = read_companies(str(companies))
    assert symbols == {"7181": "DVN", "3153": "MWR"}
    known = FileVariables(symbols=tuple(symbols.items()))
    assert known.of("x/asx_trades_3153.csv", TRADES) == {"company_id": "3153", "symbol": "MWR"}
    given = FileVariables((("symbol", "Z"), ("company_id", "9")), tuple(symbols.items()))
    assert given.of("x/asx_trades_3153.csv", TRADES) == {"company_id": "9", "symbol": "Z"}
    with pytest.raises(UsageError, match="no symbol for company id '1'"):
        known.of("asx_trades_1.csv", TRADES)
    for content, said in ((b"symbol\nA\n", "must name"), (b"company_id,symbol\n1,A\n1,B\n", "line 3: company '1'")):
        with pytest.raises(UsageError, match=said):
            read_companies(str(written(companies, content)))


def test_a_group_in_the_pattern_tells_files_apart(tmp_path: Path) -> None:
    text = (Path(load_mapping.__code__.co_filename).parent / "mappings" / "asx-trades.toml").read_text("utf-8")
    lines = [line if not line.startswith("file =") else r"file = '(?P<part>\w+)\.csv$'" for line in text.splitlines()]
    mapping = parse_mapping("\n".join(lines), "parts")
    paths = [str(written(tmp_path / f"{name}.csv", LINE)) for name in ("a", "b")]
    one, two = check_files(paths, mapping, DVN, 0)
    assert one.source != two.source


def test_lines_before_the_header_are_skipped_and_have_no_offset(tmp_path: Path) -> None:
    skipping = parse_mapping(
        """name = "skipping"
kind = "trades"
skip_lines = 2
formats = ["epoch-s"]
[fields]
trade_id = "{id}-{line}"
symbol = "A"
exchange = "X"
asset_class = "crypto"
timestamp = "{t}"
price = "{px}"
quantity = "1"
currency = "USD"
side = "UNKNOWN"
""",
        "here",
    )
    path = tmp_path / "t.csv"
    path.write_text("# made by a vendor\n\nid,t,px\na,1,5\nb,x,5\n")
    (file,) = check_files([str(path)], skipping, FileVariables(), 0)
    (chunk,) = plan_csv(file, 1 << 20).chunks
    assert (file.context.columns, chunk.first, chunk.lines) == (("id", "t", "px"), 0, 2)
    (part,) = CsvReader(skipping).parts(chunk)
    assert (part.events.column("trade_id").to_pylist(), part.offsets.tolist()) == (["a-4"], [0])
    assert part.dead_letters[0].error_message.startswith(f"{path}, line 5: timestamp 'x' is not a time")


def packed(path: Path, how: str, data: bytes) -> Path:
    if how == "gz":
        half = len(data) // 2
        path.write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    elif how == "zst":
        path.write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/day.csv", data)
    return path


@pytest.mark.parametrize("how", ["gz", "zst", "zip"])
def test_a_packed_file_is_read_as_the_text_in_it(tmp_path: Path, how: str) -> None:
    lines = b"".join(LINE.replace(b"784", b"%d" % number) for number in range(1, 6000))
    plain = written(tmp_path / "t.csv", lines)
    path = packed(tmp_path / f"t.{how}", how, lines)
    assert check(path).source == check(plain).source
    assert [chunk.lines for chunk in plan_csv(check(path), 100).chunks] == [5999]
    found = read(path, piece_bytes=MAX_LINE_BYTES)
    assert found == read(plain)
    assert (len(found[0]), found[1:]) == (5999, ([], 5999))


def test_what_can_not_be_unpacked_is_refused(tmp_path: Path) -> None:
    two = tmp_path / "two.zip"
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a.csv", LINE)
        archive.writestr("b.csv", LINE)
    torn = tmp_path / "torn.csv.gz"
    torn.write_bytes(gzip.compress(os.urandom(1 << 16).hex().encode() + b"\n")[:-100])
    broken = tmp_path / "broken.zst"
    broken.write_bytes(b"\x28\xb5\x2f\xfdnonsense")
    cut = written(tmp_path / "cut.zst", pa.compress(LINE * 9, codec="zstd", asbytes=True)[:-5])
    unpacked = "can't be unpacked"
    for path, problem in ((two, "has 2 files in it"), (torn, unpacked), (broken, unpacked), (cut, unpacked)):
        with pytest.raises(UsageError, match=f"{path.name}: {problem}"):
            check(path)
