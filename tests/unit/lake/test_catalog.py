"""The embedded catalog: made where it's absent, also by several at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog


def test_several_that_open_a_new_warehouse_at_once_all_get_it(tmp_path: Path) -> None:
    for attempt in range(20):
        config, together = LakeConfig(str(tmp_path / str(attempt))), threading.Barrier(8)

        def opened(config: LakeConfig = config, together: threading.Barrier = together) -> list[object]:
            together.wait()
            return list(open_catalog(config).list_namespaces())

        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(opened) for _ in range(8)]
            assert [future.result() for future in futures] == [[]] * 8


def test_a_warehouse_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no warehouse at"):
        open_catalog(LakeConfig(str(tmp_path / "absent")), create=False)
    assert not (tmp_path / "absent").exists()
