"""Metadata for another folder: only paths change, and what can't be moved is refused."""

from __future__ import annotations

import gzip
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2beam.config import NAMESPACE
from k2beam.errors import LakeError, UnreadableFile
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import open_table
from k2beam.maintain.relocate import (
    DataFile,
    Relocation,
    listed_manifests,
    manifest_files,
    read_metadata,
    relocated_manifest,
    relocated_manifest_list,
    relocated_metadata,
    statistics_files,
)
from tests.lake_helpers import lake_config
from tests.warehouse_helpers import ODD_NAMES, made

OLD, NEW = Path("/data/old"), Path("/data/new # 1")
HERE = Relocation("a.t", OLD, NEW)
UUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

ENTRY = {
    "type": "record",
    "name": "manifest_entry",
    "fields": [
        {"name": "status", "type": "int", "field-id": 0},
        {"name": "sequence_number", "type": ["null", "long"], "default": None, "field-id": 3},
        {
            "name": "data_file",
            "field-id": 2,
            "type": {
                "type": "record",
                "name": "r2",
                "fields": [
                    {"name": "content", "type": "int", "field-id": 134},
                    {"name": "file_path", "type": "string", "field-id": 100},
                    {
                        "name": "partition",
                        "field-id": 102,
                        "type": {
                            "type": "record",
                            "name": "r102",
                            "fields": [
                                {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
                                {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                                {
                                    "name": "price",
                                    "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 2},
                                },
                            ],
                        },
                    },
                    {"name": "file_size_in_bytes", "type": "long", "field-id": 104},
                    {
                        "name": "lower_bounds",
                        "field-id": 125,
                        "type": [
                            "null",
                            {
                                "type": "array",
                                "logicalType": "map",
                                "items": {
                                    "type": "record",
                                    "name": "k126_v127",
                                    "fields": [{"name": "key", "type": "int"}, {"name": "value", "type": "bytes"}],
                                },
                            },
                        ],
                    },
                ],
            },
        },
    ],
}

LONGS = st.integers(-(2**63), 2**63 - 1)


def plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: plain(part) for name, part in schema.items() if name != "logicalType"}
    return [plain(part) for part in schema] if isinstance(schema, list) else schema


def entries() -> st.SearchStrategy[dict[str, Any]]:
    """Entries as they are stored, with days and times that Python's own types don't reach."""
    return st.fixed_dictionaries(
        {
            "status": st.sampled_from([0, 1, 2]),
            "sequence_number": st.none() | LONGS,
            "data_file": st.fixed_dictionaries(
                {
                    "content": st.sampled_from([0, 2]),
                    "file_path": st.text("abcäß#%? ", min_size=1).map(lambda name: f"file://{OLD}/a/t/data/{name}"),
                    "partition": st.fixed_dictionaries(
                        {"day": st.none() | st.integers(-(2**31), 2**31 - 1), "at": LONGS, "price": st.binary()}
                    ),
                    "file_size_in_bytes": st.integers(0, 2**40),
                    "lower_bounds": st.none()
                    | st.lists(
                        st.fixed_dictionaries({"key": st.integers(0, 99), "value": st.binary(max_size=9)}), max_size=3
                    ),
                }
            ),
        }
    )


def avro(records: list[dict[str, Any]], codec: str = "deflate", schema: Any = ENTRY) -> bytes:
    out = io.BytesIO()
    fastavro.writer(out, schema, records, codec=codec, metadata={"content": "data", "format-version": "2"})
    return out.getvalue()


def stored(content: bytes) -> list[dict[str, Any]]:
    """The records of an Avro file without the help of logical types."""
    blocks = fastavro.block_reader(io.BytesIO(content))
    schema = fastavro.parse_schema(plain(json.loads(blocks.metadata["avro.schema"])))
    return [fastavro.schemaless_reader(block.bytes_, schema) for block in blocks for _ in range(block.num_records)]


def header(content: bytes) -> dict[str, Any]:
    found = dict(fastavro.block_reader(io.BytesIO(content)).metadata)
    return {**found, "avro.schema": json.loads(found["avro.schema"])}


def entry(**changes: Any) -> dict[str, Any]:
    file = {
        "content": 0,
        "file_path": f"{OLD}/a/t/data/1.parquet",
        "partition": {"day": 1, "at": 2, "price": b"3"},
        "file_size_in_bytes": 4,
        "lower_bounds": None,
    }
    return {"status": 1, "sequence_number": None, "data_file": file | changes}


@given(st.lists(entries(), max_size=5), st.sampled_from(["null", "deflate"]))
def test_in_a_manifest_nothing_but_paths_is_changed(records: list[dict[str, Any]], codec: str) -> None:
    before = avro(records, codec)
    after = relocated_manifest(HERE, before)
    assert header(after) == header(before)
    for record in records:
        path = record["data_file"]["file_path"].removeprefix(f"file://{OLD}")
        record["data_file"]["file_path"] = f"{NEW}{path}"
    assert stored(after) == records


def test_a_manifest_s_files_are_those_that_are_not_deleted() -> None:
    gone = entry(file_path=f"{OLD}/a/t/data/2.parquet") | {"status": 2}
    assert list(manifest_files(HERE, avro([entry(), gone]))) == [DataFile(NEW / "a/t/data/1.parquet", 4)]


def test_position_deletes_are_refused_since_they_hold_paths() -> None:
    with pytest.raises(LakeError, match=r"table a.t has position deletes \(/data/old/a/t/data/1.parquet\)"):
        list(manifest_files(HERE, avro([entry(content=1)])))


@pytest.mark.parametrize("location", ["s3://bucket/a/t/1", "/data/older/a/t/1", "/data/1", "/data/old"])
def test_a_file_outside_of_the_warehouse_is_refused(location: str) -> None:
    with pytest.raises(LakeError, match=f"table a.t has {location}, which is outside of /data/old"):
        HERE.path(location)


@pytest.mark.parametrize("location", [f"{OLD}/a/1", f"file://{OLD}/a/1", f"file:{OLD}/a/1", f"{NEW}/a/1"])
def test_a_path_is_the_same_within_the_new_folder_also_of_what_is_there_already(location: str) -> None:
    assert HERE.path(location) == NEW / "a/1"


def test_a_path_through_a_link_is_where_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "old")
    relocation = Relocation("a.t", tmp_path / "old", tmp_path / "new")
    assert relocation.path(f"{tmp_path}/link/a/1") == tmp_path / "new/a/1"


