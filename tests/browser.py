"""A headless Chromium for the tests of the page: one of this machine, or Debian's packages without root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from k2beam.cache import cache_dir
from k2beam.errors import PlatformError
from k2beam.stack.debian import unpack_package

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable")
SCREENSHOTS = Path(__file__).resolve().parent.parent / "build" / "screenshots"
_PACKAGE = "chromium-headless-shell"
_HELP = "Install Chromium (Debian: apt install chromium), so that it is on the PATH"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; the test is skipped where none can be had."""
    program, libraries = _find()
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))} if libraries else None
    with sync_playwright() as playwright:
        # As root there is no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], env=environment)
        try:
            yield browser
        finally:
            browser.close()


def keep_screenshot(page: Page, name: str) -> Path:
    """A picture of the whole page, in a folder that CI keeps."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


def _find() -> tuple[Path, list[Path]]:
    """The program, and the folders of libraries that came with it."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found), []
    unpacked = cache_dir() / "unpacked" / _PACKAGE
    if not unpacked.is_dir():
        try:
            unpack_package(_PACKAGE, unpacked, _HELP, depends=True)
        except PlatformError as error:
            pytest.skip(f"no Chromium: {error}")
    libraries = {path.parent for path in (unpacked / "usr" / "lib").rglob("*.so*")}
    return unpacked / "usr" / "lib" / "chromium" / _PACKAGE, sorted(libraries)
