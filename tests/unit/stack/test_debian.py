"""A package with all that it needs, with small programs in the place of apt's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k2beam.errors import PlatformError
from k2beam.stack.debian import unpack_package
from tests.unit.stack.test_prometheus import executable

APT = """import pathlib, sys
asked = sys.argv[1:]
if "install" in asked:
    if "--print-uris" not in asked or "-oAPT::Get::AllowUnauthenticated=false" not in asked:
        sys.exit("it must not be installed")
    print("Reading package lists...")
    print("'http://deb/libx_1%3a2-3_amd64.deb' libx_1%3a2-3_amd64.deb 10 SHA256:1")
    print("'http://deb/browser_9_amd64.deb' browser_9_amd64.deb 10 SHA256:2")
else:
    for name in asked[asked.index("download") + 1:]:
        if not (name == "libx" and {lacks!r}):
            pathlib.Path(name + "_9_amd64.deb").write_text(name)
"""
DPKG = """import pathlib, sys
folder = pathlib.Path(sys.argv[3], "usr", "lib")
folder.mkdir(parents=True, exist_ok=True)
folder.joinpath(pathlib.Path(sys.argv[2]).read_text()).write_text("a file")
"""


@pytest.mark.parametrize("lacks", [False, True])
def test_all_that_a_package_needs_is_unpacked_into_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    executable(tmp_path / "path" / "apt-get", APT.format(lacks=lacks))
    executable(tmp_path / "path" / "dpkg-deb", DPKG)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}{os.pathsep}/nowhere")
    target = tmp_path / "unpacked" / "browser"
    if lacks:
        with pytest.raises(PlatformError, match=r"could not .*Install a browser|left 1 packages. Install a browser"):
            unpack_package("browser", target, "Install a browser", depends=True)
        assert list((tmp_path / "unpacked").iterdir()) == []
        return
    unpack_package("browser", target, "Install a browser", depends=True)
    assert sorted(path.name for path in (target / "usr" / "lib").iterdir()) == ["browser", "libx"]