def test_a_file_is_read_in_the_old_folder_or_else_in_the_new_one(tmp_path: Path) -> None:
    relocation = Relocation("a.t", tmp_path / "old", tmp_path / "new")
    with pytest.raises(UnreadableFile, match="old/1 is gone"):
        relocation.source(f"{tmp_path}/old/1")
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").touch()
        assert relocation.source(f"{tmp_path}/old/1") == tmp_path / name / "1"


@pytest.mark.parametrize(
    "name", [f"00012-{UUID}.metadata.json", f"snap-77-0-{UUID}.avro", f"{UUID}-m0.avro", "v3.metadata.json", "x.avro"]
)
def test_what_is_rewritten_has_a_name_of_its_own_and_always_the_same(name: str) -> None:
    path = HERE.metadata_path(f"{OLD}/a/t/metadata/{name}")
    assert path == HERE.metadata_path(f"file://{OLD}/a/t/metadata/{name}")
    assert path.parent == NEW / "a/t/metadata"
    assert path.name != name
    assert path != Relocation("a.t", OLD, Path("/data/third")).metadata_path(f"{OLD}/a/t/metadata/{name}")
    if UUID in name:
        assert len(path.name) == len(name)
        assert path.name.startswith(name[: name.index(UUID)])
        assert path.name.endswith(name[name.index(UUID) + 36 :])


