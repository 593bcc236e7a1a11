"""Archives by URI: found, pinned, read and written, through the file system that stands for a store here."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from k2beam.archive.count import count_archive
from k2beam.archive.files import expand_paths, file_size, open_archive
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.archive.stores import has_objects, object_version, upload
from k2beam.archive.write import write_raw_archive
from k2beam.errors import ArchiveError, ArchiveRefused, UsageError
from k2beam.model import RawRecord

SYNC = b"k2beam-archive-1"


def archive(path: Path, offsets: range = range(5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = (RawRecord("kafka:c/t/1", 0, offset, None, b"key", b"value") for offset in offsets)
    write_raw_archive(str(path), records, {}, block_records=2, sync_marker=SYNC)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Containers and what lies between them."""
    for name in ("b.avro", "a.avro", "day/c.avro", "_tmp/d.avro", ".hidden/e.avro", "day/.f.avro"):
        archive(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").touch()
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", ["a.avro", "b.avro", "day/c.avro"]),
        ("/", ["a.avro", "b.avro", "day/c.avro"]),
        ("/b.avro", ["b.avro"]),
        ("/_tmp/d.avro", ["_tmp/d.avro"]),
        ("/*.avro", ["a.avro", "b.avro"]),
        ("/d*/[a-c].avro", ["day/c.avro"]),
        ("/**/c.avro", ["day/c.avro"]),
        ("/**/b.avro", ["b.avro"]),
    ],
)
def test_a_uri_means_what_a_path_does(folder: Path, path: str, names: list[str]) -> None:
    assert expand_paths([f"file://{folder}{path}"]) == [f"file://{folder}/{name}" for name in names]


@pytest.mark.parametrize(
    ("path", "told"), [("/none", r"no \*.avro object"), ("/*.parquet", "no object matches"), ("/day/x.avro", "no ")]
)
def test_nothing_is_refused(folder: Path, path: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        expand_paths([f"file://{folder}{path}"])


def test_a_scheme_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ftp://there/a\.avro: "):
        expand_paths(["ftp://there/a.avro"])
    with pytest.raises(UsageError, match="no such object"):
        open_archive(f"file://{tmp_path}/a.avro")


def test_it_reads_as_the_file_does(folder: Path) -> None:
    path = str(folder / "a.avro")
    uri = f"file://{path}"
    with open_archive(uri) as there, open_archive(path) as here:
        assert file_size(there) == file_size(here) == (folder / "a.avro").stat().st_size
        assert there.read() == here.read()
    plan = plan_archive(uri)
    assert plan.source == plan_archive(path).source, "so that it is covered wherever it lies"
    assert sum(batch.num_rows for chunk in plan.chunks for batch in ArchiveReader().read(chunk)) == 5
    assert count_archive(uri).coverage == count_archive(path).coverage


def test_an_object_that_took_its_place_is_not_read(folder: Path) -> None:
    """A file of this machine may grow; an object is always written anew."""
    archive(folder / "a.avro", range(6))
    [chunk] = plan_archive(f"file://{folder}/a.avro").chunks
    archive(folder / "a.avro", range(8))
    with pytest.raises(ArchiveError, match="are not what they were when the file was planned"):
        list(ArchiveReader().read(chunk))
    [local] = plan_archive(str(folder / "a.avro")).chunks
    archive(folder / "a.avro", range(10))
    assert local.version == ""
    assert sum(batch.num_rows for batch in ArchiveReader().read(local)) == 8


def test_the_version_is_the_etag_where_there_is_one(folder: Path) -> None:
    with open_archive(f"file://{folder}/a.avro") as file:
        size, _, time = object_version(file).partition(" ")
        assert (int(size), int(time)) == ((folder / "a.avro").stat().st_size, (folder / "a.avro").stat().st_mtime_ns)


def test_a_root_holds_for_uris(folder: Path) -> None:
    open_archive(f"file://{folder}/a.avro", root=f"file://{folder}/").close()
    for root in (f"file://{folder}/day", str(folder)):
        with pytest.raises(ArchiveRefused, match="outside the root"):
            open_archive(f"file://{folder}/a.avro", root=root)


class Elsewhere:
    """A store whose paths are those below a folder."""

    def __init__(self, folder: Path) -> None:
        self._system = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())

    def at(self, uri: str) -> tuple[fs.FileSystem, str]:
        return self._system, uri.partition("://")[2]


def test_a_store_is_opened_by_who_knows_it_and_written_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / "bucket").mkdir(parents=True)
    stores = Elsewhere(tmp_path / "store")
    assert not has_objects("s3://bucket", stores)
    size = upload(str(folder / "a.avro"), "s3://bucket/a.avro", stores)
    assert size == (folder / "a.avro").stat().st_size
    assert has_objects("s3://bucket/", stores)
    assert expand_paths(["s3://bucket"], stores) == ["s3://bucket/a.avro"]
    [chunk] = plan_archive("s3://bucket/a.avro", stores=stores).chunks
    assert sum(batch.num_rows for batch in ArchiveReader(stores=stores).read(chunk)) == 5
