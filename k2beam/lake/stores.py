"""Object stores as the tables' catalog is configured to reach them, for archives."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from pyarrow import fs
from pyiceberg.io import S3_ENDPOINT, S3_REGION
from pyiceberg.io.pyarrow import PyArrowFileIO

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.patience import with_patience


@dataclass(frozen=True, slots=True)
class CatalogStores:
    """Opens stores with the settings (``s3.endpoint``, ``s3.region``, …) of a catalog that is configured in pyiceberg.

    Without a named catalog it is the environment that tells: of S3 ``AWS_ENDPOINT_URL``, ``AWS_REGION``,
    ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, as for AWS's own tools.
    Holds the catalog's name and no secret, and so may go to workers, which need the same configuration.

    Examples:
        >>> from k2beam.lake.stores import CatalogStores
        >>> CatalogStores().at("file:///data/ticks.avro")[1]
        '/data/ticks.avro'
    """

    catalog: str | None = None

    def at(self, uri: str) -> tuple[fs.FileSystem, str]:
        """The file system of a URI, and the path in it. Raises UsageError for a scheme that is not known."""
        io = _io(self.catalog)
        scheme, netloc, path = PyArrowFileIO.parse_location(uri, io.properties)
        try:
            return io.fs_by_scheme(scheme, netloc), path
        except ValueError as error:
            raise UsageError(f"{uri}: {error}; take s3://, gs://, abfs://, hdfs:// or a path") from error


@functools.lru_cache(maxsize=8)
def _io(catalog: str | None) -> PyArrowFileIO:
    properties = _of_environment() if catalog is None else open_catalog(LakeConfig(catalog=catalog)).properties
    return PyArrowFileIO(with_patience(properties))


def _of_environment() -> dict[str, str]:
    """Where S3 is, as AWS's own tools are told; Arrow takes the login from the environment, but not these two."""
    told = {
        S3_ENDPOINT: ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        S3_REGION: ("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    found = {name: next(filter(None, map(os.environ.get, names)), None) for name, names in told.items()}
    return {name: value for name, value in found.items() if value}