def test_compressed_metadata_is_read_and_gets_a_plain_name(tmp_path: Path) -> None:
    (tmp_path / "a.gz.metadata.json").write_bytes(gzip.compress(b'{"location": "x"}'))
    assert read_metadata(tmp_path / "a.gz.metadata.json") == {"location": "x"}
    assert HERE.metadata_path(f"{OLD}/00001-{UUID}.gz.metadata.json").name.count(".") == 2


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_metadata_of_a_table_has_no_path_of_the_old_folder_left(tmp_path: Path, name: str) -> None:
    old = made(tmp_path / f"old {name}")
    table = open_table(open_catalog(lake_config(old)), NAMESPACE, "trades_v2")
    with table.transaction() as change:
        change.set_properties({"write.data.path": f"{old}/data", "comment": f"made in {tmp_path}"})
    relocation = Relocation("market_data.trades_v2", old, tmp_path / name)
    before = read_metadata(Path(table.metadata_location))
    statistics = {"snapshot-id": 1, "statistics-path": f"file://{old}/s.puffin", "file-size-in-bytes": 9}
    before |= {"statistics": [statistics], "partition-statistics": [{"statistics-path": f"{old}/p.parquet"}]}
    after = relocated_metadata(relocation, before)
    assert f"old {name}" not in json.dumps(after, ensure_ascii=False)
    assert after["location"] == f"{tmp_path / name}/market_data/trades_v2"
    assert after["properties"]["write.data.path"] == f"{tmp_path / name}/data"
    assert after["metadata-log"] == []
    assert list(statistics_files(relocation, before)) == [
        DataFile(tmp_path / name / "s.puffin", 9),
        DataFile(tmp_path / name / "p.parquet", None),
    ]
    same = {"location", "properties", "snapshots", "metadata-log", "statistics", "partition-statistics"}
    assert {key: value for key, value in after.items() if key not in same} == {
        key: value for key, value in before.items() if key not in same
    }
    for old_snapshot, new_snapshot in zip(before["snapshots"], after["snapshots"], strict=True):
        assert new_snapshot["manifest-list"] == str(relocation.metadata_path(old_snapshot["manifest-list"]))
        old_summary = old_snapshot["summary"] | {"k2.warehouse": str(relocation.new)}
        changed = {"manifest-list": "", "summary": {}}
        assert (old_snapshot | changed, old_summary) == (new_snapshot | changed, new_snapshot["summary"])


def test_a_manifest_list_names_the_new_manifests_with_their_lengths(tmp_path: Path) -> None:
    made(tmp_path / "old")
    snapshot = open_table(open_catalog(lake_config(tmp_path / "old")), NAMESPACE, "trades_v2").current_snapshot()
    assert snapshot is not None
    relocation = Relocation("market_data.trades_v2", tmp_path / "old", tmp_path / "new")
    before = Path(snapshot.manifest_list).read_bytes()
    after = relocated_manifest_list(relocation, before, lambda path: len(str(path)))
    assert header(after) == header(before)
    assert len(listed_manifests(before)) == 2
    assert listed_manifests(after) == [str(relocation.metadata_path(name)) for name in listed_manifests(before)]
    for old, new in zip(stored(before), stored(after), strict=True):
        assert new["manifest_length"] == len(new["manifest_path"])
        assert old | {"manifest_path": "", "manifest_length": 0} == new | {"manifest_path": "", "manifest_length": 0}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"format-version": 3, "location": str(OLD)}, "format version 3"),
        ({"format-version": 1, "location": str(OLD), "snapshots": [{"manifests": []}]}, "format version 1"),
        ({"format-version": 1, "view-uuid": UUID}, "is a view"),
    ],
)
def test_what_is_not_understood_is_refused(metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(LakeError, match=said):
        relocated_metadata(HERE, metadata)


def test_a_day_is_kept_that_a_date_can_not_hold() -> None:
    kept = stored(relocated_manifest(HERE, avro([entry(partition={"day": 2**31 - 1, "at": 0, "price": b""})])))
    assert kept[0]["data_file"]["partition"]["day"] > (date.max - date(1970, 1, 1)).days
