"""Archives come whole, with the right checksum, or not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

import pytest

from k2beam.errors import PlatformError
from k2beam.stack import jars as subject
from k2beam.stack.jars import Artifact, classpath, ensure_jars, ensure_unpacked, locked_artifacts


class Repository:
    """A Maven repository in a folder, a cache beside it and a lock file for both."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "repository"
        self.cache = root / "cache"
        self.lock = root / "jars.lock"
        self.lock.write_text("# a comment\n\n", encoding="utf-8")

    def add(self, group: str, path: str, content: bytes) -> Path:
        """Puts a file there and locks it; where it will be in the cache."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        with self.lock.open("a", encoding="utf-8") as lock:
            lock.write(f"{group} {hashlib.sha256(content).hexdigest()} {len(content)} {path}\n")
        return self.cache / "maven" / path


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path)
    monkeypatch.setenv("K2BEAM_CACHE", str(made.cache))
    monkeypatch.setenv("K2BEAM_MAVEN", f"{made.folder.as_uri()}/")
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


def test_the_groups_of_the_lock_file_are_whole() -> None:
    groups = {group: locked_artifacts(group) for group in ("kafka", "beam-kafka", "apicurio")}
    names = {group: {artifact.name for artifact in found} for group, found in groups.items()}
    assert {"kafka_2.13-4.1.0.jar", "log4j-slf4j-impl-2.24.3.jar"} <= names["kafka"]
    assert {"kafka-clients-3.9.1.jar", "jamm-0.4.0.jar", "beam-sdks-java-harness-2.73.0.jar"} <= names["beam-kafka"]
    assert names["apicurio"] == {"apicurio-registry-app-3.3.3-all.tar.gz"}
    everything = [artifact for found in groups.values() for artifact in found]
    assert all(len(bytes.fromhex(artifact.sha256)) == 32 and artifact.size > 0 for artifact in everything)
    assert not [artifact.path for artifact in everything if "confluent" in artifact.path or artifact.path[0] in "/."]


def test_a_group_is_fetched_once_and_then_taken_from_the_cache(repository: Repository) -> None:
    wanted = (repository.add("g", "org/a/1/a-1.jar", b"aaa"), repository.add("g", "org/b/2/b-2.jar", b"b" * 10_000))
    other = repository.add("other", "org/c/1/c-1.jar", b"c")
    assert ensure_jars("g", repository.lock) == wanted
    assert [path.read_bytes() for path in wanted] == [b"aaa", b"b" * 10_000]
    assert not other.exists()
    assert [path.name for path in wanted[0].parent.iterdir()] == ["a-1.jar"], "a download leaves nothing else behind"
    (repository.folder / "org/a/1/a-1.jar").unlink()
    assert ensure_jars("g", repository.lock) == wanted


def test_a_classpath_joins_the_group(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ensure_jars", lambda group: (Path(f"/{group}/a.jar"), Path("/b.jar")))
    assert classpath("g") == "/g/a.jar:/b.jar"


@pytest.mark.parametrize("damage", [b"aa", b"abb", b""])
def test_a_file_of_the_cache_that_is_damaged_is_fetched_anew(repository: Repository, damage: bytes) -> None:
    path = repository.add("g", "a.jar", b"aaa")
    ensure_jars("g", repository.lock)
    path.write_bytes(damage)
    ensure_jars("g", repository.lock)
    assert path.read_bytes() == b"aaa"


@pytest.mark.parametrize("served", [b"aab", b"aaaa"])
def test_a_wrong_checksum_keeps_nothing(repository: Repository, served: bytes) -> None:
    path = repository.add("g", "org/a.jar", b"aaa")
    (repository.folder / "org/a.jar").write_bytes(served)
    with pytest.raises(PlatformError, match=r"org/a\.jar has . bytes that are not what the lock file says \(3 bytes"):
        ensure_jars("g", repository.lock)
    assert list(path.parent.iterdir()) == []


def test_what_is_not_there_is_an_error_that_says_what_to_do(repository: Repository) -> None:
    path = repository.add("g", "org/a.jar", b"aaa")
    (repository.folder / "org/a.jar").unlink()
    with pytest.raises(PlatformError, match=r"could not fetch file:.*org/a\.jar.*Set K2BEAM_MAVEN to a mirror"):
        ensure_jars("g", repository.lock)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("code", "tries"), [(404, 1), (429, 3), (503, 3)])
def test_only_a_busy_server_is_asked_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    asked: list[str] = []

    def answer(request: urllib.request.Request, timeout: float) -> None:
        asked.append(request.full_url)
        raise urllib.error.HTTPError(request.full_url, code, "no", Message(), io.BytesIO())

    monkeypatch.setattr("urllib.request.urlopen", answer)
    monkeypatch.delenv("K2BEAM_MAVEN")
    repository.add("g", "org/a.jar", b"aaa")
    with pytest.raises(PlatformError, match=f"HTTP Error {code}"):
        ensure_jars("g", repository.lock)
    assert asked == ["https://repo1.maven.org/maven2/org/a.jar"] * tries


def test_a_broken_connection_is_tried_again(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [ConnectionResetError("reset"), io.BytesIO(b"aaa")]

    def answer(*_: object, **__: object) -> object:
        if isinstance(found := answers.pop(0), Exception):
            raise found
        return found

    monkeypatch.setattr("urllib.request.urlopen", answer)
    path = repository.add("g", "org/a.jar", b"aaa")
    assert ensure_jars("g", repository.lock) == (path,)


def test_another_kind_of_address_is_refused(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2BEAM_MAVEN", "ftp://host/maven")
    repository.add("g", "org/a.jar", b"aaa")
    with pytest.raises(PlatformError, match="K2BEAM_MAVEN=ftp://host/maven is not a URL that starts with https://"):
        ensure_jars("g", repository.lock)


def test_a_damaged_lock_file_is_an_error_with_its_line(repository: Repository) -> None:
    with repository.lock.open("a", encoding="utf-8") as lock:
        lock.write("g 00 many a.jar\n")
    with pytest.raises(PlatformError, match=r"jars\.lock:3 is not 'group SHA-256 bytes path': 'g 00 many a\.jar'"):
        locked_artifacts("g", repository.lock)
    with pytest.raises(PlatformError, match="install k2beam again"):
        locked_artifacts("g", repository.lock.with_name("none.lock"))


def test_a_group_that_is_not_locked_is_an_error(repository: Repository) -> None:
    with pytest.raises(PlatformError, match=r"jars\.lock has nothing for 'g'"):
        locked_artifacts("g", repository.lock)


def tarball(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_an_archive_is_unpacked_once(repository: Repository) -> None:
    repository.add("g", "org/app-1-all.tar.gz", tarball(run=b"x", lib__a=b"y"))
    folder = ensure_unpacked("g", repository.lock)
    assert folder.parent == repository.cache / "unpacked"
    assert folder.name.startswith("app-1-all-")
    assert (folder / "lib" / "a").read_bytes() == b"y"
    assert list(folder.parent.iterdir()) == [folder]
    (repository.folder / "org/app-1-all.tar.gz").unlink()
    (repository.cache / "maven/org/app-1-all.tar.gz").unlink()
    assert ensure_unpacked("g", repository.lock) == folder, "it is not needed any more"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "could not be opened"),
        (tarball(a=b"x" * 5000)[:60], "end"),
        (tarball(run=b"x", **{"..__escaped": b"x"}), "outside the destination"),
    ],
    ids=["no archive", "cut off", "leaves its folder"],  # the bytes of an archive tell the time
)
def test_an_archive_that_is_broken_or_leaves_its_folder_leaves_nothing(
    repository: Repository, content: bytes, said: str
) -> None:
    repository.add("g", "org/app.tar.gz", content)
    with pytest.raises(PlatformError, match=rf"could not unpack .*app\.tar\.gz.*{said}"):
        ensure_unpacked("g", repository.lock)
    assert list((repository.cache / "unpacked").iterdir()) == []


def test_the_name_of_an_artifact_is_the_end_of_its_path() -> None:
    assert Artifact("org/a/1/a-1.jar", "00", 1).name == "a-1.jar"
