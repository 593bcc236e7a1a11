"""Paths, globs, folders, and the root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k2beam.archive.files import expand_paths, open_archive
from k2beam.errors import ArchiveRefused, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("root/b.avro", "root/a.avro", "root/day/c.avro", "root/day/deep/d.avro", "root/notes.txt", "out.avro"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(paths: list[str], folder: Path) -> list[str]:
    return [os.path.relpath(path, folder / "root") for path in paths]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["."], ["a.avro", "b.avro", "day/c.avro", "day/deep/d.avro"]),
        (["*.avro"], ["a.avro", "b.avro"]),
        (["**/*.avro"], ["a.avro", "b.avro", "day/c.avro", "day/deep/d.avro"]),
        (["da?"], ["day/c.avro", "day/deep/d.avro"]),
        (["notes.txt"], ["notes.txt"]),
        (["b.avro", "a.avro"], ["b.avro", "a.avro"]),
        (["b.avro", ".", "../root/a.avro"], ["b.avro", "a.avro", "day/c.avro", "day/deep/d.avro"]),
    ],
)
def test_expansion(folder: Path, given: list[str], expected: list[str]) -> None:
    assert names(expand_paths([str(folder / "root" / path) for path in given]), folder) == expected


def test_what_is_hidden_in_a_folder_is_left_out(folder: Path) -> None:
    for name in (".a.avro", "_b.avro", ".hidden/c.avro", "day/_temporary/0/d.avro", "day/.d.avro.crc"):
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    root = str(folder / "root")
    assert names(expand_paths([root]), folder) == ["a.avro", "b.avro", "day/c.avro", "day/deep/d.avro"]
    assert names(expand_paths([f"{root}/_b.avro", f"{root}/.hidden"]), folder) == ["_b.avro", ".hidden/c.avro"]


def test_a_name_with_brackets_is_a_name(folder: Path) -> None:
    path = folder / "root" / "x[1].avro"
    path.write_bytes(b"x")
    assert expand_paths([str(path)]) == [str(path)]


@pytest.mark.parametrize("path", ["none.avro", "*.json", "empty"])
def test_nothing_found_is_a_usage_error(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=path.replace("*", r"\*")):
        expand_paths([str(folder / path)])
    with pytest.raises(UsageError, match="no archive is named"):
        expand_paths([])


def test_inside_the_root(folder: Path) -> None:
    os.symlink(folder / "root" / "a.avro", folder / "root" / "link.avro")
    for name in ("a.avro", "link.avro", "day/../a.avro"):
        with open_archive(str(folder / "root" / name), str(folder / "root")) as file:
            assert file.read() == b"x"


def test_outside_the_root(folder: Path) -> None:
    root = folder / "root"
    os.symlink(folder / "out.avro", root / "link.avro")
    os.symlink(folder, root / "up")
    (folder / "root2").mkdir()
    (folder / "root2" / "e.avro").write_bytes(b"x")
    for name in ("../out.avro", "link.avro", "up/out.avro", "../root2/e.avro"):
        with pytest.raises(ArchiveRefused, match="outside the root"):
            open_archive(str(root / name), str(root))


def test_the_root_may_be_a_link(folder: Path) -> None:
    os.symlink(folder / "root", folder / "alias")
    with open_archive(str(folder / "root" / "a.avro"), str(folder / "alias")) as file:
        assert file.read() == b"x"


def test_what_is_no_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.avro")
    os.symlink(folder / "loop.avro", folder / "loop.avro")
    for name in ("pipe.avro", "root", "loop.avro", "nul\0.avro"):
        with pytest.raises(ArchiveRefused):
            open_archive(str(folder / name))


def test_a_path_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "t\udce9.avro").write_bytes(b"x")
    for path in expand_paths([str(folder / "empty")]):
        with pytest.raises(UsageError, match=r"t\\xe9\.avro: the path is not UTF-8.*rename") as caught:
            open_archive(path)
        str(caught.value).encode()


def test_missing_file_and_root(folder: Path) -> None:
    os.symlink(folder / "gone", folder / "root" / "dangling.avro")
    with pytest.raises(UsageError, match=r"dangling\.avro"):
        open_archive(expand_paths([str(folder / "root")])[2])
    with pytest.raises(UsageError, match="root"):
        open_archive(str(folder / "out.avro"), str(folder / "nowhere"))
