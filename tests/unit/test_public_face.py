"""The public names of the package, loaded when asked for, and the old import paths."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import k2beam

HEAVY = ("apache_beam", "confluent_kafka", "numpy", "pyarrow", "pyiceberg")


def test_every_public_name_is_what_its_module_defines() -> None:
    assert {*k2beam.__all__} == {*k2beam._HOMES, "__version__"}
    for name, home in k2beam._HOMES.items():
        found = getattr(k2beam, name)
        assert found is getattr(importlib.import_module(home), name)
        assert found.__module__ == home, "named by the module that defines it"


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'k2beam' has no attribute 'Lakes'"):
        _ = k2beam.Lakes
    with pytest.raises(ImportError):
        exec("from k2beam import Lakes")
    assert {*k2beam.__all__} <= {*dir(k2beam)}


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, k2beam; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_configurations_import_neither_beam_nor_iceberg() -> None:
    names = "LakeConfig, WriteConfig, RetryPolicy, IngestConfig, LiveConfig, KafkaConfig, RegistryConfig, MetricsConfig"
    code = f"import sys; from k2beam import {names}; print({{*{HEAVY}}} & {{*sys.modules}} - {{'numpy', 'pyarrow'}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("k2beam.query.engine", "k2beam.query.lake", "Lake"),
        ("k2beam.ingest.producer", "k2beam.produce.producer", "MarketDataProducer"),
        ("k2beam.ingest.delivery", "k2beam.produce.delivery", "resend"),
        ("k2beam.platform.stack", "k2beam.stack.stack", "LocalStack"),
        ("k2beam.platform.prism", "k2beam.stack.prism", "ensure_prism"),
    ],
)
def test_an_old_import_path_works_and_warns(old: str, new: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}.*import {name} from there") as warned:
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(new), name)
    assert [warning.filename for warning in warned] == [__file__], "the warning points to the caller"
    with pytest.raises(AttributeError):
        _ = importlib.import_module(old).nothing


def test_an_old_path_hands_on_what_has_another_name_now() -> None:
    with pytest.warns(DeprecationWarning, match=r"k2beam\.query\.lake.*import EventSelection from there"):
        assert importlib.import_module("k2beam.query.engine").Selection is k2beam.EventSelection
