"""Java archives merged into one."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from k2beam.stack.merged_jar import merge_jars

SERVICE = "META-INF/services/org.example.Maker"


def jar(path: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def read(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names)), "each name once"
        return {name: archive.read(name).decode() for name in names}


def test_the_first_of_a_name_is_taken_and_services_are_joined(tmp_path: Path) -> None:
    first = {"META-INF/MANIFEST.MF": "Main-Class: Other\n", "a.class": "1", "META-INF/X.SF": "signed", SERVICE: "A\n"}
    second = {"a.class": "2", "b/": "", "b/c.class": "3", "module-info.class": "m", SERVICE: "# note\nB\nA"}
    jars = [jar(tmp_path / "1.jar", first), jar(tmp_path / "2.jar", second)]
    merge_jars(jars, tmp_path / "one.jar", "org.example.Main")
    assert read(tmp_path / "one.jar") == {
        "a.class": "1",
        "b/c.class": "3",
        SERVICE: "A\n# note\nB\n",
        "META-INF/MANIFEST.MF": "Manifest-Version: 1.0\nMain-Class: org.example.Main\n",
    }


def test_classes_for_several_versions_of_java_stay_that(tmp_path: Path) -> None:
    inner = "META-INF/versions/11/a.class"
    made = jar(tmp_path / "1.jar", {"META-INF/MANIFEST.MF": "Multi-Release: true\r\n", "a.class": "8", inner: "11"})
    merge_jars([made], tmp_path / "one.jar", "Main")
    found = read(tmp_path / "one.jar")
    assert found["META-INF/MANIFEST.MF"].splitlines()[-1] == "Multi-Release: true"
    assert found[inner] == "11"


def test_one_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "2.jar").write_text("no archive")
    with pytest.raises(zipfile.BadZipFile):
        merge_jars([jar(tmp_path / "1.jar", {"a": "1"}), tmp_path / "2.jar"], tmp_path / "one.jar", "Main")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jar", "2.jar"]
