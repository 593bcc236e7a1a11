"""What the ids of a registry were, kept with the tables."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k2beam.config import LakeConfig
from k2beam.errors import RegistryError, SchemaError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.kept_schemas import KeptSchemas, forget_schemas, keep_schemas
from k2beam.registry.resolver import RegistryResolver
from tests.lake_helpers import lake_config
from tests.registry_server import registry_server

TEXTS = {"5": '{"type": "string", "doc": "a"}', "6": '"long"'}
GUID = "12345678-1234-5678-1234-567812345678"


@pytest.fixture
def lake(tmp_path: Path) -> LakeConfig:
    return lake_config(tmp_path / "w")


@contextmanager
def registry_of(texts: dict[str, str]) -> Iterator[str]:
    """A registry that answers with a schema by the last part of a path."""

    def answer(_method: str, path: str, _body: object) -> tuple[int, object]:
        text = texts.get(path.partition("?")[0].rpartition("/")[2])
        return (404, {"error_code": 40403, "message": "none"}) if text is None else (200, {"schema": text})

    with registry_server(answer) as (url, _):
        yield url


def opened(url: str, lake: LakeConfig) -> KeptSchemas:
    """As a worker has it: it came there as bytes."""
    resolver = pickle.loads(pickle.dumps(KeptSchemas(RegistryResolver(url, unknown_wait_s=0), lake)))
    assert isinstance(resolver, KeptSchemas)
    resolver.open()
    return resolver


def test_an_id_that_becomes_another_schema_stops_the_job_until_it_is_forgotten(lake: LakeConfig) -> None:
    texts = dict(TEXTS)
    with registry_of(texts) as url:
        first = opened(url, lake)
        assert [first.resolve(number) for number in (5, 6, 5)] == [texts["5"], texts["6"], texts["5"]]
        texts["5"] = json.dumps({"doc": "a", "type": "string"}, indent=1)
        assert opened(url, lake).resolve(5) == texts["5"]
        texts["5"], texts["6"] = texts["6"], texts["6"]
        second = opened(url, lake)
        for _ in range(2):
            with pytest.raises(RegistryError, match=f"schema id 5 of the Schema Registry {url} is another schema"):
                second.resolve(5)
        assert second.resolve(6) == TEXTS["6"]
        assert first.resolve(5) == TEXTS["5"]
        second.close()
        catalog = open_catalog(lake)
        assert forget_schemas(catalog, lake.namespace, f"{url}/other") == 0
        assert (forget_schemas(catalog, lake.namespace, url), forget_schemas(catalog, lake.namespace, url)) == (2, 0)
        assert opened(url, lake).resolve(5) == texts["5"]


def test_ids_of_another_registry_and_guids_are_not_compared(lake: LakeConfig) -> None:
    with registry_of({"5": TEXTS["5"], GUID: TEXTS["5"]}) as url, registry_of({"5": TEXTS["6"]}) as other:
        assert [opened(url, lake).resolve(ref) for ref in (5, GUID)] == [TEXTS["5"]] * 2
        assert opened(other, lake).resolve(5) == TEXTS["6"]
        assert forget_schemas(open_catalog(lake), lake.namespace, url) == 1


def test_an_id_that_is_not_there_and_a_schema_that_is_none_are_no_concern(lake: LakeConfig) -> None:
    with registry_of({"7": "no JSON"}) as url:
        resolver = opened(url, lake)
        with pytest.raises(SchemaError, match="id 5 is not in"):
            resolver.resolve(5)
        assert resolver.resolve(7) == "no JSON"


def test_only_what_asks_a_registry_is_kept(lake: LakeConfig) -> None:
    assert keep_schemas(None, lake) is None
    assert isinstance(keep_schemas(RegistryResolver("http://r"), lake), KeptSchemas)
