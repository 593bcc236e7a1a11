"""Whether a file is the one that was taken before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.clock import now_us
from k2beam.csv import beginning
from k2beam.csv.beginning import Beginning, taken_as
from k2beam.csv.files import CsvFile, FileVariables, check_files
from k2beam.csv.mapping import load_mapping
from k2beam.errors import LakeError, UsageError
from tests.lake_helpers import lake_config

ASX = load_mapping("asx-trades")
VARIABLES = FileVariables((("company_id", "1"), ("symbol", "A")))
LINE = "03/10/2014,10:13:34.553,0.67,{},0,,\n"


def checked(path: Path, text: str) -> CsvFile:
    path.write_text(text)
    (file,) = check_files([str(path)], ASX, VARIABLES, 0, complete=True)
    return file


def seen_beginning(file: CsvFile, known: Beginning | None, *, complete: bool = False) -> Beginning:
    return taken_as(file, {} if known is None else {file.source: known}, complete=complete, correct=False)


def lines(*quantities: int) -> str:
    return "".join(LINE.format(quantity) for quantity in quantities)


@settings(max_examples=100, deadline=None)
@given(
    quantities=st.lists(st.integers(1, 9), min_size=1, max_size=12), more=st.integers(0, 12), piece=st.integers(1, 200)
)
def test_a_file_that_has_grown_is_the_same_and_one_that_differs_is_not(
    quantities: list[int], more: int, piece: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("files") / "t.csv"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(beginning, "_PIECE", piece)
        known = seen_beginning(checked(path, lines(*quantities)), None)
        assert known.lines == len(quantities)
        grown = seen_beginning(checked(path, lines(*quantities, *[5] * more)), known)
        assert grown.lines == len(quantities) + more
        assert seen_beginning(checked(path, lines(*quantities, *[5] * more)), grown) == grown
        if len(quantities) > 1:
            changed = [*quantities[:-1], quantities[-1] + 10, *[5] * more]
            with pytest.raises(UsageError, match=f"{path} begins as {path} did, of which .* differs after its first"):
                seen_beginning(checked(path, lines(*changed)), known)


def test_a_shorter_file_is_another(tmp_path: Path) -> None:
    known = seen_beginning(checked(tmp_path / "a.csv", lines(1, 2, 3)), None)
    with pytest.raises(
        UsageError, match=r"b\.csv begins as .*a\.csv did, of which 3 lines were taken, and has 2 lines"
    ):
        seen_beginning(checked(tmp_path / "b.csv", lines(1, 2)), known)


def test_a_last_line_without_an_end_counts_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    open_end = checked(path, lines(1, 2).rstrip("\n"))
    assert seen_beginning(open_end, None).lines == 1
    whole = seen_beginning(open_end, None, complete=True)
    assert whole.lines == 2
    assert seen_beginning(checked(path, lines(1, 2)), whole) == whole


def test_what_is_kept_is_read_as_it_was() -> None:
    known = Beginning(3, "ab", "a.csv")
    assert Beginning.from_json(known.to_json()) == known
    for damaged in ("", "[]", '{"lines": 1}'):
        with pytest.raises(LakeError, match="is damaged"):
            Beginning.from_json(damaged)


def test_a_file_that_begins_as_another_is_refused_by_a_later_run(tmp_path: Path) -> None:
    from k2beam.job.bounded import run_ingest
    from k2beam.job.config import IngestConfig
    from transforms.read_csv import ReadCsv

    def run(name: str, text: str) -> int:
        (tmp_path / name).write_text(text)
        source = ReadCsv([str(tmp_path / name)], ASX, loaded_at=0, variables=VARIABLES)
        return run_ingest(source, IngestConfig(lake_config(tmp_path / "w"))).written["trades_v2"]

    assert run("monday.csv", lines(1, 2, 3)) == 3
    assert run("moved.csv", lines(1, 2, 3, 4)) == 1
    with pytest.raises(UsageError, match=r"tuesday\.csv begins as .*moved\.csv did, of which 4 lines were taken"):
        run("tuesday.csv", lines(1, 9, 9, 9, 9))


def test_lines_that_a_mapping_leaves_out_are_no_loss(tmp_path: Path) -> None:
    from k2beam.audit.audit import audit
    from k2beam.config import NAMESPACE
    from k2beam.job.bounded import run_ingest
    from k2beam.job.config import IngestConfig
    from k2beam.lake.catalog import open_catalog
    from transforms.read_csv import ReadCsv

    mapping = replace(ASX, name="large", only=(("volume", ("5", "7", "9")),), without=(("volume", ("9",)),))
    path, config = tmp_path / "t.csv", IngestConfig(lake_config(tmp_path / "w"))

    def run(text: str) -> tuple[int, int]:
        path.write_text(text)
        stats = run_ingest(ReadCsv([str(path)], mapping, loaded_at=0, variables=VARIABLES), config)
        report = audit(open_catalog(config.lake), NAMESPACE)
        assert report.problems == ()
        return stats.written["trades_v2"], stats.already_covered

    assert run(lines(1, 5, 9, 7, 2)) == (2, 0)
    assert run(lines(1, 5, 9, 7, 2)) == (0, 2)
    assert run(lines(1, 5, 9, 7, 2, 3, 5, 4)) == (1, 2)


def test_a_corrected_file_takes_the_place_of_the_rows_of_the_one_before_in_one_commit(tmp_path: Path) -> None:
    """And what other sources have in the same data files stays, and so do the numbers of the ledger and the audit."""
    from k2beam.audit.audit import audit
    from k2beam.config import NAMESPACE
    from k2beam.job.bounded import run_ingest
    from k2beam.job.config import IngestConfig
    from k2beam.lake.catalog import open_catalog
    from k2beam.lake.tables import open_table
    from k2beam.maintain.compact import compact_group, plan_compaction
    from transforms.read_csv import ReadCsv

    config, catalog = IngestConfig(lake_config(tmp_path / "w")), open_catalog(lake_config(tmp_path / "w"))

    def run(name: str, text: str, *, corrected: bool = False) -> list[int]:
        """The snapshots of the run that changed rows of the trades."""
        (tmp_path / name).write_text(text)
        before = len(snapshots())
        source = ReadCsv([str(tmp_path / name)], ASX, loaded_at=0, variables=VARIABLES, corrected=corrected)
        run_ingest(source, config)
        assert audit(catalog, NAMESPACE).problems == ()
        return snapshots()[before:]

    def snapshots() -> list[int]:
        found = open_table(catalog, NAMESPACE, "trades_v2").snapshots()
        changed = ("added-data-files", "deleted-data-files")
        return [one.snapshot_id for one in found if one.summary and any(map(one.summary.__getitem__, changed))]

    def quantities() -> list[int]:
        table = open_table(catalog, NAMESPACE, "trades_v2")
        return sorted(int(value) for value in table.scan().to_arrow()["quantity"].to_pylist())

    def dead() -> int:
        return open_table(catalog, NAMESPACE, "dead_letters").scan().to_arrow().num_rows

    with pytest.raises(UsageError, match=r"a\.csv: nothing to replace"):
        run("a.csv", lines(1, 2, 3), corrected=True)
    run("a.csv", lines(1, 2, 3) + "bad\n")
    run("other.csv", lines(70, 80))
    for planned, group in plan_compaction(catalog, NAMESPACE, "trades_v2", 1 << 20, now_us()):
        assert compact_group(catalog, NAMESPACE, planned, group, 1 << 20).result == "compacted"
    assert (quantities(), dead()) == ([1, 2, 3, 70, 80], 1)
    corrected = lines(1, 5, 6, 7)
    with pytest.raises(UsageError, match="--replace takes it in the place of those rows"):
        run("a.csv", corrected)
    assert len(run("a.csv", corrected, corrected=True)) == 1
    assert (quantities(), dead()) == ([1, 5, 6, 7, 70, 80], 0)
    assert run("a.csv", corrected, corrected=True) == run("moved.csv", corrected) == []
    assert len(run("a.csv", corrected + lines(8))) == 1
    with pytest.raises(UsageError, match="begins as"):
        run("a.csv", lines(1, 2, 3) + "bad\n")
    assert len(run("a.csv", lines(9, 4), corrected=True)) == 1
    assert quantities() == [4, 9, 70, 80]
    assert run("a.csv", lines(9, 4)) == []
